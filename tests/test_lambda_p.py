import decimal
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beyond_adam.numerical import central_difference
from beyond_adam.prox.lambda_p import (
    adiabatic_step,
    collapse_basin,
    decay_scale,
    dynamic_s,
    indefinite_above,
    lambda_p,
    lambda_p_gradient,
    lambda_p_hessian,
    optimal_s,
    prox_lambda_p,
)
from beyond_adam.reference import DynamicPAdam

exponents = st.floats(0.05, 1.95)
points = st.tuples(st.floats(1e-3, 30), st.sampled_from([-1.0, 1.0])).map(math.prod)
positive = st.floats(1e-2, 1e2)
unhurried = settings(deadline=None, max_examples=60)  # machines are shared


def vertex(parabola, centre):
    """Return where a parabola is least: where its values one to either side are equal."""
    low, high = centre - 100, centre + 100
    for _ in range(60):
        middle = (low + high) / 2
        if parabola(middle + 1) > parabola(middle - 1):
            high = middle
        else:
            low = middle
    return (low + high) / 2


@given(exponents, points)
@unhurried
def test_least_value_over_s_is_the_pth_power(p, x):
    x = np.array(x)
    valley = optimal_s(x, p)
    assert valley == pytest.approx(abs(x) ** (p - 2), rel=1e-14)
    assert lambda_p(x, valley, p) == pytest.approx(abs(x) ** p, rel=1e-13)
    assert (lambda_p(x, valley * np.array([0.7, 0.99, 1.01, 1.4]), p) > abs(x) ** p).all()


@given(st.floats(0.05, 1.5), st.floats(-3, 3), st.floats(0.5, 3))
@unhurried
def test_gradient_and_hessian_agree_with_differences(p, x, s):
    def along(f):
        return lambda w: f(w[..., 0], w[..., 1], p)

    point = np.array([x, s])
    gradient = lambda_p_gradient(*point, p)
    expected = central_difference(along(lambda_p), point)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)
    xx, xs, ss = lambda_p_hessian(*point, p)
    for index, row in enumerate([(xx, xs), (xs, ss)]):
        component = along(lambda *a, index=index: lambda_p_gradient(*a)[index])
        expected = central_difference(component, point)
        np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-6)


@given(exponents, points, positive)
@unhurried
def test_gradient_and_hessian_agree_with_autograd(p, x, s):
    size = 0.5 * p * (x * x + s ** (-2 / (2 - p)))  # of the terms that may cancel
    x, s = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, s))
    gradient = torch.autograd.grad(lambda_p(x, s, p), (x, s), create_graph=True)
    torch.testing.assert_close(
        lambda_p_gradient(x, s, p), gradient, rtol=1e-12, atol=1e-12 * (1 + size)
    )
    hessian = [torch.autograd.grad(d, (x, s), retain_graph=True) for d in gradient]
    xx, xs, ss = lambda_p_hessian(x, s, p)
    torch.testing.assert_close(((xx, xs), (xs, ss)), tuple(hessian), rtol=1e-12, atol=1e-12)


@given(exponents, points, positive)
@unhurried
def test_determinant(p, x, s):
    xx, xs, ss = lambda_p_hessian(np.array(x), s, p)
    expected = p**2 * (s ** (-2 / (2 - p)) / (2 - p) - x**2)
    assert xx * ss - xs**2 == pytest.approx(expected, rel=1e-11, abs=1e-11 * (xx * ss + xs**2))


@given(exponents, points)
@unhurried
def test_hessian_is_indefinite_above_the_border_only(p, x):
    x = np.array(x)
    border = indefinite_above(x, p)
    assert border == pytest.approx(((2 - p) * x**2) ** (-(2 - p) / 2), rel=1e-13)
    for factor, sign in ((0.99, 1), (1.01, -1)):
        xx, xs, ss = lambda_p_hessian(x, border * factor, p)
        assert np.sign(xx * ss - xs**2) == sign
    if abs(p - 1) > 1e-6:
        assert (border < optimal_s(x, p)) == (p < 1)


