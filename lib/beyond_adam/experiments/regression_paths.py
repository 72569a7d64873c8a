"""Sparse linear regression on the diabetes study: paths of coefficients for the L_p penalties.

The objective is ‖y − Xw‖²/2n + λ Σⱼ abs(wⱼ)^p. At p = 1, the lasso, it is convex: FISTA solves it,
and scikit-learn does too. For p < 1 it has many local minima. Ten features have 1024 subsets, so a
local search is started from the least squares of every one of them, and the lowest result is kept.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import lasso_path

from beyond_adam import project
from beyond_adam.data import diabetes
from beyond_adam.prox import Composite, fista, lp_threshold, prox_lp

NAME = "regression_paths"

Array = npt.NDArray[np.float64]

EXPONENTS: Final = (1.0, 0.8, 0.5)

FIRST: Final = 1.3
"""The strongest penalty of a path, in units of `largest_strength`."""

RANGE: Final = 1e-3
"""The weakest penalty of a path, relative to the strongest."""

CROSS_VALIDATED: Final = (1.0, 0.5)
FOLDS: Final = 10
TOLERANCE: Final = 1e-9
MAX_STEPS: Final = 20_000
SWEEPS: Final = 25


def largest_strength(correlation: Array, p: float) -> float:
    """Return the strength from which on no coefficient alone is better than none.

    Parameters
    ----------
    correlation
        Xᵀy/n, shape (features,), for columns of mean square 1.
    p
        Exponent, 0 < p ≤ 1.

    Returns
    -------
    float
        The λ at which the threshold of the operator is max abs(correlation).
    """
    # The threshold is proportional to λ^(1/(2 − p)).
    unit = lp_threshold(1.0, p)[0]
    return float((np.abs(correlation).max() / unit) ** (2 - p))


def objective(gram: Array, correlation: Array, w: Array, strength: float, p: float) -> Array:
    """Return the objective less the constant ‖y‖²/2n for a batch of problems, shape (problems,)."""
    quadratic = 0.5 * np.einsum("ni,nij,nj->n", w, gram, w) - np.sum(correlation * w, axis=-1)
    return np.asarray(quadratic + strength * np.sum(np.abs(w) ** p, axis=-1))


def local_search(gram: Array, correlation: Array, strength: float, p: float, start: Array) -> Array:
    """Run FISTA with restart on a batch of problems that share p and λ.

    For p < 1 nothing proves that it converges; that it has is checked. What it finds then is a
    fixed point of the proximal gradient step of size 1/L.

    Parameters
    ----------
    gram, correlation
        XᵀX/n, shape (problems, features, features), and Xᵀy/n, shape (problems, features).
    strength, p
        The penalty.
    start
        First guess, shape (problems, features).

    Returns
    -------
    ndarray
        The coefficients, shape (problems, features).

    Raises
    ------
    ValueError
        If it has not converged after `MAX_STEPS` steps.
    """

    def curved(w: Array) -> Array:
        return np.asarray(np.einsum("nij,nj->ni", gram, w))

    problem = Composite[npt.NDArray[Any]](
        value=lambda w: np.sum(w * (0.5 * curved(w) - correlation)),
        gradient=lambda w: curved(w) - correlation,
        penalty=lambda w: strength * np.sum(np.abs(w) ** p),
        prox=lambda z, step: prox_lp(z, step * strength, p),
    )
    step = 1 / float(np.linalg.eigvalsh(gram).max())
    found = fista(
        problem, start, step=step, backtracking=False, tolerance=TOLERANCE, max_steps=MAX_STEPS
    )
    if not found.converged:
        raise ValueError(f"FISTA has not converged in {found.steps} steps at {p=}, {strength=}")
    return found.x


def coordinate_descent(
    gram: Array, correlation: Array, strength: float, p: float, start: Array
) -> Array:
    """Minimise over one coefficient at a time, `SWEEPS` times over all, for a batch of problems.

    Each update is the exact operator with the step 1/Gⱼⱼ, longer than 1/L. For p < 1 longer steps
    see further: fewer points are fixed. Parameters, shapes and result are those of `local_search`.
    """
    w = start.copy()
    for j in list(range(w.shape[-1])) * SWEEPS:
        scale = gram[:, j, j]
        pull = correlation[:, j] - np.einsum("nj,nj->n", gram[:, j], w) + scale * w[:, j]
        w[:, j] = prox_lp(pull / scale, strength / scale, p)
    return w


def every_subset(gram: Array, correlation: Array) -> Array:
    """Return the least squares on every subset of the features, shape (2^features, features)."""
    count = len(correlation)
    chosen = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    # Rows and columns that are not chosen become those of the identity, with 0 on the right.
    rest = np.eye(count) * (1 - chosen)[:, None]
    system = gram * chosen[:, None] * chosen[:, :, None] + rest
    return np.asarray(np.linalg.solve(system, (correlation * chosen)[..., None])[..., 0])


def path(gram: Array, correlation: Array, strengths: Array, p: float) -> Array:
    """Return the coefficients at every strength, shape (strengths, features).

    Parameters
    ----------
    gram, correlation
        XᵀX/n, shape (features, features), and Xᵀy/n, shape (features,).
    strengths
        Strengths λ, falling.
    p
        Exponent, 0 < p ≤ 1. Below 1 every subset of the features is a start.
    """
    found, w = [], np.zeros((1, len(correlation)))
    if p == 1:
        for strength in strengths:
            w = local_search(gram[None], correlation[None], strength, p, w)
            found.append(w[0])
        return np.stack(found)
    starts = every_subset(gram, correlation)
    shape = (len(starts), *gram.shape)
    batch = np.broadcast_to(gram, shape), np.broadcast_to(correlation, shape[:-1])
    for strength in strengths:
        rough = coordinate_descent(*batch, strength, p, starts)
        best = rough[np.argmin(objective(*batch, rough, strength, p))]
        w = local_search(gram[None], correlation[None], strength, p, best[None])
        found.append(w[0])
    return np.stack(found)


def cross_validate(x: Array, y: Array, strengths: Array, p: float) -> pd.DataFrame:
    """Fit paths with each of ten parts of the patients left out in turn, and predict that part.

    The parts are assigned by turns: patient i belongs to part i modulo ten. Columns are
    standardised by the patients that are kept.

    Returns
    -------
    DataFrame
        ``fold``, ``strength``, ``nonzero`` and ``error``, as `run` describes them.
    """
    part, lines = np.arange(len(y)) % FOLDS, []
    for fold in range(FOLDS):
        kept, left = part != fold, part == fold
        mean, scale, level = x[kept].mean(axis=0), x[kept].std(axis=0), y[kept].mean()
        known, target = (x[kept] - mean) / scale, y[kept] - level
        gram, correlation = known.T @ known / len(target), known.T @ target / len(target)
        coefficients = path(gram, correlation, strengths, p)
        truth = y[left] - level
        missed = truth - coefficients @ ((x[left] - mean) / scale).T
        columns = {
            "fold": fold,
            "strength": strengths,
            "nonzero": np.count_nonzero(coefficients, axis=-1),
            "error": np.mean(missed**2, axis=-1) / np.mean(truth**2),
        }
        lines.append(pd.DataFrame(columns))
    return pd.concat(lines, ignore_index=True)


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Compute the paths, compare the lasso's with scikit-learn's, and cross-validate.

    Parameters
    ----------
    profile
        "smoke" has 6 strengths on a path and 2 in the cross-validation, else 60 and 20.

    Returns
    -------
    dict of DataFrame
        ``paths``: ``p``, ``strength``, ``relative`` (to `largest_strength`), ``feature`` and
        ``coefficient``; ``agreement``: for each ``strength`` the largest ``difference`` of a lasso
        coefficient from scikit-learn's; ``folds``: for each ``p`` of `CROSS_VALIDATED`,
        ``strength`` and ``fold`` the number of ``nonzero`` coefficients and the mean squared
        ``error`` on the patients left out, relative to that of predicting the mean of the others.
    """
    count = 6 if project.check_profile(profile) == "smoke" else 60
    study = diabetes()
    x, y = study.features, study.target
    gram, correlation = x.T @ x / len(y), x.T @ y / len(y)
    relative = np.geomspace(1, RANGE, count)
    paths, folds = [], []
    for p in EXPONENTS:
        largest = largest_strength(correlation, p)
        strengths = relative * FIRST * largest
        coefficients = path(gram, correlation, strengths, p)
        frame = pd.DataFrame(coefficients, columns=list(study.names))
        frame = frame.assign(p=p, strength=strengths, relative=strengths / largest)
        paths.append(frame.melt(["p", "strength", "relative"], None, "feature", "coefficient"))
        if p in CROSS_VALIDATED:
            folds.append(cross_validate(x, y, strengths[::3], p).assign(p=p))
        if p == 1:
            _, theirs, _ = lasso_path(x, y, alphas=strengths, tol=1e-14, max_iter=1_000_000)
            difference = np.abs(coefficients - theirs.T).max(axis=1)
            agreement = pd.DataFrame({"strength": strengths, "difference": difference})
    return {
        "paths": pd.concat(paths, ignore_index=True),
        "agreement": agreement,
        "folds": pd.concat(folds, ignore_index=True),
    }
