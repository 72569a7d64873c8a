import numpy as np
import pytest
import torch

from beyond_adam.landscapes import (
    ACKLEY,
    LANDSCAPES,
    PARABOLOID,
    RASTRIGIN,
    ROSENBROCK,
    SPHERE,
    polish,
)
from beyond_adam.numerical import central_difference

TWO_PI = 2 * torch.pi


def ackley(x, y):
    funnel = -20 * torch.exp(-0.2 * torch.sqrt(0.5 * (x * x + y * y)))
    return funnel - torch.exp(0.5 * (torch.cos(TWO_PI * x) + torch.cos(TWO_PI * y))) + np.e + 20


TEXTBOOK = {
    "paraboloid": lambda x, y: (x - 1) ** 2 + (y - 2) ** 2,
    "sphere": lambda x, y: x * x + y * y,
    "rosenbrock": lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
    "rastrigin": lambda x, y: (
        20 + (x**2 - 10 * torch.cos(TWO_PI * x)) + (y**2 - 10 * torch.cos(TWO_PI * y))
    ),
    "ackley": ackley,
}
every_landscape = pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES.keys())


def points(landscape):
    """Random points of the domain, then special ones: integers, axes, diagonal, far out."""
    low, high = np.transpose(landscape.domain)
    random = np.random.default_rng(1).uniform(low, high, size=(200, 2))
    special = [[1, 1], [1, 2], [0, 3], [-2, 0], [5, 0], [-1, -1], [0.5, 0.5], [1e-3, 0], [30, -40]]
    return np.concatenate([random, special])


def test_the_landscapes_are_those_of_the_deck():
    assert set(LANDSCAPES) == set(TEXTBOOK)
    assert all(name == landscape.name for name, landscape in LANDSCAPES.items())
    assert list(LANDSCAPES.values()) == [PARABOLOID, SPHERE, ROSENBROCK, RASTRIGIN, ACKLEY]


