"""Drawings of Λ_p and of the step that follows from it.

Each function returns the figure and the data that it shows, tidy, for `Chapter.figure`.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from beyond_adam.landscapes import Landscape
from beyond_adam.prox import decay_scale, indefinite_above, lambda_p, optimal_s
from beyond_adam.publishing.landscape_plots import draw_landscape
from beyond_adam.publishing.prox_plots import shade_between
from beyond_adam.publishing.style import COLOURS, DASHES


def valleys(exponents: Sequence[float]) -> tuple[Figure, pd.DataFrame]:
    """Draw Λ_p over (x, s) with its valley and the region where it is not convex."""
    x, s = np.linspace(-2, 2, 241), np.geomspace(0.1, 10, 241)
    across, up = np.meshgrid(x, s)
    figure, grid = plt.subplots(1, len(exponents), figsize=(8.2, 3.5), sharey=True)
    frames = []
    for axes, p in zip(grid, exponents, strict=True):
        value = lambda_p(across, up, p)
        levels = np.geomspace(0.15, 20, 15)
        bands = axes.contourf(x, s, value, levels, cmap="Blues", alpha=0.6, extend="both",
                              norm="log")  # fmt: skip
        bands.set_rasterized(True)
        axes.contour(x, s, value, levels, colors="#3b5b7a", linewidths=0.4, alpha=0.7)
        with np.errstate(divide="ignore"):
            boundary = indefinite_above(x, p)
        axes.fill_between(
            x, boundary, s[-1], where=boundary < s[-1], facecolor="none", edgecolor=COLOURS[1],
            hatch="///", lw=0, alpha=0.5, label="Hessian indefinite",
        )  # fmt: skip
        # Each branch starts where it enters at the top, which can be narrower than the grid.
        branch = np.geomspace(s[-1] ** (1 / (p - 2)), x[-1], 241)
        for sign, label in ((-1, "valley $s=|x|^{p-2}$"), (1, None)):
            axes.plot(sign * branch, optimal_s(branch, p), color="black", lw=1.8, label=label)
        axes.set(yscale="log", ylim=(s[0], s[-1]), xlabel="$x$", title=f"$p={p:g}$")
        columns = {"x": across[::10, ::10].ravel(), "s": up[::10, ::10].ravel()}
        frames.append(pd.DataFrame({"p": p, **columns, "value": value[::10, ::10].ravel()}))
    grid[0].set_ylabel("$s$")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure, pd.concat(frames, ignore_index=True)


def parabolas(exponents: Sequence[float]) -> tuple[Figure, pd.DataFrame]:
    """Draw abs(x)^p as the lower envelope of the parabolas x ↦ Λ_p(x, s)."""
    x = np.linspace(-2, 2, 401)
    touched = np.array([0.15, 0.4, 0.8, 1.4])
    figure, grid = plt.subplots(1, len(exponents), figsize=(8.2, 3.2), sharey=True)
    frames = []
    for axes, p in zip(grid, exponents, strict=True):
        for number, point in enumerate(touched):
            s = float(optimal_s(np.asarray(point), p))
            parabola = lambda_p(x, s, p)
            axes.plot(x, parabola, color=COLOURS[number], lw=1.0, ls=DASHES[number])
            axes.plot([-point, point], [point**p] * 2, "o", color=COLOURS[number], ms=4)
            frames.append(pd.DataFrame({"p": p, "s": s, "x": x[::4], "value": parabola[::4]}))
        axes.plot(x, np.abs(x) ** p, color="black", lw=2)
        axes.set(ylim=(0, 2.6), xlabel="$x$", title=f"$p={p:g}$")
    grid[0].set_ylabel(r"$\Lambda_p(x,s)$")
    return figure, pd.concat(frames, ignore_index=True)


def distances(found: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the distance of the iterated step from the exact operator, at strength 1.

    Parameters
    ----------
    found
        Columns p, k, z, log10_error.
    """
    exponents = found["p"].unique()
    figure, grid = plt.subplots(1, len(exponents), figsize=(8.4, 3.6), sharey=True)
    for axes, p in zip(grid, exponents, strict=True):
        if p < 1:
            shade_between(axes, 1.0, p, label="between fold and threshold")
        for number, (k, line) in enumerate(found[found["p"] == p].groupby("k")):
            style = {"lw": 1.3, "ls": DASHES[number], "color": COLOURS[number]}
            label = f"{k} iteration{'s' if k > 1 else ''}"
            axes.plot(line["z"], 10 ** line["log10_error"], label=label, **style)
        axes.set(yscale="log", xlabel=r"$z$ (at $\lambda=1$)", title=f"$p={p:g}$")
    grid[0].set_ylabel("distance from the exact operator")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, found


