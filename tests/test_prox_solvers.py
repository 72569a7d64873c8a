import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beyond_adam.prox.solvers import Composite, fista, ista, proximal_gradient

unhurried = settings(deadline=None, max_examples=12)  # machines are shared


def soft(z, threshold):
    if isinstance(z, torch.Tensor):
        return z.sign() * (z.abs() - threshold).clamp(min=0)
    return np.sign(z) * np.maximum(np.abs(z) - threshold, 0)


def lasso(A, b, strength):
    """Return ½‖Ax − b‖² + strength ‖x‖₁, for one b or for one in every column."""
    return Composite(
        value=lambda x: 0.5 * ((A @ x - b) ** 2).sum(),
        gradient=lambda x: A.T @ (A @ x - b),
        penalty=lambda x: strength * abs(x).sum(),
        prox=lambda z, step: soft(z, strength * step),
    )


def smooth(value, gradient):
    return Composite(value, gradient, lambda _: 0.0, lambda z, _: z)


def coordinate_descent(A, b, strength, sweeps=2000):
    x, squares = np.zeros(A.shape[1]), (A**2).sum(0)
    for _ in range(sweeps):
        for i, column in enumerate(A.T):
            rest = b - A @ x + column * x[i]
            x[i] = soft(column @ rest, strength) / squares[i]
    return x


def draw(seed, rows=20, columns=8, condition=10.0):
    rng = np.random.default_rng(seed)
    U, _ = np.linalg.qr(rng.normal(size=(rows, columns)))
    V, _ = np.linalg.qr(rng.normal(size=(columns, columns)))
    A = U * np.geomspace(1, 1 / math.sqrt(condition), columns) * 2 @ V.T
    return A, A @ soft(rng.normal(size=columns), 0.5) + 0.1 * rng.normal(size=rows)


@pytest.mark.parametrize("method", [ista, fista])
@given(st.integers(0, 10**6), st.floats(0.01, 0.5))
@unhurried
def test_lasso_meets_its_optimality_conditions(method, seed, strength):
    A, b = draw(seed)
    solution = method(lasso(A, b, strength), np.zeros(8), tolerance=1e-12)
    assert solution.converged
    pull = A.T @ (b - A @ solution.x)
    off = solution.x == 0
    np.testing.assert_allclose(pull[~off], strength * np.sign(solution.x[~off]), atol=1e-10)
    assert (abs(pull[off]) <= strength + 1e-10).all()


def test_lasso_agrees_with_coordinate_descent():
    A, b = draw(1)
    expected = coordinate_descent(A, b, 0.1)
    assert 0 < (expected == 0).sum() < 8
    for method in (ista, fista):
        got = method(lasso(A, b, 0.1), np.ones(8), tolerance=1e-13)
        np.testing.assert_allclose(got.x, expected, rtol=0, atol=1e-11)
        assert ((got.x == 0) == (expected == 0)).all()


@pytest.mark.parametrize("start_step", [1e6, 1.0, 0.1, 1e-2])
@given(st.integers(0, 10**6), st.floats(0.0, 0.5), st.sampled_from([0.5, 0.8]))
@unhurried
def test_objective_gaps_stay_under_their_bounds(start_step, seed, strength, shrink):
    A, b = draw(seed, condition=1e4)
    problem = lasso(A, b, strength)
    L = np.linalg.norm(A, 2) ** 2
    start = np.random.default_rng(seed).normal(size=8)
    best = fista(problem, start, tolerance=1e-13, max_steps=20_000)
    distance = ((start - best.x) ** 2).sum()
    alpha = max(1 / shrink, 1 / (L * start_step))
    options = {"step": start_step, "shrink": shrink, "tolerance": 0, "max_steps": 300}
    for method, extra, bound in (
        (ista, {}, lambda k: alpha * L * distance / (2 * k)),
        (fista, {"restart": False}, lambda k: 2 * alpha * L * distance / (k + 1) ** 2),
    ):
        solution = method(problem, start, **options, **extra)
        gaps = solution.objective[1:] - best.objective.min()
        slack = 1e-13 * solution.objective[0]
        assert (gaps <= bound(np.arange(1, solution.steps + 1)) + slack).all()
        assert shrink / L * (1 - 1e-6) <= solution.step or solution.step == start_step
        assert solution.step <= start_step


