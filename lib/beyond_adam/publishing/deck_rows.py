"""The deck's result rows as claims to check, and as a table to read."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from beyond_adam.landscapes import LANDSCAPES
from beyond_adam.publishing.chapter import Claims
from beyond_adam.publishing.claims import Measured, Verdict
from beyond_adam.publishing.myst import badge

#: The two ways each row is computed: ending of the claim's id, and prefix of the columns.
WAYS = {"analytic": "exact", "digits": "deck"}

_OTHER_LIBM = "This machine's C library rounds otherwise than the one the digits were matched on."
_SHORT = "At the smoke profile the runs are too short to tell."


@dataclass(frozen=True)
class Measurements:
    """The arguments of `Claims.check_all` for the rows."""

    measured: dict[str, Measured]
    corrected: dict[str, Measured]
    untestable: dict[str, str]


def measurements(rows: pd.DataFrame, claims: Claims) -> Measurements:
    """Turn the table ``rows`` of `beyond_adam.experiments.deck` into measurements of its claims.

    A claim on a behaviour gets the run's behaviour, any other the final point. Where the printed
    betas are a misprint, the claim is measured as printed and as corrected. A row whose digits the
    C library of this machine cannot return is untestable here, which is no verdict on the deck.
    """
    found = Measurements({}, {}, {})
    as_printed = rows[rows["reading"] == "printed betas"].to_dict("records")
    misprinted = {row["id"]: row for row in as_printed}
    for row in rows[(rows["reading"] == "used") & (rows["run"] != "")].to_dict("records"):
        for way, column in WAYS.items():
            claim = f"aab-{row['id'].lower()}-{way}"
            value = _measured(claims, claim, row, column)
            if way == "digits" and not (row["digits_match"] or row["libm_matches"]):
                found.untestable[claim] = _OTHER_LIBM
            elif row["id"] in misprinted:
                found.measured[claim] = _measured(claims, claim, misprinted[row["id"]], column)
                found.corrected[claim] = value
            else:
                found.measured[claim] = value
    return found


def excuse(rows: pd.DataFrame, profile: str) -> str:
    """Return why results that hang on every digit may not come out here, or an empty text."""
    if profile == "smoke":
        return _SHORT
    return "" if rows["libm_matches"].all() else _OTHER_LIBM


def _measured(claims: Claims, id: str, row: Mapping[Hashable, Any], column: str) -> Measured:
    if claims.claim(id).criterion["kind"] == "behaviour":
        return str(row["behaviour"])
    return [float(row[f"{column}_x"]), float(row[f"{column}_y"])]


def table(
    rows: pd.DataFrame, behaviour: pd.DataFrame, verdicts: Mapping[str, Verdict]
) -> pd.DataFrame:
    """Return one line a row: the run, what is printed, and both results with their verdicts.

    Columns whose name ends in ``_cell`` are MyST text for the page; the others are plain.
    """
    overflow = behaviour.set_index("run")["overflow_step"]
    lines = []
    for row in rows[rows["reading"] == "used"].to_dict("records"):
        exact_verdict, deck_verdict = (
            verdicts.get(f"aab-{row['id'].lower()}-{way}", Verdict.UNTESTABLE) for way in WAYS
        )
        printed = row["printed_x"], row["printed_y"]
        exact = _point(printed, row["exact_x"], row["exact_y"])
        if not row["run"]:
            exact = "start unknown"
        elif row["behaviour"] == "diverges":
            exact = f"diverges: not finite<br>from step {overflow[row['run']]} on"
        deck = _point(printed, row["deck_x"], row["deck_y"]) if row["run"] else "start unknown"
        setting = _setting(row)
        lines.append(
            {
                "row": row["id"],
                "run": setting.replace("<br>", "; "),
                "printed": f"{row['printed_x']}, {row['printed_y']}",
                "exact_x": row["exact_x"],
                "exact_y": row["exact_y"],
                "behaviour": row["behaviour"],
                "exact_verdict": str(exact_verdict),
                "deck_x": row["deck_x"],
                "deck_y": row["deck_y"],
                "deck_verdict": str(deck_verdict),
                "run_cell": f"{row['id']}: {setting}",
                "printed_cell": f"{row['printed_x']}<br>{row['printed_y']}",
                "exact_cell": f"{exact}<br>{badge(exact_verdict)}",
                "deck_cell": f"{deck}<br>{badge(deck_verdict)}",
            }
        )
    return pd.DataFrame(lines)


def _setting(row: Mapping[Hashable, Any]) -> str:
    where = LANDSCAPES[row["function"]].title if row["function"] else "Function not said"
    if row["run"]:
        where += f", from ({row['start_x']:g}, {row['start_y']:g})"
    if row["method"] == "GD":
        return f"{where}<br>gradient descent, η = {row['lr']:g}"
    return f"{where}<br>Adam, η = {row['lr']:g}, β = ({row['beta1']:g}, {row['beta2']:g})"


def _point(printed: tuple[str, str], x: float, y: float) -> str:
    """Write a point like the printed one: eight decimals, with an exponent where that has one."""
    forms = ("{:.8e}" if "e" in text else "{:.8f}" for text in printed)
    return "<br>".join(form.format(value) for form, value in zip(forms, (x, y), strict=True))