def growth(found: pd.DataFrame, lr: float, strength: float) -> tuple[Figure, pd.DataFrame]:
    """Draw by what factor a step changes a weight, against the weight.

    Parameters
    ----------
    found
        Columns p, g (the gradient), w, ratio.
    lr, strength
        Learning rate η and strength λ of the step; they give the scale that is marked.
    """
    exponents = found["p"].unique()
    figure, grid = plt.subplots(1, len(exponents), figsize=(8.4, 3.4), sharey=True)
    for axes, p in zip(grid, exponents, strict=True):
        for number, (g, line) in enumerate(found[found["p"] == p].groupby("g")):
            axes.plot(line["w"], line["ratio"], ls=DASHES[number], label=f"$g={g:g}$")
        axes.axhline(1, color="0.6", lw=0.8)
        scale = decay_scale(lr, strength, p)
        axes.axvline(scale, color="black", lw=1, ls=":", label=r"$(\eta p\lambda)^{1/(2-p)}$")
        axes.set(xscale="log", yscale="log", xlabel="$w$", title=f"$p={p:g}$", ylim=(1e-4, 1e3))
    grid[0].set_ylabel("$w^+/w$")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, found


def losses(found: pd.DataFrame, strength: float, p: float) -> tuple[Figure, pd.DataFrame]:
    """Draw what part of a weight a step without gradient takes, with two scales.

    Parameters
    ----------
    found
        Columns eta, w, lost.
    strength, p
        The penalty.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    for number, eta in enumerate(found["eta"].unique()):
        line = found[found["eta"] == eta]
        axes.plot(line["w"], line["lost"], ls=DASHES[number], label=rf"$\eta={eta:g}$")
        axes.plot(decay_scale(eta, strength, p), 0.5, "o", color=COLOURS[number], ms=6)
    posts = decay_scale(1.0, strength, p)
    axes.axvline(posts, color=COLOURS[2], ls=":", label=r"the post's $(p\lambda)^{1/(2-p)}$")
    axes.set(xscale="log", yscale="log", xlabel="$|w|$", ylabel="part of the weight lost in a step")
    axes.legend()
    return figure, found


def toy_example(landscape: Landscape, runs: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the loss of runs against the iteration, and their paths on the loss surface.

    Parameters
    ----------
    landscape
        The loss, least on the unit circle.
    runs
        Columns run, step, w1, w2, loss.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.9), width_ratios=(1, 1.15))
    draw_landscape(right, landscape)
    angle = np.linspace(0, np.pi / 2, 100)
    right.plot(np.cos(angle), np.sin(angle), color="0.35", lw=1, ls=":")
    for number, (name, run) in enumerate(runs.groupby("run", sort=False)):
        style = {"color": COLOURS[number], "ls": DASHES[number], "marker": "osD"[number], "ms": 3}
        left.plot(run["step"], run["loss"], label=name, **style)
        right.plot(run["w1"], run["w2"], lw=1.2, **style)
    left.set(xlabel="iteration", ylabel=r"loss $\ell_0$", xticks=range(0, 21, 5))
    right.set(xlabel="$w_1$", ylabel="$w_2$", aspect="equal")
    left.legend()
    return figure, runs
