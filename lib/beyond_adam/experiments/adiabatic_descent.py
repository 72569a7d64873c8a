"""Whether equation (3) of the p-norm Adam post lowers the regularised loss in every step.

Random quadratic losses ℓ₀(w) = ½(w − c)ᵀA(w − c) with largest curvature L, and equation (3) on
ℓ₀ + λ‖w‖ₚᵖ with learning rates around 1/L.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from beyond_adam import project
from beyond_adam.prox import adiabatic_step

NAME = "adiabatic_descent"

Array = npt.NDArray[np.float64]

EXPONENTS: Final = (0.3, 0.5, 0.8, 1.0, 1.5, 1.9)
RATES: Final = (0.5, 1.0, 1.5, 1.99, 2.2, 3.0)
"""Learning rates in units of 1/L."""

DIMENSION: Final = 6
SEED: Final = 0


def losses(count: int, seed: int = SEED) -> tuple[Array, Array, Array]:
    """Draw `count` losses: matrices A with eigenvalues between 0.01 and 1, centres c, strengths λ.

    Returns
    -------
    tuple of ndarray
        A of shape (count, 6, 6) with largest eigenvalue L = 1, c of shape (count, 6), and λ of
        shape (count, 1), logarithmically spread over [0.001, 1].
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((count, DIMENSION, DIMENSION)))[0]
    curvature = 10 ** rng.uniform(-2, 0, (count, DIMENSION))
    curvature[:, 0] = 1.0
    matrix = np.einsum("nij,nj,nkj->nik", basis, curvature, basis)
    return matrix, rng.standard_normal((count, DIMENSION)), 10 ** rng.uniform(-3, 0, (count, 1))


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Run equation (3) on random losses and see whether the regularised loss ever rises.

    Parameters
    ----------
    profile
        20 losses and 50 steps at "smoke", else 400 losses and 300 steps.

    Returns
    -------
    dict of DataFrame
        ``descent``: for each ``p`` and ``rate`` (η in units of 1/L) the share ``rising`` of losses
        whose objective rose in some step by more than 1e-12 of that at the start.
    """
    smoke = project.check_profile(profile) == "smoke"
    count, steps = (20, 50) if smoke else (400, 300)
    matrix, centre, strength = losses(count)
    lines = []
    for p in EXPONENTS:
        for rate in RATES:
            w = np.random.default_rng(SEED + 1).standard_normal(centre.shape)
            objective = []
            for _ in range(steps + 1):
                gradient = np.einsum("nij,nj->ni", matrix, w - centre)
                loss = 0.5 * np.sum((w - centre) * gradient, axis=-1)
                penalty = np.sum(strength * np.abs(w) ** p, axis=-1)
                objective.append(loss + penalty)
                w = adiabatic_step(w, gradient, rate, strength, p)
            rise = np.max(np.diff(objective, axis=0), axis=0) / objective[0]
            lines.append({"p": p, "rate": rate, "rising": float(np.mean(rise > 1e-12))})
    return {"descent": pd.DataFrame(lines)}
