"""Gradient descent, our Adam and PyTorch's on a multilayer perceptron, from one start.

The deck “Adam (and beyond)” compares them on MNIST and gives two hidden layers, cross-entropy, a
learning rate of 10⁻³ and else the defaults of Adam; nothing was tuned. It gives no widths, no
activation, no batch, no number of epochs and no rate for gradient descent: these are ours. At the
smoke and quick profiles the digits stand in for MNIST.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pandas as pd
import torch
from torch.optim import Optimizer

from beyond_adam.models import image_mlp
from beyond_adam.optim.rule_optimizer import rule_adam
from beyond_adam.training import Definition, Record, collect, provenance_table, together

NAME = "mnist-mlp"

KEEPS_WEIGHTS: Final = True
"""The weights of both Adams are compared, so that they are archived too."""

DESCENT: Final = "gradient descent"

TORCH_ADAM: Final = "Adam (PyTorch)"

OUR_ADAM: Final = "Adam (ours)"

LR: Final = 1e-3
"""Learning rate of all three."""

HIDDEN: Final = (64, 64)
"""Numbers of units of the hidden layers, each followed by a ReLU."""

SEEDS: Final = {"smoke": (0,), "quick": (0, 1, 2), "paper": (0, 1, 2)}

EPOCHS: Final = {"smoke": 2, "quick": 10, "paper": 15}


METHODS: Final[Mapping[str, Callable[..., Optimizer]]] = {
    DESCENT: torch.optim.SGD,
    TORCH_ADAM: torch.optim.Adam,
    OUR_ADAM: rule_adam,
}
"""Optimizers by the name of their method."""


def runs(profile: str) -> dict[tuple[str, int], Definition]:
    """Return the runs of the experiment by method and seed."""
    real = profile == "paper"
    setting: dict[str, Any] = {
        "data": "mnist" if real else "digits",
        "model": image_mlp,
        "model_options": {"sizes": (28**2 if real else 8**2, *HIDDEN, 10)},
        "options": {"lr": LR},
        "decay": "all",
        "epochs": EPOCHS[profile],
        "batch": 128 if real else 64,
    }
    return {
        (method, seed): Definition(optimizer=optimizer, seed=seed, **setting)
        for method, optimizer in METHODS.items()
        for seed in SEEDS[profile]
    }


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Collect what the runs measured; at the paper profile, of those that have been trained.

    Parameters
    ----------
    profile
        Decides on data, length and seeds.

    Returns
    -------
    dict of DataFrame
        ``epochs`` as `beyond_adam.training` describes it, with ``method`` and ``seed``. ``apart``:
        see the function; with ``seed``, for those of which both Adams are there. ``provenance``:
        see `provenance_table`.
    """
    records = collect(runs(profile), profile)
    both = [s for s in SEEDS[profile] if {(OUR_ADAM, s), (TORCH_ADAM, s)} <= records.keys()]
    frames = [
        apart(records[OUR_ADAM, seed], records[TORCH_ADAM, seed]).assign(seed=seed) for seed in both
    ]
    return {
        "epochs": together(records, "epochs"),
        "apart": pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(),
        "provenance": provenance_table(records),
    }


def apart(one: Record, other: Record) -> pd.DataFrame:
    """Return how far two runs of equal length and network are apart, all without sign.

    Returns
    -------
    DataFrame
        For each ``epoch`` the differences of ``train_loss`` and of ``test_accuracy``; and
        ``weight``, the largest difference of any weight or bias in the end, in all lines the same.
    """
    columns = ["train_loss", "test_accuracy"]
    ours, theirs = (record.table("epochs").set_index("epoch")[columns] for record in (one, other))
    weights = other.weights()
    largest = max((w - weights[name]).abs().max().item() for name, w in one.weights().items())
    return (ours - theirs).abs().assign(weight=largest).reset_index()
