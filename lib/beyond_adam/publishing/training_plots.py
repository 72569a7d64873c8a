"""Drawings of training runs: curves, sizes of weights, sparsity, and what it costs.

Each function returns the figure and the data that it shows, tidy, for `Chapter.figure`. The tables
that they take are those of `beyond_adam.experiments.fashion_mnist.run` and its neighbours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beyond_adam.publishing.style import COLOURS, DASHES

_BLACK: Final = COLOURS[-1]

_OF_METHOD: Final[dict[Any, str]] = {"PAdam": COLOURS[0], "AdamW": _BLACK}


def curves(epochs: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw loss and accuracy against epochs: thin lines for seeds, training dotted.

    Parameters
    ----------
    epochs
        The table ``epochs`` of one experiment.
    """
    columns = ["train_loss", "test_loss", "train_accuracy", "test_accuracy"]
    shown = epochs[["method", "seed", "epoch", *columns]]
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.8))
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for method, runs in shown.groupby("method"):
            for seed, (_, line) in enumerate(runs.groupby("seed")):
                for part, dashes in (("train", ":"), ("test", "-")):
                    named = f"{method}, {part}" if seed == 0 else None
                    style = {"color": _OF_METHOD[method], "ls": dashes, "lw": 0.9, "label": named}
                    axes.plot(line["epoch"], line[f"{part}_{quantity}"], **style)
        # What the first epochs do would take up most of the axis.
        late = shown[shown["epoch"] > shown["epoch"].max() // 20]
        values = late[[f"train_{quantity}", f"test_{quantity}"]].to_numpy()
        margin = 0.05 * np.ptp(values)
        axes.set_ylim(values.min() - margin, values.max() + margin)
        axes.set(xlabel="epoch", ylabel=quantity)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure, shown


def sizes(
    histogram: pd.DataFrame, distribution: pd.DataFrame, scales: Mapping[str, float]
) -> tuple[Figure, pd.DataFrame]:
    """Draw density and distribution function of the sizes of weights, means over seeds.

    Parameters
    ----------
    histogram, distribution
        The tables of these names. The density is that of all entries; those that are exactly 0 have
        no place on the axis and are missing from it.
    scales
        Sizes to be marked by vertical lines, by their names.

    Returns
    -------
    Figure, DataFrame
        The data have ``method``, ``size`` and ``below``, and the ``density`` per decade of the bin
        that ends there.
    """
    counts = histogram.groupby(["method", "seed"])["count"].transform("sum")
    zero = distribution.groupby(["method", "seed"])["below"].first()
    keys = pd.MultiIndex.from_frame(histogram[["method", "seed"]])
    width = histogram["high"] - histogram["low"]
    density = histogram["count"] / counts * (1 - zero.loc[keys].to_numpy()) / width
    bins = histogram.assign(density=density, size=10 ** histogram["high"])
    bins = bins.groupby(["method", "size"])[["density"]].mean().reset_index()
    mean = distribution.groupby(["method", "size"])[["below"]].mean().reset_index()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.9))
    for method, line in bins.groupby("method"):
        left.step(line["size"], line["density"], color=_OF_METHOD[method], lw=1, label=method)
    for method, line in mean.groupby("method"):
        right.plot(line["size"], line["below"], color=_OF_METHOD[method], label=method)
    for axes in (left, right):
        for number, (name, scale) in enumerate(scales.items()):
            style = {"color": COLOURS[1 + number], "ls": DASHES[1 + number], "lw": 1.2}
            axes.axvline(scale, label=name if axes is left else None, **style)
        axes.set(xscale="log", xlabel="$|w|$", xlim=(1e-12, 3))
    left.set(yscale="log", ylabel="part of the weights per decade", ylim=(1e-6, 2))
    right.set(ylabel="part of the weights below $|w|$", ylim=(0, 1))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, pd.concat([mean, bins], ignore_index=True)


