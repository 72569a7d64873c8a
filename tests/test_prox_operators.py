import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from beyond_adam.prox.inexact import prox_lp_reweighted_l1, prox_lp_reweighted_l2
from beyond_adam.prox.operators import (
    moreau_envelope,
    project_box,
    project_l1_ball,
    prox_elastic_net,
    prox_group_lasso,
    prox_l0,
    prox_l1,
    prox_l2_squared,
)

INF = math.inf
NAN = math.nan
# Every operator as a function of the point and one strength.
ENTRYWISE = {
    "l0": prox_l0,
    "l1": prox_l1,
    "l2_squared": prox_l2_squared,
    "elastic_net": lambda z, s: prox_elastic_net(z, s, 2 * s),
    "box": lambda z, s: project_box(z, -0.5 * s, s),
    "reweighted_l1": lambda z, s: prox_lp_reweighted_l1(z, s, 0.6, 3),
    "reweighted_l2": lambda z, s: prox_lp_reweighted_l2(z, s, 0.6, 3),
    "reweighted_l2_convex": lambda z, s: prox_lp_reweighted_l2(z, s, 1.7, 3),
}
GROUPED = {"group_lasso": prox_group_lasso, "l1_ball": project_l1_ball}
EVERY = ENTRYWISE | GROUPED
CONVEX = ["l1", "l2_squared", "elastic_net", "box", "group_lasso", "l1_ball"]

quick = settings(max_examples=60, deadline=None)
values = st.floats(-1e300, 1e300) | st.floats(-10, 10) | st.sampled_from([-0.0, 5e-324, -1e-310])
strengths = st.floats(0, 1e300) | st.floats(0, 10) | st.sampled_from([0.0, 1e-320])
moderate = st.floats(-100, 100)
tables = arrays(float, array_shapes(min_dims=1, max_dims=3, max_side=5), elements=moderate)


def every(operators):
    return pytest.mark.parametrize("operator", operators.values(), ids=operators)


def search(objective, *starts):
    """Minimise a function of a tuple of decimals by looking around with ever smaller steps.

    It gets stuck only where the function has a kink or jumps. Sixty digits tell minimisers apart to
    thirty.
    """
    with localcontext() as context:
        context.prec = 60
        best = min(starts, key=objective)
        step = max(abs(x) for start in starts for x in start)
        last = step * Decimal("1e-22")
        moves = list(itertools.product(range(-2, 3), repeat=len(best)))
        while step > last:
            around = [
                tuple(x + step * k for x, k in zip(best, move, strict=True)) for move in moves
            ]
            new = min(around, key=objective)
            if objective(new) < objective(best):
                best = new
            else:
                step /= 3
        return best


def decimals(array):
    return tuple(Decimal(float(x)) for x in np.ravel(array))


def proximal_objective(penalty, z):
    return lambda u: penalty(u) + sum((a - b) ** 2 for a, b in zip(u, z, strict=True)) / 2


# --- Against brute force ---


@quick
@given(values, strengths)
@example(z=2.0, strength=2.0)
@example(z=-0.0, strength=0.0)
@pytest.mark.parametrize("name", ["l1", "l2_squared", "elastic_net"])
def test_convex_entrywise_operators_find_the_minimiser(name, z, strength):
    s = Decimal(strength)
    penalty = {
        "l1": lambda u: s * abs(u[0]),
        "l2_squared": lambda u: s * u[0] ** 2,
        "elastic_net": lambda u: s * abs(u[0]) + s * u[0] ** 2,
    }[name]
    best = search(proximal_objective(penalty, decimals(z)), decimals(z), decimals(0))
    found = ENTRYWISE[name](np.array(z), strength)
    np.testing.assert_allclose(found, float(best[0]), rtol=0, atol=1e-15 * abs(z) + 5e-324)


@quick
@given(values, strengths)
@example(z=2.0, strength=2.0)
@example(z=-0.0, strength=0.0)
def test_hard_threshold_finds_a_minimiser(z, strength):
    objective = proximal_objective(lambda u: Decimal(strength) * (u[0] != 0), decimals(z))
    found = prox_l0(np.array(z), strength)
    assert found in (0, z)
    best = objective(search(objective, decimals(z), decimals(0)))
    assert objective(decimals(found)) <= best * Decimal(1 + 1e-15)


