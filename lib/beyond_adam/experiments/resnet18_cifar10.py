"""The experiment of the later paper on p-norm decay: ResNet-18 on CIFAR-10.

Settings are the defaults of the authors' repository: 100 epochs in batches of 400, a learning rate
that rises for two epochs and then falls along a cosine, decay of matrices and kernels only, and one
strength, 10⁻³, for PAdam's p = 0.8 and for AdamW alike, although these do not compare. Three things
differ. Ours computes in float32, theirs lets the GPU round products to TF32; we normalise by the
deviation of all training pixels, they by a mean of the deviations of batches (0.2463 for 0.2470 in
red); and their script reports the best test accuracy of all epochs, ours that of the last one.
"""

from typing import Any, Final

import pandas as pd
from torch.optim import AdamW

from beyond_adam.data.augmentation import Crop, Flip, Rotation
from beyond_adam.experiments.fashion_mnist import layers
from beyond_adam.models import resnet18
from beyond_adam.optim import CosineSchedule, PAdam
from beyond_adam.training import Definition, WarmUp, collect, provenance_table, together

NAME = "resnet18-cifar10"

NEEDS_GPU: Final = True
"""`make paper` leaves the runs out where there is none; they would take days."""

SEED: Final = 1337

EPOCHS, WARM = 100, 2

LR: Final = 1e-3
"""The greatest learning rate; it begins and ends at a hundredth of it."""


def definition(optimizer: Any, options: dict[str, Any]) -> Definition:
    """Return a run with the repository's settings."""
    fall = CosineSchedule(LR, LR / 100, EPOCHS - WARM + 1)
    return Definition(
        data="cifar10",
        model=resnet18,
        optimizer=optimizer,
        options={"lr": LR, **options},
        epochs=EPOCHS,
        batch=400,
        seed=SEED,
        schedules={"lr": WarmUp(LR / 100, WARM, fall)},
        augmentation=(Crop(4, reflect=True), Rotation(10), Flip(), Crop(4)),
    )


def runs(profile: str) -> dict[tuple[str, int], Definition]:
    """Return the runs by method and seed; there are none but at the paper profile."""
    if profile != "paper":
        return {}
    return {
        ("PAdam", SEED): definition(PAdam, {"weight_decay": 1e-3, "p": 0.8}),
        ("AdamW", SEED): definition(AdamW, {"weight_decay": 1e-3}),
    }


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Collect what the runs measured, of those that have been trained.

    Parameters
    ----------
    profile
        At "paper" there are runs.

    Returns
    -------
    dict of DataFrame
        ``epochs``, ``layers`` and ``provenance``, as `beyond_adam.experiments.fashion_mnist.run`
        has them.
    """
    records = collect(runs(profile), profile)
    return {
        "epochs": together(records, "epochs"),
        "layers": together(records, layers),
        "provenance": provenance_table(records),
    }
