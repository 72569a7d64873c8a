"""What the zeros of the post's networks are worth once they are really left out.

The networks are those of `beyond_adam.experiments.fashion_mnist`; nothing else is trained. This
counts bytes and units. Times are those of a machine: ``benchmarks/sparse_inference.py`` takes them.
"""

import copy
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd
import torch
from torch import Tensor, nn

from beyond_adam.experiments import fashion_mnist
from beyond_adam.models.slim import sizes, slim
from beyond_adam.optim import hard_zero
from beyond_adam.training import Record, collect

NAME = "sparse-inference"

COLUMNS: Final = {
    "sizes": ("method", "seed", "network", "format", "bytes"),
    "units": ("method", "seed", "network", "layer", "units", "left"),
    "difference": ("method", "seed", "network", "difference", "largest"),
}
"""Columns of the tables of `run`, which are there even if no run has been archived."""

CUT: Final = 1e-6
"""Weights of at most this size are as good as zero: without them logits differ by rounding."""

IMAGES: Final = 256
"""Number of images on which a network is compared with what is left of it."""


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Count what is zero in the trained networks; at the paper profile, in those archived.

    Parameters
    ----------
    profile
        Decides on data, length and seeds.

    Returns
    -------
    dict of DataFrame
        All with ``method``, ``seed`` and ``network``: as "trained", what `slim` leaves of it
        ("slim"), and what it leaves once the weights of at most `CUT` are zero ("cut, slim").
        ``sizes``: the ``bytes`` of all parameters in each ``format`` of
        `beyond_adam.models.slim.sizes`; those of the format "zlib" may change with the version of
        zlib. ``units``: of each ``layer`` but the last, by its number in the chain, how many
        ``units`` it has, channels or neurons, and how many are ``left``. ``difference``: the
        greatest change of a logit of `images`, which is rounding, and the ``largest`` absolute
        logit.
    """
    records = collect(fashion_mnist.runs(profile), profile)
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for (method, seed), record in records.items():
        trained = network(record)
        cut = copy.deepcopy(trained)
        hard_zero(cut, CUT)
        x = images(record, IMAGES)
        with torch.no_grad():
            logits = trained(x)
        largest = logits.abs().max().item()
        networks = {"trained": trained, "slim": slim(trained), "cut, slim": slim(cut)}
        for name, model in networks.items():
            label = (method, seed, name)
            found = sizes(model.state_dict())
            rows["sizes"] += [(*label, *item) for item in found.items()]
            if name == "trained":
                continue
            rows["units"] += [(*label, *counts) for counts in _units(trained, model)]
            with torch.no_grad():
                apart = (model(x) - logits).abs().max().item()
            rows["difference"].append((*label, apart, largest))
    return {name: pd.DataFrame(rows[name], columns=list(COLUMNS[name])) for name in COLUMNS}


def network(record: Record) -> nn.Sequential:
    """Return a trained network in evaluation mode."""
    model = record.run.build_model()
    model.load_state_dict(record.weights())
    assert isinstance(model, nn.Sequential)
    return model.eval()


def images(record: Record, count: int) -> Tensor:
    """Return random images that a network takes, always the same ones.

    Their pixels are standard normal: like those of real images after normalisation in mean and
    deviation, and there without the data.
    """
    side = record.run.model_options.get("side", 28)
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


def _units(trained: nn.Sequential, slimmed: nn.Sequential) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each layer but the last, the number of its units, and how many are left."""
    pairs = [
        (str(number), len(before.weight), len(after.weight))
        for number, (before, after) in enumerate(zip(trained, slimmed, strict=True))
        if isinstance(before, nn.Linear | nn.Conv2d) and isinstance(after, nn.Linear | nn.Conv2d)
    ]
    yield from pairs[:-1]
