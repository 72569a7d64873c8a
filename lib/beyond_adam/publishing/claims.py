"""The ledger of what the sources state, and the verdicts measurements give.

One YAML file a source in ``data/ledger/`` lists its claims, each with the criterion that a
measurement has to meet and where that criterion comes from, and its errata. The criterion is
written before the measurement; nothing here can change it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeGuard

import yaml

from beyond_adam import project

Measured = float | Sequence[float] | Sequence[tuple[float, float]] | bool | str


class Verdict(StrEnum):
    """What a measurement says of a claim."""

    REPRODUCED = "reproduced"
    WITHIN = "within criterion"
    MISPRINT = "misprint (corrected)"
    FALSE = "false as stated"
    DIFFERS = "differs"
    UNDECIDED = "undecided"
    UNTESTABLE = "untestable"
    NOT_YET = "not yet measured"

    @property
    def symbol(self) -> str:
        """A sign that tells the verdicts apart without colour."""
        return _SYMBOLS[self]

    @property
    def css(self) -> str:
        """The class of the verdict's badge on a page."""
        return "ba-" + self.name.lower().replace("_", "-")


_SYMBOLS: Final = {
    Verdict.REPRODUCED: "✓",
    Verdict.WITHIN: "≈",
    Verdict.MISPRINT: "✎",
    Verdict.FALSE: "⊘",
    Verdict.DIFFERS: "✗",
    Verdict.UNDECIDED: "±",
    Verdict.UNTESTABLE: "?",
    Verdict.NOT_YET: "…",
}

_CRITERIA: Final = {
    "value": {"tolerance", "relative", "decimals"},
    "near": {"centre", "radius"},
    "interval": {"low", "high"},
    "behaviour": {"expected"},
    "paired": set[str](),
    "holds": set[str](),
}


class LedgerError(ValueError):
    """The ledger, or a call that refers to it, is wrong."""


@dataclass(frozen=True)
class Claim:
    """One statement of a source, with the criterion a measurement is held to.

    Attributes
    ----------
    id, source
        Unique name, and the ledger file it stands in.
    where, statement
        The place in the source, and what it states, in our words.
    published
        The numbers as printed; empty for a statement without numbers.
    measure, criterion, reason
        How it is measured, what counts as agreement, and why that.
    chapter
        The chapter that measures it.
    untestable
        Why it cannot be measured; empty if it can.
    correction
        What has to be read in place of a misprint; empty if nothing.
    """

    id: str
    source: str
    where: str
    statement: str
    chapter: str
    measure: str = ""
    reason: str = ""
    published: tuple[str, ...] = ()
    criterion: dict[str, Any] = field(default_factory=dict)
    untestable: str = ""
    correction: str = ""

    @property
    def criterion_text(self) -> str:
        """The criterion in words."""
        c = self.criterion
        match c.get("kind"):
            case "value" if "tolerance" in c:
                return f"within ±{c['tolerance']:g} of the published value"
            case "value" if "relative" in c:
                return f"within ±{100 * c['relative']:g} % of the published value"
            case "value":
                return "every printed digit"
            case "near":
                return f"within {c['radius']:g} of {_point(c['centre'])}"
            case "interval":
                low, high = c.get("low"), c.get("high")
                if low is None:
                    return f"at most {high:g}"
                return f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
            case "behaviour":
                return f"the run {_BEHAVIOURS[c['expected']]}"
            case "paired":
                return "the 95 % interval of the paired differences has the stated sign"
            case "holds":
                return "the statement holds"
        return "cannot be measured"


_BEHAVIOURS: Final = {
    "diverges": "diverges",
    "converges": "converges",
    "cycle": "ends in a limit cycle",
    "chaotic": "is chaotic and bounded",
    "wanders": "wanders without settling",
}


def _point(values: Sequence[float] | float) -> str:
    numbers = values if isinstance(values, Sequence) else [values]
    text = ", ".join(f"{value:g}" for value in numbers)
    return f"({text})" if len(numbers) > 1 else text


@dataclass(frozen=True)
class Erratum:
    """One error of a source: what is printed, what is right, and how one can tell.

    `evident` marks slips that one sees in the source, with nothing to compute.
    """

    id: str
    source: str
    where: str
    printed: str
    correct: str
    why: str
    chapter: str
    evident: bool = False


@dataclass(frozen=True)
class Source:
    """A source work with everything the ledger holds about it."""

    name: str
    title: str
    authors: str
    cite: str
    claims: dict[str, Claim]
    errata: dict[str, Erratum]


