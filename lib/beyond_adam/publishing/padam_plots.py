"""Drawings of what becomes of single weights under PAdam.

The tables that they take are those of `beyond_adam.experiments.padam_dynamics.run`, and are what
the figures show.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from beyond_adam.experiments.padam_dynamics import QUIET, slope
from beyond_adam.publishing.prox_plots import with_gaps
from beyond_adam.publishing.style import COLOURS, DASHES

ESCAPED = 0.5
"""A weight that ends above has escaped from zero."""


def twin_slope(twin: pd.DataFrame) -> Figure:
    """Draw the difference of a step of PAdam at p = 2 from one of AdamW against the learning rate.

    Parameters
    ----------
    twin
        The table ``twin``.
    """
    figure, axes = plt.subplots(figsize=(6.0, 3.6))
    square = twin["difference"].iloc[0] * (twin["lr"] / twin["lr"].iloc[0]) ** 2
    axes.plot(twin["lr"], square, color="0.5", lw=1, ls="--", label=r"$\propto\eta^2$")
    label = f"PAdam less AdamW, slope {slope(twin):.3f}"
    axes.plot(twin["lr"], twin["difference"], "o", ms=5, color=COLOURS[0], label=label)
    axes.set(
        xscale="log", yscale="log", xlabel=r"learning rate $\eta$",
        ylabel="largest difference\nafter one step",
    )  # fmt: skip
    axes.legend()
    return figure


def fixed_points(found: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw where runs end against the curvature of the loss, one panel an exponent.

    Parameters
    ----------
    found
        The table ``fixed_points``, drawn as marks.
    curves
        The table ``balance``, drawn as lines.
    """
    exponents = curves["p"].unique()
    figure, grid = plt.subplots(2, 2, figsize=(7.4, 6.2), sharex=True, sharey=True)
    for axes, p in zip(grid.flat, exponents, strict=True):
        lines, marks = curves[curves["p"] == p], found[found["p"] == p]
        line = lines[lines["noise"] == 0]
        stationary = with_gaps(line["stationary"].to_numpy())
        axes.plot(line["curvature"], stationary, "k-", lw=2, label="stationary point")
        plain = marks[marks["method"] == "equation (3)"]
        axes.plot(plain["curvature"], plain["end"], "ko", ms=8, mfc="none", label="equation (3)")
        for number, (noise, line) in enumerate(lines.groupby("noise")):
            style: dict[str, Any] = {"color": COLOURS[number], "lw": 1.2, "ms": 5}
            balance = with_gaps(line["balance"].to_numpy())
            axes.plot(line["curvature"], balance, ls=DASHES[number + 1], **style)
            ours = marks[(marks["method"] == "PAdam") & (marks["noise"] == noise)]
            style |= {"ls": "", "marker": "s^D"[number], "label": rf"PAdam, $\sigma={noise:g}$"}
            axes.plot(ours["curvature"], ours["end"], **style)
        theirs = marks[marks["method"] == "AdamW"]
        axes.plot(theirs["curvature"], theirs["end"], "x", ms=8, color="0.25", label="AdamW")
        axes.set(xscale="log", title=f"$p={p:g}$", ylim=(-0.04, 1.06))
    ticks = (0.3, 1, 3, 10)
    grid[0, 0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    grid[0, 0].minorticks_off()
    figure.supxlabel("curvature $a$ of the loss", fontsize="medium")
    figure.supylabel("weight at the end", fontsize="medium")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def escape(found: pd.DataFrame, basin: float) -> Figure:
    """Draw from which starts weights end at zero, one row a method.

    Parameters
    ----------
    found
        The table ``escape``.
    basin
        Size below which equation (3) collapses to zero under the gradient −1; it is marked.
    """
    methods = found["method"].unique()
    least = found.loc[found["start"] > 0, "start"].min()
    zero = least / 30  # zero has no place on a logarithmic axis
    figure, axes = plt.subplots(figsize=(7.0, 3.4))
    row = found["method"].map({name: -number for number, name in enumerate(methods)})
    x = found["start"].where(found["start"] > 0, zero)
    lost, escaped = found["end"] == 0, found["end"] > ESCAPED
    axes.plot(x[lost], row[lost], "x", ms=5, color=COLOURS[1], label="ends at 0")
    axes.plot(x[escaped], row[escaped], "o", ms=5, color=COLOURS[0], label="ends near 1")
    axes.axvline(basin, color="0.3", lw=1, ls=":", label=r"$(p\lambda)^{1/(1-p)}$")
    axes.set(xscale="log", xlabel="weight at the start", ylim=(0.6 - len(methods), 0.4))
    axes.set_yticks(range(0, -len(methods), -1), methods)
    powers = range(int(np.ceil(np.log10(least))), 1, 2)
    axes.set_xticks([zero, *(10.0**k for k in powers)], ["0", *(f"$10^{{{k}}}$" for k in powers)])
    axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def previous_or_updated(kick: pd.DataFrame) -> Figure:
    """Draw weights that are pushed away from zero, with the factor of either weight.

    Parameters
    ----------
    kick
        The table ``kick``.
    """
    figure, grid = plt.subplots(1, 2, figsize=(7.4, 3.8), sharex=True, sharey=True)
    for axes, (decay_at, runs) in zip(grid, kick.groupby("decay_at"), strict=True):
        axes.axvspan(0, QUIET, color="0.92", lw=0, label="no gradient")
        for number, (start, run) in enumerate(runs.groupby("start")):
            style = {"color": COLOURS[number], "ls": DASHES[number]}
            axes.plot(run["step"], run["w"], label=f"$w_0={start:g}$", **style)
        axes.set(
            yscale="log", ylim=(1e-14, 2), xlabel="step", title=f"decay at the {decay_at} weight"
        )
    grid[0].set_ylabel("weight")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