def test_convex_in_each_variable_but_not_in_both():
    middle, *ends = lambda_p(np.array([1.0, 1.2, 0.8]), np.array([2.0, 1.2, 2.8]), 1)
    assert middle == 1.25
    assert middle > np.mean(ends) + 0.02
    a, b, fixed = np.random.default_rng(0).uniform(0.1, 3, (3, 1000))
    for p in (0.3, 1.0, 1.7):
        for curve in (lambda x, p=p: lambda_p(x, fixed, p), lambda s, p=p: lambda_p(fixed, s, p)):
            assert (curve((a + b) / 2) <= (curve(a) + curve(b)) / 2 * (1 + 1e-14)).all()


@given(
    st.floats(0.05, 1.5), st.floats(-30, 30), st.floats(0.1, 10), st.floats(0, 5), st.floats(0, 2)
)
@unhurried
def test_prox_by_brute_force(p, u, s, strength, l2):
    def cost(x):
        return strength * lambda_p(np.array(x), s, p) + 0.5 * (x - u) ** 2

    got = prox_lambda_p(np.array(u), s, strength, p)
    assert got == pytest.approx(vertex(cost, u), abs=1e-9)
    # The same with a squared norm beside it is the step of an elastic net: lr 0.3, gradient −2.
    w = s ** (1 / (p - 2))
    moved = w + 0.6

    def both(x):
        penalty = strength * lambda_p(np.array(x), s, p) + 0.5 * l2 * x**2
        return 0.3 * penalty + 0.5 * (x - moved) ** 2

    got = adiabatic_step(np.array(w), np.array(-2.0), 0.3, strength, p, l2=l2)
    assert got == pytest.approx(vertex(both, moved), abs=1e-9)


@given(exponents, points, st.floats(-10, 10), st.floats(0, 1), st.floats(0, 5))
@unhurried
def test_adiabatic_step_is_the_prox_on_the_valley(p, w, g, lr, strength):
    w, g = np.array(w), np.array(g)
    expected = prox_lambda_p(w - lr * g, optimal_s(w, p), lr * strength, p)
    assert adiabatic_step(w, g, lr, strength, p) == pytest.approx(expected, rel=1e-13)


@given(st.integers(0, 10**6), exponents, st.floats(0.01, 1), st.floats(0, 3), st.floats(0, 1))
@unhurried
def test_never_raises_the_regularised_loss(seed, p, fraction, strength, l2):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(4, 4))
    H, b, w = root @ root.T, rng.normal(size=4), rng.normal(size=4)

    def loss(w):
        penalty = strength * (np.abs(w) ** p).sum() + 0.5 * l2 * (w * w).sum()
        return 0.5 * w @ H @ w - b @ w + penalty

    lr = fraction / np.linalg.eigvalsh(H)[-1]
    losses = [loss(w)]
    for _ in range(30):
        w = adiabatic_step(w, H @ w - b, lr, strength, p, l2=l2)
        losses.append(loss(w))
    assert (np.diff(losses) <= 1e-13 * (1 + np.abs(losses[:-1]))).all()


# Iterates of Eq. (3) on ¼(‖w‖² − 1)² from (0.2, 0.18) and the loss there, as drawn in the post.
HIGGS = {
    None: {
        0: (0.2, 0.18, 0.21511),
        1: (0.32986, 0.29688, 0.16122),
        3: (0.70264, 0.63238, 0.00283),
        5: (0.73824, 0.66441, 0.00005),
        7: (0.74250, 0.66825, 0),
        10: (0.74334, 0.66901, 0),
        15: (0.74329, 0.66896, 0),
        20: (0.74329, 0.66896, 0),
    },
    0.5: {
        1: (0.23709, 0.20358, 0.20356),
        3: (0.38992, 0.29636, 0.14445),
        5: (0.67473, 0.45657, 0.02827),
        7: (0.81364, 0.50333, 0.00179),
        10: (0.84554, 0.44634, 0.00184),
        15: (0.91018, 0.30389, 0.00157),
        20: (0.96654, 0.07282, 0.00091),
        100: (0.97363, 0, 0.00068),
    },
    1: {
        1: (0.24434, 0.21375, 0.20008),
        3: (0.39917, 0.32754, 0.13446),
        5: (0.63253, 0.48753, 0.03280),
        7: (0.74334, 0.54024, 0.00605),
        10: (0.77171, 0.50453, 0.00562),
        15: (0.82775, 0.41274, 0.00522),
        20: (0.89169, 0.26872, 0.00440),
        100: (0.94565, 0, 0.00280),
    },
}