def test_fixed_step_rates_and_monotone_ista():
    A, b = draw(5, condition=1e5)
    problem, L = lasso(A, b, 0.01), np.linalg.norm(A, 2) ** 2
    start = np.full(8, 3.0)
    best = fista(problem, start, tolerance=1e-13, max_steps=50_000)
    distance = ((start - best.x) ** 2).sum()
    options = {"step": 1 / L, "backtracking": False, "tolerance": 0, "max_steps": 400}
    k = np.arange(1, 401)
    slow = ista(problem, start, **options)
    assert (slow.objective[1:] - best.objective[-1] <= L * distance / (2 * k)).all()
    assert (np.diff(slow.objective) <= 1e-14).all()
    fast = fista(problem, start, restart=False, **options)
    assert (fast.objective[1:] - best.objective[-1] <= 2 * L * distance / (k + 1) ** 2).all()
    assert (np.diff(fast.objective) > 0).any()
    assert slow.step == fast.step == 1 / L
    assert slow.steps == fast.steps == 400
    assert not slow.converged


def test_fista_is_the_textbook_recursion():
    A, b = draw(2)
    problem, t = lasso(A, b, 0.05), 0.2
    x = y = start = np.ones(8)
    theta, objective = 1.0, [problem.objective(start)]
    for _ in range(50):
        new = soft(y - t * A.T @ (A @ y - b), 0.05 * t)
        following = (1 + math.sqrt(1 + 4 * theta**2)) / 2
        y = new + (theta - 1) / following * (new - x)
        x, theta = new, following
        objective.append(problem.objective(x))
    got = fista(
        problem, start, step=t, backtracking=False, restart=False, tolerance=0, max_steps=50
    )
    np.testing.assert_allclose(got.x, x, rtol=1e-13)
    np.testing.assert_allclose(got.objective, objective, rtol=1e-13)


def test_restart_makes_fista_linear():
    A, b = draw(3, condition=3e3)
    problem = lasso(A, b, 1e-3)
    start = np.full(8, 5.0)
    steps = {}
    for name, method, options in (
        ("ista", ista, {}),
        ("fista", fista, {"restart": False}),
        ("restarted", fista, {}),
    ):
        solution = method(problem, start, max_steps=200_000, **options)
        assert solution.converged
        steps[name] = solution.steps
    assert steps["restarted"] < steps["fista"] / 2
    assert steps["restarted"] < steps["ista"] / 10


def test_without_penalty_it_is_gradient_descent():
    H, b = np.diag([1.0, 4.0]), np.array([1.0, -2.0])
    problem = smooth(lambda x: 0.5 * x @ H @ x - b @ x, lambda x: H @ x - b)
    x = np.array([3.0, 3.0])
    iterates = [x]
    for _ in range(20):
        x = x - 0.3 * (H @ x - b)
        iterates.append(x)
    np.testing.assert_array_equal(proximal_gradient(problem, iterates[0], 0.3, 20), iterates)
    got = ista(problem, iterates[0], step=0.3, backtracking=False, tolerance=0, max_steps=20)
    np.testing.assert_array_equal(got.x, x)
    np.testing.assert_array_equal(got.objective, [problem.objective(x) for x in iterates])
    for method in (ista, fista):
        np.testing.assert_allclose(method(problem, iterates[0]).x, [1, -0.5], rtol=1e-8)


def test_all_iterates_of_a_penalty_that_is_not_convex():
    # Hard thresholding, the prox of strength · (number of nonzeros).
    A, b = draw(4)
    problem = Composite(
        value=lambda x: 0.5 * ((A @ x - b) ** 2).sum(),
        gradient=lambda x: A.T @ (A @ x - b),
        penalty=lambda x: 0.05 * np.count_nonzero(x),
        prox=lambda z, step: np.where(z**2 > 2 * 0.05 * step, z, 0),
    )
    start = np.ones(8)
    path = proximal_gradient(problem, start, 0.25, 50)
    assert path.shape == (51, 8)
    np.testing.assert_array_equal(path[0], start)
    objective = np.array([problem.objective(x) for x in path])
    assert (np.diff(objective) <= 1e-14).all()
    solution = ista(problem, start, step=0.25, backtracking=False, tolerance=0, max_steps=50)
    np.testing.assert_array_equal(solution.objective, objective)
    assert proximal_gradient(problem, start, 0.25, 0).shape == (1, 8)


