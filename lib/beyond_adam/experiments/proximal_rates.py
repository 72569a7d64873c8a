"""How fast ISTA and FISTA converge on a lasso problem, beside the rates proved for them.

The problem is scikit-learn's diabetes study with all squares and products of its ten measurements,
64 correlated columns: a lasso that is hard enough to tell the methods apart.
"""

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from beyond_adam import project
from beyond_adam.data import diabetes
from beyond_adam.prox import Composite, fista, ista, prox_l1

NAME = "proximal_rates"

Array = npt.NDArray[np.float64]

SHARE: Final = 0.02
"""Strength of the penalty, relative to the smallest one that makes every coefficient 0."""

STEPS: Final = {"smoke": 200, "quick": 10_000, "paper": 10_000}


def expanded() -> tuple[Array, Array]:
    """Return the 64 columns, each with mean 0 and mean square 1, and the target."""
    study = diabetes()
    x = study.features
    first, second = np.triu_indices(x.shape[1])
    products = x[:, first] * x[:, second]
    sex = study.names.index("sex")
    # With two sexes the square of that column is a function of it and tells nothing new.
    columns = np.hstack([x, products[:, ~((first == sex) & (second == sex))]])
    columns = columns - columns.mean(axis=0)
    return columns / np.sqrt(np.mean(columns**2, axis=0)), study.target


def lasso(x: Array, y: Array, strength: float) -> Composite[npt.NDArray[Any]]:
    """Return the lasso ‖y − xw‖²/2n + λ‖w‖₁ as smooth part and penalty."""
    n = len(y)
    return Composite(
        value=lambda w: float(np.sum((y - x @ w) ** 2)) / (2 * n),
        gradient=lambda w: x.T @ (x @ w - y) / n,
        penalty=lambda w: strength * float(np.sum(np.abs(w))),
        prox=lambda z, step: prox_l1(z, step * strength),
    )


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Run ISTA, FISTA and FISTA with restart with the step 1/L.

    Parameters
    ----------
    profile
        200 steps at "smoke", else 10 000.

    Returns
    -------
    dict of DataFrame
        ``rates``: for each ``method`` the ``gap`` F(w_k) − F* at steps ``k`` spread evenly on a
        logarithmic scale, and the ``bound`` proved for it (Beck & Teboulle 2009, theorems 3.1 and
        4.4; nan with restart); ``problem``: one line with ``columns``, ``strength``,
        ``lipschitz`` (the constant L), ``condition`` of the quadratic part, ``nonzero``
        coefficients of the solution and ``optimum``, the value F* of the objective there.
    """
    steps = STEPS[project.check_profile(profile)]
    x, y = expanded()
    curvature = np.linalg.eigvalsh(x.T @ x / len(y))
    lipschitz = float(curvature[-1])
    strength = SHARE * float(np.abs(x.T @ y).max()) / len(y)
    problem, start = lasso(x, y, strength), np.zeros(x.shape[1])
    run_fista = partial(fista, problem, start, step=1 / lipschitz, backtracking=False)
    run_ista = partial(ista, problem, start, step=1 / lipschitz, backtracking=False)
    runs = {
        "ISTA": run_ista,
        "FISTA": partial(run_fista, restart=False),
        "FISTA with restart": run_fista,
    }

    best = run_fista(tolerance=1e-13, max_steps=100_000)
    radius = float(np.sum((start - best.x) ** 2))
    k = np.unique(np.geomspace(1, steps, 200).astype(int))
    bounds = {
        "ISTA": lipschitz * radius / (2 * k),
        "FISTA": 2 * lipschitz * radius / (k + 1) ** 2,
        "FISTA with restart": np.full(len(k), np.nan),
    }
    frames = []
    for method, solve in runs.items():
        found = solve(tolerance=0.0, max_steps=steps)
        # A run that has settled to rounding stops early; it would stay where it is.
        gap = found.objective[np.minimum(k, found.steps)] - best.objective[-1]
        frames.append(pd.DataFrame({"method": method, "k": k, "gap": gap, "bound": bounds[method]}))
    line = {
        "columns": x.shape[1],
        "strength": strength,
        "lipschitz": lipschitz,
        "condition": lipschitz / curvature[0],
        "nonzero": int(np.count_nonzero(best.x)),
        "optimum": best.objective[-1],
    }
    return {"rates": pd.concat(frames, ignore_index=True), "problem": pd.DataFrame([line])}
