"""The archived measurement of how long a step of an optimizer takes, read and shown.

``benchmarks/optimizer_step.py`` measures and writes the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from beyond_adam.publishing.measurements import Measurement
from beyond_adam.publishing.style import COLOURS

COLUMNS: Final = {
    "tensors": "tensors",
    "case": "case",
    "reference": "reference",
    "median [ms]": "median_ms",
    "least [ms]": "least_ms",
    "ratio": "ratio",
    "ratio of least": "ratio_of_least",
    "times fused AdamW": "times_adamw",
    "times the limit": "times_limit",
    "goal": "goal",
}
"""Columns in the file, and what `StepTimes.rows` calls them."""

NBSP: Final = "&nbsp;"

MEASURED: Final = [name for name in COLUMNS.values() if "_" in name or name == "ratio"]


@dataclass(frozen=True, eq=False, kw_only=True)
class StepTimes(Measurement):
    """Times of steps, and where they were measured.

    Attributes
    ----------
    rows
        One line for each case and set of ``tensors``: the medians and the least times of blocks of
        steps, in ms a step; the case that is its ``reference``; ``ratio``, the median of its times
        over those of the reference in the same round; ``goal``, what the ratio was to be at most
        (nan if there is no goal); the same quotient of the least times; and the medians of the
        times over those of torch's fused AdamW (with AMSGrad, if the case moves as much memory)
        and over the time in which memory moves what the step has to read and write.
    runs
        Number of rounds.
    compiled, cached
        Seconds until the kernel is there: compiled, or found in the cache on disk.
    """

    rows: pd.DataFrame
    runs: int
    compiled: float
    cached: float

    @classmethod
    def _more(cls, content: dict[str, Any]) -> dict[str, Any]:
        kernel = content["kernel"]
        return {
            "rows": _rows(content["rows"]),
            "runs": int(content["runs"]),
            "compiled": float(kernel["compiled"]),
            "cached": float(kernel["cached"]),
        }

    @property
    def judged(self) -> pd.DataFrame:
        """The rows that have a goal, with the column ``met``."""
        rows = self.rows.dropna(subset="goal")
        return rows.assign(met=rows["ratio"] <= rows["goal"])

    @property
    def missed(self) -> str:
        """What is above its goal, in words; "none" if nothing is."""
        sets: dict[str, list[str]] = {}
        rows = self.judged.query("not met")[["tensors", "case", "ratio", "goal"]]
        for tensors, case, ratio, goal in rows.to_numpy():
            sets.setdefault(tensors, []).append(f"{case} ({ratio:.3f} for {goal:g})")
        return ". ".join(f"{name}: {'; '.join(cases)}" for name, cases in sets.items()) or "none"


def read(file: str) -> StepTimes:
    """Read a measurement, as `Measurement.read` does, and check it.

    Raises
    ------
    ValueError
        If an entry is missing, a time is not a positive number, a reference was not measured, or
        ratios do not belong to the times.
    """
    times = StepTimes.read(file)
    for complaint in _complaints(times.rows):
        raise ValueError(f"{file}: {complaint}")
    return times


def _rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    lines = [{new: row[old] for old, new in COLUMNS.items()} for row in rows]
    frame = pd.DataFrame(lines, columns=list(COLUMNS.values()))
    # What is no number becomes nan, which is complained about; only a goal may be missing.
    numbers = {name: pd.to_numeric(frame[name], "coerce") for name in MEASURED}
    return frame.assign(goal=frame["goal"].astype(float), **numbers)


def _complaints(rows: pd.DataFrame) -> Iterator[str]:
    """Yield what is wrong with the rows, one thing after the other."""
    if rows.empty:
        yield "there are no rows"
    names = rows["case"] + ", " + rows["tensors"]
    for name in names[names.duplicated()]:
        yield f"{name} was measured twice"
    for column in (*MEASURED, "goal"):
        values = rows[column].fillna(1.0) if column == "goal" else rows[column]
        for name in names[~((values > 0) & np.isfinite(values))]:
            yield f"{column} of {name} is not a positive number"
    references = rows["reference"] + ", " + rows["tensors"]
    for name in references[~references.isin(names)]:
        yield f"the reference {name} was not measured"
    least = rows["least_ms"].set_axis(names)
    quotients = rows["least_ms"] / least[references].to_numpy()
    for name in names[~np.isclose(quotients, rows["ratio_of_least"], rtol=1e-6)]:
        yield f"ratio_of_least of {name} is not that of its times"


PATHS: Final = {
    "fused": ("o", COLOURS[0]),
    "for-loop": ("s", COLOURS[1]),
    "foreach": ("^", COLOURS[2]),
}
"""Markers and colours of the ways to take a step."""


def path(case: str) -> str:
    """Return which way to take the step a case names."""
    return next((name for name in ("fused", "foreach") if name in case), "for-loop")


def relative(times: StepTimes, tensors: str) -> tuple[Figure, pd.DataFrame]:
    """Draw the times of a set of tensors, in the median, relative to torch's fused AdamW.

    Parameters
    ----------
    times
        The measurement.
    tensors
        Which of its sets.

    Returns
    -------
    Figure, DataFrame
        The picture, with a line for AdamW and marks for memory's limit, and what it shows:
        ``tensors``, ``case``, ``path``, ``relative`` and ``limit``.

    Raises
    ------
    ValueError
        If there is no such set.
    """
    known = times.rows["tensors"].unique()
    if tensors not in known:
        raise ValueError(f"tensors must be one of {', '.join(known)}, not {tensors!r}")
    rows = times.rows[times.rows["tensors"] == tensors]
    rows = rows.assign(
        path=rows["case"].map(path),
        relative=rows["times_adamw"],
        limit=rows["times_adamw"] / rows["times_limit"],
    )
    order = rows["path"].map(list(PATHS).index)
    rows = rows.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
    # Narrow, so that a phone need not shrink it much.
    figure, axes = plt.subplots(figsize=(5.2, 1.5 + 0.21 * len(rows)))
    axes.axvline(1, color="black", lw=1.2)
    axes.plot(rows["limit"], rows.index, "|", color="0.5", ms=9, mew=1.5, label="memory's limit")
    for name, (marker, colour) in PATHS.items():
        part = rows[rows["path"] == name]
        axes.hlines(part.index, 1, part["relative"], color=colour, lw=1.2)
        axes.plot(part["relative"], part.index, marker, color=colour, ms=6, label=name)
    axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5), title=tensors)
    axes.set_yticks(rows.index, rows["case"])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    low, high = axes.get_xlim()
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("time ÷ fused AdamW's")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure, rows[["tensors", "case", "path", "relative", "limit"]]


def table(times: StepTimes) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return a table with one line a case, and the headings of what a page shows of it.

    Its columns are ``case``, ``reference`` and, for each set of tensors, ``… ratio``, ``… goal``,
    ``… ms``, the median, and ``… limits``, how many times the limit of memory that is; ``…_cell``
    says these four in MyST, with what misses its goal in bold.
    """
    sets = list(times.rows["tensors"].unique())
    parts = []
    for name in sets:
        rows = times.rows[times.rows["tensors"] == name].set_index(["case", "reference"])
        columns = {"ratio": "ratio", "goal": "goal", "median_ms": "ms", "times_limit": "limits"}
        part = rows[[*columns]].set_axis([f"{name} {new}" for new in columns.values()], axis=1)
        parts.append(part.assign(**{f"{name}_cell": [_said(*row) for row in part.to_numpy()]}))
    headers = {"case": "Step", "reference": "Relative to"}
    frame = pd.concat(parts, axis=1).reset_index()
    return frame, headers | {f"{name}_cell": name for name in sets}


def _said(ratio: float, goal: float, ms: float, limits: float) -> str:
    """Return a ratio beside its goal, if it has one, and the time; lines break between them."""
    held = f"{ratio:.3f}"
    if ratio <= goal:
        held = f"{ratio:.3f}{NBSP}≤{NBSP}{goal:g}"
    elif ratio > goal:
        held = f"**{ratio:.3f}{NBSP}>{NBSP}{goal:g}**"
    return f"{held}, {ms:.3g}{NBSP}ms, {limits:.2f}{NBSP}×"
