"""The errata of the deck "Adam (and beyond)" on descent, each shown by computation.

One function an erratum, registered under its id in the ledger (``data/ledger``): it returns whether
the error shows, and a sentence with the numbers that show it. Runs of the deck's rows come from the
tables of the experiments; what takes well under a second is computed on the spot, always with the
deck's 10 000 steps.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from beyond_adam.experiments.deck_convention import DECK, STEPS, digits_match, iterates, objective
from beyond_adam.experiments.deck_forensics import ROW, VARIANTS, used
from beyond_adam.experiments.deck_statements import (
    SADDLE,
    SLOW_LR,
    STEP,
    ackley_mean_value,
    are_momentum_weights,
    deck_run,
    distance,
    end,
    lowest_on_grid,
    momentum_weights,
    power_weights,
    printed_adamax,
    rastrigin_digits,
    ravine_point,
    rosenbrock_descent,
    saddle_ends,
    training_losses,
)
from beyond_adam.landscapes import ACKLEY, PARABOLOID, RASTRIGIN, ROSENBROCK, polish
from beyond_adam.models import PointwiseCNN, digits_problem
from beyond_adam.reference import AdaMax, GradientDescent, Momentum, descend

Shown = tuple[bool, str]

TABLES: Final = ("rows", "behaviour", "trajectories", "hopping", "stall", "cooling", "rates")
"""The tables that `errata` needs."""


def first(table: pd.DataFrame) -> Any:
    """Return the first line of a table, its columns as attributes."""
    return next(table.itertuples())


@dataclass(frozen=True)
class Record:
    """What the experiments found, by table."""

    tables: Mapping[str, pd.DataFrame]

    def row(self, id: str, reading: str = "used") -> Any:
        """Return a line of the table ``rows``, its columns as attributes."""
        rows = self.tables["rows"]
        return first(rows[(rows["id"] == id) & (rows["reading"] == reading)])

    def seen(self, id: str) -> Any:
        """Return the line of the table ``behaviour`` for the run of a row, as attributes."""
        behaviour = self.tables["behaviour"]
        return first(behaviour[behaviour["run"] == self.row(id).run])


Proof = Callable[[Record], Shown]
PROOFS: Final[dict[str, Proof]] = {}
"""The proofs by id of the erratum."""


def proof(id: str) -> Callable[[Proof], Proof]:
    """Register a function as the proof of the erratum `id`."""

    def register(function: Proof) -> Proof:
        PROOFS[id] = function
        return function

    return register


def errata(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Prove every erratum of the deck on descent that can be computed.

    Parameters
    ----------
    tables
        The tables that the experiments `deck`, `deck_forensics` and `deck_statements` return, by
        name; those of `TABLES` are read. Records of the profile "smoke" stop some runs early, so
        that an erratum may not show.

    Returns
    -------
    DataFrame
        ``id`` of the erratum; ``shown``, whether it shows; ``how``, a sentence with the numbers.

    Raises
    ------
    ValueError
        If a table is missing.
    """
    missing = [name for name in TABLES if name not in tables]
    if missing:
        raise ValueError(f"tables missing: {', '.join(missing)}; needed: {', '.join(TABLES)}")
    record, lines = Record(tables), []
    for id, prove in sorted(PROOFS.items()):
        shown, how = prove(record)
        lines.append({"id": id, "shown": bool(shown), "how": how})
    return pd.DataFrame(lines)


