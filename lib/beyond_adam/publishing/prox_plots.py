"""Drawings of proximal operators and of what they are used for.

Each function returns the figure and the data that it shows, tidy, for `Chapter.figure`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beyond_adam.prox import lp_fold, lp_threshold, moreau_envelope, prox_lp
from beyond_adam.publishing.style import COLOURS, DASHES

Values = npt.NDArray[np.float64]
Operator = Callable[[Values], Values]


def with_gaps(y: Values, jump: float = 0.2) -> Values:
    """Return `y` with nan where it jumps, so that no line is drawn across."""
    broken = y.copy()
    broken[1:][np.abs(np.diff(y)) > jump] = np.nan
    return broken


def gallery(operators: Mapping[str, Operator], reach: float = 3.0) -> tuple[Figure, pd.DataFrame]:
    """Draw operators of one number, four a row, each over [-reach, reach] beside the identity."""
    z = np.linspace(-reach, reach, 1201)
    rows = (len(operators) + 3) // 4
    figure, grid = plt.subplots(
        rows, 4, figsize=(7.6, 2.05 * rows + 0.3), sharex=True, sharey=True, squeeze=False
    )
    frames = []
    for axes, (name, operator) in zip(grid.flat, operators.items(), strict=False):
        u = operator(z)
        axes.plot(z, z, color="0.65", lw=0.9, ls=":")
        axes.axhline(0, color="0.85", lw=0.7, zorder=0)
        axes.plot(z, with_gaps(u), color=COLOURS[0])
        axes.set_title(name, fontsize="small")
        frames.append(pd.DataFrame({"operator": name, "z": z[::10], "prox": u[::10]}))
    for axes in grid.flat[len(operators) :]:
        axes.remove()
    figure.supxlabel("$z$", fontsize="medium")
    figure.supylabel("prox$(z)$", fontsize="medium")
    return figure, pd.concat(frames, ignore_index=True)


def arrows(operators: Mapping[str, Operator], reach: float = 2.5) -> tuple[Figure, pd.DataFrame]:
    """Draw where operators on the plane send a grid of points; each maps points (n, 2) to (n, 2).

    Colours tell how many components the result has left.
    """
    side = np.linspace(-reach, reach, 15)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    figure, grid = plt.subplots(2, 2, figsize=(7.2, 7.0), sharex=True, sharey=True)
    frames = []
    for axes, (name, operator) in zip(grid.flat, operators.items(), strict=True):
        end = operator(points)
        left = np.count_nonzero(end, axis=-1)
        for number, label in ((2, "both components left"), (1, "one left"), (0, "none left")):
            chosen = left == number
            colour = COLOURS[(0, 1, 2)[2 - number]]
            moves = end[chosen] - points[chosen]
            axes.quiver(
                *points[chosen].T, *moves.T, angles="xy", scale_units="xy", scale=1,
                color=colour, width=0.004, headwidth=4, alpha=0.85,
            )  # fmt: skip
            marker = "o^s"[2 - number]
            axes.plot(*end[chosen].T, marker, color=colour, ms=3.5, label=label)
        axes.set_title(name, fontsize="medium")
        axes.set_aspect("equal")
        columns = {"z1": points[:, 0], "z2": points[:, 1], "u1": end[:, 0], "u2": end[:, 1]}
        frames.append(pd.DataFrame({"operator": name, **columns}))
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure, pd.concat(frames, ignore_index=True)


def two_thresholds(strength: float, p: float) -> tuple[Figure, pd.DataFrame]:
    """Draw the objective of the prox for inputs below, between and above its two thresholds."""
    fold, _ = lp_fold(strength, p)
    threshold, jump = lp_threshold(strength, p)
    inputs = {
        "below the fold": 0.9 * fold,
        "between fold and threshold": (fold + threshold) / 2,
        "at the threshold": threshold,
        "above the threshold": 1.2 * threshold,
    }
    u = np.linspace(0, 1.35 * threshold, 400)
    figure, axes = plt.subplots(figsize=(6.4, 3.9))
    frames = []
    for number, (name, z) in enumerate(inputs.items()):
        # Relative to the value at 0, so that the curves can be compared.
        value = strength * u**p + 0.5 * (u - z) ** 2 - 0.5 * z**2
        label = f"$z={z:.3f}$, {name}"
        axes.plot(u, value, color=COLOURS[number], ls=DASHES[number], label=label)
        frames.append(pd.DataFrame({"z": z, "case": name, "u": u, "excess": value}))
    axes.axhline(0, color="0.6", lw=0.8)
    axes.plot([0, jump], [0, 0], "o", color="black", ms=6, mfc="white", zorder=5)
    axes.set(xlabel="$u$", ylabel="objective less its value at 0")
    axes.legend(loc="upper left")
    return figure, pd.concat(frames, ignore_index=True)


def envelopes(steps: tuple[float, ...]) -> tuple[Figure, pd.DataFrame]:
    """Draw abs(z)^p for p = 1 and 1/2 with its Moreau envelopes for some step sizes."""
    z = np.linspace(-3, 3, 601)
    figure, grid = plt.subplots(1, 2, figsize=(7.4, 3.4), sharey=True)
    frames = []
    for axes, (p, title) in zip(grid, {1.0: "$|z|$", 0.5: "$|z|^{1/2}$"}.items(), strict=True):
        axes.plot(z, np.abs(z) ** p, color="black", label="the penalty itself")
        for number, step in enumerate(steps):
            envelope = moreau_envelope(
                lambda u, p=p: np.abs(u) ** p,  # type: ignore[misc]
                lambda z, t, p=p: prox_lp(z, t, p),  # type: ignore[misc]
                z,
                step,
            )
            axes.plot(z, envelope, ls=DASHES[number + 1], label=f"envelope, $t={step:g}$")
            frames.append(pd.DataFrame({"p": p, "t": step, "z": z, "envelope": envelope}))
        axes.set(title=title, xlabel="$z$", ylim=(0, 2.2))
    grid[0].legend(loc="upper center")
    return figure, pd.concat(frames, ignore_index=True)


def limits(fixed: pd.DataFrame, minimisers: Mapping[float, float]) -> tuple[Figure, pd.DataFrame]:
    """Draw where an iteration ends against its step size, one panel for each strength.

    Parameters
    ----------
    fixed
        Columns strength, eta, w: every limit found.
    minimisers
        The global minimiser by strength.
    """
    figure, grid = plt.subplots(1, len(minimisers), figsize=(7.4, 3.4), sharey=True)
    for axes, (strength, best) in zip(grid, minimisers.items(), strict=True):
        points = fixed[fixed["strength"] == strength]
        axes.axhline(best, color=COLOURS[1], ls="--", lw=1.2, label="global minimiser")
        axes.plot(points["eta"], points["w"], "o", ms=3.5, label="limits of the iteration")
        axes.set(title=rf"$\lambda={strength:g}$", xlabel=r"step size $\eta$ (in units of $1/L$)")
    grid[0].set_ylabel("$w$")
    grid[0].legend(loc="center right")
    return figure, fixed


def thresholds() -> tuple[Figure, pd.DataFrame]:
    """Draw threshold, fold and jump of the operator of abs(u)^p against p, at strength 1."""
    grid = np.linspace(0.02, 1, 99)
    found = pd.DataFrame([lp_threshold(1.0, p) for p in grid], columns=["threshold", "jump"])
    # At p = 1 fold and threshold are one.
    found["fold"] = [lp_fold(1.0, p)[0] if p < 1 else 1.0 for p in grid]
    found.insert(0, "p", grid)
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    labels = {"threshold": "threshold $z_*$", "fold": "fold $z_f$", "jump": "jump $u_*$"}
    for number, (column, label) in enumerate(labels.items()):
        axes.plot(grid, found[column], ls=DASHES[number], label=label)
    axes.axhline(np.sqrt(2), color="0.6", lw=0.8, ls=":")
    axes.text(0.95, np.sqrt(2) + 0.03, r"$\sqrt{2\lambda}$", fontsize="small", color="0.35")
    axes.set(xlabel="$p$", ylabel=r"input $z$ or output $u$, at $\lambda=1$", ylim=(0, 1.6))
    axes.legend(loc="lower center")
    return figure, found


def inexact(found: pd.DataFrame, strength: float, p: float) -> tuple[Figure, pd.DataFrame]:
    """Draw inexact operators after some iterations beside the exact one.

    Parameters
    ----------
    found
        Columns kind, k, z, u; kind is "tangent" or "parabola".
    strength, p
        The penalty.
    """
    figure, grid = plt.subplots(1, 2, figsize=(7.6, 3.7), sharey=True)
    for axes, kind in zip(grid, ("tangent", "parabola"), strict=True):
        for number, k in enumerate((1, 2, 5, 100), start=1):
            line = found[(found["kind"] == kind) & (found["k"] == k)]
            label = f"{k} iteration{'s' if k > 1 else ''}"
            style = {"ls": DASHES[number], "color": COLOURS[number], "lw": 1.2}
            axes.plot(line["z"], with_gaps(line["u"].to_numpy()), label=label, **style)
        shade_between(axes, strength, p)
        z = line["z"].to_numpy()
        exact = with_gaps(prox_lp(z, strength, p))
        axes.plot(z, exact, color="black", lw=2, zorder=1, label="exact")
        axes.set(title="by tangents" if kind == "tangent" else "by parabolas", xlabel="$z$")
    grid[0].set_ylabel("$u$")
    grid[0].legend()
    return figure, found


def coefficient_paths(
    paths: pd.DataFrame, titles: Mapping[float, str]
) -> tuple[Figure, pd.DataFrame]:
    """Draw regression coefficients along paths, one panel for each p of `titles`.

    Parameters
    ----------
    paths
        Columns p, relative, feature, coefficient.
    titles
        Title of the panel by p.
    """
    figure, grid = plt.subplots(1, len(titles), figsize=(8.2, 4.4), sharey=True)
    features = list(dict.fromkeys(paths["feature"]))
    for axes, (p, title) in zip(grid, titles.items(), strict=True):
        for number, feature in enumerate(features):
            line = paths[(paths["p"] == p) & (paths["feature"] == feature)]
            colour, dash = COLOURS[number % 7], DASHES[(number + number // 7) % 7]
            style = {"color": colour, "ls": dash, "lw": 1.3}
            axes.plot(line["relative"], line["coefficient"], label=feature, **style)
        axes.axhline(0, color="0.8", lw=0.7, zorder=0)
        axes.set(xscale="log", title=title)
        axes.invert_xaxis()
    grid[0].set_ylabel("coefficient")
    figure.supxlabel(r"strength $\lambda/\lambda_{\max}$", fontsize="medium")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    return figure, paths


def front(folds: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw cross-validated error against the number of coefficients, with 95 % intervals.

    Parameters
    ----------
    folds
        Columns p, strength, fold, nonzero, error.
    """
    by_strength = folds.groupby(["p", "strength"], sort=False)
    mean = by_strength.agg(
        nonzero=("nonzero", "mean"), error=("error", "mean"), sem=("error", "sem")
    ).reset_index()
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for number, (p, line) in enumerate(mean.groupby("p", sort=False)):
        bars: dict[str, Any] = {"fmt": "os^"[number], "ms": 5, "lw": 0.8, "color": COLOURS[number]}
        axes.errorbar(line["nonzero"], line["error"], 1.96 * line["sem"], label=f"$p={p:g}$",
                      alpha=0.8, **bars)  # fmt: skip
    axes.set(
        xlabel="coefficients that are not 0 (mean over folds)",
        ylabel="squared error (1: predicting the mean)",
        ylim=(0.4, 1.1),
    )
    axes.legend()
    return figure, mean