def sparsity_by_layer(
    layers: pd.DataFrame, names: Mapping[str, str]
) -> tuple[Figure, pd.DataFrame]:
    """Draw which part of each layer's weights is exactly 0 against epochs, means over seeds.

    Parameters
    ----------
    layers
        The table ``layers`` of one method.
    names
        What the layers are called, by parameter; others are not drawn.
    """
    exact = layers[(layers["threshold"] == 0) & layers["layer"].isin(names)]
    exact = exact.assign(part=exact["count"] / exact["of"])
    table = exact.groupby(["layer", "epoch"])[["part"]].mean().reset_index()
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for number, (layer, name) in enumerate(names.items()):
        line = table[table["layer"] == layer]
        axes.plot(line["epoch"], line["part"], color=COLOURS[number], ls=DASHES[number], label=name)
    axes.set(xlabel="epoch", ylabel="part of the weights that is 0", ylim=(0, 1), xscale="log")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure, table


def pruned(table: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw test accuracy against the part of the weights that is cut, for each method and seed."""
    shown = table[table["split"] == "test"][["method", "seed", "part", "accuracy"]]
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for method, runs in shown.groupby("method"):
        for seed, (_, line) in enumerate(runs.groupby("seed")):
            named = str(method) if seed == 0 else None
            axes.plot(line["part"], line["accuracy"], color=_OF_METHOD[method], lw=1, label=named)
    axes.set(xlabel="part of the weights that is cut", ylabel="test accuracy")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure, shown


def front(best: pd.DataFrame, lowest: float) -> tuple[Figure, pd.DataFrame]:
    """Draw what each method reaches at each sparsity; points that share a method are joined.

    The axis is logarithmic in what is left of the weights.

    Parameters
    ----------
    best
        What `beyond_adam.experiments.sparsity_front.front` returns.
    lowest
        Least accuracy that is shown.
    """
    figure, axes = plt.subplots(figsize=(7.4, 4.8))
    for number, (method, line) in enumerate(best.groupby("method", sort=True)):
        colour = (*COLOURS, "0.5")[number]
        style: dict[str, Any] = {"color": colour, "ls": DASHES[number % 7], "lw": 1.3}
        marker = "osD^vX*Ph"[number]
        axes.plot(1 - line["part"], line["test"], marker=marker, ms=4, label=str(method), **style)
    axes.set(xlabel="part of the weights that is 0", ylabel="test accuracy")
    axes.set_xscale("log")
    axes.set_xlim(1.1, 0.9 * (1 - best["part"].max()))
    parts = [0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99]
    axes.set_xticks([1 - part for part in parts], [f"{part:g}" for part in parts])
    axes.minorticks_off()
    axes.set_ylim(lowest, best["test"].max() + 0.03 * (1 - lowest))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure, best


def variants(table: pd.DataFrame, order: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracies and sparsities of variants side by side, a dot a seed.

    Parameters
    ----------
    table
        Columns ``method``, ``seed``, ``accuracy`` and ``sparsity``.
    order
        The methods, from top to bottom.
    """
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 0.42 * len(order) + 1.2), sharey=True)
    for axes, (column, label) in zip(
        panels,
        (("accuracy", "test accuracy"), ("sparsity", "part of the weights that is 0")),
        strict=True,
    ):
        _dots(axes, table, order, column)
        axes.set_xlabel(label)
    panels[0].set_yticks(range(len(order)), order)
    panels[0].invert_yaxis()
    return figure, table


def _dots(axes: Axes, table: pd.DataFrame, order: Sequence[str], column: str) -> None:
    for place, method in enumerate(order):
        values = table.loc[table["method"] == method, column]
        axes.plot(values, [place] * len(values), "o", color=COLOURS[0], mfc="none", ms=6)
        if len(values) > 1:
            axes.plot(values.mean(), place, "|", color=_BLACK, ms=14, mew=1.6)
    axes.grid(axis="y", color="0.9")
