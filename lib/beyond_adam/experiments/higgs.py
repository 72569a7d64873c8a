"""The toy example of the p-norm Adam post: equation (3) on the "Higgs potential".

The post runs ℓ₀(w) = ¼(w₁² + w₂² − 1)² from (0.2, 0.18) with η = 0.7: without regularisation, and
with λ = 0.1 at p = 1/2 and at p = 1.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from beyond_adam import project
from beyond_adam.landscapes import Landscape
from beyond_adam.prox import adiabatic_step, dynamic_s, optimal_s, prox_lambda_p

NAME = "higgs"

Array = npt.NDArray[np.float64]

HIGGS: Final = Landscape(
    name="higgs",
    title="Higgs potential",
    formula=r"\tfrac14(x^2 + y^2 - 1)^2",
    minimisers=np.empty((0, 2)),  # none stands alone: the unit circle is the set of minimisers
    minimum=0.0,
    domain=((-0.1, 1.15), (-0.1, 1.0)),
    f=lambda x, y: (x**2 + y**2 - 1) ** 2 / 4,
    df=lambda x, y: ((x**2 + y**2 - 1) * x, (x**2 + y**2 - 1) * y),
    d2f=lambda x, y: (3 * x**2 + y**2 - 1, 2 * x * y, x**2 + 3 * y**2 - 1),
)
"""The toy loss; it has no isolated minimiser, so none is listed."""

START: Final = (0.2, 0.18)
LR: Final = 0.7
STRENGTH: Final = 0.1
STEPS: Final = 100
"""The post's notebook runs 100 iterations, its figure shows 20."""

RUNS: Final = {"unregularised": (1.0, 0.0), "p = 1/2": (0.5, STRENGTH), "p = 1": (1.0, STRENGTH)}
"""Exponent p and strength λ of the runs of the post."""

RATES: Final = (0.5, 0.9, 0.99, 0.999, 1.0)
"""Rates ρ at which s follows w in the runs with dynamic s; 1 is the adiabatic limit."""


def descend(p: float, strength: float, steps: int = STEPS) -> Array:
    """Return the iterates of equation (3) from `START`, shape (steps + 1, 2)."""
    points = [np.array(START)]
    for _ in range(steps):
        w = points[-1]
        points.append(adiabatic_step(w, HIGGS.gradient(w), LR, strength, p))
    return np.stack(points)


def descend_with_s(p: float, strength: float, rate: float, s: Array, steps: int = STEPS) -> Array:
    """Return the iterates with s as a state of its own that follows w at `rate`.

    Each step is the proximal step of ηλΛ_p at the present s; then s moves towards its optimum.

    Parameters
    ----------
    p, strength
        Exponent p and strength λ.
    rate
        The rate ρ of `beyond_adam.prox.dynamic_s`; at 1 this is equation (3).
    s
        Where s starts, shape (2,).
    steps
        Number of steps.

    Returns
    -------
    ndarray
        The iterates, shape (steps + 1, 2).
    """
    points = [np.array(START)]
    for _ in range(steps):
        w = points[-1]
        points.append(prox_lambda_p(w - LR * HIGGS.gradient(w), s, LR * strength, p))
        s = dynamic_s(s, points[-1], p, rate)
    return np.stack(points)


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Run the post's example, and the same with dynamic s.

    Parameters
    ----------
    profile
        Does not matter: the example takes milliseconds.

    Returns
    -------
    dict of DataFrame
        ``runs``: ``run``, ``step``, ``w1``, ``w2``, ``loss`` (ℓ₀) and ``objective`` (ℓ₀ + λ‖w‖ₚᵖ)
        at every step; ``following``: for each ``p`` and ``rate`` the largest ``distance`` of the
        run with dynamic s, from the optimal s at the start, from that of equation (3).
    """
    project.check_profile(profile)
    frames = []
    for name, (p, strength) in RUNS.items():
        points = descend(p, strength)
        loss = HIGGS.value(points)
        columns = {
            "run": name,
            "step": np.arange(len(points)),
            "w1": points[:, 0],
            "w2": points[:, 1],
            "loss": loss,
            "objective": loss + strength * np.sum(np.abs(points) ** p, axis=-1),
        }
        frames.append(pd.DataFrame(columns))
    following = []
    for p in (0.5, 1.0):
        adiabatic, best = descend(p, STRENGTH), optimal_s(np.array(START), p)
        for rate in RATES:
            path = descend_with_s(p, STRENGTH, rate, best)
            distance = float(np.abs(path - adiabatic).max())
            following.append({"p": p, "rate": rate, "distance": distance})
    return {"runs": pd.concat(frames, ignore_index=True), "following": pd.DataFrame(following)}