def num(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits: 62516, −0.92, 1.7e20, 5e-10."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    mantissa = mantissa.replace("-", "−")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def point(w: Iterable[float], decimals: int = 8) -> str:
    """Write a point with so many decimals."""
    return "(" + ", ".join(f"{c:.{decimals}f}" for c in w).replace("-", "−") + ")"


def wide(w: Iterable[float]) -> str:
    """Write a point with nine significant digits in each coordinate, however large."""
    return "(" + ", ".join(num(c, 9) for c in w) + ")"


def exact_end(row: Any) -> tuple[float, float]:
    """Return the end of the exact run of a line of ``rows``."""
    return row.exact_x, row.exact_y


def deck_end(row: Any) -> tuple[float, float]:
    """Return the end of the run by the deck's convention of a line of ``rows``."""
    return row.deck_x, row.deck_y


def printed(row: Any) -> tuple[str, str]:
    """Return the end that the deck prints, as text."""
    return row.printed_x, row.printed_y


def printed_end(row: Any) -> tuple[float, float]:
    """Return the end that the deck prints, as numbers."""
    return float(row.printed_x), float(row.printed_y)


# Slides "Introduction" to "AdaMax" ----------------------------------------------------------------


@proof("aab-e01")
def vectors_have_no_order(_: Record) -> Shown:
    """Compare two values of f(w) = (w, −w): each is smaller in one component."""
    a, b = (np.array([w, 0 - w]) for w in (0, 1))
    ranked = bool(np.all(a <= b) or np.all(b <= a))
    return not ranked, (
        f"f(w) = (w, −w) is {point(a, 0)} at w = 0 and {point(b, 0)} at w = 1: "
        "each value is the smaller one in one component."
    )


@proof("aab-e02")
def convexity_is_not_needed(_: Record) -> Shown:
    """Show that Rosenbrock's function is not convex and has a minimiser."""
    curvature = float(np.linalg.eigvalsh(ROSENBROCK.hessian((0, 1)))[0])
    slope = float(np.abs(ROSENBROCK.gradient((1, 1))).max())
    value, lowest = float(ROSENBROCK.value((1, 1))), lowest_on_grid(ROSENBROCK)[1]
    return curvature < 0 and slope == 0 and value <= lowest, (
        f"Rosenbrock’s Hessian at (0, 1) has the eigenvalue {num(curvature)}, and (1, 1) is its "
        f"minimiser: f is {num(value)} there and nowhere lower on a grid over [−10, 10]²."
    )


@proof("aab-e04")
def descent_does_not_stop(_: Record) -> Shown:
    """Show that every run leaves the saddle, and that the one in the ravine arrives."""
    ends = saddle_ends(steps=500)
    to_minimum = np.linalg.norm(ends[:, None] - SADDLE.minimisers, axis=-1).min(axis=-1)
    arrived = int((to_minimum < 1e-6).sum())
    remaining = distance(rosenbrock_descent((0.0, 0.0), SLOW_LR, 50_000), (1, 1))
    return arrived == len(ends) and remaining < 1e-8, (
        f"{arrived} of {len(ends)} runs that start next to a saddle reach a minimum, and 50 000 "
        f"steps through Rosenbrock’s ravine end {num(remaining, 2)} from (1, 1)."
    )


@proof("aab-e05")
def momentum_at_equal_rate_is_no_remedy(_: Record) -> Shown:
    """Show that momentum at the same rate ends where gradient descent does, and survives more."""
    plain, averaged = GradientDescent(SLOW_LR), Momentum(SLOW_LR)
    ravine = [float(end(rule, ROSENBROCK, (0, 0), STEPS)[0]) for rule in (averaged, plain)]
    cell = [float(end(rule, RASTRIGIN, (-5, -5), STEPS)[0]) for rule in (averaged, plain)]
    with_momentum = end(Momentum(10 * SLOW_LR), ROSENBROCK, (0, 0), STEPS)
    without = end(GradientDescent(10 * SLOW_LR), ROSENBROCK, (0, 0), STEPS)
    no_gain = abs(1 - ravine[0]) > abs(1 - ravine[1]) / 2 and abs(cell[0] - cell[1]) < 1e-6
    survives = bool(np.isfinite(with_momentum).all() and not np.isfinite(without).all())
    return no_gain and survives, (
        f"With η = {num(SLOW_LR)} both go to x = {num(ravine[0], 4)} and {num(ravine[1], 4)} in "
        f"Rosenbrock’s ravine and to x = {num(cell[0], 6)} and {num(cell[1], 6)} on Rastrigin; "
        f"with η = {num(10 * SLOW_LR)} momentum reaches {point(with_momentum, 4)} and gradient "
        f"descent {point(without, 4)}."
    )


@proof("aab-e06")
def printed_momentum_fades(_: Record) -> Shown:
    """Show that the printed exponent gives the weights in the wrong order."""
    as_printed, recursion = power_weights(STEP), momentum_weights()
    reversed_order = as_printed[0] > as_printed[-1] and recursion[0] < recursion[-1]
    corrected = are_momentum_weights(power_weights(STEP[-1] - STEP))
    return bool(reversed_order) and corrected, (
        f"Of {len(STEP)} gradients, the printed sum gives the oldest the weight "
        f"{num(as_printed[0], 2)} and the newest {num(as_printed[-1], 2)}; the recursion gives "
        f"{num(recursion[0], 2)} and {num(recursion[-1], 2)}, as the corrected sum does."
    )


@proof("aab-e07")
def printed_adamax_divides_by_zero(_: Record) -> Shown:
    """Show that a coordinate without a gradient gives 0/0."""
    as_printed = printed_adamax(PARABOLOID.gradient, (1, 0), lr=2e-3, steps=1)[1]
    guarded = end(AdaMax(2e-3), PARABOLOID, (1, 0), 1)
    return bool(np.isnan(as_printed[0]) and np.isfinite(guarded).all()), (
        f"The printed step on the paraboloid from (1, 0) leads to {point(as_printed, 3)}, a "
        f"guarded one to {point(guarded, 3)}."
    )


@proof("aab-e08")
def adamax_has_its_own_rate(_: Record) -> Shown:
    """Show that AdaMax's default rate is twice Adam's, and that the first step is as long."""
    parameter = [torch.zeros(1)]
    adamax = torch.optim.Adamax(parameter).defaults["lr"]
    adam = torch.optim.Adam(parameter).defaults["lr"]
    ends = [printed_adamax(ROSENBROCK.gradient, (3, 0), lr, 1)[1] for lr in (adamax, adam)]
    long, short = (float(np.abs(w - (3, 0)).max()) for w in ends)
    as_long = np.allclose((long, short), (adamax, adam), rtol=1e-6)
    return math.isclose(adamax, 2 * adam) and as_long, (
        f"PyTorch’s defaults are {num(adamax)} for AdaMax and {num(adam)} for Adam; from (3, 0) on "
        f"Rosenbrock AdaMax’s first steps are then {num(long)} and {num(short)} long."
    )


@proof("aab-e09")
def beta2_varies(record: Record) -> Shown:
    """List the values of β₂ that the tables print, and one that belongs to a result."""
    rows = record.tables["rows"]
    betas = sorted(rows["beta2_printed"].dropna().unique())
    misprint = record.row("R11")
    return betas != [0.999] and misprint.digits_match, (
        f"The Adam tables print β₂ = {', '.join(num(b, 6) for b in betas)}; the digits of one of "
        f"them belong to {num(misprint.beta2, 6)}."
    )


# Slides "Optimization tests" ----------------------------------------------------------------------


def following(row: str, count: int) -> npt.NDArray[np.float64]:
    """Return the points of a row's run by the deck's convention from step 10 000 on."""
    setting = used(ROW[row])
    return np.array(list(itertools.islice(iterates(setting), STEPS - 1, STEPS - 1 + count)))


@proof("aab-e11")
def last_iterates_are_no_results(record: Record) -> Shown:
    """Show that one step more prints another end."""
    at_end, one_later = following("R35", 2)
    last_step = record.seen("R05").last_step
    return float(np.abs(one_later - at_end).max()) > 1e-8 and last_step > 1e-8, (
        f"Adam with η = 0.5 on Ackley is at {point(at_end)} after 10 000 steps and at "
        f"{point(one_later)} after 10 001; gradient descent with η = 0.02 on Rastrigin still moves "
        f"by {num(last_step, 2)} in its last step."
    )


@proof("aab-e12")
def start_is_on_a_wall(_: Record) -> Shown:
    """Measure how far (5, 0) is from the floor of the ravine."""
    away = distance((5, 0), ravine_point(5, 0))
    value = float(ROSENBROCK.value((5, 0)))
    wall = value - float(ROSENBROCK.value((5, 25)))
    return away > 0.5 and wall > value / 2, (
        f"(5, 0) is {num(away)} away from the floor y = x²; f is {num(value, 5)} there, of which "
        f"the step off the floor makes up {num(wall, 5)}."
    )


@proof("aab-e13")
def a_smaller_rate_settles(record: Record) -> Shown:
    """Show that the rate is above the stability limit, and that below it the run arrives."""
    curvature = float(np.linalg.eigvalsh(ROSENBROCK.hessian((5, 0)))[-1])
    remaining = distance(rosenbrock_descent((5.0, 0.0), 5e-5, 1_000_000), (1, 1))
    behaviour, limit = record.seen("R01").behaviour, 2 / curvature
    return behaviour == "diverges" and 5e-5 < limit < SLOW_LR and remaining < 1e-8, (
        f"The curvature at (5, 0) is {num(curvature, 5)}, so η may be {num(limit, 2)} there; with "
        f"η = {num(SLOW_LR)} the run {behaviour}, with 5e-5 it is {num(remaining, 2)} from (1, 1) "
        "after a million steps."
    )


@proof("aab-e14")
def the_rates_decide(record: Record) -> Shown:
    """Find rates that put gradient descent in front; compare both at the best of equal rates."""
    descent = rosenbrock_descent((5.0, 0.0), 6e-5, STEPS)
    adam = exact_end(record.row("R23"))
    ahead = distance(descent, (1, 1)) < distance(adam, (1, 1))
    rates = record.tables["rates"]
    best = [float(rates.loc[rates["method"] == name, "f"].min()) for name in ("GD", "Adam")]
    return ahead and record.seen("R01").behaviour == "diverges", (
        f"From (5, 0) gradient descent with η = 6e-5 ends at {point(descent, 3)}, Adam with "
        f"η = 0.01 at {point(adam, 3)}; at the best of the same {rates['lr'].nunique()} rates the "
        f"one ends at f = {num(best[0], 2)}, the other at {num(best[1], 2)}."
    )


def difference_stalls(record: Record, id: str) -> Shown:
    """Show that a row's difference quotient vanishes where the exact gradient does not."""
    stall = record.tables["stall"]
    run, row = stall[stall["id"] == id], record.row(id)
    flat_y, flat_x = run[run["difference_y"] == 0], run[run["difference_x"] == 0]
    if flat_y.empty or flat_x.empty:
        return False, f"The difference quotient does not vanish within {len(run) - 1} steps."
    y_stalls, x_stalls = first(flat_y), first(flat_x)
    printed_there = digits_match((x_stalls.x, x_stalls.y), printed(row))
    sloped = y_stalls.exact_y != 0 and x_stalls.exact_x != 0 and x_stalls.ulp_x > 2 * DECK.h
    overflow = record.seen(id).overflow_step
    return printed_there and sloped and overflow > 0, (
        f"The exact iterates overflow at step {overflow}. In the deck’s arithmetic f is "
        f"{num(y_stalls.f)} after {y_stalls.step} steps and the same at y ± h, and after "
        f"{x_stalls.step} steps x ± h is x: both differences are 0, where the gradient is "
        f"({num(x_stalls.exact_x)}, {num(x_stalls.exact_y)}), and the iterate stands still for the "
        f"other {row.steps - x_stalls.step} steps."
    )


@proof("aab-e15")
def descent_from_5_stalls(record: Record) -> Shown:
    """Show that the printed end of the run from (5, 0) is where it stalls."""
    return difference_stalls(record, "R01")


CONSTANTS: Final = (0, 1, 10, 20, 30, 40, 50, 60, 64, 80, 90, 99, 100, 101, 110, 120, 128, 200, 256)
"""Additive constants of Rastrigin's function to try."""


@proof("aab-e16")
def rastrigin_has_another_constant(_: Record) -> Shown:
    """Show that of many constants only 100 gives the digits."""
    found = [constant for constant in CONSTANTS if rastrigin_digits(constant)]
    lowest = objective("rastrigin")(0.0, 0.0)
    return found == [DECK.rastrigin_constant], (
        f"Of {len(CONSTANTS)} constants from {CONSTANTS[0]} to {CONSTANTS[-1]}, those that return "
        "all digits of the three rows that depend on rounding are: "
        f"{', '.join(map(str, found)) or 'none'}. By the deck’s convention f is {num(lowest)} at "
        "the origin."
    )


@proof("aab-e17")
def exact_runs_stay_on_the_diagonal(record: Record) -> Shown:
    """Show that an exact gradient keeps x = y, where the printed ends have x ≠ y."""
    rows = [record.row(id) for id in ("R04", "R06", "R05")]
    starts_equal = all(row.start_x == row.start_y for row in rows)
    exact = [abs(row.exact_x - row.exact_y) for row in rows]
    deck = [abs(np.subtract(*printed_end(row))) for row in rows]
    return starts_equal and max(exact) == 0 and min(deck) > 0, (
        f"With the exact gradient x − y is {num(max(exact))} at the end of all three runs; the "
        f"printed ends have |x − y| = {', '.join(num(d) for d in deck)}."
    )


@proof("aab-e18")
def adam_lands_in_another_minimum(record: Record) -> Shown:
    """Follow Adam with η = 1 from cell to cell to where it is caught."""
    trajectories = record.tables["trajectories"]
    path = trajectories[trajectories["run"] == record.row("R04").run]
    points, step = path[["x", "y"]].to_numpy(), path["step"].to_numpy()
    cell = np.round(points[-1])
    minimum = polish(RASTRIGIN, cell)
    outside = np.any(np.round(points) != cell, axis=-1)
    length, reach = float(np.abs(points[1] - points[0]).max()), float(np.abs(points).max())
    value, moved = float(RASTRIGIN.value(minimum)), not np.array_equal(cell, np.round(points[0]))
    return moved and value > 1, (
        f"The first step is {num(length)} long, as the period of the ripples; the run gets out to "
        f"{num(reach)} and stays in the cell of {point(minimum, 5)} after step "
        f"{step[outside].max(initial=0)}. There f is {num(value)}, and {num(RASTRIGIN.minimum)} at "
        "the global minimum."
    )


@proof("aab-e20")
def descent_on_rastrigin_is_chaotic(record: Record) -> Shown:
    """Show that two orbits that start together part within 30 steps."""
    pair = [(-1, -1), (-1 + 1e-15, -1 + 1e-15)]
    orbits = descend(GradientDescent(2e-2), RASTRIGIN.gradient, pair, 100).points
    apart = np.abs(orbits[:, 0] - orbits[:, 1]).max(axis=-1)
    step, row = int(np.argmax(apart > 1)), record.row("R05")
    parted = bool(apart[step] > 1 and step <= 30)
    return parted and not digits_match(exact_end(row), printed(row)), (
        f"Two orbits {num(apart[0], 2)} apart are {num(apart[step], 2)} apart after {step} steps; "
        f"the exact gradient ends at {point(exact_end(row), 3)}, not at "
        f"{point(printed_end(row), 3)}."
    )


@proof("aab-e21")
def jumps_do_not_lead_to_minima(record: Record) -> Shown:
    """Show that the rate is above the stability limit, and f mostly above that of the start."""
    hopping = record.tables["hopping"]
    seen = first(hopping[hopping["lr"] == 2e-2])
    limit, start = 2 / float(RASTRIGIN.hessian((0, 0))[0, 0]), float(RASTRIGIN.value((-1, -1)))
    return seen.lr > limit and seen.median_value > start and seen.low_share < 0.01, (
        f"η = {num(seen.lr)} is {num(seen.lr / limit, 2)} times the limit {num(limit, 2)} at a "
        f"minimum. The median of f over the run is {num(seen.median_value)}, against {num(start)} "
        f"at the start, and f is below 1 after {num(100 * seen.low_share, 2)} % of the steps."
    )


# Networks -----------------------------------------------------------------------------------------


def epoch_loss(**changed: Any) -> float:
    """Return the mean loss of gradient descent's last epoch; one epoch at η = 0.1, if unchanged."""
    settings = {"epochs": 1, "descent_lr": 0.1} | changed
    losses = training_losses("gradient descent", **settings)
    return float(np.mean(losses[-(len(losses) // settings["epochs"]) :]))


OMITTED: Final[Mapping[str, Mapping[str, Any]]] = {
    "twice the width": {"hidden": (64, 64)},
    "tanh": {"activation": "tanh"},
    "twice the batch": {"batch": 64},
    "a second epoch": {"epochs": 2},
    "twice the rate": {"descent_lr": 0.2},
}
"""One change for each setting that the slide on the MLP leaves out."""


@proof("aab-e22")
def loss_depends_on_what_is_missing(_: Record) -> Shown:
    """Show that each setting that is missing changes the loss."""
    base = epoch_loss()
    losses = {name: epoch_loss(**changed) for name, changed in OMITTED.items()}
    changes = ", ".join(f"{num(loss, 4)} with {name}" for name, loss in losses.items())
    return all(abs(loss - base) > 1e-3 for loss in losses.values()), (
        "An MLP on the digits has the mean loss "
        f"{num(base, 4)} over one epoch of gradient descent; {changes}."
    )


@proof("aab-e23")
def surface_depends_on_what_is_missing(_: Record) -> Shown:
    """Show that other images or other targets are another surface."""
    standardised = digits_problem()
    shifted = standardised.images - standardised.images.min()
    surfaces = {
        "standardised digits": standardised,
        "digits from 0 up": PointwiseCNN(shifted, standardised.targets),
        "targets of another teacher": digits_problem(teacher=(-1.5, 1.0)),
    }
    losses = {name: float(problem.value((1, 1))) for name, problem in surfaces.items()}
    listed = ", ".join(f"{num(loss)} for {name}" for name, loss in losses.items())
    distinct = min(abs(a - b) for a, b in itertools.combinations(losses.values(), 2)) > 1e-3
    return distinct, f"At the weights (1, 1) the loss is {listed}."


# Appendix, Rosenbrock -----------------------------------------------------------------------------


@proof("aab-e53")
def descent_from_3_stalls(record: Record) -> Shown:
    """Show that the printed end of the run from (3, 0) is where it stalls."""
    return difference_stalls(record, "R10")


@proof("aab-e54")
def beta2_is_misprinted(record: Record) -> Shown:
    """Show that the printed β₂ gives another end."""
    meant, as_printed = record.row("R11"), record.row("R11", "printed betas")
    exact = digits_match(exact_end(meant), printed(meant))
    return meant.digits_match and exact and not as_printed.digits_match, (
        f"β₂ = {num(as_printed.beta2, 6)} gives {point(deck_end(as_printed))}; "
        f"β₂ = {num(meant.beta2, 6)} gives {point(deck_end(meant))}, with the exact gradient "
        f"{point(exact_end(meant))}."
    )


@proof("aab-e55")
def ones_are_typed_by_hand(record: Record) -> Shown:
    """Print the run's end as NumPy does, with decimal points."""
    row = record.row("R13")
    text = np.array2string(np.array(deck_end(row)), separator=", ", precision=8)
    return row.digits_match and text != f"[{row.printed_x} , {row.printed_y}]" and "." in text, (
        f"The run ends at 1 − {num(1 - row.deck_x, 2)} and 1 − {num(1 - row.deck_y, 2)}, which "
        f"NumPy prints as `{text}`."
    )


@proof("aab-e56")
def four_digits_belong_to_the_method(record: Record) -> Shown:
    """Show that the exact gradient gives the first four decimals and no more."""
    row = record.row("R15")
    four = np.array_equal(np.round(exact_end(row), 4), np.round(printed_end(row), 4))
    return four and not digits_match(exact_end(row), printed(row)), (
        f"The exact gradient gives {point(exact_end(row))}, which agrees with the printed "
        f"{point(printed_end(row))} to four decimals."
    )


@proof("aab-e57")
def no_digit_belongs_to_the_method(record: Record) -> Shown:
    """Show that the exact gradient ends elsewhere in the valley, as rounding errors grow."""
    row, gain = record.row("R17"), record.seen("R17").rounding_gain
    ends = exact_end(row), printed_end(row)
    apart = float(np.abs(np.subtract(*ends)).max())
    in_valley = all(np.abs(np.subtract(w, 1)).max() < 0.25 for w in ends)
    return row.machine_dependent and apart > 0.01 and in_valley, (
        f"The exact gradient gives {point(ends[0])}, {num(apart, 2)} from the printed end; on the "
        f"way the orbit amplifies a rounding error by up to e to the {num(gain, 2)}."
    )


@proof("aab-e58")
def table_of_slide_7_is_stale(record: Record) -> Shown:
    """Show that (5, 0) gives the printed pair, and (3, 0) that of slides 1 to 5."""
    title, table, other = record.row("R22"), record.row("R22", "table start"), record.row("R10")
    shown = title.digits_match and digits_match(deck_end(table), printed(other))
    return shown and not table.digits_match, (
        f"From (5, 0) the run ends at {wide(deck_end(title))}, from (3, 0) at "
        f"{wide(deck_end(table))}; the table prints {wide(printed_end(title))}, and slides 1 to 5 "
        f"print {wide(printed_end(other))}."
    )


@proof("aab-e59")
def descent_table_of_slide_8_is_stale(record: Record) -> Shown:
    """Show that (0, 0) gives the printed pair, and that from (3, 0) the run diverges."""
    title, table = record.row("R24"), record.row("R24", "table start")
    return title.digits_match and table.behaviour == "diverges", (
        f"From (0, 0) the run ends at {point(deck_end(title))}, and {point(printed_end(title))} is "
        f"printed; from (3, 0) it {table.behaviour}."
    )


@proof("aab-e60")
def adam_table_of_slide_8_is_stale(record: Record) -> Shown:
    """Show that (0, 0) gives the printed pair, and (5, 0) that of slide 6."""
    title, table, other = record.row("R25"), record.row("R25", "table start"), record.row("R21")
    shown = title.digits_match and digits_match(deck_end(table), printed(other))
    return shown and not table.digits_match, (
        f"From (0, 0) the run ends at {point(deck_end(title))}, from (5, 0) at "
        f"{point(deck_end(table))}; the table prints {point(printed_end(title))}, and slide 6 "
        f"prints {point(printed_end(other))}."
    )


ROUNDINGS: Final = (
    "h = 10⁻⁸",
    "h = 2⁻²⁶",
    "h one ulp larger",
    "x·x for x**2",
    "Rosenbrock as (100·b)·b",
)
"""The entries of `VARIANTS` that only round Rosenbrock's gradient in another way."""


@proof("aab-e61")
def end_of_slide_8_is_rounding(record: Record) -> Shown:
    """Show that the exact gradient, and other ways to round it, end elsewhere near (1, 1)."""
    row = record.row("R25")
    ends = [VARIANTS[name].outcome(used(ROW["R25"])) for name in ROUNDINGS]
    moved = max(float(np.abs(np.subtract(w, printed_end(row))).max()) for w in ends)
    exact = exact_end(row)
    return 1e-3 < moved < 0.1 and not digits_match(exact, printed(row)), (
        f"The exact gradient gives {point(exact)}, and {len(ends)} other ways to round it move the "
        f"end by up to {num(moved, 2)}."
    )


# Appendix, Rastrigin and Ackley -------------------------------------------------------------------


@proof("aab-e62")
def descent_does_move(record: Record) -> Shown:
    """Show that gradient descent goes to the minimum of its cell."""
    row = record.row("R28")
    w = np.array(exact_end(row))
    moved, left = float(np.abs(w + 1).max()), distance(w, polish(RASTRIGIN, (-1, -1)))
    slope = float(np.abs(RASTRIGIN.gradient(w)).max())
    return moved > 1e-3 and left < 1e-8, (
        f"The run goes by {num(moved, 2)} in each coordinate to {point(w)}, where the gradient is "
        f"{num(slope, 2)}."
    )


def stale_tables(record: Record, id: str, other: str, told: Literal["GD", "Adam"]) -> Shown:
    """Show that both rows of an Ackley slide have the title's start, not the table's.

    The sentence tells where the method `told` ends from the table's start.
    """
    title = [record.row(name) for name in (id, other)]
    table = [record.row(name, "table start") for name in (id, other)]
    right, wrong = (sum(row.digits_match for row in rows) for rows in (title, table))
    row = next(row for row in table if row.method == told)
    name = "gradient descent" if told == "GD" else told
    return right == len(title) and wrong == 0, (
        f"From (−4, −4) {right} of the {len(title)} printed pairs return, from (−5, −5) {wrong}: "
        f"{name} ends at {point(deck_end(row))} from there."
    )


@proof("aab-e63")
def tables_of_ackley_1_are_stale(record: Record) -> Shown:
    """Show that (−4, −4) gives both printed pairs, and (−5, −5) none."""
    return stale_tables(record, "R32", "R33", "GD")


@proof("aab-e64")
def adam_oscillates_on_ackley_1(record: Record) -> Shown:
    """Show that the run swings round the local minimum by far more than the printed digits."""
    points, _ = deck_run("R33")
    row, minimum = record.row("R33"), polish(ACKLEY, (-4, -4))
    reach = float(np.abs(points[-1000:] - minimum).max())
    return 1e-3 < reach < 0.1 and not digits_match(exact_end(row), printed(row)), (
        f"The last 1000 iterates reach {num(reach, 2)} from the local minimum {point(minimum)}; "
        f"the exact gradient ends at {point(exact_end(row))}."
    )


@proof("aab-e65")
def tables_of_ackley_2_are_stale(record: Record) -> Shown:
    """Show that (−4, −4) gives both printed pairs, and (−5, −5) none."""
    return stale_tables(record, "R34", "R35", "Adam")


@proof("aab-e66")
def adam_cycles_on_ackley(record: Record) -> Shown:
    """Show that six points repeat, of which the printed one is the first."""
    points, row = following("R35", 7), record.row("R35")
    repeats = bool(np.abs(points[6] - points[0]).max() < 1e-8)
    as_printed = [digits_match((x, y), printed(row)) for x, y in points[:6].tolist()]
    return repeats and as_printed == [True, *[False] * 5], (
        f"From step 10 000 on x is {', '.join(num(x, 6) for x in points[:6, 0])} and then "
        f"{num(points[6, 0], 6)} again, of which the printed one is the first."
    )


@proof("aab-e67")
def a_falling_rate_settles(record: Record) -> Shown:
    """Show that with a linearly falling rate the same run comes to rest."""
    cooling = record.tables["cooling"]
    last = cooling.loc[cooling.groupby("schedule")["step"].idxmax()].set_index("schedule")
    falling, constant = (float(last["distance"][s]) for s in ("linear decay", "constant"))
    return falling < 1e-4 and constant > 1e-3, (
        f"With η falling linearly to 0 the run ends {num(falling, 2)} from the minimum, at a "
        f"constant rate {num(constant, 2)}."
    )


@proof("aab-e68")
def tables_of_ackley_3_are_stale(record: Record) -> Shown:
    """Show that (−4, −4) gives both printed pairs, and (−5, −5) none."""
    return stale_tables(record, "R36", "R37", "GD")


@proof("aab-e69")
def descent_on_ackley_is_chaotic(record: Record) -> Shown:
    """Show that the orbit amplifies differences at every step."""
    row, seen = record.row("R36"), record.seen("R36")
    return seen.behaviour == "chaotic" and not digits_match(exact_end(row), printed(row)), (
        f"The orbit multiplies a difference by {num(math.exp(seen.lyapunov), 2)} per step; the "
        f"exact gradient ends at {point(exact_end(row), 3)}."
    )


@proof("aab-e70")
def a_large_rate_does_not_settle(_: Record) -> Shown:
    """Show that Ackley is a cone near its minimum, and where the larger rate does worse."""
    starts = [(-4, -4), (-5, -5)]
    large, small = (ackley_mean_value(lr, starts, STEPS) for lr in (0.1, SLOW_LR))
    slope = float(np.linalg.norm(ACKLEY.gradient((1e-9, 0))))
    return slope > 1 and large[0] > 1 and large[1] > small[1], (
        f"The slope next to 0 is {num(slope)}. From (−4, −4) the mean of f over the last 1000 "
        f"steps is {num(large[0])} with η = 0.1; from (−5, −5) it is {num(large[1])}, against "
        f"{num(small[1])} with η = 0.001."
    )