@pytest.mark.parametrize("method", [ista, fista])
def test_the_reported_end_is_the_end(method):
    A, b = draw(6)
    problem = lasso(A, b, 0.1)
    start = np.full(8, 2.0)
    solution = method(problem, start, tolerance=1e-9)
    assert solution.converged
    assert len(solution.objective) == solution.steps + 1
    assert solution.objective[0] == problem.objective(start)
    assert solution.objective[-1] == problem.objective(solution.x)

    def mapping(x):
        return np.linalg.norm(x - proximal_gradient(problem, x, solution.step, 1)[1])

    first = method(problem, start, tolerance=0, max_steps=1)
    assert first.residual > 1
    assert solution.residual <= 1e-9 * first.residual
    assert mapping(solution.x) / solution.step <= solution.residual * (1 + 1e-5)
    before = method(problem, start, tolerance=1e-9, max_steps=solution.steps - 1)
    assert before.residual > 1e-9 * first.residual
    assert not before.converged
    if method is ista:
        assert solution.residual == pytest.approx(mapping(before.x) / solution.step, rel=1e-5)
    # A start at the end is the end.
    again = method(problem, solution.x, tolerance=1e-8)
    assert (again.steps, again.converged) == (1, True)


@pytest.mark.parametrize("method", [ista, fista])
def test_nothing_is_computed_twice(method):
    A, b = draw(7)
    counts = Counter()

    def counted(name, f):
        def call(x, *rest):
            counts[name, x.tobytes(), *rest] += 1
            return f(x, *rest)

        return call

    plain = lasso(A, b, 0.1)
    problem = Composite(*(counted(n, getattr(plain, n)) for n in Composite.__dataclass_fields__))
    solution = method(problem, np.ones(8), step=10.0, max_steps=200)
    assert solution.converged
    assert max(counts.values()) == 1
    kinds = Counter(key[0] for key in counts)
    assert kinds["penalty"] == solution.steps + 1
    if method is ista:
        trials = kinds["prox"]
        assert solution.steps < trials < solution.steps + 10
        assert kinds["value"] == trials + 1
        assert kinds["gradient"] <= trials + 1


@pytest.mark.parametrize("method", [ista, fista])
def test_first_step_may_be_of_any_length(method):
    A, b = draw(8)
    problem = lasso(A, b, 0.1)
    L = np.linalg.norm(A, 2) ** 2
    for step in (1e6, 1e200):
        solution = method(problem, np.ones(8), step=step)
        assert solution.converged
        assert 0.5 / L * (1 - 1e-6) <= solution.step < 2 / L
    short = method(problem, np.ones(8), step=1e-6, max_steps=20)
    assert short.step == 1e-6
    assert (np.diff(short.objective) < 0).all()


@pytest.mark.parametrize("method", [ista, fista])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_rounding_does_not_shorten_the_step(method, offset):
    # A constant in f, as large as 1e6, leaves four digits less for the condition on the step.
    A, b = draw(9, condition=100.0)
    plain = lasso(A, b, 0.1)
    problem = Composite(
        lambda x: plain.value(x) + offset, plain.gradient, plain.penalty, plain.prox
    )
    solution = method(problem, np.ones(8), step=1.0, tolerance=1e-12)
    assert solution.converged
    assert solution.step >= 0.5 / np.linalg.norm(A, 2) ** 2 * (1 - 1e-6)
    # Far beyond the limit of rounding the step stays as well.
    for seed in range(20):
        A, b = draw(seed)
        problem = lasso(A, b, 0.4)
        solution = method(problem, np.ones(8), step=0.1, tolerance=0, max_steps=300)
        assert solution.step == 0.1