@pytest.mark.parametrize("p", HIGGS)
def test_higgs_toy(p):
    w = np.array([0.2, 0.18])
    rows = [w]
    for _ in range(100):
        gradient = (w @ w - 1) * w
        w = adiabatic_step(w, gradient, 0.7, 0.1 if p else 0, p or 1)
        rows.append(w)
    table = {k: (*rows[k], 0.25 * (rows[k] @ rows[k] - 1) ** 2) for k in HIGGS[p]}
    for k, printed in HIGGS[p].items():
        np.testing.assert_allclose(table[k], printed, rtol=0, atol=5.001e-6, err_msg=f"step {k}")
    if p:
        assert abs(rows[40][1]) < 1e-5
        limit = rows[100][0]
        assert limit - limit**3 == pytest.approx(p * 0.1 * limit ** (p - 1), rel=1e-12)
    else:
        np.testing.assert_allclose(w, rows[0] / np.linalg.norm(rows[0]), rtol=1e-12)


@given(exponents, st.floats(-100, 100), st.floats(1e-6, 1), st.floats(1e-6, 10), st.floats(0, 1))
@unhurried
def test_zero_is_absorbing(p, g, lr, strength, l2):
    assert adiabatic_step(np.array(0.0), np.array(g), lr, strength, p, l2=l2) == 0


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
@pytest.mark.parametrize(("lr", "strength"), [(0.0, 0.1), (0.5, 0.0), (0.0, 0.0)])
def test_without_decay_nothing_is_absorbed(kind, lr, strength):
    w, g = kind([0.0, 0.0, 2.0, -1e-320]), kind([0.0, -3.0, 1.0, 0.0])
    got = adiabatic_step(w, g, lr, strength, 0.8, l2=0.4)
    expected = np.asarray(w - lr * g) / (1 + 0.4 * lr)
    np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-15)
    assert (got == adiabatic_step(w, g, kind(lr), kind(strength), 0.8, l2=kind(0.4))).all()
    # Entry by entry, where some weights decay and some do not.
    mixed = adiabatic_step(w, g, 0.5, kind([0.0, 0.1, 0.0, 0.1]), 0.8)
    np.testing.assert_array_equal(np.asarray(mixed), [0, 0, 1.5, 0])


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0, 1.5, 1.9])
def test_step_is_exact_and_finite_for_every_weight(p):
    top = np.finfo(float).max / 2
    sizes = [5e-324, 1e-310, 1e-200, 1e-60, 1e-9, 0.3, 1.0, 1.7, 1e9, 1e60, 1e160, 1e300, top]
    decimal.getcontext().prec = 60
    for w, decay, l2 in itertools.product(sizes, [1e-12, 1e-3, 1.0, 1e8, 1e200], [0.0, 0.5]):
        got = adiabatic_step(np.array(w), np.array(-0.25), 0.5, decay, p, l2=l2)
        X = decimal.Decimal(w) ** decimal.Decimal(2 - p)
        c = decimal.Decimal(0.5 * p * decay)
        factor = X / (X * decimal.Decimal(1 + 0.5 * l2) + c)
        # Below, X underflows, and the weight collapses to zero.
        assert got == pytest.approx(
            float(factor * decimal.Decimal(w + 0.125)), rel=1e-14, abs=1e-295
        )
    both = np.array(sizes + [-size for size in sizes])
    with_noise = adiabatic_step(both, np.full(both.size, 1e3), 1.0, 1.0, p)
    assert np.isfinite(with_noise).all()
    assert np.isfinite(adiabatic_step(np.float32([1e-45, 1e38]), np.float32([1, 1]), 1, 1, p)).all()