def test_hard_threshold_is_zero_at_the_threshold():
    z = np.array([2.0, -2.0, np.nextafter(2, 3), -np.nextafter(2, 3)])
    np.testing.assert_array_equal(prox_l0(z, 2.0), [0, 0, *z[2:]])
    np.testing.assert_array_equal(prox_l0(z, np.array([2.0, 0, 2, 9])), [0, -2, z[2], 0])


@settings(max_examples=15, deadline=None, phases=set(Phase) - {Phase.shrink, Phase.explain})
@given(st.lists(values, min_size=2, max_size=2), strengths)
@example(z=[3e300, -4e300], strength=1e300)
@example(z=[3e-310, 4e-310], strength=1e-310)
@example(z=[0.0, -0.0], strength=1.0)
@example(z=[0.6, 0.8], strength=0.75)
def test_group_lasso_finds_the_minimiser(z, strength):
    # From 0 the way down is too narrow for the search where ‖z‖ is hardly more than the strength.
    assume(not 0.8 < strength / max(math.hypot(*z), 5e-324) < 1.2)

    def penalty(u):
        return Decimal(strength) * sum(x * x for x in u).sqrt()

    best = search(proximal_objective(penalty, decimals(z)), decimals(z), decimals([0, 0]))
    found = prox_group_lasso(np.array(z), strength)
    atol = 1e-15 * max(map(abs, z)) + 5e-324
    np.testing.assert_allclose(found, [float(x) for x in best], rtol=0, atol=atol)


@given(tables, st.floats(0, 300), st.data())
@quick
def test_group_lasso_meets_its_optimality_condition(z, strength, data):
    """Where u ≠ 0, z − u = strength·u/‖u‖; where u = 0, ‖z‖ ≤ strength."""
    axes = st.integers(-z.ndim, z.ndim - 1)
    axis = data.draw(st.none() | axes | st.just(tuple(range(z.ndim))[-2:]))
    u = prox_group_lasso(z, strength, axis)

    def norm(x):
        return np.broadcast_to(np.sqrt(np.sum(x * x, axis=axis, keepdims=True)), x.shape)

    kept = norm(u) > 0
    whole = norm(z)
    removed, z, u, lengths = (x[kept] for x in (z - u, z, u, norm(u)))
    # The shorter u is, the less is known of its direction.
    atol = 1e-13 * (1 + abs(z)) * (1 + strength / lengths)
    assert (abs(removed - strength * u / lengths) <= atol).all()
    assert (whole[~kept] <= strength * (1 + 1e-13) + 1e-150).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(values, min_size=2, max_size=2), strengths)
@example(z=[1e17, 1.0], strength=1.0)
@example(z=[1e17, 1e17 + 16], strength=32.0)
@example(z=[3.0, -1.0], strength=4.0)
@example(z=[1.0, 1.0], strength=0.0)
def test_l1_ball_projection_finds_the_nearest_point_of_the_disc(z, strength):
    """Outside, the nearest point lies on one of the four edges of the square |x| + |y| = r."""
    point, r = decimals(z), Decimal(strength)
    found = project_l1_ball(np.array(z), strength)
    with localcontext() as context:
        context.prec = 1300  # all digits of the squares of 1e300 and 1e-320
        if sum(map(abs, point)) <= r:
            np.testing.assert_array_equal(found, z)
            return
        edges = []
        for signs in itertools.product((-1, 1), repeat=2):
            # The foot of the perpendicular from z on this edge, no further than its ends.
            x, y = (s * c for s, c in zip(signs, point, strict=True))
            x = min(max((x - y + r) / 2, Decimal(0)), r)
            edges.append((signs[0] * x, signs[1] * (r - x)))
        nearest = min(edges, key=lambda u: sum((a - b) ** 2 for a, b in zip(u, point, strict=True)))
    np.testing.assert_allclose(
        found, [float(x) for x in nearest], rtol=0, atol=4e-16 * strength + 5e-324
    )