@pytest.mark.parametrize("method", [ista, fista])
def test_the_inverse_of_the_curvature_is_not_too_long(method):
    # There the two sides of the condition are equal, but for rounding.
    for z in np.random.default_rng(0).normal(size=(50, 7)):
        exact = smooth(lambda x, z=z: 1.5 * ((x - z) ** 2).sum() + 1, lambda x, z=z: 3 * (x - z))
        solution = method(exact, np.full(7, 0.3), step=1 / 3)
        assert solution.step == 1 / 3
        np.testing.assert_allclose(solution.x, z, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("method", [ista, fista])
def test_a_loss_that_is_not_quadratic(method):
    rng = np.random.default_rng(10)
    A, sign = rng.normal(size=(30, 5)), np.sign(rng.normal(size=30))

    def gradient(x):
        return -A.T @ (sign / (1 + np.exp(sign * (A @ x)))) + 0.1 * x

    logistic = smooth(lambda x: np.logaddexp(0, -sign * (A @ x)).sum() + 0.05 * x @ x, gradient)
    solution = method(logistic, np.zeros(5), step=100.0, tolerance=1e-12)
    assert solution.converged
    np.testing.assert_allclose(gradient(solution.x), 0, atol=1e-10)


@pytest.mark.parametrize("method", [ista, fista])
def test_numpy_and_torch_agree(method):
    A, b = draw(11)
    problem = lasso(torch.from_numpy(A), torch.from_numpy(b), 0.1)
    start = torch.ones(8, dtype=torch.float64, requires_grad=True)
    tensor = method(problem, start)
    array = method(lasso(A, b, 0.1), np.ones(8))
    assert isinstance(tensor.x, torch.Tensor)
    assert not tensor.x.requires_grad
    assert (start == 1).all()
    assert tensor.steps == array.steps
    assert tensor.step == array.step
    np.testing.assert_allclose(tensor.x.numpy(), array.x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(tensor.objective, array.objective, rtol=1e-13)
    path = proximal_gradient(problem, start, 0.2, 30)
    np.testing.assert_allclose(
        path.numpy(), proximal_gradient(lasso(A, b, 0.1), np.ones(8), 0.2, 30), rtol=1e-12
    )
    single = method(lasso(A.astype("f"), b.astype("f"), 0.1), np.ones(8, "f"), tolerance=1e-5)
    assert single.converged
    assert single.x.dtype == np.float32
    np.testing.assert_allclose(single.x, array.x, rtol=0, atol=1e-3)
    assert method(lasso(A, b, 0.1), np.ones(8, int)).steps == array.steps


@pytest.mark.parametrize("method", [ista, fista])
def test_columns_are_problems(method):
    A, _ = draw(12)
    B = np.random.default_rng(12).normal(size=(20, 3))
    together = method(lasso(A, B, 0.1), np.zeros((8, 3)), tolerance=1e-12)
    for column, b in zip(together.x.T, B.T, strict=True):
        alone = method(lasso(A, b, 0.1), np.zeros(8), tolerance=1e-12)
        np.testing.assert_allclose(column, alone.x, rtol=0, atol=1e-11)


@pytest.mark.parametrize("method", [ista, fista])
def test_divergence_is_not_silent(method):
    A, b = draw(13)
    problem = lasso(A, b, 0.1)
    with pytest.raises(FloatingPointError, match=r"objective is (inf|nan) after step \d\d+"):
        method(problem, np.ones(8), step=10.0, backtracking=False)
    with pytest.raises(FloatingPointError, match="objective is nan at the start"):
        method(problem, np.full(8, np.nan))
    broken = smooth(lambda x: (x * x).sum(), lambda x: np.where(x < 0.5, np.nan, 2 * x))
    with pytest.raises(FloatingPointError, match="gradient is not finite before step 2"):
        method(broken, np.array([0.6]), step=0.25, tolerance=0)
    flat = smooth(lambda x: math.tanh(float(x[0])), lambda x: x * 0 + 1e300)
    with pytest.raises(FloatingPointError, match="gradient mapping is inf after step 1"):
        method(flat, np.ones(2), backtracking=False)


@pytest.mark.parametrize("method", [ista, fista])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0}, "step must be positive and finite, not 0"),
        ({"step": math.nan}, "step must be positive and finite, not nan"),
        ({"shrink": 1.0}, "shrink must lie between 0 and 1, exclusive, not 1.0"),
        ({"shrink": 0}, "shrink must lie between 0 and 1, exclusive, not 0"),
        ({"tolerance": -1e-9}, "tolerance must be finite and not negative, not -1e-09"),
        ({"max_steps": 0}, "max_steps must be at least 1, not 0"),
    ],
)
def test_bad_options_are_named(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(smooth(lambda x: x @ x, lambda x: 2 * x), np.ones(2), **options)


def test_bad_calls_are_named():
    good = smooth(lambda x: (x * x).sum(), lambda x: 2 * x)
    with pytest.raises(ValueError, match="step must be positive and finite, not -1"):
        proximal_gradient(good, np.ones(2), -1, 3)
    with pytest.raises(ValueError, match="steps must not be negative, not -3"):
        proximal_gradient(good, np.ones(2), 0.1, -3)
    with pytest.raises(TypeError, match="start must be an array of real numbers"):
        ista(good, np.ones(2) * 1j)
    broadcast = smooth(lambda x: (x * x).sum(), lambda x: 2 * x[:, None])
    for method in (ista, fista, lambda problem, x: proximal_gradient(problem, x, 0.1, 2)):
        with pytest.raises(ValueError, match=r"keep the shape \(2,\), not make it \(2, 2\)"):
            method(broadcast, np.ones(2))