def read_source(file: Path) -> Source:
    """Read and check one file of the ledger.

    Raises
    ------
    LedgerError
        If an entry is incomplete, its criterion is unknown, or an id appears twice; the message
        names the file, the entry and what is allowed.
    """
    raw = yaml.safe_load(file.read_text())
    name = file.stem
    try:
        if raw["source"] != name:
            raise LedgerError(f"{file.name}: source is {raw['source']!r}, not {name!r}")
        claims = [_claim(entry, name) for entry in raw["claims"]]
        errata = [Erratum(source=name, **entry) for entry in raw["errata"]]
        header = {key: raw[key] for key in ("title", "authors", "cite")}
    except (KeyError, TypeError) as error:
        raise LedgerError(f"{file.name}: {error}") from error
    ids = [claim.id for claim in claims] + [erratum.id for erratum in errata]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice:
        raise LedgerError(f"{file.name}: ids that appear twice: {', '.join(twice)}")
    return Source(
        name=name, claims={c.id: c for c in claims}, errata={e.id: e for e in errata}, **header
    )


def _claim(entry: dict[str, Any], source: str) -> Claim:
    published = entry.pop("published", ())
    published = (published,) if isinstance(published, str) else tuple(published)
    try:
        claim = Claim(source=source, published=published, **entry)
    except TypeError as error:
        raise LedgerError(f"claim {entry.get('id')}: {error}") from error
    if bool(claim.criterion) == bool(claim.untestable):
        raise LedgerError(f"claim {claim.id}: give either a criterion or why it is untestable")
    if claim.criterion:
        if not (claim.measure and claim.reason):
            raise LedgerError(f"claim {claim.id}: a criterion needs a measure and a reason")
        kind, given = claim.criterion.get("kind"), claim.criterion.keys() - {"kind"}
        if kind not in _CRITERIA or given - _CRITERIA[kind]:
            raise LedgerError(f"claim {claim.id}: criterion {claim.criterion}; known: {_CRITERIA}")
        if kind == "value" and not (
            claim.published and all(map(_NUMBER.fullmatch, claim.published))
        ):
            raise LedgerError(f"claim {claim.id}: a criterion on a value needs published numbers")
        text = [name for name in given - {"expected"} if isinstance(claim.criterion[name], str)]
        if text:  # YAML reads 5e-5 as text; 5.0e-5 is a number
            raise LedgerError(f"claim {claim.id}: {text[0]} is not a number: {claim.criterion}")
        if kind == "behaviour" and claim.criterion["expected"] not in _BEHAVIOURS:
            raise LedgerError(f"claim {claim.id}: behaviour is not one of {sorted(_BEHAVIOURS)}")
    return claim


def read_ledger(sources: Sequence[str] | None = None) -> dict[str, Source]:
    """Read the whole ledger, or the named sources of it, in the order of the file names."""
    place = project.root() / "data" / "ledger"
    names = sources if sources is not None else sorted(file.stem for file in place.glob("*.yml"))
    missing = [name for name in names if not (place / f"{name}.yml").is_file()]
    if missing:
        raise LedgerError(f"the ledger has no source {missing[0]!r}")
    return {name: read_source(place / f"{name}.yml") for name in names}


_NUMBER: Final = re.compile(r"(?=.?\.?\d)([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?")


def _half_unit(printed: str, decimals: int | None) -> float:
    """Half a unit in the last printed place of a number.

    `decimals` is for printers that trim trailing zeros: NumPy prints 1.0000000001 as ``1.``, which
    stands for eight decimals and not for none.
    """
    match = _NUMBER.fullmatch(printed.strip())
    if match is None:
        raise LedgerError(f"not a printed number: {printed!r}")
    places = len(match[3] or "") if decimals is None else decimals
    return 0.5 * 10.0 ** (int(match[4] or 0) - places)


def judge(claim: Claim, measured: Measured, corrected: Measured | None = None) -> Verdict:
    """Return the verdict of a measurement.

    Parameters
    ----------
    claim
        The claim, with its criterion.
    measured
        Number, sequence of numbers, truth value or behaviour, measured as the source states it; for
        the criterion "paired" a sequence of intervals (low, high) of differences, each taken so
        that the source states it to be positive.
    corrected
        The same with a misprint corrected. It counts only where `measured` does not meet the
        criterion, and gives `Verdict.MISPRINT` at best.

    Raises
    ------
    LedgerError
        If the claim is untestable, or `measured` is not of the kind the criterion asks for.
    """
    if claim.untestable:
        raise LedgerError(f"claim {claim.id} is untestable: {claim.untestable}")
    verdict = _compare(claim, measured)
    if corrected is None or verdict not in (Verdict.DIFFERS, Verdict.FALSE):
        return verdict
    agrees = _compare(claim, corrected) in (Verdict.REPRODUCED, Verdict.WITHIN)
    return Verdict.MISPRINT if agrees else verdict