@every_landscape
def test_value_gradient_and_hessian_are_those_of_the_textbook_formula(landscape):
    w = points(landscape)
    f = TEXTBOOK[landscape.name]
    tensor = torch.tensor(w, requires_grad=True)
    value = f(tensor[:, 0], tensor[:, 1])
    (gradient,) = torch.autograd.grad(value.sum(), tensor, create_graph=True)
    hessian = [
        torch.autograd.grad(gradient[:, i].sum(), tensor, retain_graph=True)[0] for i in (0, 1)
    ]
    np.testing.assert_allclose(landscape.value(w), value.detach(), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(landscape.gradient(w), gradient.detach(), rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(
        landscape.hessian(w), torch.stack(hessian, 1), rtol=1e-12, atol=1e-10
    )


@every_landscape
def test_the_gradient_agrees_with_central_differences(landscape):
    w = points(landscape)[:200]
    scale = np.abs(landscape.hessian(w)).max()
    error = central_difference(landscape.value, w, 1e-5) - landscape.gradient(w)
    assert np.abs(error).max() < 1e-7 * scale


@every_landscape
def test_minimisers_are_stationary_and_lowest(landscape):
    assert landscape.minimisers.shape[1:] == (2,)
    np.testing.assert_array_equal(landscape.value(landscape.minimisers), landscape.minimum)
    np.testing.assert_array_equal(landscape.gradient(landscape.minimisers), 0)
    axes = [np.linspace(*limits, 501) for limits in landscape.domain]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    heights = landscape.value(grid)
    assert heights.min() >= landscape.minimum
    lowest = grid[heights.argmin()]
    assert np.linalg.norm(landscape.minimisers - lowest, axis=1).min() < 0.03


@every_landscape
def test_a_point_has_the_same_bits_alone_and_in_a_batch(landscape):
    w = points(landscape).reshape(11, 19, 2)
    for method in (landscape.value, landscape.gradient, landscape.hessian):
        batch = method(w)
        assert batch.dtype == np.float64
        for index in np.ndindex(w.shape[:-1]):
            np.testing.assert_array_equal(method(w[index]), batch[index])
    assert landscape.value(w).shape == (11, 19)
    assert landscape.gradient(w).shape == (11, 19, 2)
    assert landscape.hessian(w).shape == (11, 19, 2, 2)


@every_landscape
@pytest.mark.parametrize("w", [3.0, [1.0], [1.0, 2.0, 3.0], np.zeros((2, 5))])
def test_points_of_another_dimension_are_refused(landscape, w):
    shape = str(np.shape(w))
    for method in (landscape.value, landscape.gradient, landscape.hessian):
        with pytest.raises(ValueError, match="shape") as caught:
            method(w)
        assert shape in str(caught.value)


@every_landscape
def test_minimisers_cannot_be_overwritten(landscape):
    with pytest.raises(ValueError, match="read-only"):
        landscape.minimisers[0] = 7


@every_landscape
def test_overflow_is_an_answer_and_not_a_warning(landscape):
    far = np.array([[1e200, -1e200], [np.inf, 0.0], [np.nan, 1.0]])
    landscape.hessian(far)
    assert not np.isfinite(landscape.value(far)[1:]).any()
    assert not np.isfinite(landscape.gradient(far)[1:, 0]).any()


def test_curvatures_that_bound_the_stable_learning_rate():
    largest = [np.linalg.eigvalsh(ROSENBROCK.hessian(w))[-1] for w in ([1, 1], [5, 0])]
    assert largest[0] == pytest.approx(1001.6, abs=0.05)
    assert largest[1] == pytest.approx(30_136, abs=0.5)
    x = np.linspace(-5, 5, 1001)
    steepest = RASTRIGIN.hessian(np.stack([x, x], axis=-1)).max()
    assert steepest == pytest.approx(2 + 40 * np.pi**2) == pytest.approx(396.8, abs=0.05)


@pytest.mark.parametrize(
    ("landscape", "start", "minimiser"),
    [
        (RASTRIGIN, [-1, -1], [-0.994958645, -0.994958645]),
        (RASTRIGIN, [-2, 2], [-1.989912241, 1.989912241]),
        (RASTRIGIN, [-5, -5], [-4.974691397, -4.974691397]),
        (ACKLEY, [-4, -4], [-3.983067708, -3.983067708]),
        (ACKLEY, [-5, -5], [-4.986180464, -4.986180464]),
        (ROSENBROCK, [1.2, 1.2], [1, 1]),
    ],
)
def test_polish_finds_local_minimisers_to_rounding(landscape, start, minimiser):
    w = polish(landscape, start)
    np.testing.assert_allclose(w, minimiser, rtol=0, atol=1e-8)
    np.testing.assert_allclose(landscape.gradient(w), 0, atol=1e-12)
    assert np.linalg.eigvalsh(landscape.hessian(w)).min() > 0
    np.testing.assert_array_equal(polish(landscape, [start, start]), [w, w])


def test_polish_says_when_it_has_not_settled():
    with pytest.raises(ValueError, match="rosenbrock has not settled in max_steps=2"):
        polish(ROSENBROCK, [-1.2, 1.0], max_steps=2)


def test_ackley_is_a_cone_at_its_minimiser():
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    for h in (1e-12, 1e-200):
        np.testing.assert_allclose(ACKLEY.value(h * directions) / h, np.sqrt(8), rtol=1e-10)
        np.testing.assert_allclose(
            ACKLEY.gradient(h * directions), np.sqrt(8) * directions, atol=1e-9
        )
    assert np.linalg.norm(ACKLEY.gradient([5e-324, 0.0])) == pytest.approx(np.sqrt(8), rel=0.5)


def test_ackley_has_no_gradient_at_the_tip_and_gives_the_least_one():
    w = np.array([[0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(ACKLEY.gradient(w)[0], 0)
    assert np.isnan(ACKLEY.hessian(w)[0]).all()
    assert np.isfinite(ACKLEY.hessian(w)[1]).all()


@pytest.mark.parametrize("landscape", [RASTRIGIN, ACKLEY], ids=lambda landscape: landscape.name)
def test_values_near_the_minimum_keep_their_digits(landscape):
    # Rastrigin: (2 + 40π²)/2 · x²; the textbook sum has lost everything at this distance.
    h = 1e-9
    expected = {"rastrigin": (1 + 20 * np.pi**2) * h * h, "ackley": np.sqrt(8) * h}[landscape.name]
    assert landscape.value([h, 0]) == pytest.approx(expected, rel=1e-7)


def test_central_differences_have_the_truncation_error_of_theory():
    # On x³ the formula gives 3x² + h², without rounding on these dyadic numbers.
    w = np.array([[0.5, -2.0], [1.0, 4.0]])
    for h in (0.5, 0.25):
        gradient = central_difference(lambda w: (w**3).sum(axis=-1), w, h)
        np.testing.assert_array_equal(gradient, 3 * w**2 + h * h)


def test_central_differences_are_blind_below_an_ulp_of_the_value():
    gradient = central_difference(lambda w: w[..., 0] + 1e20, np.zeros(1), 1e-3)
    np.testing.assert_array_equal(gradient, 0)


def test_central_differences_of_many_variables_at_one_point_and_at_many():
    a = np.arange(1.0, 6.0)
    w = np.random.default_rng(0).normal(size=(3, 4, 5))
    gradient = central_difference(lambda w: (a * w * w).sum(axis=-1), w)
    np.testing.assert_allclose(gradient, 2 * a * w, atol=1e-8)
    single = central_difference(lambda w: (a * w * w).sum(axis=-1), w[1, 2])
    np.testing.assert_allclose(single, gradient[1, 2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("step", [0.0, -1e-3, np.inf, np.nan])
def test_a_step_that_is_not_positive_is_refused(step):
    with pytest.raises(ValueError, match=f"not {step}"):
        central_difference(SPHERE.value, [1.0, 2.0], step)


def test_central_differences_need_a_vector():
    with pytest.raises(ValueError, match=r"not \(\)"):
        central_difference(lambda w: w**2, 1.0)
