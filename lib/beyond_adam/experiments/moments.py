"""Adam's moments along a run on Rosenbrock's function, and where each β₁ and β₂ leads.

The deck "Adam (and beyond)" plots both moments against the iteration for several β₁ at β₂ = 0.999,
and gives neither numbers nor the start. Its tables start that kind of run at [3, 0] with η = 0.1,
and so do these.
"""

from typing import Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from beyond_adam import project
from beyond_adam.experiments.deck import shown_steps
from beyond_adam.experiments.deck_convention import EPS, STEPS
from beyond_adam.landscapes import ROSENBROCK
from beyond_adam.reference import Adam, descend

NAME = "moments"

Array = npt.NDArray[np.float64]

START: Final = (3.0, 0.0)
LR: Final = 0.1
BETA2: Final = 0.999

HISTORY_BETA1: Final = (0.7, 0.9, 0.99, 0.999)
"""β₁ of the runs whose moments are kept, at β₂ = `BETA2`."""

SWEEP_BETA1: Final = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999)
SWEEP_BETA2: Final = (0.5, 0.9, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99995, 0.99999)


class AdamGrid(Adam):
    """Adam whose β₁ and β₂ are arrays that broadcast against the points: a grid in one run.

    Every operation of `Adam.step` is elementwise, so only the check of the arguments is another.
    """

    def __post_init__(self) -> None:
        for beta in map(np.asarray, self.betas):
            if not np.all((beta >= 0) & (beta < 1)):
                raise ValueError(f"betas must lie in [0, 1), not {beta.ravel()}")


def history(beta1: float, steps: int = STEPS) -> pd.DataFrame:
    """Return Adam's moments on the way from `START`, at β₂ = `BETA2`.

    Parameters
    ----------
    beta1
        Decay rate of the first moment.
    steps
        Number of updates.

    Returns
    -------
    DataFrame
        One line per step from 1 on: ``beta1``, ``step``, the moments ``m_x``, ``m_y``, ``v_x``,
        ``v_y`` (not corrected for their start at 0) and the point ``x``, ``y`` after it.
    """
    run = descend(Adam(LR, (beta1, BETA2), EPS), ROSENBROCK.gradient, START, steps)
    columns = {"m": run.history["m"], "v": run.history["v"], "": run.points[1:]}
    return pd.DataFrame(
        {"beta1": beta1, "step": np.arange(1, steps + 1)}
        | {
            f"{name}_{axis}" if name else axis: values[:, i]
            for name, values in columns.items()
            for i, axis in enumerate("xy")
        }
    )


def sweep(beta1: Array, beta2: Array, steps: int = STEPS) -> pd.DataFrame:
    """Run Adam from `START` for every pair of a β₁ and a β₂.

    Parameters
    ----------
    beta1, beta2
        Decay rates, one-dimensional.
    steps
        Number of updates, at least 1.

    Returns
    -------
    DataFrame
        One line per pair: ``beta1``, ``beta2``; the final ``x``, ``y``; ``distance``, its Euclidean
        distance from the minimiser (1, 1); ``value`` of the function there; ``median_value`` over
        the last tenth of the steps, which does not depend on where an oscillation is cut off.

    Raises
    ------
    ValueError
        If a decay rate is outside [0, 1).
    """
    betas = beta1[:, None, None], beta2[None, :, None]
    rule = AdamGrid(LR, cast("tuple[float, float]", betas), EPS)
    start = np.broadcast_to(START, (len(beta1), len(beta2), 2))
    points = descend(rule, ROSENBROCK.gradient, start, steps).points
    last = points[-1].reshape(-1, 2)
    late = ROSENBROCK.value(points[-max(1, steps // 10) :])
    return pd.DataFrame(
        {
            "beta1": np.repeat(beta1, len(beta2)),
            "beta2": np.tile(beta2, len(beta1)),
            "x": last[:, 0],
            "y": last[:, 1],
            "distance": np.linalg.norm(last - ROSENBROCK.minimisers[0], axis=-1),
            "value": ROSENBROCK.value(last),
            "median_value": np.median(late, axis=0).ravel(),
        }
    )


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Compute the histories and the sweep.

    Parameters
    ----------
    profile
        At "smoke" 1000 steps and a grid of nine pairs; at "quick" and "paper" the deck's 10 000
        steps and all 81 pairs.

    Returns
    -------
    dict of DataFrame
        ``moments``: `history` for each of `HISTORY_BETA1` at the steps to draw
        (`beyond_adam.experiments.deck.shown_steps`) and at step 1000;
        ``sweep``: see `sweep`.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    smoke = project.check_profile(profile) == "smoke"
    steps, every = (1_000, 4) if smoke else (STEPS, 1)
    kept = np.union1d(shown_steps(steps)[1:], [1_000, steps])
    histories = [history(beta1, steps).iloc[kept - 1] for beta1 in HISTORY_BETA1]
    grid = np.array(SWEEP_BETA1[::every]), np.array(SWEEP_BETA2[::every])
    return {
        "moments": pd.concat(histories, ignore_index=True),
        "sweep": sweep(*grid, steps=steps),
    }
