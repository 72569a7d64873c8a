import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beyond_adam.prox.lp import (
    lp_fold,
    lp_minimiser_near,
    lp_threshold,
    prox_l_half,
    prox_lp,
)

# All over (0, 2), and as close to its ends and to 1, where the operator changes, as a user may go.
EXPONENTS = [1e-300, 1e-9, 1e-3, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.99]
EXPONENTS += [0.999, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12, 1 - 2e-16, 1.0, 1 + 3e-16, 1 + 1e-12, 1 + 1e-10]
EXPONENTS += [1 + 1e-8, 1 + 1e-6, 1.0001, 1.001, 1.01, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
EXPONENTS += [1.8, 1.9, 1.99, 1.999, 2 - 1e-6, 2 - 3e-16]
every_p = pytest.mark.parametrize("p", EXPONENTS)
some_p = pytest.mark.parametrize("p", [0.1, 0.5, 0.8, 1.0, 1.05, 1.2, 1.5, 1.9])
below_one = pytest.mark.parametrize("p", [p for p in EXPONENTS if p < 1])

SPECIAL = [0.0, math.inf, math.nan, 1e300, 1e-300, 5e-324, 2.2e-308, 1.0, 3.0, 1e-3, 1e8]
SPECIAL = np.array([sign * z for z in SPECIAL for sign in (1, -1)])


def larger_root(log_a, p):
    """The largest r in [0, 1] with r + a·r^(p−1) = 1, by bisection."""
    low = np.full_like(log_a, max(0.0, (1 - p) / (2 - p)))
    high = np.ones_like(log_a)
    for _ in range(1100):  # down to the smallest number there is
        middle = 0.5 * (low + high)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            above = middle + np.exp(log_a + (p - 1) * np.log(middle)) > 1
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high


def brute_force(z, strength, p):
    """Every global minimiser, as a share of z: all minima on a fine grid, made exact, and 0."""
    penalty = 0.0
    if strength:
        penalty = math.exp(min(600, math.log(strength) + (p - 2) * math.log(abs(z))))

    def value(r):
        return 0.5 * (1 - r) ** 2 + penalty * r**p

    def falls(r):
        return r - 1 + p * penalty * r ** (p - 1) < 0

    grid = np.union1d(np.linspace(0, 1, 1001)[1:], np.geomspace(1e-15, 1, 1000))
    minima = np.flatnonzero(falls(grid[:-1]) & ~falls(grid[1:]))
    low, high = grid[minima], grid[minima + 1]
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = np.where(falls(middle), middle, low), np.where(falls(middle), high, middle)
    candidates = np.concatenate([[0.0], high])
    values = value(candidates)
    assert values.min() <= value(grid).min() * (1 + 1e-12)
    return candidates[values <= values.min() * (1 + 1e-12)]


@settings(max_examples=400, deadline=None)
@given(
    p=st.floats(0, 2, exclude_min=True, exclude_max=True),
    strength=st.floats(0, 1e3),
    z=st.floats(allow_nan=False, allow_infinity=False) | st.floats(-10, 10),
)
def test_the_prox_is_a_global_minimiser(p, strength, z):
    u = float(prox_lp(np.array(z), strength, p))
    assert math.copysign(1, u) == math.copysign(1, z)
    assert abs(u) <= abs(z)
    if z and p < 2 - 1e-12:  # nearer to 2 the brute force itself divides rounding by rounding
        nearest = abs(brute_force(z, strength, p) - abs(u) / abs(z)).min()
        assert nearest <= 1e-9 or nearest * abs(z) <= 5e-324


@settings(max_examples=300, deadline=None)
@given(
    p=st.sampled_from([p for p in EXPONENTS if p > 1e-9]),
    strength=st.floats(1e-3, 1e3),
    z=st.floats(-100, 100).filter(lambda z: abs(z) > 1e-3),
)
def test_the_prox_minimises_the_objective_as_it_is_written(p, strength, z):
    def objective(u):
        return 0.5 * (u - z) ** 2 + strength * np.abs(u) ** p

    u = prox_lp(np.array(z), strength, p)
    around = u + z * np.concatenate([np.geomspace(1e-12, 1, 200), -np.geomspace(1e-12, 1, 200)])
    rivals = np.concatenate([z * np.linspace(-0.1, 1.1, 1201), around])
    assert objective(u) <= objective(rivals).min() * (1 + 1e-13)


@every_p
def test_float64_is_exact_to_rounding_for_every_exponent(p):
    a = np.concatenate([np.geomspace(1e-30, 1e30, 4000), 1 + np.linspace(-0.5, 0.5, 2001)])
    a = np.concatenate([a, 1 + abs(p - 1) * np.linspace(-50, 50, 2001)])
    a = a[a > 0]
    a = a[a < p * 1e300]
    kept = prox_lp(np.ones_like(a), a / p, p)
    reference = larger_root(np.log(a), p)
    if p < 1:
        threshold = lp_threshold(a / p, p)[0]
        kept, reference, threshold = (
            x[abs(threshold - 1) > 1e-13] for x in (kept, reference, threshold)
        )
        reference[threshold > 1] = 0
    assert len(kept) > 3000
    tolerance = 2e-15 if abs(p - 1) > 1e-7 else 1e-12
    np.testing.assert_allclose(kept, reference, rtol=0, atol=tolerance)


@some_p
def test_the_optimality_condition_holds(p):
    z = np.random.default_rng(1).normal(0, 3, 10_000)
    u = np.abs(prox_lp(z, 0.4, p))
    assert 0.5 < np.mean(u > 0) <= 1
    u, size = u[u > 0], np.abs(z)[u > 0]
    np.testing.assert_allclose(u + 0.4 * p * u ** (p - 1), size, rtol=1e-13)


@every_p
def test_float32_is_within_a_few_units_of_float64(p):
    rng = np.random.default_rng(2)
    z = (rng.choice([-1, 1], 20_000) * 10 ** rng.uniform(-6, 6, 20_000)).astype(np.float32)
    strength = 10 ** rng.uniform(-6, 3, z.shape)
    strength = strength.astype(np.float32)
    exact = prox_lp(z.astype(np.float64), strength.astype(np.float64), p)
    away = np.ones(z.shape, bool)
    if p < 1:
        threshold = lp_threshold(strength.astype(np.float64), p)[0]
        away = abs(np.abs(z) / threshold - 1) > 1e-5
    for single in (
        prox_lp(z, strength, p),
        prox_lp(torch.tensor(z), torch.tensor(strength), p).numpy(),
    ):
        assert single.dtype == np.float32
        bound = 8e-6 if abs(p - 1) < 0.15 else 3e-6
        assert (abs(single - exact) / abs(z))[away].max() < bound


@some_p
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_float32_result_rounded_once(p, dtype):
    z = torch.linspace(-5, 5, 1001).to(dtype)
    assert torch.equal(prox_lp(z, 0.3, p), prox_lp(z.float(), 0.3, p).to(dtype))
    strength = torch.rand(1001, generator=torch.Generator().manual_seed(1)).to(dtype)
    half = prox_lp(z, strength, p)
    assert half.dtype == dtype
    assert torch.equal(half, prox_lp(z.float(), strength.float(), p).to(dtype))
    if dtype == torch.float16:
        array = prox_lp(z.numpy(), 0.3, p)
        assert array.dtype == np.float16
        np.testing.assert_array_equal(
            array, prox_lp(z.numpy().astype(np.float32), 0.3, p).astype(np.float16)
        )


@every_p
@pytest.mark.parametrize("strength", [0.0, 5e-324, 1e-310, 1e-3, 0.7, 1e3])
def test_numpy_and_torch_agree_on_special_values_too(p, strength):
    z = np.concatenate([SPECIAL, np.linspace(-9.7, 9.7, 50)])
    u = prox_lp(z, strength, p)
    for tensor in (
        prox_lp(torch.tensor(z), strength, p),
        prox_lp(torch.tensor(z), torch.tensor(strength, dtype=torch.float64), p),
    ):
        np.testing.assert_allclose(u, tensor.numpy(), rtol=1e-9, atol=1e-13)
    np.testing.assert_array_equal(np.isnan(u), np.isnan(z))
    np.testing.assert_array_equal(u[np.isinf(z)], z[np.isinf(z)])
    np.testing.assert_array_equal(u[z == 0], 0)
    np.testing.assert_array_equal(np.signbit(u), np.signbit(z))
    np.testing.assert_array_equal(prox_lp(-z, strength, p), -u)
    np.testing.assert_array_equal(lp_minimiser_near(z, 0.0, p), z)


@every_p
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_strength_0_is_the_identity_bit_for_bit(p, dtype):
    with np.errstate(over="ignore"):
        z = np.concatenate([SPECIAL, np.random.default_rng(3).normal(size=1000)]).astype(dtype)
    for strength in (0.0, np.zeros_like(z)):
        assert prox_lp(z, strength, p).tobytes() == z.tobytes()
    assert prox_lp(torch.tensor(z), 0.0, p).numpy().tobytes() == z.tobytes()


def test_the_soft_threshold():
    z = torch.linspace(-3, 3, 101)
    assert torch.equal(prox_lp(z, 0.7, 1.0), torch.nn.functional.softshrink(z, 0.7))


def test_the_closed_form_of_one_half():
    strength = np.array([0.0, 1e-9, 0.1, 1.0, 30.0, 1e3])[:, None]
    z = np.concatenate([np.linspace(-50, 50, 5000), SPECIAL])
    u = prox_l_half(z, strength)
    np.testing.assert_allclose(u, prox_lp(z, strength, 0.5), rtol=1e-12, atol=1e-322)
    tensor = prox_l_half(torch.tensor(z), torch.tensor(strength))
    np.testing.assert_allclose(tensor.numpy(), u, rtol=1e-12, atol=1e-322)


def test_the_closed_forms_of_three_halves_and_four_thirds():
    z = np.linspace(0, 20, 2001)
    strength = 0.8
    root = np.sqrt(z + (0.75 * strength) ** 2) - 0.75 * strength  # √u solves v² + 3λ/2·v = z
    np.testing.assert_allclose(prox_lp(z, strength, 1.5), root**2, rtol=1e-13, atol=1e-13)
    # u^(1/3) solves v³ + 4λ/3·v = z: Cardano.
    third, half = 4 * strength / 9, z / 2
    disc = np.sqrt(half**2 + third**3)
    root = np.cbrt(half + disc) + np.cbrt(half - disc)
    np.testing.assert_allclose(prox_lp(z, strength, 4 / 3), root**3, rtol=1e-12, atol=1e-12)


@below_one
@pytest.mark.parametrize("strength", [1e-8, 0.3, 1e3])
def test_the_threshold_and_the_jump(p, strength):
    threshold, jump = lp_threshold(strength, p)
    above, below = threshold * (1 + 1e-12), threshold * (1 - 1e-12)
    u = prox_lp(np.array([above, -above, below, -below]), strength, p)
    # The prox leaves the jump with slope (2−p)... finite, so 1e-12 above moves it by about as much.
    np.testing.assert_allclose(u, [jump, -jump, 0, 0], rtol=1e-11, atol=1e-11 * threshold)
    # Both are minimisers: equal values.
    at_jump = 0.5 * (jump - threshold) ** 2 + strength * jump**p
    assert at_jump == pytest.approx(0.5 * threshold**2, rel=1e-13)


def test_thresholds_of_arrays_and_of_the_soft_threshold():
    assert lp_threshold(0.3, 1.0) == (0.3, 0.0)
    strength = np.array([0.0, 0.1, 2.0])
    for p, bounds in ((0.5, lp_threshold), (1.0, lp_threshold), (0.5, lp_fold)):
        expected = np.transpose([bounds(float(x), p) for x in strength])
        np.testing.assert_allclose(bounds(strength, p), expected, rtol=1e-15)
        for array, row in zip(bounds(torch.tensor(strength), p), expected, strict=True):
            np.testing.assert_allclose(array.numpy(), row, rtol=1e-15)


@below_one
def test_the_local_minimiser_lives_from_the_fold_on(p):
    strength = 0.3
    z_fold, u_fold = lp_fold(strength, p)
    z_global = lp_threshold(strength, p)[0]
    assert z_fold <= z_global
    z = z_fold * np.array([1 - 1e-9, 1 + 1e-9])
    born = lp_minimiser_near(z, strength, p)
    assert born[0] == 0
    assert born[1] == pytest.approx(u_fold, abs=2e-4 * z_fold)
    between = np.linspace(z_fold * (1 + 1e-3), max(2, 2 * z_global), 500)
    u = lp_minimiser_near(between, strength, p)
    np.testing.assert_allclose(u - between + strength * p * u ** (p - 1), 0, atol=1e-13)
    assert np.all(1 + strength * p * (p - 1) * u ** (p - 2) > 0)  # a minimum, not the maximum
    far = between > z_global * (1 + 1e-12)
    np.testing.assert_array_equal(u[far], prox_lp(between, strength, p)[far])


@pytest.mark.parametrize("p", [p for p in EXPONENTS if 1e-12 < p < 1])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_at_the_fold_nothing_breaks(p, dtype):
    z_fold, u_fold = lp_fold(0.3, p)
    eps = np.finfo(dtype).eps
    z = (z_fold * (1 + eps * np.arange(-200, 201))).astype(dtype)
    u = lp_minimiser_near(z, 0.3, p)
    kept = u[u != 0]
    assert len(kept) > 100
    assert np.all(abs(kept - u_fold) < 60 * math.sqrt(eps) * z_fold)


@pytest.mark.parametrize("p", [1.0, 1.2, 1.9])
def test_above_one_the_local_minimiser_is_the_prox(p):
    z = np.linspace(-3, 3, 100)
    np.testing.assert_array_equal(lp_minimiser_near(z, 0.4, p), prox_lp(z, 0.4, p))


@some_p
def test_gradients_are_those_of_the_formula(p):
    z = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)  # with a 0
    strength = torch.tensor([[0.3], [0.9]], dtype=torch.float64, requires_grad=True)
    u = prox_lp(z, strength, p)
    weights = torch.linspace(1, 2, u.numel(), dtype=torch.float64).reshape(u.shape)
    (weights * u).sum().backward()
    with torch.no_grad():
        kept = u != 0
        size = torch.where(kept, u.abs(), 1.0)
        slope = torch.where(kept, 1 / (1 + strength * p * (p - 1) * size ** (p - 2)), 0.0)
        along_strength = -slope * p * size ** (p - 1) * u.sign()
    assert p > 1 or (~kept).sum() > 4
    torch.testing.assert_close(z.grad, (weights * slope).sum(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        strength.grad, (weights * along_strength).sum(1, keepdim=True), rtol=1e-10, atol=1e-10
    )


@some_p
@pytest.mark.parametrize("solve", [prox_lp, lp_minimiser_near])
def test_gradients_pass_gradcheck(p, solve):
    z = torch.tensor([-7.0, -2.0, 0.01, 3.0, 50.0], dtype=torch.float64, requires_grad=True)
    strength = torch.tensor([[0.2], [0.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, strength: solve(z, strength, p), (z, strength))


@some_p
@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_gradients_are_finite_where_the_prox_is_0_and_1_far_out(p, strength):
    z = torch.tensor([0.0, -0.0, 1e-30, -1e-3, 1e30], requires_grad=True)
    factor = torch.tensor(strength, requires_grad=True)
    prox_lp(z, factor, p).sum().backward()
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(factor.grad)
    assert z.grad[4] == pytest.approx(1, rel=1e-2)
    infinite = torch.tensor(-math.inf, requires_grad=True)
    prox_lp(infinite, strength, p).backward()
    assert infinite.grad == 1
    if strength and p <= 1:
        assert torch.equal(z.grad[:4], torch.zeros(4))


def test_one_graph_and_one_kernel_under_compile():
    z = torch.randn(4097, generator=torch.Generator().manual_seed(1))
    torch._inductor.metrics.reset()
    with torch._inductor.config.patch(fx_graph_cache=False):  # or there may be nothing to count
        u = torch.compile(prox_lp, fullgraph=True, dynamic=False)(z, 0.3, 0.8)
    assert torch._inductor.metrics.generated_kernel_count == 1
    torch.testing.assert_close(u, prox_lp(z, 0.3, 0.8), rtol=1e-6, atol=1e-6)


def test_shapes_layouts_and_types():
    z = np.random.default_rng(5).normal(0, 2, (4, 6))
    whole = prox_lp(z, 0.3, 0.7)
    np.testing.assert_array_equal(prox_lp(z.T, 0.3, 0.7), whole.T)
    np.testing.assert_array_equal(prox_lp(z[:, ::2], 0.3, 0.7), whole[:, ::2])
    assert torch.equal(prox_lp(torch.tensor(z).T, 0.3, 0.7), prox_lp(torch.tensor(z), 0.3, 0.7).T)
    strength = np.array([0.1, 0.5, 0.0, 1.0])[:, None]
    rows = [prox_lp(row, float(x), 0.7) for row, x in zip(z, strength[:, 0], strict=True)]
    np.testing.assert_allclose(prox_lp(z, strength, 0.7), rows, rtol=1e-14)
    assert prox_lp(np.empty((0, 3)), 0.3, 0.7).shape == (0, 3)
    assert prox_lp(torch.empty(0, 3), 0.3, 0.7).shape == (0, 3)
    scalar = prox_lp(np.array(3.0), 0.3, 0.7)
    assert isinstance(scalar, np.ndarray)
    assert scalar.shape == prox_lp(torch.tensor(3.0), 0.3, 0.7).shape == ()
    integers = np.array([-3, 0, 3])
    np.testing.assert_array_equal(prox_lp(integers, 0.3, 0.7), prox_lp(integers / 1.0, 0.3, 0.7))
    tensor = prox_lp(torch.tensor([-3, 0, 3]), 0.3, 0.7)
    assert tensor.dtype == torch.get_default_dtype()
    before = z.copy()
    prox_lp(z, 0.0, 1.5)
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize("solve", [prox_lp, lp_minimiser_near])
@pytest.mark.parametrize("p", [0, 2, -0.5, 2.5, math.nan, math.inf])
def test_exponents_out_of_range_are_refused(solve, p):
    with pytest.raises(ValueError, match=f"between 0 and 2, exclusive, not {p}"):
        solve(np.ones(2), 0.1, p)


@pytest.mark.parametrize("bad", [-0.25, math.nan, math.inf])
def test_bad_strengths_are_refused(bad):
    message = f"finite and not negative, not {bad}"
    z = np.ones(2)
    for call in (
        lambda: prox_lp(z, bad, 0.5),
        lambda: prox_lp(z, np.array([1.0, bad]), 0.5),
        lambda: prox_lp(torch.ones(2), torch.tensor([1.0, bad]), 0.5),
        lambda: lp_minimiser_near(z, bad, 0.5),
        lambda: prox_l_half(z, bad),
        lambda: lp_threshold(bad, 0.5),
        lambda: lp_threshold(np.array([bad]), 0.5),
        lambda: lp_fold(bad, 0.5),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_there_is_no_threshold_above_one_and_no_fold_from_one_on():
    with pytest.raises(ValueError, match=r"not for p = 1\.2"):
        lp_threshold(0.3, 1.2)
    with pytest.raises(ValueError, match="between 0 and 1, exclusive, not 1"):
        lp_fold(0.3, 1.0)
    with pytest.raises(TypeError, match="must be real, not"):
        prox_lp(torch.ones(2, dtype=torch.complex64), 0.1, 0.5)
