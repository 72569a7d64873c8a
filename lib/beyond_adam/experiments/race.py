"""Seven optimizers on Rosenbrock's valley, the learning rate of each tuned alike.

Every rule gets the same budget: the same `RATES`, one run of `STEPS` steps each. The rate with the
lowest median of f over the last tenth of its run races: a single last iterate may be a lucky one.
"""

from typing import Final

import numpy as np
import pandas as pd

from beyond_adam.landscapes import ROSENBROCK
from beyond_adam.reference import RULES, descend

NAME: Final = "race"

START: Final = (-1.5, 2.0)
STEPS: Final = {"smoke": 50, "quick": 1000, "paper": 1000}

#: Four a decade, from far too small to far too large for any of the rules.
RATES: Final = tuple(np.logspace(-4, 0.5, 19))


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Tune, then race.

    Returns
    -------
    dict
        ``tuning``: rule, lr, f, the median over the last tenth of the run (inf where it diverged);
        ``paths``: rule, lr, step, x, y of the best run of each.
    """
    steps = STEPS[profile]
    tuning, paths = [], []
    for name, rule in RULES.items():
        medians, points = [], []
        for lr in RATES:
            points.append(descend(rule(lr=lr), ROSENBROCK.gradient, START, steps).points)
            last = ROSENBROCK.value(points[-1][-(steps // 10) :])
            medians.append(float(np.median(last)) if np.isfinite(last).all() else np.inf)
        best = int(np.argmin(medians))
        x, y = points[best].T
        step = np.arange(steps + 1)
        tuning.append(pd.DataFrame({"rule": name, "lr": RATES, "f": medians}))
        paths.append(pd.DataFrame({"rule": name, "lr": RATES[best], "step": step, "x": x, "y": y}))
    tables = {"tuning": tuning, "paths": paths}
    return {name: pd.concat(frames, ignore_index=True) for name, frames in tables.items()}
