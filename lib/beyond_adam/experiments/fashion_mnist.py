"""The experiment of the post on PAdam: a small CNN on Fashion-MNIST, with AdamW and with PAdam.

Settings are those of the author's scripts: 400 epochs, batches of 256, random rotations and
translations, a learning rate that falls geometrically, and decay of all parameters, biases too.
The test images are measured after every epoch, as published, and nothing is chosen by them. At the
quick profile the digits stand in for Fashion-MNIST, with decays that suit their few steps.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import stats
from torch.optim import AdamW, Optimizer

from beyond_adam.data.augmentation import Rotation, Translation
from beyond_adam.models import fashion_cnn
from beyond_adam.optim import GeometricSchedule, PAdam
from beyond_adam.training import Definition, Record, collect, provenance_table, together

NAME = "fashion-mnist"

KEEPS_WEIGHTS: Final = True
"""The figures show the weights, so that they are archived too."""

Array = npt.NDArray[np.float64]

SEEDS: Final = {"smoke": (2349,), "quick": (2349, 2350, 2351), "paper": (2349, 2350, 2351)}
"""Seeds at each profile; the author's is 2349."""

EPOCHS: Final = {"smoke": 2, "quick": 30, "paper": 400}

LR: Final = 3e-3
"""Learning rate of the first epoch."""

P: Final = 0.8
"""Exponent of PAdam's norm."""

ADAMW_DECAY: Final = 0.1

PADAM_DECAY: Final = {"smoke": 0.03, "quick": 0.03, "paper": 0.003}
"""Strength λ of PAdam's decay at each profile; 0.003 is the published one."""

BINS: Final = np.linspace(-12, 1, 131)
"""Edges of the histogram's bins, decimal logarithms of sizes."""

SIZES: Final = np.sort([*np.logspace(-12, 1, 131), 6.6e-3])
"""Sizes at which the distribution function is evaluated; 6.6e-3 is one the post names."""


def published(
    optimizer: Callable[..., Optimizer],
    options: Mapping[str, Any],
    profile: str,
    seed: int,
    epochs: int | None = None,
    **changes: Any,
) -> Definition:
    """Return a run with the published settings.

    Parameters
    ----------
    optimizer, options
        Its class and what is passed to it besides the learning rate.
    profile
        Decides on the data, and on the batch that fits their number.
    seed
        Of the run.
    epochs
        Length of the training, over which the learning rate falls; by default that of `EPOCHS`.
    **changes
        Of the `Definition`; ``schedules`` and ``model_options`` are added to the published ones.
    """
    real = profile == "paper"
    length = EPOCHS[profile] if epochs is None else epochs
    setting: dict[str, Any] = {
        "data": "fashion-mnist" if real else "digits",
        "model": fashion_cnn,
        "model_options": {} if real else {"side": 8},
        "optimizer": optimizer,
        "options": {"lr": LR, **options},
        "decay": "all",
        "epochs": length,
        "batch": 256 if real else 64,
        "seed": seed,
        "schedules": {"lr": GeometricSchedule(LR, LR * 10**-0.6, length + 1)},
        "moved": "epoch",
        "augmentation": (Rotation(10), Translation(0.1)),
        "precision": "bfloat16" if real else "float32",
    }
    for name in ("schedules", "model_options"):
        setting[name] = setting[name] | changes.pop(name, {})
    return Definition(**(setting | changes))


