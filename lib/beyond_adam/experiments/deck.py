"""All result rows of the deck "Adam (and beyond)", computed anew.

Each row is computed twice: with the exact gradient, which is what the row is meant to show, and by
the deck's own convention (`beyond_adam.experiments.deck_convention`), which gives its digits. What
an exact run does (diverge, converge, cycle, be chaotic or wander) is read off its orbit, never off
the row.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from beyond_adam import project
from beyond_adam.experiments.deck_convention import (
    EPS,
    STEPS,
    Method,
    Point,
    Setting,
    digits_match,
    iterates,
    libm_matches,
    outcome,
)
from beyond_adam.landscapes import LANDSCAPES, RASTRIGIN, Landscape
from beyond_adam.reference import Adam, GradientDescent, Rule, Trajectory, descend

NAME = "deck"

Array = npt.NDArray[np.float64]
Betas = tuple[float, float]
Judged = Literal["robust", "sensitive", "noise", "cycle", "chaotic", "divergent", "unknown start"]
Behaviour = Literal["diverges", "converges", "cycle", "chaotic", "wanders"]


@dataclass(frozen=True)
class Row:
    """One result of the deck, as printed.

    Attributes
    ----------
    id
        R01 … R37, in the order of the slides.
    slide
        Heading of the slide; those of the appendix are numbered here.
    function
        Name of the test function; empty where the deck does not say.
    title_start
        ``x_initial`` in the slide's title; None if it has none. Where it differs from the table's,
        the table is a stale copy.
    method, lr, betas
        Optimizer, learning rate, and Adam's β₁ and β₂ (None for gradient descent), as printed.
    table_start
        ``x_initial`` in the slide's table.
    printed
        ``x_final``, character for character.
    judged
        How the row can be judged: on all its digits ("robust"), on four decimals ("sensitive"), on
        where or how it ends ("noise", "cycle", "chaotic", "divergent"), or not at all.
    true_betas
        The β₁ and β₂ that the result belongs to, where the printed ones are a slip.
    """

    id: str
    slide: str
    function: str
    title_start: Point | None
    method: Method
    lr: float
    betas: Betas | None
    table_start: Point
    printed: tuple[str, str]
    judged: Judged
    true_betas: Betas | None = None
    eps: float = EPS
    steps: int = STEPS

    @property
    def start(self) -> Point | None:
        """The start that the result belongs to; None where the deck does not give it."""
        if self.judged == "unknown start":
            return None
        return self.title_start or self.table_start

    def readings(self) -> Iterator[tuple[str, Setting]]:
        """Yield the ways to read the row: ``"used"``, the right one, then the slips.

        A slip in the betas adds ``"printed betas"``, a stale table ``"table start"``. A row whose
        start is not known yields nothing.
        """
        if self.start is None:
            return
        betas = self.true_betas or self.betas
        used = Setting(self.function, self.method, self.lr, self.start, betas, self.eps, self.steps)
        yield "used", used
        if self.true_betas:
            yield "printed betas", dataclasses.replace(used, betas=self.betas)
        if self.table_start != self.start:
            yield "table start", dataclasses.replace(used, start=self.table_start)


_Result = (
    tuple[Method, float, Betas | None, Point, tuple[str, str], Judged]
    | tuple[Method, float, Betas | None, Point, tuple[str, str], Judged, Betas]
)

_0, _3, _5 = (0.0, 0.0), (3.0, 0.0), (5.0, 0.0)  # starts on the x axis
_D1, _D4, _D5 = (-1.0, -1.0), (-4.0, -4.0), (-5.0, -5.0)  # and on the diagonal
_SLOPE = (-5.0, -7.5)
_B = (0.9, 0.999)

# Slide, function, start in the title; then each table: method, learning rate, betas, start in the
# table, result, how to judge it, and the betas meant if not those printed.
# fmt: off
_SLIDES: Final[tuple[tuple[str, str, Point | None, tuple[_Result, ...]], ...]] = (
    ("Optimization tests (2), Rosenbrock", "rosenbrock", _5, (
        ("GD", 1e-3, None, _5, ("-1.91897874e+13", "4.09146131e+02"), "divergent"),
        ("Adam", 0.1, _B, _5, ("1.0001373", "1.00027483"), "robust"),
    )),
    ("Optimization tests (2), Rastrigin", "rastrigin", None, (
        ("GD", 1e-3, None, _D5, ("-4.97469139", "-4.97469139"), "robust"),
        ("Adam", 1.0, _B, _D5, ("-1.99923524", "-1.99755086"), "noise"),
    )),
    ("Optimization tests (3), Rastrigin", "rastrigin", None, (
        ("GD", 2e-2, None, _D1, ("8.62994166", "-8.96991123"), "chaotic"),
        ("Adam", 0.5, _B, _D1, ("0.01386211", "0.02081304"), "noise"),
    )),
    ("Latin Hypercube sampling", "", None, (
        ("Adam", 0.5, _B, _D1, ("-0.01154259", "-0.00684768"), "unknown start"),
    )),
    ("Appendix, paraboloid", "paraboloid", _SLOPE, (
        ("GD", 1e-3, None, _SLOPE, ("0.99999999", "1.99999998"), "robust"),
        ("Adam", 0.1, (0.99, 0.9999), _SLOPE, ("1.", "2."), "robust"),
    )),
    ("Appendix, Rosenbrock 1", "rosenbrock", _3, (
        ("GD", 1e-3, None, _3, ("4.23722310e+18", "6.25647912e+03"), "divergent"),
        ("Adam", 0.1, (0.99, 0.9999), _3, ("0.96279886", "0.92688621"), "robust", (0.99, 0.99999)),
    )),
    ("Appendix, Rosenbrock 2", "rosenbrock", _3, (
        ("GD", 1e-3, None, _3, ("4.23722310e+18", "6.25647912e+03"), "divergent"),
        ("Adam", 0.1, _B, _3, ("1", "1"), "robust"),
    )),
    ("Appendix, Rosenbrock 3", "rosenbrock", _3, (
        ("GD", 1e-3, None, _3, ("4.23722310e+18", "6.25647912e+03"), "divergent"),
        ("Adam", 0.1, (0.999, 0.999), _3, ("0.89075591", "0.82099768"), "sensitive"),
    )),
    ("Appendix, Rosenbrock 4", "rosenbrock", _3, (
        ("GD", 1e-3, None, _3, ("4.23722310e+18", "6.25647912e+03"), "divergent"),
        ("Adam", 0.1, (0.7, 0.999), _3, ("0.98250643", "0.96526179"), "noise"),
    )),
    ("Appendix, Rosenbrock 5", "rosenbrock", _3, (
        ("GD", 1e-3, None, _3, ("4.23722310e+18", "6.25647912e+03"), "divergent"),
        ("Adam", 0.1, (0.9, 0.5), _3, ("0.86305156", "0.80067135"), "robust"),
    )),
    ("Appendix, Rosenbrock 6", "rosenbrock", _5, (
        ("GD", 1e-3, None, _5, ("-1.91897874e+13", "4.09146131e+02"), "divergent"),
        ("Adam", 0.1, _B, _5, ("1.0001373", "1.00027483"), "robust"),
    )),
    ("Appendix, Rosenbrock 7", "rosenbrock", _5, (
        ("GD", 1e-3, None, _3, ("-1.91897874e+13", "4.09146131e+02"), "divergent"),
        ("Adam", 0.01, _B, _5, ("1.86150594", "3.46665981"), "robust"),
    )),
    ("Appendix, Rosenbrock 8", "rosenbrock", _0, (
        ("GD", 1e-3, None, _3, ("0.99440095", "0.98881076"), "robust"),
        ("Adam", 0.1, _B, _5, ("0.99993208", "0.99986374"), "noise"),
    )),
    ("Appendix, Rastrigin 1", "rastrigin", _D5, (
        ("GD", 1e-3, None, _D5, ("-4.97469139", "-4.97469139"), "robust"),
        ("Adam", 1.0, _B, _D5, ("-1.99923524", "-1.99755086"), "noise"),
    )),
    ("Appendix, Rastrigin 2", "rastrigin", _D1, (
        ("GD", 1e-3, None, _D1, ("-0.99495864", "-0.99495864"), "robust"),
        ("Adam", 0.5, _B, _D1, ("0.01386211", "0.02081304"), "noise"),
    )),
    ("Appendix, Rastrigin 3", "rastrigin", _D1, (
        ("GD", 2e-2, None, _D1, ("8.62994166", "-8.96991123"), "chaotic"),
        ("Adam", 0.5, _B, _D1, ("0.01386211", "0.02081304"), "noise"),
    )),
    ("Appendix, Ackley 1", "ackley", _D4, (
        ("GD", 1e-3, None, _D5, ("-3.9830677", "-3.9830677"), "robust"),
        ("Adam", 0.1, _B, _D5, ("-3.98493574", "-3.98493574"), "noise"),
    )),
    ("Appendix, Ackley 2", "ackley", _D4, (
        ("GD", 1e-3, None, _D5, ("-3.9830677", "-3.9830677"), "robust"),
        ("Adam", 0.5, _B, _D5, ("0.02544463", "0.02544463"), "cycle"),
    )),
    ("Appendix, Ackley 3", "ackley", _D4, (
        ("GD", 0.1, None, _D5, ("0.34391327", "0.34391327"), "chaotic"),
        ("Adam", 0.5, _B, _D5, ("0.02544463", "0.02544463"), "cycle"),
    )),
)
# fmt: on

_numbers = itertools.count(1)
ROWS: Final = tuple(
    Row(f"R{next(_numbers):02d}", slide, function, title, *result)
    for slide, function, title, results in _SLIDES
    for result in results
)
"""The 37 result rows of the deck."""


@dataclass(frozen=True)
class Evidence:
    """What the orbit of a run shows.

    Attributes
    ----------
    behaviour
        "diverges", "converges", "cycle", "chaotic" or "wanders"; see `observe`.
    overflow_step
        First step whose point is not finite; -1 if there is none. If there is one, everything below
        but `cells` says nothing (nan or 0).
    radius
        Largest |coordinate| in the last half of the run.
    cells
        Cells around integer points that the run visits while it is finite.
    lyapunov
        Rate at which nearby runs separate, per step, over the last half.
    rounding_gain
        Natural logarithm of the largest factor by which a rounding error made on the way is
        multiplied until the end.
    period
        Smallest period with which the last quarter repeats itself, 1 for a run at rest; 0 if none.
    stationary_x, stationary_y
        The stationary point that `observe` was given.
    distance
        Largest coordinate distance of the final point from it.
    contraction
        Largest distance in the last quarter over that in the third quarter.
    last_step
        Largest coordinate change in the last step.
    machine_dependent
        Whether the eighth decimal of the final point may differ on a machine that rounds otherwise.
    """

    behaviour: Behaviour
    overflow_step: int = -1
    radius: float = math.nan
    cells: int = 0
    lyapunov: float = math.nan
    rounding_gain: float = math.nan
    period: int = 0
    stationary_x: float = math.nan
    stationary_y: float = math.nan
    distance: float = math.nan
    contraction: float = math.nan
    last_step: float = math.nan
    machine_dependent: bool = False


SETTLED: Final = 1e-9
"""Distance below which two points count as the same: the deck prints eight decimals."""

LONGEST_PERIOD: Final = 64
"""Cycles longer than this are not looked for."""

ROUNDING: Final = 2.0**-52
"""Relative rounding error of float64."""


def overflow_step(points: Array) -> int:
    """Return the index of the first of `points`, shape (T + 1, 2), that is not finite, or -1."""
    finite = np.isfinite(points).all(axis=-1)
    return -1 if finite.all() else int(np.argmin(finite))


def observe(points: Array, growth: Array, stationary: Array) -> Evidence:
    """Classify a run by its orbit.

    The first of these that holds is its behaviour:

    - *diverges*: a point is not finite;
    - *converges*: from the third to the last quarter of the run the distance to `stationary` at
      least halves, or it is below `SETTLED` throughout the last quarter;
    - *cycle*: the last quarter repeats itself to `SETTLED` with a period of 2 to `LONGEST_PERIOD`;
    - *chaotic*: a rounding error made on the way grows by more than 1/`ROUNDING` until the end,
      which makes it as large as the orbit;
    - *wanders*: none of these. The run creeps, swings or bursts, and has not settled.

    Parameters
    ----------
    points
        Start and iterates, shape (T + 1, 2).
    growth
        Logarithm of the size that a small displacement of the start has grown to after each step,
        shape (T + 1,); see `tangent_growth`. Not used for a run that overflows.
    stationary
        Point that the run may approach, shape (2,). Not used for a run that overflows.

    Returns
    -------
    Evidence
        The behaviour, and what it was read off.

    Raises
    ------
    ValueError
        If the run has fewer than 8 steps.
    """
    steps = len(points) - 1
    if steps < 8:
        raise ValueError(f"a run needs at least 8 steps to be classified, not {steps}")
    overflow = overflow_step(points)
    finite = points[: overflow if overflow >= 0 else None]
    cells = len(np.unique(np.round(finite), axis=0))
    if overflow >= 0:
        return Evidence("diverges", overflow, cells=cells)

    half, quarter = steps // 2, steps - steps // 4
    distances = np.abs(points - stationary).max(axis=-1)
    before, after = distances[half:quarter].max(), distances[quarter:].max()
    period = _period(points, quarter)
    gain = growth[-1] - growth.min()
    behaviour: Behaviour
    if after < SETTLED or after <= before / 2:
        behaviour = "converges"
    elif period > 1:
        behaviour = "cycle"
    elif gain > -math.log(ROUNDING):
        behaviour = "chaotic"
    else:
        behaviour = "wanders"
    return Evidence(
        behaviour,
        radius=float(np.abs(points[half:]).max()),
        cells=cells,
        lyapunov=float((growth[-1] - growth[half]) / (steps - half)),
        rounding_gain=float(gain),
        period=period,
        stationary_x=float(stationary[0]),
        stationary_y=float(stationary[1]),
        distance=float(distances[-1]),
        contraction=float(after / before) if before > 0 else 0.0,
        last_step=float(np.abs(points[-1] - points[-2]).max()),
        machine_dependent=bool(gain > math.log(0.5e-8 / ROUNDING)),
    )


def _period(points: Array, since: int) -> int:
    """Return the smallest period of `points` from index `since` on, or 0."""
    for period in range(1, min(LONGEST_PERIOD, since) + 1):
        if np.abs(points[since:] - points[since - period : -period]).max() < SETTLED:
            return period
    return 0


def tangent_growth(landscape: Landscape, rule: Rule, run: Trajectory) -> Array:
    """Return how a small displacement of the start grows along a run.

    The derivative of one step is applied to a displacement δ of the parameters (and, for Adam, of
    the moments m and v), which is scaled back to |δ| = 1 every time. A generic first displacement
    turns into the direction that grows most, so the slope of the result is the largest Lyapunov
    exponent (Benettin, Galgani, Giorgilli & Strelcyn, 1980).

    Parameters
    ----------
    landscape
        The function; its gradient and Hessian must be those that made the run.
    rule
        `GradientDescent` or `Adam`.
    run
        A finite run of a single start.

    Returns
    -------
    ndarray
        log |δ| after each step, from 0 at the start; shape (T + 1,).

    Raises
    ------
    TypeError
        If `rule` is another rule.
    """
    points = run.points[:-1]
    hessian = landscape.hessian(points)
    delta = np.array([math.cos(1.0), math.sin(1.0)])
    growth = np.zeros(len(run.points))
    if isinstance(rule, GradientDescent):
        for t, jacobian in enumerate(np.eye(2) - rule.lr * hessian):
            delta = jacobian @ delta
            size = math.hypot(*delta)
            delta /= size
            growth[t + 1] = growth[t] + math.log(size)
        return growth
    if not isinstance(rule, Adam):
        raise TypeError(f"the step of {type(rule).__name__} is not differentiated here")
    beta1, beta2 = rule.betas
    taken = np.arange(1, len(run.points))[:, None]
    correction1, correction2 = 1 - beta1**taken, 1 - beta2**taken
    m, v = run.history["m"], run.history["v"]
    root = np.sqrt(v / correction2)
    # w ← w − η m̂ / (√v̂ + ε): its derivatives by m and by v. Where v = 0 all gradients were 0, and
    # the one by v meets a δv = 0.
    by_m = rule.lr / correction1 / (root + rule.eps)
    by_v = -by_m * m / (root + rule.eps) / (2 * correction2 * np.where(root > 0, root, np.inf))
    by_gradient = 2 * (1 - beta2) * landscape.gradient(points)
    delta_m, delta_v = np.zeros(2), np.zeros(2)
    for k in range(len(points)):
        delta_gradient = hessian[k] @ delta
        delta_m = beta1 * delta_m + (1 - beta1) * delta_gradient
        delta_v = beta2 * delta_v + by_gradient[k] * delta_gradient
        delta = delta - by_m[k] * delta_m - by_v[k] * delta_v
        size = math.hypot(*delta)
        delta, delta_m, delta_v = delta / size, delta_m / size, delta_v / size
        growth[k + 1] = growth[k] + math.log(size)
    return growth


def nearby_minimiser(landscape: Landscape, w: npt.ArrayLike, longest: float = 0.1) -> Array:
    """Return the local minimiser that a descending path from `w` leads to.

    Each step is Newton's with the curvatures made positive, at most `longest` long so that it
    stays in the valley, and halved until the value falls. Unlike Newton's own it cannot go to a
    saddle, and it ends at the tip of Ackley's cone too, where there is no gradient to vanish.

    Parameters
    ----------
    landscape
        The function, bounded below.
    w
        Point to start from, shape (2,).
    longest
        Longest step, as a coordinate distance.

    Returns
    -------
    ndarray
        The minimiser to about 1e-12, shape (2,).
    """
    point = np.array(w, dtype=np.float64)
    while True:
        gradient = landscape.gradient(point)
        if not gradient.any():
            return point
        curvatures, axes = np.linalg.eigh(landscape.hessian(point))
        move = axes @ (axes.T @ gradient / np.maximum(np.abs(curvatures), 1e-3))
        move *= min(1.0, longest / np.abs(move).max())
        value = landscape.value(point)
        while landscape.value(point - move) >= value:
            move /= 2
            if np.abs(move).max() < 1e-12:
                return point
        point = point - move


def exact_run(setting: Setting) -> tuple[Trajectory, Evidence]:
    """Return the run of a setting with the exact gradient, and what it shows.

    The point that the run may approach is the `nearby_minimiser` of its last point.
    """
    landscape = LANDSCAPES[setting.function]
    rule: GradientDescent | Adam = GradientDescent(setting.lr)
    if setting.betas is not None:
        rule = Adam(setting.lr, setting.betas, setting.eps)
    run = descend(rule, landscape.gradient, setting.start, setting.steps)
    if overflow_step(run.points) >= 0:
        nothing = np.full(2, np.nan)
        return run, observe(run.points, np.full(len(run.points), np.nan), nothing)
    growth = tangent_growth(landscape, rule, run)
    return run, observe(run.points, growth, nearby_minimiser(landscape, run.points[-1]))


HOPPING_RATES: Final = (1e-3, 2e-3, 4e-3, 5e-3, 6e-3, 8e-3, 1e-2, 1.1e-2, 1.2e-2, 1.5e-2, 2e-2)
"""Learning rates from below to above Rastrigin's stability limit 2/f″(0) ≈ 5.04e-3."""


