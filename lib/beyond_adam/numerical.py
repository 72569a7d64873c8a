"""Numerical differentiation."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def central_difference(
    f: Callable[[Array], npt.ArrayLike], w: npt.ArrayLike, step: float = 1e-5
) -> Array:
    """Return the gradient of `f` by central differences, (f(w + h·eᵢ) − f(w − h·eᵢ)) / 2h.

    Two errors compete. Truncation is h²/6 times the third derivative along each axis; rounding
    is about ulp(f(w)) / 2h, so that a small h sees only multiples of it, and none at all of a
    change in f below one ulp. Their sum is least at h ≈ ∛(3 ulp(f) / |f'''|), near 1e-5 when f
    and its third derivative are of order one.

    Parameters
    ----------
    f
        Function of points of shape (..., n) that returns values of shape (...).
    w
        Points, shape (..., n).
    step
        The step h, positive.

    Returns
    -------
    ndarray
        The gradient, shape (..., n), float64.

    Raises
    ------
    ValueError
        If `step` is not positive and finite, or `w` has no dimension.
    """
    if not 0 < step < np.inf:
        raise ValueError(f"the step must be positive and finite, not {step}")
    point = np.asarray(w, dtype=np.float64)
    if point.ndim == 0:
        raise ValueError("points need shape (..., n), not ()")
    differences = [
        np.subtract(f(point + shift), f(point - shift)) / (2 * step)
        for shift in step * np.eye(point.shape[-1])
    ]
    return np.stack(differences, axis=-1)
