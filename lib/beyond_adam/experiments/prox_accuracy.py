"""Every proximal operator of the library against brute force."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from beyond_adam import project, prox

NAME = "prox_accuracy"

Array = npt.NDArray[np.float64]

SEED: Final = 0
GRID: Final = 2001
BISECTIONS: Final = 120


def brute_force(
    penalty: Callable[[Array], Array], derivative: Callable[[Array], Array], z: Array
) -> tuple[Array, Array]:
    """Minimise penalty(u) + ½(u − z)² for each z by search, without any formula for the result.

    A grid between 0 and z, where the minimiser of a penalty that grows with abs(u) must lie, finds
    the basin; bisection on the sign of the derivative there finds the minimiser to rounding, which
    a search by values cannot: near a minimum they do not change over 1e-8.

    Parameters
    ----------
    penalty
        Penalty of u ≥ 0, elementwise on arrays of shape (..., n).
    derivative
        Its derivative for u > 0.
    z
        Where to evaluate, shape (n,).

    Returns
    -------
    tuple of ndarray
        The minimisers, shape (n,), and by how much the best of the other candidates, 0 or not 0, is
        worse: where that is 0, both are minimisers.
    """
    size = np.abs(z)

    def objective(u: Array) -> Array:
        return penalty(u) + 0.5 * (u - size) ** 2

    grid = np.linspace(0, 1, GRID)[1:, None] * size
    at = np.argmin(objective(grid), axis=0)
    columns = np.arange(len(z))
    low = grid[np.maximum(at - 1, 0), columns] * (at > 0)
    high = grid[np.minimum(at + 1, GRID - 2), columns]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            falls = derivative(middle) + middle - size < 0
        low, high = np.where(falls, middle, low), np.where(falls, high, middle)
    inside, outside = objective(high), objective(np.zeros_like(size))
    return np.sign(z) * np.where(inside < outside, high, 0.0), np.abs(inside - outside)


@dataclass(frozen=True)
class Case:
    """An operator of one number, with its penalty and the derivative of that for u > 0."""

    name: str
    operator: Callable[[Array, Array], Array]
    penalty: Callable[[Array, Array], Array]
    derivative: Callable[[Array, Array], Array]


def _power(p: float) -> Case:
    return Case(
        f"Lp, p = {p:g}",
        lambda z, strength: prox.prox_lp(z, strength, p),
        lambda u, strength: strength * u**p,
        lambda u, strength: strength * p * u ** (p - 1),
    )


CASES: Final = (
    Case("L0", prox.prox_l0, lambda u, s: s * (u > 0), lambda u, s: 0 * u * s),
    Case("L1", prox.prox_l1, lambda u, s: s * u, lambda u, s: s + 0 * u),
    Case("L2²", prox.prox_l2_squared, lambda u, s: s * u**2, lambda u, s: 2 * s * u),
    Case(
        "L½ (closed form)",
        prox.prox_l_half,
        lambda u, s: s * np.sqrt(u),
        lambda u, s: s / (2 * np.sqrt(u)),
    ),
    Case(
        "elastic net",
        lambda z, s: prox.prox_elastic_net(z, s, 2 * s),
        lambda u, s: s * u + s * u**2,
        lambda u, s: s + 2 * s * u,
    ),
    *map(_power, (0.1, 0.3, 0.5, 0.8, 0.95, 1.0, 1.05, 1.3, 1.5, 1.9)),
)


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Compare each operator with `brute_force` at random inputs and strengths.

    Inputs z and strengths λ spread logarithmically over six decades. Where the two minimisers of
    a penalty that jumps are equally good to rounding, either counts as right.

    Parameters
    ----------
    profile
        200 inputs at "smoke", else 4000.

    Returns
    -------
    dict of DataFrame
        ``accuracy``: for each ``operator`` the number of ``inputs``, the share sent to ``zero``,
        and the largest ``error`` relative to max(1, abs(z)).
    """
    count = 200 if project.check_profile(profile) == "smoke" else 4000
    rng = np.random.default_rng(SEED)
    z = np.sign(rng.standard_normal(count)) * 10 ** rng.uniform(-3, 3, count)
    strength = 10 ** rng.uniform(-3, 3, count)
    lines = []
    for case in CASES:
        found = case.operator(z, strength)
        right, margin = brute_force(
            lambda u, case=case: case.penalty(u, strength),  # type: ignore[misc]
            lambda u, case=case: case.derivative(u, strength),  # type: ignore[misc]
            z,
        )
        # At a tie in value to rounding, 0 and the other minimiser are both right.
        tie = margin <= 1e-13 * np.maximum(1.0, z**2)
        error = np.abs(found - right) / np.maximum(1.0, np.abs(z))
        lines.append(
            {
                "operator": case.name,
                "inputs": count,
                "zero": float(np.mean(found == 0)),
                "error": float(error[~tie].max()),
            }
        )
    return {"accuracy": pd.DataFrame(lines)}
