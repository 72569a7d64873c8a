"""Drawings of how trainings go.

Each function returns the figure and the data that it shows, tidy, for `Chapter.figure`. The tables
that they take are those of `beyond_adam.experiments.mnist_mlp.run`.
"""

from collections.abc import Mapping
from typing import Any, Final

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from beyond_adam.experiments.mnist_mlp import DESCENT, OUR_ADAM, TORCH_ADAM
from beyond_adam.publishing.style import COLOURS

STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    DESCENT: {"color": COLOURS[1], "lw": 1.6},
    TORCH_ADAM: {"color": COLOURS[4], "lw": 5, "solid_capstyle": "round"},
    OUR_ADAM: {"color": COLOURS[-1], "lw": 1.2, "ls": (0, (4, 3))},
}
"""How methods are drawn, one on top of the other: equal curves both have to be seen."""


def learning_curves(epochs: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw training loss and test accuracy of every run against the epochs.

    Parameters
    ----------
    epochs
        The table ``epochs``.
    """
    shown = epochs[["method", "seed", "epoch", "train_loss", "test_accuracy"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.0))
    for method, style in STYLES.items():
        runs = shown[shown["method"] == method].groupby("seed")
        for number, (_, run) in enumerate(runs):
            label = method if number == 0 else None
            left.plot(run["epoch"], run["train_loss"], label=label, **style)
            right.plot(run["epoch"], 100 * run["test_accuracy"], **style)
    left.set(yscale="log", ylabel="training loss")
    right.set(ylim=(0, 100), ylabel="test accuracy (%)")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    left.yaxis.set_minor_formatter(NullFormatter())
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, shown
