"""Drawings of p-norm decays beside that of AdamW.

Each function returns the figure and the data that it shows, tidy, for `Chapter.figure`. The tables
that they take are those of `beyond_adam.experiments.choosing_p.run`.
"""

from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beyond_adam.experiments.choosing_p import EXPONENTS, compared
from beyond_adam.publishing.style import COLOURS, DASHES

LOSS_SHOWN: Final = 3
"""Accuracies further than this below AdamW's, in percentage points, are outside of the drawings."""


def shrinkage(found: pd.DataFrame, size: float) -> tuple[Figure, pd.DataFrame]:
    """Draw which part of a weight a step without gradient takes, against the size of the weight.

    Parameters
    ----------
    found
        The table ``shrinkage``. Where half of a weight is lost there is a mark.
    size
        The size w₀ at which the decays are equally strong; it is marked too.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for p, line in found.groupby("p", sort=False):
        style = _style("PAdam", p)
        axes.plot(line["size"], line["lost"], **style | {"marker": ""})
        if line["lost"].max() > 0.5:
            # Interpolation wants rising numbers, and the part falls.
            falling = line[::-1]
            half = np.exp(np.interp(0.5, falling["lost"], np.log(falling["size"])))
            axes.plot(half, 0.5, marker=style["marker"], color=style["color"])
    axes.axvline(size, color="0.4", lw=1, ls=":")
    axes.annotate("$w_0$", (size, 1), xytext=(4, 0), textcoords="offset points", va="top")
    axes.set(xscale="log", yscale="log", xlabel="$|w|$", ylabel="part of the weight lost in a step")
    axes.legend()
    return figure, found


def transfer(sweep: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracy, and the share of small weights, against the strength of the decay."""
    # AdamW last, and so on top.
    decayed = sweep[sweep["multiple"] > 0].sort_values("method", ascending=False, kind="stable")
    mean = compared(decayed, sweep, ["method", "p", "multiple"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.2))
    for number, ((method, p), line) in enumerate(mean.groupby(["method", "p"], sort=False)):
        # Side by side, so that the intervals at one strength can be told apart.
        beside = line["multiple"] * 1.06 ** (number - len(EXPONENTS) / 2)
        left.errorbar(beside, line["points"], line["interval"], **_style(method, p))
        right.plot(line["multiple"], 100 * line["cut"], **_style(method, p))
    _show_accuracies(left)
    right.set_ylabel("weights up to $10^{-3}$ (%)")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="strength, in units of the rule's")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, mean


def front(sweep: pd.DataFrame, pruned: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the accuracy of networks without their small weights against how many those are."""
    theirs = pruned.assign(method="AdamW, pruned", p=2.0, multiple=1.0, cut=pruned["part"])
    ours = sweep[sweep["method"] == "PAdam"].assign(part=0.0)
    runs = pd.concat([ours, theirs], ignore_index=True)
    mean = compared(runs, sweep, ["method", "p", "multiple", "part"], "validation_cut")
    figure, axes = plt.subplots(figsize=(6.8, 4.4))
    for (method, p), line in mean.groupby(["method", "p"], sort=False):
        axes.errorbar(100 * line["cut"], line["points"], line["interval"], **_style(method, p))
    _show_accuracies(axes)
    axes.set_xlabel("weights that are cut (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    shown = ["method", "p", "multiple", "cut", "points", "interval"]
    return figure, mean[shown]


def _style(method: Any, p: Any) -> dict[str, Any]:
    """Return how lines of a method are drawn: AdamW's black, PAdam's by their exponent."""
    ours = method == "PAdam"
    number = EXPONENTS.index(p) if ours else -1
    label = f"$p={p:g}$" if ours else method
    style = {"color": COLOURS[number], "ls": DASHES[number], "marker": "osD^vX"[number], "ms": 5}
    return style | {"label": label}


def _show_accuracies(axes: Axes) -> None:
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set(ylim=(-LOSS_SHOWN, 0.8), ylabel="validation accuracy\nless AdamW's (points)")