@given(tables, st.floats(0, 300), st.data())
@quick
def test_l1_ball_projection_meets_its_optimality_condition(z, radius, data):
    """⟨z − u, v − u⟩ ≤ 0 for every vertex v = ±radius·e_i, hence for every point v of the ball."""
    axis = data.draw(st.none() | st.integers(-z.ndim, z.ndim - 1))
    u = project_l1_ball(z, radius, axis)
    assert (abs(u).sum(axis) <= radius * (1 + 2e-15 * z.size)).all()
    furthest = radius * abs(z - u).max(axis)
    assert (furthest - ((z - u) * u).sum(axis) <= 1e-11 * (1 + radius)).all()
    inside = abs(z).sum(axis, keepdims=True) <= radius * (1 - 1e-14)
    np.testing.assert_array_equal(np.where(inside, u, 0), np.where(inside, z, 0))


@quick
@given(values, st.tuples(values, values).map(sorted))
def test_box_projection_clips(z, bounds):
    low, high = bounds
    clipped = low if z < low else high if z > high else z
    assert project_box(np.array([z]), low, high) == clipped
    assert project_box(torch.tensor([z], dtype=torch.float64), low, high) == clipped


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_a_box_may_be_open_or_differ_from_entry_to_entry(array):
    z = array([-3.0, 0.5, 3.0])
    assert project_box(z, -INF, 1).tolist() == [-3, 0.5, 1]
    assert project_box(z, 0, INF).tolist() == [0, 0.5, 3]
    assert project_box(z, array([-1, 1, -INF]), 2.0).tolist() == [-1, 1, 2]
    assert project_box(z, array([-1.0, 1, 2]), array([0.0, 1, INF])).tolist() == [-1, 1, 3]
    assert project_box(z, array(-1.0), array([[0.0], [1]])).tolist() == [[-1, 0, 0], [-1, 0.5, 1]]


# --- Properties ---


@quick
@given(tables, st.floats(0, 50), st.data())
@pytest.mark.parametrize("name", CONVEX)
def test_convex_operators_are_firmly_nonexpansive(name, x, strength, data):
    y = data.draw(arrays(float, x.shape, elements=moderate))
    moved = EVERY[name](x, strength) - EVERY[name](y, strength)
    assert (moved**2).sum() <= (moved * (x - y)).sum() + 1e-11 * (1 + ((x - y) ** 2).sum())


@quick
@given(tables, st.floats(0, 50))
def test_moreau_decomposition(z, strength):
    """What a norm's operator removes is the projection on the ball of the dual norm."""
    near = {"rtol": 0, "atol": 1e-12}
    box = project_box(z, -strength, strength)
    np.testing.assert_allclose(prox_l1(z, strength) + box, z, **near)

    norms = np.sqrt((z**2).sum(-1, keepdims=True))
    disc = z * np.minimum(1, strength / np.maximum(norms, 1e-300))
    np.testing.assert_allclose(prox_group_lasso(z, strength) + disc, z, **near)

    # The operator of the largest entry caps |z|, and the caps add up to the strength.
    capped = z - project_l1_ball(z, strength)
    cap = abs(capped).max(-1, keepdims=True)
    np.testing.assert_allclose(capped, project_box(z, -cap, cap), **near)
    removed = np.maximum(abs(z) - cap, 0).sum(-1, keepdims=True)
    assert (removed <= strength + 1e-11).all()
    np.testing.assert_allclose(removed[cap > 1e-9], strength, rtol=0, atol=1e-11)


@every(EVERY)
def test_strength_zero_is_the_identity_or_the_origin(operator):
    z = np.array([[-1e300, -1.0, -1e-300, 5e-324], [0.0, 1e-310, 1.5, 1e300]])
    projects = operator in (EVERY["box"], EVERY["l1_ball"])
    np.testing.assert_array_equal(operator(z, 0.0), 0 * z if projects else z)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every(EVERY)
def test_arrays_and_tensors_agree(operator, dtype):
    z = 3 * torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    for strength in (0.3, torch.tensor([[0.3], [0.1], [0], [1], [9], [0.5], [2]], dtype=dtype)):
        as_array = strength if isinstance(strength, float) else strength.numpy()
        tensor, array = operator(z, strength), operator(z.numpy(), as_array)
        assert tensor.dtype == dtype
        assert array.dtype == z.numpy().dtype
        assert tensor.shape == array.shape == (7, 5)
        assert operator(z.numpy(), np.array(0.3)).dtype == array.dtype
        eps = torch.finfo(dtype).eps
        np.testing.assert_allclose(tensor.numpy(), array, rtol=4 * eps, atol=4 * eps)