def rates(gaps: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw objective gaps of methods against the step, with the bounds proved for them.

    Parameters
    ----------
    gaps
        Columns method, k, gap, bound; bound is nan where none is proved.

    Returns
    -------
    tuple
        The figure, and the table with ``log10_gap`` in place of the gap: below 1e-10 of an
        objective of order 1000 there is only rounding.
    """
    shown = gaps.assign(log10_gap=np.log10(gaps["gap"].clip(lower=1e-10))).drop(columns="gap")
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    for number, (method, line) in enumerate(shown.groupby("method", sort=False)):
        colour = COLOURS[number]
        axes.plot(line["k"], 10 ** line["log10_gap"], color=colour, label=method)
        if line["bound"].notna().any():
            axes.plot(line["k"], line["bound"], color=colour, ls=":", label=f"bound: {method}")
    axes.set(xscale="log", yscale="log", xlabel="step $k$", ylabel="$F(w_k)-F^*$")
    axes.set_ylim(bottom=1e-10)
    axes.legend(fontsize="small")
    return figure, shown


def shade_between(axes: Axes, strength: float, p: float, label: str | None = None) -> None:
    """Shade the inputs between fold and threshold, where a local minimum is not the global one."""
    low, high = lp_fold(strength, p)[0], lp_threshold(strength, p)[0]
    axes.axvspan(low, high, color=COLOURS[5], alpha=0.25, lw=0, label=label)