def runs(profile: str) -> dict[tuple[str, int], Definition]:
    """Return the runs of the experiment by method and seed."""
    found = {}
    for seed in SEEDS[profile]:
        adamw = {"weight_decay": ADAMW_DECAY}
        padam = {"weight_decay": PADAM_DECAY[profile], "p": P}
        found["AdamW", seed] = published(AdamW, adamw, profile, seed)
        found["PAdam", seed] = published(PAdam, padam, profile, seed)
    return found


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Collect what the runs measured; at the paper profile, of those that have been trained.

    Parameters
    ----------
    profile
        Decides on data, length and seeds.

    Returns
    -------
    dict of DataFrame
        All with ``method`` and ``seed``. ``epochs``, ``layers``, ``cuts``, ``pruned``,
        ``normalisation`` and ``units`` as `beyond_adam.training` describes them, but ``layers``
        with the number ``of`` entries of the layer. ``histogram``: the
        ``count`` of entries that are not 0 in each bin of `BINS`, from ``low`` to ``high``; what is
        outside is in the bin at that end. ``distribution``: for each ``size`` of `SIZES` the part
        of all entries that is ``below``. ``provenance``: see `provenance_table`.
    """
    records = collect(runs(profile), profile)
    names = ("epochs", "cuts", "pruned", "normalisation", "units")
    tables = {name: together(records, name) for name in names}
    return tables | {
        "layers": together(records, layers),
        "histogram": together(records, lambda record: histogram(entries(record))),
        "distribution": together(records, lambda record: distribution(entries(record))),
        "provenance": provenance_table(records),
    }


def layers(record: Record) -> pd.DataFrame:
    """Return how many entries of each layer are small, and of how many."""
    numbers = {name: p.numel() for name, p in record.run.build_model().named_parameters()}
    table = record.table("layers")
    return table.assign(of=table["layer"].map(numbers))


def small(table: pd.DataFrame, only: str = "") -> pd.DataFrame:
    """Return which part of a model is small, from the number of entries in its layers.

    Parameters
    ----------
    table
        What `layers` returns, with ``method`` and ``seed``.
    only
        Count the parameters alone whose names end so; all by default.

    Returns
    -------
    DataFrame
        ``method``, ``seed``, ``epoch``, ``threshold`` and ``part``: how many are at most that.
    """
    counted = table[table["layer"].str.endswith(only)]
    keys = ["method", "seed", "epoch", "threshold"]
    total = counted.groupby(keys)[["count", "of"]].sum()
    return total.assign(part=total["count"] / total["of"]).reset_index()[[*keys, "part"]]


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last epoch of each run."""
    latest = table.groupby(["method", "seed"])["epoch"].transform("max")
    return table[table["epoch"] == latest].reset_index(drop=True)


class Difference(NamedTuple):
    """A mean difference of runs, half the width of its 95 % interval, and the number of seeds."""

    mean: float
    half: float
    seeds: int

    @property
    def interval(self) -> tuple[float, float]:
        """The interval."""
        return self.mean - self.half, self.mean + self.half


def difference(table: pd.DataFrame, column: str, methods: tuple[str, str]) -> Difference:
    """Return how much more the first method has than the second, compared seed by seed.

    Parameters
    ----------
    table
        ``method``, ``seed`` and the column, one line a run.
    column
        What is compared.
    methods
        The two.

    Returns
    -------
    Difference
        Of the seeds that both have, with the interval by Student's distribution. It is infinite for
        a single seed, and where counts are the same for all seeds, which tells nothing of how much
        they vary.
    """
    values = table.pivot(index="seed", columns="method", values=column)
    apart = (values[methods[0]] - values[methods[1]]).dropna()
    error = apart.sem() if len(apart) > 1 else 0
    half = stats.t.ppf(0.975, len(apart) - 1) * error if error else math.inf
    return Difference(float(apart.mean()), float(half), len(apart))


def entries(record: Record) -> Array:
    """Return the sizes of all parameters of a trained model, biases too."""
    parameters = [tensor.flatten() for tensor in record.weights().values()]
    return torch.cat(parameters).abs().double().numpy()


def histogram(sizes: Array) -> pd.DataFrame:
    """Return how many sizes that are not 0 are in each bin of `BINS`."""
    logarithms = np.log10(sizes[sizes > 0]).clip(BINS[0], BINS[-1])
    count, _ = np.histogram(logarithms, BINS)
    return pd.DataFrame({"low": BINS[:-1], "high": BINS[1:], "count": count})


def distribution(sizes: Array) -> pd.DataFrame:
    """Return which part of the sizes is below each of `SIZES`."""
    below = np.searchsorted(np.sort(sizes), SIZES) / len(sizes)
    return pd.DataFrame({"size": SIZES, "below": below})