def _compare(claim: Claim, measured: Measured) -> Verdict:
    criterion, kind = claim.criterion, claim.criterion["kind"]
    if kind == "holds":
        if not isinstance(measured, bool):
            raise LedgerError(f"claim {claim.id} is true or false; got {measured!r}")
        return Verdict.REPRODUCED if measured else Verdict.FALSE
    if kind == "behaviour":
        if measured not in _BEHAVIOURS:
            raise LedgerError(f"claim {claim.id}: {measured!r} is not one of {sorted(_BEHAVIOURS)}")
        return _agreement(claim, measured == criterion["expected"])
    if kind == "paired":
        intervals = _intervals(claim, measured)
        if all(low > 0 for low, _ in intervals):
            return Verdict.REPRODUCED
        contrary = any(high < 0 for _, high in intervals)
        return Verdict.DIFFERS if contrary else Verdict.UNDECIDED
    numbers = _numbers(claim, measured)
    if kind == "interval":
        low, high = criterion.get("low"), criterion.get("high")
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        return _agreement(claim, all(low <= number <= high for number in numbers), numbers)
    if kind == "near":
        centre = criterion["centre"]
        centres = centre if isinstance(centre, Sequence) else [centre] * len(numbers)
        inside = [abs(m - c) <= criterion["radius"] for m, c in zip(numbers, centres, strict=True)]
        return _agreement(claim, all(inside), numbers)
    published = [float(text) for text in claim.published]
    margin = [
        criterion["relative"] * abs(p) if "relative" in criterion else criterion.get("tolerance", 0)
        for p in published
    ]
    inside = [abs(m - p) <= r for m, p, r in zip(numbers, published, margin, strict=True)]
    return _agreement(claim, all(inside), numbers)


def _agreement(claim: Claim, agrees: bool, numbers: Sequence[float] = ()) -> Verdict:
    """Every printed digit, or agreement by the criterion, or neither."""
    if numbers and claim.published and all(map(_NUMBER.fullmatch, claim.published)):
        decimals = claim.criterion.get("decimals")
        digits = [
            abs(number - float(printed)) <= _half_unit(printed, decimals) * (1 + 1e-6)
            for number, printed in zip(numbers, claim.published, strict=True)
        ]
        if all(digits):
            return Verdict.REPRODUCED
    if not agrees:
        return Verdict.DIFFERS
    return Verdict.WITHIN if claim.published else Verdict.REPRODUCED


def _numbers(claim: Claim, measured: Measured) -> list[float]:
    values = measured if isinstance(measured, Sequence) else [measured]
    expected = len(claim.published) or len(values)
    plain = not isinstance(measured, str | bool) and not any(map(_is_interval, values))
    if not plain or not values or len(values) != expected:
        about = expected or "one or more"
        raise LedgerError(f"claim {claim.id} is about {about} number(s); got {measured!r}")
    return [float(value) for value in values]  # type: ignore[arg-type]


def _intervals(claim: Claim, measured: Measured) -> list[tuple[float, float]]:
    values = measured if isinstance(measured, Sequence) else [measured]
    intervals = [value for value in values if _is_interval(value) and value[0] <= value[1]]
    if not values or len(intervals) < len(values):
        raise LedgerError(f"claim {claim.id} is about intervals (low, high); got {measured!r}")
    return intervals


def _is_interval(value: object) -> TypeGuard[tuple[float, float]]:
    return isinstance(value, tuple) and len(value) == 2


def measured_text(claim: Claim, measured: Measured) -> str:
    """Write a measurement the way tables show it.

    Numbers have as many significant digits as the longest published one, and five at least.
    """
    if isinstance(measured, bool):
        return "holds" if measured else "does not hold"
    if isinstance(measured, str):
        return measured
    printed = [_NUMBER.fullmatch(text.strip()) for text in claim.published]
    lengths = [len(f"{number[2]}{number[3] or ''}".lstrip("0")) for number in printed if number]
    digits = max(5, 1 + claim.criterion.get("decimals", 0), *lengths)
    values = measured if isinstance(measured, Sequence) else [measured]
    return ", ".join(
        f"{value[0]:.3g} to {value[1]:.3g}" if _is_interval(value) else f"{value:.{digits}g}"
        for value in values
    )
