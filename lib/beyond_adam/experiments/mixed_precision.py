"""Training in mixed precision, by every optimizer of the library and by two of torch's.

A small convolutional network learns the handwritten digits in float32, and with float16 and
bfloat16 by `torch.autocast`. Nothing is tuned: learning rate and decay are those that
`beyond_adam.experiments.choosing_p` has for the same digits, and Padam's those of its paper.
"""

import math
from typing import Any, Final, NamedTuple

import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from beyond_adam import project
from beyond_adam.data import digits
from beyond_adam.experiments.choosing_p import LR, WEIGHT_DECAY, small, translated, weights
from beyond_adam.optim import (
    AdamExponent,
    DynamicPAdam,
    ExponentScheduler,
    HyperparameterScheduler,
    LinearSchedule,
    PAdam,
    Padam,
    PNormScheduler,
    decay_groups,
)

NAME = "mixed-precision"

METHODS: Final = (
    "AdamW",
    "AdamW, AMSGrad",
    "PAdam",
    "PAdam, p from 2",
    "DynamicPAdam",
    "Padam",
    "AdamExponent",
)

PRECISIONS: Final = ("float32", "float16", "bfloat16")

P: Final = 0.8
"""Exponent of the p-norms."""

MULTIPLE: Final = 3.0
"""Strength of a p-norm decay in units of what `translated` makes of AdamW's."""

BETA_S: Final = 0.98
"""DynamicPAdam's: its default of 0.999 would take longer than the training."""

PADAM_LR: Final = 0.1
PADAM_DECAY: Final = 5e-4

BATCH: Final = 64

GROWTH_INTERVAL: Final = 30
"""Steps without overflow after which the scale of a loss is doubled. With the default of 2000 it
would never be: so short a training would not see what a long one does, a scale tried too high."""

SCALES: Final = {"smoke": (2, 1), "quick": (5, 6), "paper": (20, 40)}
"""Numbers of seeds and of epochs at each profile."""


def network() -> nn.Sequential:
    """Return the network, for images (batch, 1, 8, 8), drawn from torch's global generator."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def rate(step: int, steps: int) -> float:
    """Return the factor of the learning rate: from 0 to 1 in a tenth of the steps, then a cosine.

    Parameters
    ----------
    step
        Number of batches trained on, from 0.
    steps
        The step at which the factor is 0 again.
    """
    warm = steps // 10
    if step < warm:
        return step / warm
    return (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


Schedulers = list[LambdaLR | HyperparameterScheduler]


def begin(method: str, model: nn.Module, steps: int) -> tuple[Optimizer, Schedulers]:
    """Return the optimizer of a method and the schedulers that are stepped with it.

    Parameters
    ----------
    method
        One of `METHODS`.
    model
        The network, at its start.
    steps
        Number of batches that it will be trained on.

    Raises
    ------
    ValueError
        If the method is unknown.
    """
    usual: dict[str, Any] = {"lr": LR, "fused": True}
    strength = MULTIPLE * translated(WEIGHT_DECAY, P, weights(model).abs().median().item())
    decayed, p_decayed = decay_groups(model, WEIGHT_DECAY), decay_groups(model, strength)
    optimizer: Optimizer
    schedulers: Schedulers = []
    match method:
        case "AdamW":
            optimizer = AdamW(decayed, **usual)
        case "AdamW, AMSGrad":
            optimizer = AdamW(decayed, amsgrad=True, **usual)
        case "PAdam":
            optimizer = PAdam(p_decayed, p=P, **usual)
        case "PAdam, p from 2":
            optimizer = PAdam(p_decayed, p=P, **usual)
            schedulers = [PNormScheduler(optimizer, LinearSchedule(2, P, steps // 2))]
        case "DynamicPAdam":
            optimizer = DynamicPAdam(p_decayed, p=P, beta_s=BETA_S, **usual)
        case "Padam":
            optimizer = Padam(decay_groups(model, PADAM_DECAY), lr=PADAM_LR, fused=True)
        case "AdamExponent":
            optimizer = AdamExponent(model.parameters(), **usual)
            schedulers = [ExponentScheduler(optimizer, LinearSchedule(0.5, 0, steps))]
        case _:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    return optimizer, [LambdaLR(optimizer, lambda step: rate(step, steps)), *schedulers]


class Images(NamedTuple):
    """Pixels from 0 to 1, shape (images, 1, 8, 8), and classes, shape (images,)."""

    pixels: Tensor
    classes: Tensor


def images() -> tuple[Images, Images]:
    """Return the digits to train on and those to test with."""
    data = digits()
    pixels = torch.tensor(data.images[:, None] / 16, dtype=torch.float32)
    classes = torch.tensor(data.labels)
    train, test = (Images(pixels[part], classes[part]) for part in (data.train, data.test))
    return train, test


def train(
    method: str, precision: str, seed: int, data: Images, epochs: int
) -> tuple[nn.Sequential, int]:
    """Return a trained network, and how many steps the scaler skipped.

    Start and batches belong to the seed: they are the same for all methods and precisions.

    Parameters
    ----------
    method
        One of `METHODS`.
    precision
        One of `PRECISIONS`, for forward and backward pass; weights and state are float32. Only
        float16 has its loss scaled.
    seed
        Of start and batches; torch's global generator is left as it was.
    data
        What to train on.
    epochs
        How often to go through it.

    Raises
    ------
    ValueError
        If method or precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network()
        count = len(data.classes)
        orders = [torch.randperm(count) for _ in range(epochs)]
    batches = [batch for order in orders for batch in torch.split(order, BATCH)]
    optimizer, schedulers = begin(method, model, len(batches))
    scaled = precision == "float16"
    scaler = torch.amp.GradScaler("cpu", growth_interval=GROWTH_INTERVAL, enabled=scaled)
    skipped = 0
    for batch in batches:
        optimizer.zero_grad()
        low = precision != "float32"
        with torch.autocast("cpu", getattr(torch, precision) if low else None, enabled=low):
            loss = cross_entropy(model(data.pixels[batch]), data.classes[batch])
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        skipped += scaler.get_scale() < before
        for scheduler in schedulers:
            scheduler.step()
    return model.eval(), skipped