@given(exponents, st.floats(1e-4, 1), st.floats(1e-3, 1))
@unhurried
def test_decay_scale_is_halved(p, lr, strength):
    scale = decay_scale(lr, strength, p)
    if scale > 1e-100:
        step = adiabatic_step(scale * np.array([1, 0.5, 2]), np.zeros(3), lr, strength, p) / scale
        assert step[0] == pytest.approx(0.5, rel=1e-10)
        assert step[1] < 0.25
        assert step[2] > 1
    assert decay_scale(lr, 0, p) == 0


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("lr", [0.01, 0.5])
@pytest.mark.parametrize("g", [-2.0, 2.0])
def test_collapse_basin_has_two_sides(p, lr, g):
    edge = float(collapse_basin(np.array(g), 0.7, p))

    def end(start):
        w = np.array(start)
        for _ in range(2000):
            w = adiabatic_step(w, np.array(g), lr, 0.7, p)
        return float(w)

    # The gradient pushes outwards on the side of −g; there the edge is where decay balances it.
    side = -math.copysign(1.0, g)
    assert adiabatic_step(np.array(side * edge), np.array(g), lr, 0.7, p) == pytest.approx(
        side * edge, rel=1e-12
    )
    assert end(side * edge * 0.99) == 0
    assert end(-side * edge * 0.99) == 0
    assert abs(end(side * edge * 1.01)) > 1.1 * edge


def test_limits_of_the_collapse_basin():
    got = collapse_basin(np.array([0.0, 1.0, -1e300, 0.0]), np.array([0.5, 0.0, 1e-300, 0.0]), 0.9)
    np.testing.assert_array_equal(got, [np.inf, 0, 0, 0])


SIZES = [5e-324, 1e-310, 1e-200, 1e-60, 1e-9, 0.3, 1.0, 1.7, 1e9, 1e60, 1e160, 1e300, 1.7e308]


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0, 1.5, 1.9, 2 - 1e-9])
def test_dynamic_s_is_exact_for_every_weight_and_every_s(p):
    decimal.getcontext().prec = 60
    sizes = [decimal.Decimal(size) for size in SIZES]
    powers = [size ** decimal.Decimal(2 - p) for size in sizes]
    for rate in (1e-12, 1e-3, 0.3, 0.999, 1.0):
        part = decimal.Decimal(rate)
        right = [[float(1 / ((1 - part) / s + part * X)) for X in powers] for s in sizes]
        got = dynamic_s(np.array(SIZES)[:, None], np.array(SIZES), p, rate)
        # Where |w|^(p−2) is below the normal numbers, it has few digits, or none.
        np.testing.assert_allclose(got, right, rtol=1e-14, atol=5e-324 / rate)


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0, 1.5, 1.9])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_dynamic_s_in_single_precision(p, kind):
    sizes = np.float32([1e-45, 1e-40, 1e-36, 1e-9, 0.3, 1.0, 1.7, 1e9, 1e26, 1e30, 3e38])
    s, w = np.meshgrid(np.append(sizes, np.float32(np.inf)), np.append(sizes, np.float32(0)))
    for rate in (1e-3, 0.3, np.float64(0.999), 1):
        right = dynamic_s(s.astype(float), w.astype(float), p, rate)
        got = np.asarray(dynamic_s(kind(s), kind(w), p, rate))
        assert got.dtype == np.float32
        with np.errstate(over="ignore"):
            right = right.astype(np.float32)
        np.testing.assert_allclose(got, right, rtol=3e-5, atol=2e-45 / rate)


@given(exponents, points, positive, st.floats(1e-3, 1))
@unhurried
def test_dynamic_s_goes_geometrically_to_the_optimum_of_a_weight_at_rest(p, w, s, rate):
    end, now = abs(w) ** (2 - p), s
    for t in range(1, 51):
        now = dynamic_s(now, np.array(w), p, rate)
        assert 1 / now == pytest.approx(end + (1 - rate) ** t * (1 / s - end), rel=1e-12)


@given(exponents, points, positive, st.floats(1e-3, 1))
@unhurried
def test_dynamic_s_lowers_the_auxiliary_function_and_never_passes_its_optimum(p, w, s, rate):
    w = np.array(w)
    best, new = optimal_s(w, p), dynamic_s(s, w, p, rate)
    assert min(s, best) * (1 - 1e-14) <= new <= max(s, best) * (1 + 1e-14)
    before, after = lambda_p(w, s, p), lambda_p(w, new, p)
    assert after <= before * (1 + 1e-13)
    if abs(np.log(s / best)) > 0.1:
        assert after < before


