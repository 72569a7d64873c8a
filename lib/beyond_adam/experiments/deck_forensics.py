"""How the convention behind the deck "Adam (and beyond)" was found, and what each part decides.

The deck prints results but not the code that made them. The tables here show why gradient descent
"stops" at absurd points (it does not: its difference quotient stalls), what these points say about
the step of the difference quotient, which rows every other choice would lose, and which of the
deck's settings are slips of the pen.

The step from the printed digits
--------------------------------
Where f is huge, f(w + h e) and f(w − h e) are neighbours among the float64 numbers around f(w), so
their difference is a small integer j times the spacing ulp(f), and the quotient is j·ulp(f)/D with
D = 2h (central) or h (one-sided). One step of gradient descent then moves a coordinate by

    w_old − w_new = η · j · ulp(f(w_old)) / D,

so D·(w_old − w_new)/(η·ulp(f)) is an integer. Here w_new is printed (to nine digits), w_old is the
point before, which the exact gradient gives well enough, and ulp(f) only needs the power of two
below f. From [5, 0] the deck prints the x of step 3 and the y of step 2; from [3, 0] the x of step
4 and the y of step 3. Each is such an equation; an admissible D solves all four. `lattice` tries
them all.
"""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from beyond_adam import project
from beyond_adam.experiments.deck import ROWS, Row
from beyond_adam.experiments.deck_convention import (
    DECK,
    Convention,
    Point,
    Setting,
    difference_gradient,
    digits_match,
    iterates,
    libm_matches,
    objective,
    outcome,
)
from beyond_adam.landscapes import ROSENBROCK
from beyond_adam.reference import GradientDescent, descend

NAME = "deck-forensics"

Array = npt.NDArray[np.float64]

ROW: Final = {row.id: row for row in ROWS}
"""The deck's rows by id."""

STALLED: Final = ("R01", "R10")
"""The two distinct runs of gradient descent that diverge, from [5, 0] and [3, 0]."""


def used(row: Row) -> Setting:
    """Return the setting that a row's result belongs to.

    Raises
    ------
    ValueError
        If the deck does not give the start.
    """
    for _, setting in row.readings():
        return setting
    raise ValueError(f"the deck does not say where {row.id} starts")


def telling_rows() -> list[Row]:
    """Return the first row of each distinct setting; rows without a known start are left out."""
    distinct: dict[Setting, Row] = {}
    for row in ROWS:
        if row.start is not None:
            distinct.setdefault(used(row), row)
    return list(distinct.values())


def stall(steps: int = 8) -> pd.DataFrame:
    """Follow gradient descent from [5, 0] and [3, 0] to where its difference quotient vanishes.

    The y derivative becomes 0 when f no longer changes by half an ulp between y ± h, the x
    derivative when h is below half an ulp of x, so that x ± h = x. The iterate is then frozen.

    Returns
    -------
    DataFrame
        One line per row and step: ``id``, ``step``, the point ``x``, ``y``; ``f`` there; ``ulp_f``,
        ``ulp_x``, ``ulp_y``, the spacings of float64; ``difference_x``, ``difference_y``, the
        deck's gradient; ``exact_x``, ``exact_y``, the true one.
    """
    f = objective("rosenbrock")
    gradient = difference_gradient(f)
    lines = []
    for name in STALLED:
        setting = used(ROW[name])
        points = itertools.chain([setting.start], iterates(setting))
        for step, (x, y) in enumerate(itertools.islice(points, steps + 1)):
            difference, exact = gradient(x, y), ROSENBROCK.gradient((x, y))
            lines.append(
                {"id": name, "step": step, "x": x, "y": y, "f": f(x, y)}
                | {"ulp_f": math.ulp(f(x, y)), "ulp_x": math.ulp(x), "ulp_y": math.ulp(y)}
                | {"difference_x": difference[0], "difference_y": difference[1]}
                | {"exact_x": exact[0], "exact_y": exact[1]}
            )
    return pd.DataFrame(lines)


@dataclass(frozen=True)
class Equation:
    """What one printed coordinate says about the denominator D of the difference quotient.

    D · `slope` is an integer, up to D · `printed_error` + `start_error`.

    Attributes
    ----------
    slope
        |w_old − w_new| / (η · ulp(f)).
    printed_error
        The same with half a unit of the last printed digit for |w_old − w_new|.
    start_error
        How far w_old may be off: one step of its own lattice, as a part of this one.
    """

    slope: float
    printed_error: float
    start_error: float