def hopping(lr: float, steps: int) -> dict[str, float]:
    """Say how gradient descent on Rastrigin moves between cells, by the deck's convention.

    Parameters
    ----------
    lr
        Learning rate; the start is (−1, −1), as in the deck.
    steps
        Number of updates.

    Returns
    -------
    dict
        ``lr``; ``cell_changes``, the share of steps into another cell around an integer point;
        ``cells``, how many are visited; ``radius``, the largest |coordinate|; ``longest_step`` of a
        coordinate; ``median_value`` of the textbook function after each step; ``low_share``, the
        share of steps that end below a value of 1.
    """
    setting = Setting("rastrigin", "GD", lr, (-1.0, -1.0))
    points = np.array([setting.start, *itertools.islice(iterates(setting), steps)])
    cells, values = np.round(points), RASTRIGIN.value(points[1:])
    return {
        "lr": lr,
        "cell_changes": float((np.diff(cells, axis=0) != 0).any(axis=-1).mean()),
        "cells": len(np.unique(cells, axis=0)),
        "radius": float(np.abs(points).max()),
        "longest_step": float(np.abs(np.diff(points, axis=0)).max()),
        "median_value": float(np.median(values)),
        "low_share": float((values < 1).mean()),
    }


def shown_steps(steps: int, dense: int = 200, sparse: int = 200) -> npt.NDArray[np.int64]:
    """Return the steps to keep for drawing: the first `dense`, then about `sparse` log-spaced."""
    if steps <= dense:
        return np.arange(steps + 1)
    late = np.geomspace(dense, steps, sparse).round().astype(np.int64)
    return np.union1d(np.arange(dense), late)


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Compute every row of the deck.

    Parameters
    ----------
    profile
        At "smoke" the runs with the exact gradient and those of `hopping` take 1000 steps; at
        "quick" and "paper" the deck's 10 000. The deck's convention always takes the latter.

    Returns
    -------
    dict of DataFrame
        ``rows``: one line per row and reading (see `Row.readings`), with the final points of the
        exact run (``exact_x``, ``exact_y``) and of the deck's convention (``deck_x``, ``deck_y``),
        whether the latter has the printed digits, the exact run's behaviour, and its name ``run``.
        Where the start is unknown the results are nan, ``run`` and ``behaviour`` are empty and
        ``digits_match`` is False. ``libm_matches`` (the same in every line) says whether this
        platform rounds like the one on which the digits were matched.

        ``behaviour``: the `Evidence` of each distinct exact run.

        ``trajectories``: the finite points of each distinct exact run at `shown_steps`.

        ``hopping``: see `hopping`; one line per learning rate.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    steps = 1_000 if project.check_profile(profile) == "smoke" else STEPS
    runs: dict[Setting, tuple[str, Array, Evidence]] = {}
    rows, trajectories = [], []
    for row in ROWS:
        for reading, setting in row.readings():
            if setting not in runs:
                name = row.id if reading == "used" else f"{row.id} {reading}"
                exact, evidence = exact_run(dataclasses.replace(setting, steps=steps))
                runs[setting] = name, exact.points, evidence
                trajectories.append(_trajectory(name, exact.points))
            name, points, evidence = runs[setting]
            deck = outcome(setting)
            rows.append(
                _line(row, reading, setting.start, setting.betas)
                | {"exact_x": points[-1, 0], "exact_y": points[-1, 1]}
                | {"deck_x": deck[0], "deck_y": deck[1]}
                | {"digits_match": digits_match(deck, row.printed)}
                | {"behaviour": evidence.behaviour, "run": name}
                | {"machine_dependent": evidence.machine_dependent}
            )
        if row.start is None:
            nothing = dict.fromkeys(("exact_x", "exact_y", "deck_x", "deck_y"), math.nan)
            unknown = {
                "digits_match": False,
                "behaviour": "",
                "run": "",
                "machine_dependent": False,
            }
            rows.append(_line(row, "used", None, row.betas) | nothing | unknown)
    behaviour = [{"run": name} | dataclasses.asdict(seen) for name, _, seen in runs.values()]
    return {
        "rows": pd.DataFrame(rows).assign(libm_matches=libm_matches()),
        "behaviour": pd.DataFrame(behaviour),
        "trajectories": pd.concat(trajectories, ignore_index=True),
        "hopping": pd.DataFrame([hopping(lr, steps) for lr in HOPPING_RATES]),
    }