@every(EVERY)
def test_float32_is_within_a_few_units_in_the_last_place(operator):
    z = np.random.default_rng(2).standard_normal((50, 40), dtype=np.float32)
    for strength in (0.125, 0.5, 2.0):
        single, double = operator(z, strength), operator(z.astype(float), strength)
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=0, atol=4 * 2.0**-23)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every(EVERY)
def test_half_precision_is_float32_rounded_once(operator, dtype):
    z = torch.randn(40, 30, generator=torch.Generator().manual_seed(3)).to(dtype)
    for strength in (0.3, torch.rand(40, 1, generator=torch.Generator().manual_seed(4)).to(dtype)):
        wide = strength if isinstance(strength, float) else strength.float()
        half = operator(z, strength)
        assert half.dtype == dtype
        assert torch.equal(half, operator(z.float(), wide).to(dtype))
    if dtype == torch.float16:
        array = z.numpy()
        expected = operator(array.astype(np.float32), 0.3).astype(np.float16)
        np.testing.assert_array_equal(operator(array, 0.3), expected)
        assert operator(array, 0.3).dtype == np.float16


@every(EVERY)
def test_any_shape_and_integers_are_taken_and_the_input_is_left_alone(operator):
    for shape in ((), (0,), (3,), (2, 0), (0, 2), (2, 3, 4)):
        z = np.arange(math.prod(shape), dtype=float).reshape(shape)
        z.setflags(write=False)
        found = operator(z, 0.5)
        assert found.shape == shape
        tensor = torch.tensor(z)
        assert operator(tensor, 0.5).shape == shape
        assert torch.equal(tensor, torch.tensor(z))
        assert not z.size or not np.shares_memory(found, z)
    np.testing.assert_array_equal(
        operator(np.array([1, -2]), 0.5), operator(np.array([1.0, -2]), 0.5)
    )
    assert operator(torch.tensor([1, -2]), 0.5).dtype == torch.float32


@pytest.mark.parametrize("array", [np.array, torch.tensor])
@every(ENTRYWISE)
def test_nan_and_infinite_entries(operator, array):
    for strength in (0.0, 0.5):
        found = np.asarray(operator(array([NAN, INF, -INF, 1.0]), strength))
        assert math.isnan(found[0])
        limit = [strength, -0.5 * strength] if operator is ENTRYWISE["box"] else [INF, -INF]
        np.testing.assert_array_equal(found[1:3], limit)
        np.testing.assert_array_equal(found[3:], np.asarray(operator(array([1.0]), strength)))


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_groups_with_nan_or_infinite_entries(array):
    z = array([[NAN, 1.0, 0.0], [INF, 1.0, -2.0], [INF, -INF, 1.0], [3.0, 0.0, 4.0]])
    np.testing.assert_allclose(
        prox_group_lasso(z, 1.0),
        [[NAN] * 3, [INF, 1, -2], [INF, -INF, 1], [2.4, 0, 3.2]],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        project_l1_ball(z, 1.0), [[NAN] * 3, [1, 0, 0], [0.5, -0.5, 0], [0, 0, 1]], rtol=1e-6
    )


# --- The two group operators ---


@every(GROUPED)
def test_groups_are_treated_one_by_one(operator):
    z = np.random.default_rng(5).standard_normal((3, 4, 5))
    strength = np.random.default_rng(6).uniform(0.2, 2, (3, 1, 5))
    found = operator(z, strength, axis=1)
    for i, k in np.ndindex(3, 5):
        np.testing.assert_allclose(
            found[i, :, k], operator(z[i, :, k], strength[i, 0, k]), rtol=1e-14, atol=1e-16
        )
    np.testing.assert_array_equal(operator(z, strength, axis=-2), found)
    whole = operator(z.ravel(), 1.5).reshape(z.shape)
    np.testing.assert_allclose(operator(z, 1.5, axis=None), whole, rtol=1e-13, atol=1e-15)


def test_group_lasso_takes_several_axes_as_one_group():
    z = np.random.default_rng(7).standard_normal((3, 4, 5))
    expected = prox_group_lasso(z.transpose(1, 0, 2).reshape(4, 15), 1.5)
    found = prox_group_lasso(z, 1.5, axis=(0, -1)).transpose(1, 0, 2).reshape(4, 15)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_allclose(
        prox_group_lasso(torch.tensor(z), 1.5, axis=(0, -1)), prox_group_lasso(z, 1.5, axis=(0, 2))
    )