@given(exponents, points, positive)
@unhurried
def test_slow_s_flows_down_the_auxiliary_function(p, w, s):
    ratio = s * abs(w) ** (2 - p)
    rate = 1e-6 / (1 + ratio)
    speed = (dynamic_s(s, np.array(w), p, rate) - s) / rate
    assert speed == pytest.approx(s * (1 - ratio), rel=1e-5, abs=1e-8 * s * (1 + ratio))
    if abs(ratio - 1) > 1e-3:
        assert np.sign(speed) == -np.sign(lambda_p_gradient(np.array(w), s, p)[1])


@pytest.mark.parametrize("p", [0.3, 1, 1.7])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_dynamic_s_that_follows_at_once_is_the_adiabatic_step(p, kind):
    w = kind(np.array([0.0, 1e-300, 1e-9, -0.7, 30.0, 1e100]))
    s = kind(np.array([5e-324, 1.0, 1e300, math.inf, 1e-9, 1e300]))
    rng = np.random.default_rng(5)
    for _ in range(5):
        s = dynamic_s(s, w, p, 1)
        assert (s == optimal_s(w, p)).all()
        g = kind(rng.normal(size=6))
        step = adiabatic_step(w, g, 0.1, 0.3, p)
        w = prox_lambda_p(w - 0.1 * g, s, 0.1 * 0.3, p)
        np.testing.assert_allclose(np.asarray(w), np.asarray(step), rtol=1e-14)


@pytest.mark.parametrize("beta", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("p", [0.3, 1, 1.7])
def test_dynamic_s_is_that_of_the_reference_optimizer(p, beta):
    rule = DynamicPAdam(lr=0.3, weight_decay=0.3, p=p, beta_s=beta)
    rng, s = np.random.default_rng(7), np.ones(6)
    w, state = rng.normal(size=6), rule.init(s)
    for _ in range(30):
        s = dynamic_s(s, w, p, 1 - beta)
        w, state = rule.step(w, rng.normal(size=6), state)
        np.testing.assert_allclose(1 / s, state["inverse_s"], rtol=1e-12)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_dynamic_s_lets_a_weight_leave_zero(kind):
    w = kind(np.array([0.0, -0.0, 4.0, 0.0]))
    s = dynamic_s(kind(np.array([1.0, 3.0, math.inf, math.inf])), w, 0.5, 0.75)
    np.testing.assert_array_equal(np.asarray(s), [4, 12, 1 / 6, np.inf])
    away = prox_lambda_p(w + 9, s, 1.0, 0.5)
    np.testing.assert_allclose(np.asarray(away), [3, 9 / 7, 12, 0], rtol=1e-15)
    assert (dynamic_s(s, away, 0.5, 0.75) < s)[:2].all()


def test_zero_and_infinity():
    w = np.array([0.0, -0.0, 2.0])
    np.testing.assert_array_equal(optimal_s(w, 0.5), [np.inf, np.inf, 2**-1.5])
    np.testing.assert_array_equal(indefinite_above(w, 1), [np.inf, np.inf, 0.5])
    u = np.array([1.0, -3.0, 2.0])
    s = optimal_s(w, 0.5)
    np.testing.assert_array_equal(prox_lambda_p(u, s, 0.1, 0.5)[:2], [0, 0])
    np.testing.assert_array_equal(prox_lambda_p(u, s, 0, 0.5), u)
    np.testing.assert_array_equal(prox_lambda_p(u, s, np.zeros(3), 0.5), u)
    # Adiabatic, in two calls: the next step of a weight is that of Eq. (3).
    rest = prox_lambda_p(w - 0.1 * u, dynamic_s(1.0, w, 0.5, 1), 0.1 * 0.3, 0.5)
    np.testing.assert_allclose(rest, adiabatic_step(w, u, 0.1, 0.3, 0.5), rtol=1e-15)


ELEMENTWISE = {
    "value": lambda x, y, p: (lambda_p(x, y, p),),
    "gradient": lambda_p_gradient,
    "hessian": lambda_p_hessian,
    "border": lambda x, _, p: (indefinite_above(x, p),),
    "valley": lambda x, _, p: (optimal_s(x, p),),
    "prox": lambda x, y, p: (prox_lambda_p(x, y, 0.3, p), prox_lambda_p(x, y, y, p)),
    "step": lambda x, y, p: (
        adiabatic_step(x, y, 0.3, 0.2, p),
        adiabatic_step(x, y, y, y, p, l2=y),
    ),
    "dynamic": lambda x, y, p: (dynamic_s(y, x, p, 0.3), dynamic_s(2.0, x, p, 1)),
    "basin": lambda x, y, p: (collapse_basin(x, 0.3, p / 2), collapse_basin(x, y, p / 2)),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_numpy_and_torch_agree_in_every_precision(name):
    f = ELEMENTWISE[name]
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(5, 1)), rng.uniform(0.1, 2, (1, 4))
    x[0] = 0
    before = x.copy(), y.copy()
    for p in (0.5, 1, 1.6):
        expected = f(x, y, p)
        tensors = f(torch.from_numpy(x), torch.from_numpy(y), p)
        for array, tensor in zip(expected, tensors, strict=True):
            assert tensor.dtype == torch.float64
            assert array.shape == tuple(tensor.shape)
            np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-13)
        single = f(x.astype(np.float32), y.astype(np.float32), p)
        for array, exact in zip(single, expected, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, exact, rtol=2e-4, atol=1e-5)
        for dtype in (torch.bfloat16, torch.float16):
            half = torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype)
            once = [r.to(dtype) for r in f(half[0].float(), half[1].float(), p)]
            for got, rounded in zip(f(*half, p), once, strict=True):
                assert got.dtype == dtype
                assert torch.equal(got, rounded)
        for got in f(np.array([1, 2]), np.array([3, 4]), p):
            assert got.dtype == np.float64
    assert (x == before[0]).all()
    assert (y == before[1]).all()


