"""What the post on PAdam says in passing, each measured by runs that differ in one thing.

The published settings, with the schedule compressed to 40 epochs.
"""

from typing import Any, Final

import pandas as pd
from torch.optim import AdamW, Optimizer

from beyond_adam.experiments.fashion_mnist import ADAMW_DECAY, PADAM_DECAY, P, layers, published
from beyond_adam.optim import DynamicPAdam, LinearSchedule, PAdam
from beyond_adam.training import Definition, collect, provenance_table, together

NAME = "fashion-mnist-variants"

EPOCHS: Final = {"smoke": 2, "quick": 15, "paper": 40}

SEEDS: Final = {"smoke": (2349,), "quick": (2349, 2350), "paper": (2349, 2350, 2351)}

LAMBDA_2: Final = 0.1
"""Strength of the square norm of the elastic net."""

BETA_S: Final = {"smoke": 0.9, "quick": 0.99, "paper": 0.9998}
"""Delay of DynamicPAdam: its s follows within 5000 of the 9400 steps of 40 epochs."""

NARROW: Final = (15, 31, 62)
"""Widths of a dense network that has as many parameters as PAdam's has ones that are not 0."""

METHODS: Final = (
    "PAdam",
    "AdamW",
    "Adam",
    "PAdam, updated weight",
    "PAdam, elastic net",
    "PAdam, p from 2",
    "DynamicPAdam",
    "AdamW, narrow",
)


def definition(method: str, profile: str, seed: int) -> Definition:
    """Return the run of a method.

    Raises
    ------
    ValueError
        If the method is none of `METHODS`.
    """
    epochs = EPOCHS[profile]
    padam: dict[str, Any] = {"weight_decay": PADAM_DECAY[profile], "p": P}
    adamw: dict[str, Any] = {"weight_decay": ADAMW_DECAY}
    changes: dict[str, Any] = {}
    optimizer: type[Optimizer] = PAdam
    match method:
        case "PAdam":
            options = padam
        case "AdamW":
            optimizer, options = AdamW, adamw
        case "Adam":
            optimizer, options = AdamW, {"weight_decay": 0.0}
        case "PAdam, updated weight":
            options = padam | {"decay_at": "updated"}
        case "PAdam, elastic net":
            options = padam | {"lambda_2": LAMBDA_2}
        case "PAdam, p from 2":
            options = padam
            changes = {"schedules": {"p": LinearSchedule(2, P, epochs // 2 + 1)}}
        case "DynamicPAdam":
            optimizer, options = DynamicPAdam, padam | {"beta_s": BETA_S[profile]}
        case "AdamW, narrow":
            optimizer, options = AdamW, adamw
            changes = {"model_options": {"widths": NARROW}}
        case _:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    return published(optimizer, options, profile, seed, epochs, **changes)


def runs(profile: str) -> dict[tuple[str, int], Definition]:
    """Return the runs of the experiment by method and seed."""
    pairs = [(method, seed) for method in METHODS for seed in SEEDS[profile]]
    return {(method, seed): definition(method, profile, seed) for method, seed in pairs}


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Collect what the runs measured; at the paper profile, of those that have been trained.

    Parameters
    ----------
    profile
        Decides on data, length and seeds.

    Returns
    -------
    dict of DataFrame
        ``epochs``, ``layers``, ``pruned`` and ``units`` as `beyond_adam.training` describes them,
        and ``provenance``, all with ``method`` and ``seed``.
    """
    records = collect(runs(profile), profile)

    def table(name: str) -> pd.DataFrame:
        return together(records, lambda record: record.table(name))

    tables = {name: table(name) for name in ("epochs", "pruned", "units")}
    return tables | {
        "layers": together(records, layers),
        "provenance": provenance_table(records),
    }