@pytest.mark.parametrize("unit", [1e-38, 1.0, 1e38])
def test_group_lasso_neither_overflows_nor_underflows_in_float32(unit):
    z = np.array([3, 0, -4, 0], np.float32) * np.float32(0.25 * unit)
    expected = z.astype(float) * (1 - 1 / 1.25)
    np.testing.assert_allclose(prox_group_lasso(z, unit), expected, rtol=1e-6, atol=3e-45)
    np.testing.assert_array_equal(prox_group_lasso(z, np.float32(1.3 * unit)), 0)


def test_norms_along_a_strided_axis_stay_accurate_in_float32():
    """NumPy adds along the first axis one by one, which float32 sums do not survive."""
    z = np.full((1_000_000, 2), 0.1, np.float32)
    double = prox_group_lasso(z.astype(float), 50.0, axis=0)
    np.testing.assert_allclose(prox_group_lasso(z, 50.0, axis=0), double, rtol=3e-7)


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
def test_l1_ball_projection_of_a_million_entries_stays_accurate_in_float32(array):
    z = np.random.default_rng(8).uniform(0.5, 1, 1_000_000).astype(np.float32)
    found = np.asarray(project_l1_ball(array(z), 1e5))
    double = project_l1_ball(z.astype(float), 1e5)
    np.testing.assert_allclose(found, double, rtol=1e-6, atol=1e-12)
    assert math.fsum(abs(found)) == pytest.approx(1e5, rel=1e-7)


def test_l1_ball_projection_keeps_the_radius_of_points_far_out():
    z = np.array([1e9, -1e9, 1e9 - 64, 5.0], np.float32)
    np.testing.assert_array_equal(project_l1_ball(z, 1.0), np.float32([0.5, -0.5, 0, 0]))
    shared = np.float32([320 / 3, -320 / 3, 128 / 3, 0])
    np.testing.assert_array_equal(project_l1_ball(z, 256.0), shared)
    np.testing.assert_array_equal(project_l1_ball(np.array([1e300, 1.0]), 2.0), [2, 0])


@pytest.mark.parametrize("array", [np.array, torch.tensor])
@every(GROUPED)
def test_strengths_that_would_split_a_group_are_refused(operator, array):
    z = array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for wrong in ([0.1, 0.2, 0.3], [[0.1, 0.2, 0.3]] * 2, [[[0.1]]], [0.1, 0.2]):
        with pytest.raises(ValueError, match=r"one entry for each group, shape \(2, 1\), not have"):
            operator(z, array(wrong))
    for right in (0.1, [0.1], [[0.1], [0.2]], [[0.1]]):
        strength = right if isinstance(right, float) else array(right)
        assert operator(z, strength).shape == (2, 3)


# --- The inexact operators ---

REWEIGHTED = {"l1": prox_lp_reweighted_l1, "l2": prox_lp_reweighted_l2}


@quick
@given(moderate, st.floats(0, 20), st.floats(0.01, 1), st.integers(0, 8), st.floats(1, 1.99))
def test_no_step_raises_the_objective(z, strength, p, iterations, convex_p):
    for operator, power in (
        (prox_lp_reweighted_l1, p),
        (prox_lp_reweighted_l2, p),
        (prox_lp_reweighted_l2, convex_p),
    ):
        before, after = (
            strength * abs(u) ** power + (u - z) ** 2 / 2
            for u in (operator(np.array(z), strength, power, iterations + k) for k in (0, 1))
        )
        assert after <= before * (1 + 1e-13) + 1e-300


@every(REWEIGHTED)
def test_a_step_minimises_its_majoriser(operator):
    """Against the formulas as they are written in the paper, where nothing can go wrong."""
    z, strength, p = np.array([-3.0, -0.9, 0.8, 1.0, 2.5]), 0.3, 0.7
    u = z
    for iterations in range(1, 5):
        with np.errstate(divide="ignore"):
            weight = strength * p * abs(u) ** (p - (1 if operator is prox_lp_reweighted_l1 else 2))
        if operator is prox_lp_reweighted_l1:
            u = np.sign(z) * np.maximum(abs(z) - weight, 0)
        else:
            u = z / (1 + weight)
        np.testing.assert_allclose(operator(z, strength, p, iterations), u, rtol=1e-13)
    np.testing.assert_array_equal(operator(z, strength, p), operator(z, strength, p, 1))
    np.testing.assert_array_equal(operator(z, strength, p, 0), z)