def test_hessian_has_the_broadcast_shape():
    for part in lambda_p_hessian(np.ones((3, 1)), np.ones(4), 1):
        assert part.shape == (3, 4)


X = np.ones(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lambda_p(X, 0.0, 1), "s must be positive and finite, not 0.0"),
        (lambda: lambda_p(X, np.array([1.0, -2.0]), 1), "s must be positive and finite, not -2"),
        (lambda: lambda_p_gradient(X, math.inf, 1), "s must be positive and finite, not inf"),
        (lambda: lambda_p_hessian(X, math.nan, 1), "s must be positive and finite, not nan"),
        (lambda: lambda_p(torch.ones(2), torch.zeros(2), 1), "s must be positive and finite"),
        (lambda: prox_lambda_p(X, -1, 1, 1), "s must be positive, not -1"),
        (lambda: dynamic_s(math.nan, X, 1, 0.5), "s must be positive, not nan"),
        (lambda: prox_lambda_p(X, 1, -1, 1), "strength must be finite and not negative, not -1"),
        (lambda: adiabatic_step(X, X, -0.1, 1, 1), "lr must be finite and not negative, not -0.1"),
        (lambda: adiabatic_step(X, X, 1, math.inf, 1), "strength must be finite"),
        (lambda: adiabatic_step(X, X, 1, 1, 1, l2=-1), "l2 must be finite"),
        (lambda: adiabatic_step(X, X, 1, 1, 2), "p must lie between 0 and 2, exclusive, not 2"),
        (lambda: optimal_s(X, 0), "p must lie between 0 and 2, exclusive, not 0"),
        (lambda: indefinite_above(X, math.nan), "p must lie between 0 and 2, exclusive, not nan"),
        (lambda: dynamic_s(1, X, 1, 0), r"rate must lie in \(0, 1\], not 0"),
        (lambda: dynamic_s(1, X, 1, 1.5), r"rate must lie in \(0, 1\], not 1.5"),
        (lambda: decay_scale(-1, 1, 1), "lr must be finite and not negative, not -1"),
        (lambda: decay_scale(1, math.nan, 1), "strength must be finite and not negative, not nan"),
        (lambda: collapse_basin(X, 1, 1), "p must lie between 0 and 1, exclusive, not 1"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lambda_p(torch.ones(2), X, 1), "s must be .* Tensor, not a ndarray"),
        (lambda: adiabatic_step(X, torch.ones(2), 1, 1, 1), "gradient must be .* ndarray"),
        (lambda: adiabatic_step(X, X * 1j, 1, 1, 1), "gradient must be an array of real numbers"),
        (lambda: optimal_s(X * 1j, 1), "x must be an array of real numbers"),
        (lambda: prox_lambda_p(X, "1", 1, 1), "s must be a number"),
    ],
)
def test_bad_kinds_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()