def _line(row: Row, reading: str, start: Point | None, betas: Betas | None) -> dict[str, object]:
    """Return what the table ``rows`` says of a row before it is computed."""
    columns: dict[str, object] = {
        "id": row.id,
        "reading": reading,
        "slide": row.slide,
        "function": row.function,
        "method": row.method,
        "lr": row.lr,
        "eps": row.eps,
        "steps": row.steps,
        "judged": row.judged,
        "printed_x": row.printed[0],
        "printed_y": row.printed[1],
    }
    nothing = (math.nan, math.nan)
    columns |= zip(("beta1_printed", "beta2_printed"), row.betas or nothing, strict=True)
    columns |= zip(("beta1", "beta2"), betas or nothing, strict=True)
    columns |= zip(("title_x", "title_y"), row.title_start or nothing, strict=True)
    columns |= zip(("table_x", "table_y"), row.table_start, strict=True)
    columns |= zip(("start_x", "start_y"), start or nothing, strict=True)
    return columns


def _trajectory(name: str, points: Array) -> pd.DataFrame:
    """Return the finite points of a run at the steps to draw."""
    kept = shown_steps(len(points) - 1)
    kept = kept[np.isfinite(points[kept]).all(axis=-1)]
    return pd.DataFrame({"run": name, "step": kept, "x": points[kept, 0], "y": points[kept, 1]})