@torch.no_grad()
def accuracy(model: nn.Module, data: Images) -> float:
    """Return which part of the images a model classifies rightly, computed in float32."""
    right: Tensor = model(data.pixels).argmax(dim=-1) == data.classes
    return right.double().mean().item()


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Train by every method in every precision.

    Parameters
    ----------
    profile
        Decides on the scale; see `SCALES`.

    Returns
    -------
    dict of DataFrame
        ``runs``, one line a network: ``method``, ``precision``, ``seed``, accuracy on the ``test``
        images, number of ``steps`` and of those that were ``skipped``, and part of the weights,
        biases left out, that are exactly ``zero``.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    seeds, epochs = SCALES[project.check_profile(profile)]
    train_on, test_with = images()
    lines: list[dict[str, Any]] = []
    for method in METHODS:
        for precision in PRECISIONS:
            for seed in range(seeds):
                model, skipped = train(method, precision, seed, train_on, epochs)
                lines.append(
                    {
                        "method": method,
                        "precision": precision,
                        "seed": seed,
                        "test": accuracy(model, test_with),
                        "steps": epochs * math.ceil(len(train_on.classes) / BATCH),
                        "skipped": skipped,
                        "zero": small(model, 0),
                    }
                )
    return {"runs": pd.DataFrame(lines)}


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds, with those of float32 to compare with.

    Networks of one method and seed have the same start and batches, so that low precision is
    compared with float32 seed by seed.

    Parameters
    ----------
    runs
        The table of `run`.

    Returns
    -------
    DataFrame
        One line a method and precision, in the order of `runs`: the means of ``test`` and ``zero``,
        the sum of ``skipped``, and the mean difference ``points`` of the accuracy from that in
        float32, in percentage points; for ``test`` (as it is) and ``points`` the half widths
        ``test_interval`` and ``points_interval`` of their 95 % intervals by Student's distribution
        (nan for one seed).
    """
    full = runs[runs["precision"] == "float32"].set_index(["method", "seed"])["test"]
    reference = full.loc[list(zip(runs["method"], runs["seed"], strict=True))].to_numpy()
    groups = runs.assign(points=100 * (runs["test"] - reference)).groupby(
        ["method", "precision"], sort=False
    )
    table = groups.agg(
        test=("test", "mean"),
        test_interval=("test", _half_width),
        points=("points", "mean"),
        points_interval=("points", _half_width),
        zero=("zero", "mean"),
        skipped=("skipped", "sum"),
    )
    return table.reset_index()


def _half_width(values: "pd.Series[float]") -> float:
    return float(stats.t.ppf(0.975, len(values) - 1) * values.sem())
