"""Drawings of landscapes and of the paths that optimizers take on them.

Each function returns the figure and the data that it shows, tidy, for `Chapter.figure`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beyond_adam.landscapes import Landscape
from beyond_adam.publishing.style import COLOURS, DASHES

Domain = tuple[tuple[float, float], tuple[float, float]]
Path = npt.NDArray[np.float64]

GRID = 201
ARROWS = 17
LEVELS = 11


def draw_landscape(axes: Axes, landscape: Landscape, domain: Domain | None = None) -> pd.DataFrame:
    """Draw level curves and gradient directions; return the gradient field that is drawn.

    The levels are quantiles of the values in the window, so that each band covers the same area and
    a narrow valley shows as well as a steep wall. Arrows point along +∇f, their length grows with
    the logarithm of its norm.

    Parameters
    ----------
    axes
        Where to draw.
    landscape
        What to draw.
    domain
        Window ``((xmin, xmax), (ymin, ymax))``; the landscape's own by default.
    """
    (x0, x1), (y0, y1) = domain or landscape.domain
    value = landscape.value(_grid((x0, x1), (y0, y1), GRID))
    levels = np.unique(np.quantile(value, np.linspace(0, 1, LEVELS + 1)))
    x, y = np.linspace(x0, x1, GRID), np.linspace(y0, y1, GRID)
    bands = axes.contourf(x, y, value, levels, cmap="Blues", alpha=0.45)
    bands.set_rasterized(True)
    axes.contour(x, y, value, levels, colors="#3b5b7a", linewidths=0.4, alpha=0.7)

    # Arrows stand off the frame by half a spacing.
    edge = np.array([[x1 - x0], [y1 - y0]]) / ARROWS / 2 * np.array([1, -1])
    field = _grid((x0 + edge[0, 0], x1 + edge[0, 1]), (y0 + edge[1, 0], y1 + edge[1, 1]), ARROWS)
    gradient = landscape.gradient(field)
    norm = np.linalg.norm(gradient, axis=-1, keepdims=True)
    length = np.log1p(norm) / np.log1p(norm).max()
    arrows = gradient / np.maximum(norm, np.finfo(float).tiny) * length
    axes.quiver(
        *np.moveaxis(field, -1, 0),
        *np.moveaxis(arrows, -1, 0),
        color="black",
        alpha=0.55,
        angles="xy",
        scale=ARROWS * 1.15,
        width=0.0025,
    )
    axes.plot(*landscape.minimisers.T, "*", color="white", ms=12, mec="black", mew=1, zorder=5)
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="$x$", ylabel="$y$")
    columns = np.concatenate([field, landscape.value(field)[..., None], gradient], axis=-1)
    frame = pd.DataFrame(columns.reshape(-1, 5), columns=["x", "y", "f", "df_dx", "df_dy"])
    frame.insert(0, "landscape", landscape.name)
    return frame


def _grid(x: tuple[float, float], y: tuple[float, float], n: int) -> Path:
    return np.stack(np.meshgrid(np.linspace(*x, n), np.linspace(*y, n)), axis=-1)


def gallery(
    landscapes: Sequence[Landscape], domains: Mapping[str, Domain] | None = None
) -> tuple[Figure, pd.DataFrame]:
    """Draw several landscapes, two a row, each in its own window or in that of `domains`."""
    rows = (len(landscapes) + 1) // 2
    figure, grid = plt.subplots(rows, 2, figsize=(7.4, 3.5 * rows), squeeze=False)
    frames = []
    for axes, landscape in zip(grid.flat, landscapes, strict=False):
        frames.append(draw_landscape(axes, landscape, (domains or {}).get(landscape.name)))
        axes.set_title(landscape.title)
    for axes in grid.flat[len(landscapes) :]:
        axes.remove()
    return figure, pd.concat(frames, ignore_index=True)


def paths(
    landscape: Landscape,
    runs: Mapping[str, Path],
    *,
    domain: Domain | None = None,
    vectors: int = 0,
) -> tuple[Figure, pd.DataFrame]:
    """Draw paths on a landscape, and the first `vectors` updates of each as arrows.

    Parameters
    ----------
    landscape
        What the paths run on.
    runs
        Points of each path, shape (steps + 1, 2), by the name for the legend.
    domain
        Window; the landscape's own by default.
    vectors
        How many update vectors to draw on each path.
    """
    figure, axes = plt.subplots(figsize=(6.4, 5.2))
    draw_landscape(axes, landscape, domain)
    draw_paths(axes, runs, vectors)
    figure.legend(loc="outside lower center", ncols=2)
    return figure, path_data(runs)


def along_diagonal(
    runs: Mapping[str, Path], minima: npt.NDArray[np.float64]
) -> tuple[Figure, pd.DataFrame]:
    """Draw x against the step for runs that keep x = y, each in a panel with its own scale.

    Parameters
    ----------
    runs
        Points of each run, shape (steps + 1, 2), by the title of its panel.
    minima
        x of the minima on the diagonal, shape (k,), drawn as thin lines.

    Raises
    ------
    ValueError
        If a run leaves the diagonal.
    """
    figure, grid = plt.subplots(1, len(runs), figsize=(8.2, 3.2), squeeze=False)
    for number, (axes, (name, points)) in enumerate(zip(grid.flat, runs.items(), strict=True)):
        if (points[:, 0] != points[:, 1]).any():
            raise ValueError(f"run {name!r} leaves the diagonal x = y")
        axes.plot(points[:, 0], ".-", color=COLOURS[number], lw=0.7, ms=3)
        low, high = axes.get_ylim()
        for minimum in minima[(low < minima) & (minima < high)]:
            axes.axhline(minimum, color="0.8", lw=0.6, zorder=0)
        axes.set(title=name, xlabel="step")
    grid[0, 0].set_ylabel("$x=y$")
    return figure, path_data(runs)


def draw_paths(axes: Axes, runs: Mapping[str, Path], vectors: int = 0, taper: float = 0.0) -> None:
    """Draw paths into axes: start as circle, end as square, updates as arrows.

    Each line is thinner than the one before by `taper` points, so that one that runs on top of
    another does not hide it.
    """
    limits = axes.get_xlim(), axes.get_ylim()
    for number, (name, points) in enumerate(runs.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        # Iterates far outside the window would only slow the drawing down.
        shown = np.clip(points, -1e6, 1e6)
        width = 1.4 + taper * (len(runs) - 1 - number)
        axes.plot(*shown.T, color=colour, ls=dash, lw=width, label=name, zorder=3)
        axes.plot(*shown[0], "o", color=colour, ms=7, mec="white", zorder=4)
        axes.plot(*shown[-1], "s", color=colour, ms=7, mec="white", zorder=4)
        if vectors:
            updates = np.diff(shown[: vectors + 1], axis=0)
            axes.quiver(
                *shown[: len(updates)].T,
                *updates.T,
                color=colour,
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.006,
                zorder=4,
            )
    axes.set(xlim=limits[0], ylim=limits[1])


def path_data(runs: Mapping[str, Path], most: int = 500) -> pd.DataFrame:
    """Return paths as a tidy table, at most `most` points of each, evenly spread over its steps."""
    frames = []
    for name, points in runs.items():
        steps = np.unique(np.linspace(0, len(points) - 1, min(most, len(points))).astype(int))
        x, y = points[steps].T
        frames.append(pd.DataFrame({"run": name, "step": steps, "x": x, "y": y}))
    return pd.concat(frames, ignore_index=True)


def race(
    landscape: Landscape,
    runs: Mapping[str, Path],
    *,
    domain: Domain | None = None,
    frames: int = 180,
) -> tuple[Figure, pd.DataFrame, dict[str, Any]]:
    """Draw paths, and return also what a page needs to replay them side by side.

    The frames are spread so that early steps, where most happens, pass slowly. The figure is laid
    out by hand, so that the page knows where on the image the axes lie.
    """
    with plt.rc_context({"figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(7.4, 4.6))
    axes = figure.add_axes((0.1, 0.12, 0.57, 0.85))
    draw_landscape(axes, landscape, domain)
    draw_paths(axes, runs, taper=0.2)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    last = min(len(points) for points in runs.values()) - 1
    steps = np.unique((last * np.linspace(0, 1, frames) ** 2).astype(int))
    player = {
        "axes": [round(float(x), 4) for x in axes.get_position().bounds],
        "xlim": axes.get_xlim(),
        "ylim": axes.get_ylim(),
        "steps": steps.tolist(),
        "runs": [
            {
                "label": name,
                "colour": COLOURS[number % len(COLOURS)],
                "points": np.round(np.clip(points[steps], -1e3, 1e3), 4).tolist(),
            }
            for number, (name, points) in enumerate(runs.items())
        ],
    }
    return figure, path_data(runs), player