def equations() -> list[Equation]:
    """Return the four equations for D, from the printed numbers alone; the sharpest is first.

    The points before the printed ones are those of the exact gradient, so no convention enters.
    """
    f = objective("rosenbrock")
    found = []
    for name, steps in zip(STALLED, ((3, 2), (4, 3)), strict=True):
        setting = used(ROW[name])
        rule = GradientDescent(setting.lr)
        points = descend(rule, ROSENBROCK.gradient, setting.start, max(steps)).points.tolist()
        for axis, (step, printed) in enumerate(zip(steps, ROW[name].printed, strict=True)):
            old = points[step - 1]
            ulp, ulp_before = math.ulp(f(*old)), math.ulp(f(*points[step - 2]))
            mantissa, exponent = printed.split("e")
            half_unit = 0.5 * 10.0 ** (int(exponent) - len(mantissa.partition(".")[2]))
            found.append(
                Equation(
                    slope=abs(old[axis] - float(printed)) / (setting.lr * ulp),
                    printed_error=half_unit / (setting.lr * ulp),
                    start_error=ulp_before / ulp,
                )
            )
    return found


def lattice(largest: float = 2e-6) -> Array:
    """Return every denominator D up to `largest` that the printed digits allow.

    The sharpest equation leaves a list of candidates, D = integer/slope; the others sieve it.

    Returns
    -------
    ndarray
        The candidates that remain, ascending; each is known to about three parts in 10⁹.
    """
    sharpest, *others = equations()
    candidates = np.arange(1, int(sharpest.slope * largest) + 1) / sharpest.slope
    known_to = sharpest.printed_error / sharpest.slope
    for equation in others:
        number = candidates * equation.slope
        margin = candidates * equation.printed_error + equation.start_error + number * known_to
        candidates = candidates[np.abs(number - np.round(number)) <= margin]
    return candidates


Form = Literal["central", "forward", "backward"]
FORMS: Final[tuple[Form, ...]] = ("central", "forward", "backward")

STEP_SIZES: Final = {
    "√(2·10⁻¹⁶)": math.sqrt(2e-16),
    "√2·10⁻⁸, one ulp more": 1e-8 * math.sqrt(2),
    "10⁻⁸": 1e-8,
    "2⁻²⁶ = √ε": 2.0**-26,
    "10⁻⁷": 1e-7,
    "10⁻⁶": 1e-6,
    "∛ε": (2.0**-52) ** (1 / 3),
    "10⁻⁵": 1e-5,
}
"""Steps that code for difference quotients commonly has, ε = 2⁻⁵², and the deck's."""


def step_scan(lattice_points: Array) -> pd.DataFrame:
    """Run the two diverging rows with every candidate step in every form of difference.

    The candidates are `STEP_SIZES` and the steps that `lattice` allows. A hundred updates are
    enough: the runs overflow or freeze within ten.

    Parameters
    ----------
    lattice_points
        Denominators D, as from `lattice`. They are known to nine digits only; each is rounded to
        the multiple of √(2·10⁻¹⁶)/2 that it agrees with in these.

    Returns
    -------
    DataFrame
        One line per step and form: ``step``, its name; ``h``; ``difference``; the final points
        ``R01_x``, ``R01_y``, ``R10_x``, ``R10_y``; ``R01_match``, ``R10_match``.
    """
    unit = math.sqrt(2e-16) / 2
    multiples = [round(denominator / unit) for denominator in lattice_points]
    candidates = [(form, name, h) for form in FORMS for name, h in STEP_SIZES.items()]
    for form, k in itertools.product(FORMS, multiples):
        h = k * unit / 2 if form == "central" else k * unit
        candidates.append((form, f"lattice {k}", h))
    lines = []
    for form, name, h in candidates:
        line: dict[str, object] = {"step": name, "h": h, "difference": form}
        for row in (ROW[name] for name in STALLED):
            convention = Convention(h=h, difference=form)
            x, y = outcome(dataclasses.replace(used(row), steps=100), convention)
            line |= {f"{row.id}_x": x, f"{row.id}_y": y}
            line |= {f"{row.id}_match": digits_match((x, y), row.printed)}
        lines.append(line)
    return pd.DataFrame(lines)


@dataclass(frozen=True)
class Variant:
    """One change of the convention, or of what every row has in common.

    Attributes
    ----------
    convention
        The changed convention.
    eps
        Adam's ε, if changed.
    more_steps
        Updates beyond 10 000.
    """

    convention: Convention = DECK
    eps: float | None = None
    more_steps: int = 0

    def outcome(self, setting: Setting) -> Point:
        """Return the last point of a run under this change."""
        eps = setting.eps if self.eps is None else self.eps
        steps = setting.steps + self.more_steps
        return outcome(dataclasses.replace(setting, eps=eps, steps=steps), self.convention)