@given(values, strengths, st.integers(1, 3))
@quick
def test_reweighted_l1_is_exact_at_p_1(z, strength, iterations):
    expected = prox_l1(np.array([z]), strength)
    np.testing.assert_array_equal(
        prox_lp_reweighted_l1(np.array([z]), strength, 1, iterations), expected
    )


@pytest.mark.parametrize("p", [1.1, 1.5, 1.9])
def test_reweighted_l2_converges_to_the_minimiser_for_convex_penalties(p):
    z = np.array([-50.0, -2, -0.3, 0, 1e-3, 1, 7])
    for strength in (0.0, 0.01, 1.0, 3.0):
        u = prox_lp_reweighted_l2(z, strength, p, 400)
        slope = strength * p * abs(u) ** (p - 1) * np.sign(u)
        np.testing.assert_allclose(u + slope, z, rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
@every(REWEIGHTED)
def test_reweighting_converges_to_the_stationary_point_nearest_to_z(operator, p):
    for strength in (0.01, 1.0, 30.0):
        fold = (2 - p) / (1 - p) * (strength * p * (1 - p)) ** (1 / (2 - p))
        z = fold * np.array([1.05, 1.3, 3, -1.05, -20])
        u = operator(z, strength, p, 500)
        slope = strength * p * abs(u) ** (p - 1) * np.sign(u)
        np.testing.assert_allclose(u + slope, z, rtol=1e-12)
        # Of the two stationary points this is the outer one, where the objective is convex.
        assert (strength * p * (1 - p) * abs(u) ** (p - 2) < 1).all()

        z = fold * np.array([0.95, 0.5, 1e-3, -0.95, -1e-10])
        np.testing.assert_array_equal(operator(z, strength, p, 500), 0)


def test_reweighting_survives_extreme_entries():
    z = np.array([0.0, 5e-324, 1e-310, 1e-200, 1e200, 1e300, -1e300, INF])
    for operator, p, strength in itertools.product(
        REWEIGHTED.values(), (0.01, 0.5, 0.99, 1), (0.0, 1e-320, 1e-20, 1.0, 1e290)
    ):
        u = operator(z, strength, p, 3)
        if strength <= 1:
            np.testing.assert_array_equal(u[4:], z[4:])
        if strength == 1:
            assert (abs(u[:4]) < 1e-300).all()
        if strength == 0:
            np.testing.assert_array_equal(u, z)


# --- The Moreau envelope ---


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_the_envelope_of_the_absolute_value_is_hubers_function(array):
    z = array([-3.0, -0.5, -0.25, 0.0, 0.1, 0.5, 1.0])
    for step in (0.25, 0.5, 2.0):
        huber = [x * x / (2 * step) if abs(x) <= step else abs(x) - step / 2 for x in z.tolist()]
        found = moreau_envelope(abs, prox_l1, z, step)
        np.testing.assert_allclose(found, huber, rtol=1e-6, atol=1e-7)


def test_the_slope_of_the_envelope_is_the_residual_over_the_step():
    z = torch.linspace(-3, 3, 50, dtype=torch.float64, requires_grad=True)
    moreau_envelope(abs, prox_l1, z, 0.7).sum().backward()
    residual = (z - prox_l1(z, 0.7)) / 0.7
    np.testing.assert_allclose(z.grad, residual.detach(), rtol=1e-14)


@pytest.mark.parametrize("step", [0.0, -1.0, INF, NAN])
def test_the_step_of_an_envelope_must_be_positive(step):
    with pytest.raises(ValueError, match=f"step must be positive and finite, not {step}"):
        moreau_envelope(abs, prox_l1, np.ones(2), step)


# --- Gradients ---


@every(EVERY)
def test_gradients_are_exact_off_the_kinks(operator):
    z = torch.tensor([[1.7, -0.4, 0.05], [-2.3, 0.9, 1.9]], dtype=torch.float64)
    strength = torch.tensor([[0.21], [0.45]], dtype=torch.float64)
    inputs = (z.requires_grad_(), strength.requires_grad_())
    assert torch.autograd.gradcheck(operator, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@every(EVERY)
def test_gradients_are_finite_everywhere(operator, dtype):
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max ** 0.9
    rows = [[0.0, 0.0], [0.0, -0.0], [0.5, 0.5], [1.0, -1.0], [0.0, 3.0], [0.25, 0.25]]
    rows += [[tiny, -tiny], [tiny / 100, 0.0], [tiny**0.5, tiny**0.6], [huge, 1.0], [huge, -huge]]
    for strength in (0.0, 0.5, 1.0, 1e-3, 100.0):
        z = torch.tensor(rows, dtype=dtype, requires_grad=True)
        operator(z, strength).sum().backward()
        assert torch.isfinite(z.grad).all(), (strength, z.grad)


def test_gradients_at_one_are_those_of_both_sides():
    """There the reweighting changes from one way to write it to the other."""
    z = torch.tensor([1 - 1e-9, 1.0, 1 + 1e-9], dtype=torch.float64, requires_grad=True)
    prox_lp_reweighted_l2(z, 0.4, 0.7).sum().backward()
    np.testing.assert_allclose(z.grad, z.grad[0].expand(3), rtol=1e-7)


# --- Errors ---


@pytest.mark.parametrize("array", [np.array, torch.tensor])
@pytest.mark.parametrize("bad", [-1.0, INF, NAN])
@every({name: operator for name, operator in EVERY.items() if name != "box"})
def test_bad_strengths_are_refused(operator, bad, array):
    z = array([[1.0, 2.0], [3.0, 4.0]])
    if operator is not EVERY["elastic_net"]:
        with pytest.raises(ValueError, match=rf"finite and not negative, not {bad}$"):
            operator(z, array([[1.0], [bad]]))
    with pytest.raises(ValueError, match=r"finite and not negative, not "):
        operator(z, bad)


def test_elastic_net_names_the_bad_strength():
    with pytest.raises(ValueError, match=r"^l1 must be finite and not negative, not -1"):
        prox_elastic_net(np.ones(2), -1, 1)
    with pytest.raises(ValueError, match=r"^l2 must be finite and not negative, not -1"):
        prox_elastic_net(np.ones(2), 1, -1)
    with pytest.raises(ValueError, match=r"^radius must be finite and not negative, not -1"):
        project_l1_ball(np.ones(2), -1)


@every(EVERY)
def test_wrong_kinds_of_input_are_refused(operator):
    for z, other in ((np.ones(2), torch.ones(1)), (torch.ones(2), np.ones(1))):
        with pytest.raises(TypeError, match=f"not a {type(other).__name__}"):
            operator(z, other)
    for z in (np.ones(2, complex), torch.ones(2, dtype=torch.complex64), np.array(["a"])):
        with pytest.raises(TypeError, match=r"z must be .*real"):
            operator(z, 1.0)


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_a_box_without_inside_is_refused(array):
    z = array([1.0, 2.0])
    for low, high, named in (
        (1, 0, "low = 1.0, high = 0.0"),
        (NAN, 1, "low = nan, high = 1.0"),
        (0, NAN, "low = 0.0, high = nan"),
        (array([0.0, 3.0]), 2, "low = 3.0, high = 2.0"),
        (0, array([[1.0, -1.0], [-2.0, 0.0]]), "low = 0.0, high = -1.0"),
        (array([0.0, 1.0]), array([[1.0], [0.5]]), "low = 1.0, high = 0.5"),
        (array(1.0), array(0.0), "low = 1.0, high = 0.0"),
    ):
        with pytest.raises(ValueError, match=f"low must not exceed high, but {named}"):
            project_box(z, low, high)
    with pytest.raises(TypeError, match=r"high must be a number or, like the input, .* not a str"):
        project_box(z, 0, "1")


def test_group_lasso_refuses_no_axis():
    with pytest.raises(ValueError, match=r"at least one axis, not \(\)"):
        prox_group_lasso(np.ones(2), 1.0, axis=())


@every(REWEIGHTED)
def test_exponents_and_iterations_out_of_range_are_refused(operator):
    above = 1.5 if operator is prox_lp_reweighted_l1 else 2
    for p in (0, -0.5, above, NAN):
        with pytest.raises(ValueError, match=f"^p must .* not {p}$"):
            operator(np.ones(2), 1.0, p)
    with pytest.raises(ValueError, match="iterations must not be negative, not -1"):
        operator(np.ones(2), 1.0, 0.5, -1)
