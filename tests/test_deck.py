"""The deck's rows: the convention that reproduces them, its rivals, and the judge of orbits."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest

from beyond_adam.experiments import deck, deck_convention, deck_forensics
from beyond_adam.experiments.deck import ROWS, hopping, nearby_minimiser, observe, tangent_growth
from beyond_adam.experiments.deck_convention import (
    DECK,
    STEPS,
    Convention,
    Setting,
    adam,
    difference_gradient,
    digits_match,
    gradient_descent,
    libm_fingerprint,
    libm_matches,
    objective,
    outcome,
)
from beyond_adam.experiments.deck_forensics import ROW, VARIANTS, telling_rows, used
from beyond_adam.landscapes import ACKLEY, LANDSCAPES, PARABOLOID, RASTRIGIN, ROSENBROCK, polish
from beyond_adam.reference import Adam, GradientDescent, Momentum, descend

STALE_TABLES = {"R22", "R24", "R25", *(f"R{n}" for n in range(32, 38))}


# The rows


def test_the_deck_has_37_rows_in_order():
    assert [row.id for row in ROWS] == [f"R{n:02d}" for n in range(1, 38)]
    assert [row.method for row in ROWS].count("GD") == 18
    assert {row.function for row in ROWS} == {"", "paraboloid", "rosenbrock", "rastrigin", "ackley"}
    assert {(row.eps, row.steps) for row in ROWS} == {(1e-7, 10_000)}
    assert all((row.betas is None) == (row.method == "GD") for row in ROWS)


def test_rows_with_the_same_setting_print_the_same_result():
    for row, other in itertools.combinations([row for row in ROWS if row.start], 2):
        assert (row.printed == other.printed) == (used(row) == used(other)), (row.id, other.id)
    assert len(telling_rows()) == 22


def test_slips_are_where_titles_and_tables_disagree():
    stale = {row.id for row in ROWS if row.title_start not in (None, row.table_start)}
    assert stale == STALE_TABLES
    assert [row.id for row in ROWS if row.true_betas] == ["R11"]
    assert [row.id for row in ROWS if row.start is None] == ["R07"]
    assert dict(ROW["R11"].readings())["printed betas"].betas == (0.99, 0.9999)
    assert dict(ROW["R24"].readings())["table start"].start == (3.0, 0.0)
    with pytest.raises(ValueError, match="where R07 starts"):
        used(ROW["R07"])


# The convention


@pytest.mark.parametrize("row", telling_rows(), ids=lambda row: row.id)
def test_convention_gives_every_printed_digit(row):
    match = digits_match(outcome(used(row)), row.printed)
    assert match or (row.judged != "robust" and not libm_matches())


def test_gradient_descent_on_the_paraboloid_has_a_closed_form():
    factor = 0.998**STEPS
    assert outcome(used(ROW["R08"])) == pytest.approx((1 - 6 * factor, 2 - 9.5 * factor), abs=1e-11)


@pytest.mark.parametrize("name", ["paraboloid", "rosenbrock", "rastrigin", "ackley"])
def test_objectives_are_the_landscapes(name):
    shift = 80 if name == "rastrigin" else 0
    points = np.random.default_rng(0).uniform(-5, 5, (50, 2))
    for convention in (DECK, Convention(square="product", factor_first=True, constant_first=True)):
        values = [objective(name, convention)(x, y) for x, y in points.tolist()]
        np.testing.assert_allclose(values, LANDSCAPES[name].value(points) + shift, rtol=1e-12)


def test_difference_quotients_have_their_order_of_error():
    def cube(x: float, y: float) -> float:
        return x**3 + y

    h, error = 1e-3, {}
    for form in ("central", "forward", "backward"):
        gx, gy = difference_gradient(cube, Convention(h=h, difference=form))(2.0, 0.0)
        error[form] = gx - 12
        assert gy == pytest.approx(1)
    assert error["central"] == pytest.approx(h**2, rel=1e-3)
    assert error["forward"] == pytest.approx(6 * h, rel=1e-3)
    assert error["backward"] == pytest.approx(-6 * h, rel=1e-3)


def exact_gradient(x: float, y: float) -> tuple[float, float]:
    gx, gy = ROSENBROCK.gradient((x, y)).tolist()
    return gx, gy


def test_loops_are_the_textbook_rules():
    start, steps = (3.0, 0.0), 60
    runs = [
        (adam(exact_gradient, start, 0.1, (0.9, 0.999)), Adam(0.1, (0.9, 0.999), 1e-7)),
        (gradient_descent(exact_gradient, (0.5, 0.2), 1e-3), GradientDescent(1e-3)),
    ]
    for (points, rule), first in zip(runs, (start, (0.5, 0.2)), strict=True):
        textbook = descend(rule, ROSENBROCK.gradient, first, steps).points[1:]
        np.testing.assert_allclose(list(itertools.islice(points, steps)), textbook, rtol=1e-9)


def test_epsilon_goes_where_the_convention_says():
    def slope(*_: float) -> tuple[float, float]:
        return 3.0, -1e-4

    def after(steps: int, **change) -> float:
        points = adam(slope, (1.0, 1.0), 0.1, (0.9, 0.99), 0.5, Convention(**change))
        return next(itertools.islice(points, steps - 1, None))[0]

    # With a constant gradient both corrected moments are exact from the first step on.
    assert after(2) == pytest.approx(1 - 2 * 0.1 * 3 / (3 + 0.5))
    assert after(2, epsilon="inside root") == pytest.approx(1 - 2 * 0.1 * 3 / math.sqrt(9 + 0.5))
    # Kingma and Ba, section 2: α_t = α √(1 − β₂ᵗ)/(1 − β₁ᵗ), step α_t m/(√v + ε).
    kingma_ba = sum(
        0.1 * math.sqrt(1 - 0.99**t) / (1 - 0.9**t) * m / (math.sqrt(v) + 0.5)
        for t, m, v in ((1, 0.3, 0.09), (2, 0.57, 0.1791))
    )
    assert after(2, epsilon="uncorrected root") == pytest.approx(1 - kingma_ba)
    assert after(1, bias_correction=False) == pytest.approx(1 - 0.1 * 0.3 / (0.3 + 0.5))


def test_a_run_that_overflows_has_no_outcome():
    assert all(map(math.isnan, outcome(Setting("rosenbrock", "GD", 1e-3, (1e90, 0.0), steps=9))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Convention(h=0), "h must be positive, not 0"),
        (lambda: Convention(difference="middle"), "difference must be one of .*'middle'"),
        (lambda: Convention(epsilon="hat"), "epsilon must be one of .*'hat'"),
        (lambda: Setting("ackley", "SGD", 1.0, (0, 0)), "method must be one of .*'SGD'"),
        (lambda: Setting("ackley", "Adam", 1.0, (0, 0)), "Adam needs betas"),
        (lambda: Setting("ackley", "GD", 1.0, (0, 0), (0.9, 0.9)), "GD has none"),
        (lambda: Setting("ackley", "GD", 1.0, (0, 0), steps=0), "steps must be at least 1, not 0"),
        (lambda: objective("sphere"), "no function 'sphere'; allowed: paraboloid"),
        (lambda: deck.run("fast"), "unknown profile 'fast'"),
        (lambda: deck_forensics.run("fast"), "unknown profile 'fast'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_digits_are_compared_as_numpy_prints_them():
    assert digits_match((1.00013730123, 0.9999999999), ("1.0001373", "1."))
    assert digits_match((-19189787363569.086, 409.1461305767975), ROW["R01"].printed)
    assert not digits_match((1.00013731123, 1.0), ("1.0001373", "1."))
    assert not digits_match((1.0, 1.00000001), ("1", "1"))
    assert not digits_match((-1.91897875e13, 409.146131), ROW["R01"].printed)
    assert not digits_match((math.nan, math.nan), ("1", "1"))


def test_fingerprint_notices_other_rounding(monkeypatch):
    before = libm_fingerprint()
    assert before == libm_fingerprint()
    exp = math.exp
    monkeypatch.setattr(math, "exp", lambda x: math.nextafter(exp(x), 0) if x > 0.999 else exp(x))
    assert libm_fingerprint() != before
    monkeypatch.setattr(deck_convention, "REFERENCE_LIBM", before)
    assert not libm_matches()
    monkeypatch.undo()
    assert libm_matches() == (before == deck_convention.REFERENCE_LIBM)


# The forensics


@pytest.mark.parametrize(
    ("variant", "lost"),
    [
        ("forward difference", "R02 R08 R24 R35"),
        ("backward difference", "R02 R08 R24 R28"),
        ("h = 10⁻⁸", "R01 R10 R15 R36"),
        ("h = 2⁻²⁶", "R01 R10 R17 R33"),
        ("h = 10⁻⁶", "R01 R10 R04 R25"),
        ("h one ulp larger", "R10 R05 R15 R36"),
        ("Rastrigin with 20", "R04 R05 R06"),
        ("x·x for x**2", "R04 R05 R15 R17"),
        ("Rosenbrock as (100·b)·b", "R01 R15 R25"),
        ("Ackley from 20 + e", "R35 R36"),
        ("ε inside the root", "R04 R06 R15 R33"),
        ("ε to the uncorrected root", "R04 R06 R15 R33"),
        ("ε = 10⁻⁸", "R04 R06 R15 R33"),
        ("no bias correction", "R02 R11 R19 R33 R35"),
        ("9999 updates", "R02 R04 R11 R36"),
        ("10 001 updates", "R02 R04 R11 R36"),
    ],
)
def test_every_other_choice_loses_digits(variant, lost):
    for row in map(ROW.__getitem__, lost.split()):
        assert not digits_match(VARIANTS[variant].outcome(used(row)), row.printed), row.id


def test_the_list_of_variants_starts_with_no_change():
    assert next(iter(VARIANTS.values())) == deck_forensics.Variant()
    assert VARIANTS["h one ulp larger"].convention.h == 1e-8 * math.sqrt(2)


def test_the_difference_quotient_stalls_and_the_gradient_does_not():
    table = deck_forensics.stall()
    for name, (y_stalls, frozen) in {"R01": (2, 3), "R10": (3, 4)}.items():
        run = table[table.id == name].set_index("step")
        assert (run.difference_y == 0).tolist() == [step >= y_stalls for step in run.index]
        assert (run.difference_x == 0).tolist() == [step >= frozen for step in run.index]
        assert (run.exact_x.abs() > 1e3).all()
        # The difference y ± h makes is below half an ulp of f; x ± h is x, or f cannot tell.
        f, last = objective("rosenbrock"), run.loc[frozen]
        assert f(last.x, last.y + DECK.h) == f(last.x, last.y) == f(last.x + DECK.h, last.y)
        assert 2 * DECK.h * abs(run.exact_y[y_stalls]) < run.ulp_f[y_stalls]
        np.testing.assert_array_equal(run.loc[frozen:, ["x", "y"]] - last[["x", "y"]], 0.0)
        assert digits_match((last.x, last.y), ROW[name].printed)


def test_the_printed_digits_leave_multiples_of_half_the_root_of_2e_16():
    unit = math.sqrt(2e-16) / 2
    allowed = deck_forensics.lattice(1e-7)
    np.testing.assert_allclose(allowed, unit * np.arange(1, len(allowed) + 1), rtol=4e-9)
    assert len(allowed) == int(1e-7 / unit)
    # The equations themselves: they hold for 2h and not for the usual steps.
    for denominator, holds in ((2 * DECK.h, True), (2e-8, False), (2.0**-25, False)):
        fits = [
            abs(denominator * e.slope - round(denominator * e.slope))
            <= denominator * e.printed_error + e.start_error
            for e in deck_forensics.equations()
        ]
        assert all(fits) == holds


def test_only_one_step_and_form_gives_both_stalled_rows():
    scan = deck_forensics.step_scan(deck_forensics.lattice(1e-7))
    both = scan[scan.R01_match & scan.R10_match]
    assert both[["difference", "h"]].drop_duplicates().to_numpy().tolist() == [["central", DECK.h]]
    assert set(both.step) == {"√(2·10⁻¹⁶)", "lattice 4"}


def test_one_beta2_fits_r11():
    table = deck_forensics.beta2()
    assert table[table.digits_match].beta2.tolist() == [0.99999]
    assert 0.9999 in set(table.beta2)


def test_titles_not_tables_give_the_start():
    table = deck_forensics.starts()
    assert set(table[table.origin == "title"].id) == STALE_TABLES
    assert set(table[table.origin == "table"].id) == STALE_TABLES | {"R07"}
    assert not table[table.origin == "table"].digits_match.any()
    assert table[table.origin == "title"].digits_match.all() or not libm_matches()


# The judge of orbits


def logistic(r: float, steps: int = 2000):
    """Orbit of x ← r x (1 − x) from 0.3 on the diagonal, and its tangent growth."""
    x = np.empty(steps + 1)
    x[0] = 0.3
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps):
            x[t + 1] = r * x[t] * (1 - x[t])
        growth = np.concatenate([[0.0], np.cumsum(np.log(np.abs(r * (1 - 2 * x[:-1]))))])
    return np.stack([x, x], axis=-1), growth, np.full(2, 1 - 1 / r)


@pytest.mark.parametrize(
    ("r", "behaviour", "period"),
    [
        (2.5, "converges", 1),
        (3.2, "cycle", 2),
        (3.5, "cycle", 4),
        (3.83, "cycle", 3),
        (3.7, "chaotic", 0),
        (4.0, "chaotic", 0),
        (4.5, "diverges", 0),
    ],
)
def test_observe_tells_the_regimes_of_the_logistic_map(r, behaviour, period):
    seen = observe(*logistic(r))
    assert (seen.behaviour, seen.period) == (behaviour, period)
    assert seen.machine_dependent == (behaviour == "chaotic")
    if r == 4.0:
        assert seen.lyapunov == pytest.approx(math.log(2), abs=0.02)
    if r == 4.5:
        points = logistic(r)[0]
        assert np.isfinite(points[: seen.overflow_step]).all()
        assert not np.isfinite(points[seen.overflow_step]).any()


def test_observe_tells_slow_approach_from_creeping_and_swinging():
    t = np.linspace(0, 1, 1001)[:, None]
    still, origin = np.zeros(1001), np.zeros(2)
    diagonal = np.ones(2)
    assert observe(np.exp(-4 * t) * diagonal, still, origin).behaviour == "converges"
    assert observe(np.exp(-0.5 * t) * diagonal, still, origin).behaviour == "wanders"
    assert observe(np.cos(7 * t) * diagonal, still, origin).behaviour == "wanders"
    seen = observe(np.stack([3 * t[:, 0], 0 * t[:, 0]], axis=-1), still, origin)
    assert (seen.cells, seen.radius, seen.distance) == (4, 3.0, 3.0)
    assert seen.last_step == pytest.approx(0.003)
    assert seen.contraction == pytest.approx(1 / 0.75, rel=0.01)


def test_observe_needs_a_run():
    with pytest.raises(ValueError, match="at least 8 steps to be classified, not 3"):
        observe(np.zeros((4, 2)), np.zeros(4), np.zeros(2))


def test_growth_is_exact_on_a_quadratic():
    rule = GradientDescent(0.2)
    run = descend(rule, PARABOLOID.gradient, (-5.0, -7.5), 30)
    expected = np.arange(31) * math.log(0.6)
    np.testing.assert_allclose(tangent_growth(PARABOLOID, rule, run), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("landscape", "rule", "start", "steps"),
    [
        (ACKLEY, GradientDescent(0.1), (-4.0, -3.9), 15),
        (RASTRIGIN, Adam(0.5, (0.9, 0.999), 1e-7), (-1.0, -0.8), 300),
        (ROSENBROCK, Adam(0.1, (0.7, 0.9), 1e-3), (3.0, 0.0), 150),
    ],
)
def test_growth_is_how_a_twin_run_departs(landscape, rule, start, steps):
    shift = 1e-7 * np.array([math.cos(1.0), math.sin(1.0)])
    run = descend(rule, landscape.gradient, start, steps)
    # Twins on either side of the run: their distance does not feel the curvature of the flow.
    twins = descend(rule, landscape.gradient, [start - shift, start + shift], steps).points
    apart = np.log(np.linalg.norm(twins[:, 1] - twins[:, 0], axis=-1) / 2e-7)
    np.testing.assert_allclose(tangent_growth(landscape, rule, run), apart, atol=0.01)


def test_growth_of_adam_is_finite_where_a_gradient_starts_at_zero():
    rule = Adam(0.1)
    run = descend(rule, ROSENBROCK.gradient, (0.0, 0.0), 50)
    assert run.history["v"][0, 1] == 0
    assert np.isfinite(tangent_growth(ROSENBROCK, rule, run)).all()


def test_growth_of_other_rules_is_refused():
    run = descend(Momentum(0.1), PARABOLOID.gradient, (0.0, 0.0), 10)
    with pytest.raises(TypeError, match="Momentum"):
        tangent_growth(PARABOLOID, Momentum(0.1), run)


@pytest.mark.parametrize(
    ("landscape", "start", "minimiser"),
    [
        (ROSENBROCK, (-1.2, 1.0), (1.0, 1.0)),
        (RASTRIGIN, (-1.85, 0.2), polish(RASTRIGIN, (-1.99, 0.0))),
        # Where the curvature nearly vanishes, Newton's own step leads to the cell of −2.
        (RASTRIGIN, (0.24, 0.0), (0.0, 0.0)),
        (ACKLEY, (-3.9, -4.05), polish(ACKLEY, (-3.98, -3.98))),
        (ACKLEY, (0.07, -0.02), (0.0, 0.0)),
        (ACKLEY, (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_nearby_minimiser_goes_down_the_valley(landscape, start, minimiser):
    np.testing.assert_allclose(nearby_minimiser(landscape, start), minimiser, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "behaviour"),
    [
        ("R01", "diverges"),
        ("R10", "diverges"),
        ("R03", "converges"),
        ("R11", "converges"),
        ("R24", "converges"),
        ("R15", "wanders"),
        ("R23", "wanders"),
        ("R19", "cycle"),
        ("R35", "cycle"),
        ("R05", "chaotic"),
        ("R36", "chaotic"),
    ],
)
def test_exact_runs_behave_as_their_orbits_show(name, behaviour):
    row = ROW[name]
    run, seen = deck.exact_run(used(row))
    assert seen.behaviour == behaviour
    assert seen.machine_dependent == (behaviour == "chaotic" or name == "R35")
    if row.judged == "robust":
        assert tuple(run.points[-1]) == pytest.approx([float(p) for p in row.printed], abs=2e-8)
    if behaviour == "cycle":
        assert seen.period == {"R19": 7, "R35": 6}[name]
    if name == "R05":
        assert seen.lyapunov == pytest.approx(1.31, abs=0.05)
        assert 8 < seen.radius < 13
    if name == "R36":
        assert seen.lyapunov == pytest.approx(0.81, abs=0.03)
        assert seen.radius < 0.53
    if name in ("R01", "R10"):
        assert seen.overflow_step in (6, 7)


def test_an_exact_gradient_keeps_the_diagonal():
    for name in ("R04", "R05", "R06"):
        points = deck.exact_run(dataclasses.replace(used(ROW[name]), steps=500))[0].points
        np.testing.assert_array_equal(points[:, 0], points[:, 1])
        x, y = outcome(used(ROW[name]))
        assert x != y


def test_large_steps_hop_between_the_cells_of_rastrigin():
    settled, hops = hopping(4e-3, 2000), hopping(2e-2, STEPS)
    assert (settled["cell_changes"], settled["cells"]) == (0.0, 1)
    assert hops["cell_changes"] == pytest.approx(0.85, abs=0.01)
    assert hops["median_value"] == pytest.approx(137, abs=5)
    assert hops["low_share"] < 1e-3
    assert 1.6 < hops["longest_step"] < 1.8
    assert hops["cells"] == 474 or not libm_matches()


# The records


def test_shown_steps_are_dense_first_and_reach_the_end():
    steps = deck.shown_steps(STEPS)
    assert steps[:200].tolist() == list(range(200))
    assert (steps[-1], len(steps)) == (STEPS, 400)
    assert (np.diff(steps) > 0).all()
    assert deck.shown_steps(5).tolist() == [0, 1, 2, 3, 4, 5]


def check_record(tables: dict[str, pd.DataFrame], tmp_path) -> None:
    for name, table in tables.items():
        assert len(table)
        assert not any(map(pd.api.types.is_object_dtype, table.dtypes))
        table.to_parquet(tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), table)


def test_deck_record(tmp_path):
    tables = deck.run("smoke")
    check_record(tables, tmp_path)
    rows, runs = tables["rows"], set(tables["behaviour"].run)
    used_rows = rows[rows.reading == "used"]
    assert used_rows.id.tolist() == [row.id for row in ROWS]
    assert used_rows.digits_match.sum() == 36 or not libm_matches()
    assert not rows[rows.reading != "used"].digits_match.any()
    assert rows.reading.value_counts().to_dict() == {
        "used": 37,
        "printed betas": 1,
        "table start": 9,
    }
    assert set(rows.run) - {""} == runs == set(tables["trajectories"].run)
    assert np.isfinite(tables["trajectories"][["x", "y"]]).all(axis=None)
    unknown = rows[rows.id == "R07"].iloc[0]
    assert (unknown.run, unknown.behaviour) == ("", "")
    assert math.isnan(unknown.exact_x)
    for name, table in deck.run("smoke").items():
        pd.testing.assert_frame_equal(table, tables[name])


def test_forensics_record(tmp_path):
    tables = deck_forensics.run("smoke")
    check_record(tables, tmp_path)
    variants = tables["variants"].pivot(index="variant", columns="id", values="digits_match")
    unchanged = variants.loc["the deck's convention"]
    assert unchanged.all() or not libm_matches()
    assert set(variants.index) == set(VARIANTS)