VARIANTS: Final = {
    "the deck's convention": Variant(),
    "forward difference": Variant(Convention(difference="forward")),
    "backward difference": Variant(Convention(difference="backward")),
    "h = 10⁻⁸": Variant(Convention(h=1e-8)),
    "h = 2⁻²⁶": Variant(Convention(h=2.0**-26)),
    "h = 10⁻⁶": Variant(Convention(h=1e-6)),
    "h one ulp larger": Variant(Convention(h=math.nextafter(DECK.h, 1))),
    "Rastrigin with 20": Variant(Convention(rastrigin_constant=20)),
    "x·x for x**2": Variant(Convention(square="product")),
    "Rosenbrock as (100·b)·b": Variant(Convention(factor_first=True)),
    "Ackley from 20 + e": Variant(Convention(constant_first=True)),
    "ε inside the root": Variant(Convention(epsilon="inside root")),
    "ε to the uncorrected root": Variant(Convention(epsilon="uncorrected root")),
    "ε = 10⁻⁸": Variant(eps=1e-8),
    "no bias correction": Variant(Convention(bias_correction=False)),
    "9999 updates": Variant(more_steps=-1),
    "10 001 updates": Variant(more_steps=1),
}
"""One-at-a-time changes of the convention, the unchanged one first."""

BETA2_GRID: Final = (0.9, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99995, 0.99999, 0.999995, 0.999999)
"""Values of β₂ to try on R11, among them the printed 0.9999."""


def variants(rows: list[Row]) -> pd.DataFrame:
    """Recompute `rows` under every entry of `VARIANTS`.

    Returns
    -------
    DataFrame
        One line per variant and row: ``variant``, ``id``, ``x``, ``y``, ``digits_match``.
    """
    return pd.DataFrame(
        {"variant": name, "id": row.id, "x": point[0], "y": point[1]}
        | {"digits_match": digits_match(point, row.printed)}
        for name, variant in VARIANTS.items()
        for row in rows
        for point in [variant.outcome(used(row))]
    )


def beta2() -> pd.DataFrame:
    """Recompute R11, whose printed betas do not give its result, for each β₂ of `BETA2_GRID`.

    Returns
    -------
    DataFrame
        ``beta2``, ``x``, ``y``, ``digits_match``.
    """
    row = ROW["R11"]
    setting, beta1 = used(row), 0.99
    return pd.DataFrame(
        {"beta2": b, "x": x, "y": y, "digits_match": digits_match((x, y), row.printed)}
        for b in BETA2_GRID
        for x, y in [outcome(dataclasses.replace(setting, betas=(beta1, b)))]
    )


def starts() -> pd.DataFrame:
    """Recompute each row whose table gives another start than its title, from both.

    R07, found by Latin hypercube sampling, has no title and repeats the start of another slide; it
    is tried from there on both functions that it may mean.

    Returns
    -------
    DataFrame
        ``id``, ``origin`` ("title" or "table"), ``function``, ``start_x``, ``start_y``, ``x``,
        ``y``, ``digits_match``.
    """
    tried = []
    for row in ROWS:
        readings = dict(row.readings())
        if "table start" in readings:
            tried += [(row, "title", readings["used"]), (row, "table", readings["table start"])]
        elif not readings:
            tried += [
                (row, "table", Setting(name, row.method, row.lr, row.table_start, row.betas))
                for name in ("rastrigin", "ackley")
            ]
    return pd.DataFrame(
        {"id": row.id, "origin": origin, "function": setting.function}
        | {"start_x": setting.start[0], "start_y": setting.start[1], "x": point[0], "y": point[1]}
        | {"digits_match": digits_match(point, row.printed)}
        for row, origin, setting in tried
        for point in [outcome(setting)]
    )


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Compute the evidence.

    Parameters
    ----------
    profile
        At "smoke" the lattice ends at D = 10⁻⁷ and the variants are tried on three rows; at "quick"
        and "paper" at 2·10⁻⁶ and on all distinct rows.

    Returns
    -------
    dict of DataFrame
        ``stall``, ``step_scan``, ``variants``, ``beta2``, ``starts``: see the functions of these
        names; ``lattice``: each ``denominator`` that the printed digits allow, and its
        ``multiple`` of √(2·10⁻¹⁶)/2. Every table has a column ``libm_matches``: whether this
        platform rounds like the one on which the digits were matched.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    smoke = project.check_profile(profile) == "smoke"
    allowed = lattice(1e-7 if smoke else 2e-6)
    rows = [ROW[name] for name in ("R01", "R15", "R36")] if smoke else telling_rows()
    unit = math.sqrt(2e-16) / 2
    tables = {
        "stall": stall(),
        "lattice": pd.DataFrame({"denominator": allowed, "multiple": allowed / unit}),
        "step_scan": step_scan(allowed),
        "variants": variants(rows),
        "beta2": beta2(),
        "starts": starts(),
    }
    return {name: table.assign(libm_matches=libm_matches()) for name, table in tables.items()}
