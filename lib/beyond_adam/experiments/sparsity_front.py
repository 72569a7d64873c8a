"""Accuracy against sparsity: p-norm decay and its rivals, with the same number of trials each.

Every method trains the network of the post at each of its strengths, and every network is then cut
to every sparsity: its smallest weights are set to zero at once, whichever way it was trained. At
each sparsity a method is judged by the strength that does best there on held-out training images;
the accuracy that is shown is that on the test images.
"""

from typing import Any, Final

import pandas as pd
from torch.optim import Adam, AdamW

from beyond_adam.experiments.fashion_mnist import published
from beyond_adam.optim import PAdam
from beyond_adam.training import (
    Definition,
    Penalty,
    Pruning,
    collect,
    provenance_table,
    together,
)

NAME = "sparsity-front"

SEED: Final = 1

EPOCHS: Final = {"smoke": 1, "quick": 12, "paper": 20}

VALIDATION: Final = {"smoke": 200, "quick": 200, "paper": 5000}
"""Numbers of training images that are held out."""

MULTIPLES: Final = {"smoke": (1.0, 10.0), "quick": (1.0, 10.0), "paper": (0.3, 1.0, 3.0, 10.0)}
"""Strengths of p-norm decays, in units of `strength`."""

GRADIENT_L1: Final = {
    "smoke": (1e-4, 1e-3),
    "quick": (1e-4, 1e-3),
    "paper": (1e-6, 1e-5, 3e-5, 1e-4),
}
"""Strengths of an L1 penalty whose gradient goes through Adam, which scales it up."""

WEIGHT_DECAYS: Final = {"smoke": (0.0, 0.1), "quick": (0.0, 0.1), "paper": (0.0, 0.01, 0.1, 0.5)}
"""AdamW's."""

PRUNED: Final = {"smoke": (0.8, 0.95), "quick": (0.8, 0.95), "paper": (0.8, 0.9, 0.95, 0.98)}
"""Parts that are pruned from AdamW's network step by step while it is trained."""

REFERENCE: Final = (0.003, 0.8)
"""Strength and exponent of the post."""

SIZE: Final = 0.03
"""Weights of this size are shrunk at the same rate for all p; about what the start has."""


def strength(p: float) -> float:
    """Return the λ at which PAdam shrinks weights of `SIZE` as it does at `REFERENCE`.

    The rate is pλ abs(w)^(p−2).
    """
    reference, exponent = REFERENCE
    return float(exponent * reference / p * SIZE ** (exponent - p))


def runs(profile: str) -> dict[tuple[str, int], Definition]:
    """Return the runs of the experiment by method, with its strength, and seed."""
    found: dict[tuple[str, int], Definition] = {}
    epochs = EPOCHS[profile]

    def add(method: str, value: float, optimizer: Any, options: Any, **changes: Any) -> None:
        found[f"{method} {value:.3g}", SEED] = published(
            optimizer,
            options,
            profile,
            SEED,
            epochs,
            decay="matrices",
            validation=VALIDATION[profile],
            **changes,
        )

    for multiple in MULTIPLES[profile]:
        for p in (0.5, 0.8, 1.0):
            lam = multiple * strength(p)
            add(f"PAdam, p = {p:g}, λ =", lam, PAdam, {"weight_decay": lam, "p": p})
        for p in (0.8, 1.0):
            lam = multiple * strength(p)
            add(f"proximal Adam, p = {p:g}, λ =", lam, Adam, {}, penalty=Penalty(lam, p, "prox"))
    for lam in GRADIENT_L1[profile]:
        add("Adam with L1 gradient, λ =", lam, Adam, {}, penalty=Penalty(lam, 1.0, "gradient"))
    for decay in WEIGHT_DECAYS[profile]:
        add("AdamW, decay", decay, AdamW, {"weight_decay": decay})
    for part in PRUNED[profile]:
        pruning = Pruning(part, epochs // 4, 3 * epochs // 4)
        add("AdamW, pruned in steps,", part, AdamW, {"weight_decay": 0.1}, pruning=pruning)
    return found


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Collect what the runs measured; at the paper profile, of those that have been trained.

    Parameters
    ----------
    profile
        Decides on data, length and strengths.

    Returns
    -------
    dict of DataFrame
        ``pruned``, as `beyond_adam.training.probes` describes it, and ``provenance``, both with
        ``method``, the ``strength`` in words, and ``seed``.
    """
    records = collect(runs(profile), profile)
    tables = {
        "pruned": together(records, "pruned"),
        "provenance": provenance_table(records),
    }
    return {name: _split(table) for name, table in tables.items()}


def _split(table: pd.DataFrame) -> pd.DataFrame:
    """Take the strength out of the method's name."""
    if table.empty:
        return table
    words = table["method"].str.rsplit(" ", n=1)
    method = words.str[0].str.removesuffix(", λ =").str.removesuffix(", decay")
    return table.assign(method=method.str.removesuffix(","), strength=words.str[1])


def front(pruned: pd.DataFrame, by: str = "validation") -> pd.DataFrame:
    """Return for each method and sparsity what its best strength reaches.

    Parameters
    ----------
    pruned
        The table of `run`.
    by
        Whose accuracy decides on the strength: that of the images for "validation", or for "test",
        which shows what choosing by them would have promised.

    Returns
    -------
    DataFrame
        ``method``, ``part`` of the weights that are zero, the ``strength`` chosen, and accuracies
        ``validation`` and ``test`` of that network.
    """
    keys = ["method", "strength", "part"]
    wide = pruned.pivot_table(index=keys, columns="split", values="accuracy").reset_index()
    best = wide.loc[wide.groupby(["method", "part"])[by].idxmax()]
    columns = ["method", "part", "strength", "validation", "test"]
    return best.rename_axis(columns=None)[columns].reset_index(drop=True)
