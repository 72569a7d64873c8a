"""What the post on PAdam says in passing, each measured by runs that differ in one thing.

The published settings, with the schedule compressed to 40 epochs.
"""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd
from torch.optim import AdamW, Optimizer

from beyond_adam.experiments.fashion_mnist import (
    ADAMW_DECAY,
    PADAM_DECAY,
    P,
    at_end,
    layers,
    published,
    small,
)
from beyond_adam.optim import DynamicPAdam, LinearSchedule, PAdam
from beyond_adam.training import Definition, collect, provenance_table, together

NAME = "fashion-mnist-variants"

EPOCHS: Final = {"smoke": 2, "quick": 15, "paper": 40}

SEEDS: Final = {"smoke": (2349,), "quick": (2349, 2350), "paper": (2349, 2350, 2351)}

LAMBDA_2: Final = 0.1
"""Strength of the square norm of the elastic net."""

BETA_S: Final = {"smoke": 0.9, "quick": 0.97, "paper": 0.999}
"""Delay of DynamicPAdam: its s follows within about a tenth of the steps, at paper scale 1000."""

NARROW: Final = {2349: (20, 39, 76), 2350: (21, 43, 85), 2351: (22, 44, 88)}
"""Widths of a dense network with as many parameters as PAdam's has that are not 0 in the end, for
each seed at the paper profile: no fewer, and no more than 0.3 % more."""

EARLY: Final = 5
"""Number of epochs after which a run is looked at early."""

SETTLED: Final = 0.01
"""How near the last test accuracy has to be for a run to count as settled."""

METHODS: Final = (
    "PAdam",
    "AdamW",
    "Adam",
    "PAdam, updated weight",
    "PAdam, elastic net",
    "PAdam, p from 2",
    "DynamicPAdam",
    "AdamW, narrow",
    "PAdam, float32",
    "AdamW, float32",
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
            changes = {"model_options": {"widths": NARROW[seed]}}
        case "PAdam, float32":
            options, changes = padam, {"precision": "float32"}
        case "AdamW, float32":
            optimizer, options, changes = AdamW, adamw, {"precision": "float32"}
        case _:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    return published(optimizer, options, profile, seed, epochs, **changes)


def runs(profile: str) -> dict[tuple[str, int], Definition]:
    """Return the runs of the experiment by method and seed.

    Those in float32 are of the paper profile only: at the others everything is in float32.
    """
    methods = METHODS if profile == "paper" else METHODS[:-2]
    pairs = [(method, seed) for method in methods for seed in SEEDS[profile]]
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
    names = ("epochs", "pruned", "units")
    tables = {name: together(records, name) for name in names}
    return tables | {
        "layers": together(records, layers),
        "provenance": provenance_table(records),
    }


def summary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a line for each run.

    Parameters
    ----------
    tables
        What `run` returns.

    Returns
    -------
    DataFrame
        ``method``, ``seed``; after the last epoch the test ``accuracy`` and ``loss``, the
        ``sparsity``, which is the part of all entries that is exactly 0, the part that is
        ``small``, at most 1e-3 in size, and the part of the units that is ``dead``; ``early_loss``,
        that on the test images after `EARLY` epochs; and the first epoch whose test accuracy is
        within `SETTLED` of the last, ``settled``, and that with half of the last sparsity,
        ``half_sparse``, if that is not 0.
    """
    epochs, parts = tables["epochs"], small(tables["layers"])
    zeros = parts.query("threshold == 0")
    keys = ["method", "seed"]
    last = at_end(epochs).set_index(keys)
    units = tables["units"].groupby(keys)[["dead", "units"]].sum()
    final = at_end(zeros).set_index(keys)["part"]

    def first(table: pd.DataFrame, wanted: pd.Series) -> pd.Series:
        return table[wanted].groupby(keys)["epoch"].min()

    accuracy = epochs.join(last["test_accuracy"].rename("final"), on=keys)
    part = zeros.join(final.rename("final"), on=keys)
    columns = {
        "accuracy": last["test_accuracy"],
        "loss": last["test_loss"],
        "sparsity": final,
        "small": at_end(parts.query("threshold == 1e-3")).set_index(keys)["part"],
        "dead": units["dead"] / units["units"],
        "early_loss": at_end(epochs[epochs["epoch"] <= EARLY]).set_index(keys)["test_loss"],
        "settled": first(epochs, (accuracy["test_accuracy"] - accuracy["final"]).abs() <= SETTLED),
        "half_sparse": first(zeros, (part["part"] >= part["final"] / 2) & (part["final"] > 0)),
    }
    return pd.DataFrame(columns).reset_index()
