"""Two-dimensional test functions with their exact gradients and Hessians.

A `Landscape` is a function ℝ² → ℝ that an optimizer can be watched on: its value, gradient and
Hessian at any number of points at once, its global minimisers, and the window to draw it in.

Besides the global minimisers listed with each landscape, Rastrigin's function has a local minimiser
in each cell around the integers (per axis at ±0.994958638, ±1.989912234, …, ±4.974691391) and
Ackley's has them near the integer points (on the diagonal at ±3.983067700, ±4.986180457, …);
`polish` computes any of them to rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Range = tuple[float, float]

# Far out a value, a derivative or an optimizer's iterate may overflow. That is an answer (inf or
# nan), not an accident to warn of: gradient descent on Rosenbrock's valley diverges by design.
_silently = np.errstate(over="ignore", invalid="ignore", divide="ignore")


@dataclass(frozen=True, eq=False)
class Landscape:
    """A test function on the plane, with exact derivatives.

    Attributes
    ----------
    name
        Identifier, as in `LANDSCAPES`.
    title
        Name to print.
    formula
        The function in LaTeX, without dollar signs.
    minimisers
        The global minimisers, shape (k, 2), read-only.
    minimum
        The value there.
    domain
        Window to plot: ``((xmin, xmax), (ymin, ymax))``.
    f, df, d2f
        The function, its partial derivatives ``(f_x, f_y)`` and second ones ``(f_xx, f_xy, f_yy)``
        of two coordinate arrays of equal shape, elementwise. Call `value`, `gradient` and `hessian`
        instead, which check and arrange the points.
    """

    name: str
    title: str
    formula: str
    minimisers: Array
    minimum: float
    domain: tuple[Range, Range]
    f: Callable[[Array, Array], Array] = field(repr=False)
    df: Callable[[Array, Array], tuple[Array, Array]] = field(repr=False)
    d2f: Callable[[Array, Array], tuple[Array, Array, Array]] = field(repr=False)

    def __post_init__(self) -> None:
        minimisers = np.array(self.minimisers, dtype=np.float64)
        minimisers.setflags(write=False)
        object.__setattr__(self, "minimisers", minimisers)

    @_silently
    def value(self, w: npt.ArrayLike) -> Array:
        """Return f at the points `w` of shape (..., 2), as shape (...).

        Raises
        ------
        ValueError
            If the last dimension of `w` is not 2; so do `gradient` and `hessian`.
        """
        return self.f(*_coordinates(w))[..., 0][()]

    @_silently
    def gradient(self, w: npt.ArrayLike) -> Array:
        """Return ∇f at the points `w` of shape (..., 2), as shape (..., 2)."""
        return np.concatenate(self.df(*_coordinates(w)), axis=-1)

    @_silently
    def hessian(self, w: npt.ArrayLike) -> Array:
        """Return ∇²f at the points `w` of shape (..., 2), as shape (..., 2, 2)."""
        xx, xy, yy = self.d2f(*_coordinates(w))
        return np.concatenate((xx, xy, xy, yy), axis=-1).reshape(*xx.shape[:-1], 2, 2)


def _coordinates(w: npt.ArrayLike) -> tuple[Array, Array]:
    """Return x and y of the points `w`, each of shape (..., 1).

    The last axis stays so that x and y are never NumPy scalars, whose ``x**2`` calls ``pow`` where
    that of an array squares: one point would differ from the same point in a batch by an ulp.
    """
    points = np.asarray(w, dtype=np.float64)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"points need shape (..., 2), not {points.shape}")
    return points[..., :1], points[..., 1:]


def polish(landscape: Landscape, w: npt.ArrayLike, max_steps: int = 50) -> Array:
    """Return the stationary point that Newton's method finds from `w`, to rounding.

    Newton's method goes to a stationary point of any kind, so `w` must be near the wanted one.

    Parameters
    ----------
    landscape
        The function.
    w
        Starting points, shape (..., 2).
    max_steps
        Newton steps allowed.

    Returns
    -------
    ndarray
        Stationary points, shape (..., 2).

    Raises
    ------
    ValueError
        If the last of `max_steps` steps still moves a point by more than 1e-12 of its size
        (or 1e-12, if that is more).
    numpy.linalg.LinAlgError
        If a Hessian on the way is singular.
    """
    point = np.array(w, dtype=np.float64)
    for _ in range(max_steps):
        move = np.linalg.solve(landscape.hessian(point), landscape.gradient(point)[..., None])
        point = point - move[..., 0]
        if np.all(np.abs(move[..., 0]) <= 1e-12 * np.maximum(1.0, np.abs(point))):
            return point
    raise ValueError(
        f"Newton's method on {landscape.name} has not settled in {max_steps=} from {w!r}"
    )


PARABOLOID = Landscape(
    name="paraboloid",
    title="Paraboloid",
    formula=r"(x - 1)^2 + (y - 2)^2",
    minimisers=np.array([[1.0, 2.0]]),
    minimum=0.0,
    domain=((-8.0, 8.0), (-8.0, 8.0)),
    f=lambda x, y: (x - 1) ** 2 + (y - 2) ** 2,
    df=lambda x, y: (2 * (x - 1), 2 * (y - 2)),
    d2f=lambda x, y: (np.full_like(x, 2), np.zeros_like(x), np.full_like(y, 2)),
)

SPHERE = Landscape(
    name="sphere",
    title="Sphere",
    formula=r"x^2 + y^2",
    minimisers=np.array([[0.0, 0.0]]),
    minimum=0.0,
    domain=((-5.0, 5.0), (-5.0, 5.0)),
    f=lambda x, y: x**2 + y**2,
    df=lambda x, y: (2 * x, 2 * y),
    d2f=lambda x, y: (np.full_like(x, 2), np.zeros_like(x), np.full_like(y, 2)),
)

ROSENBROCK = Landscape(
    name="rosenbrock",
    title="Rosenbrock",
    formula=r"(1 - x)^2 + 100\,(y - x^2)^2",
    minimisers=np.array([[1.0, 1.0]]),
    minimum=0.0,
    domain=((-2.0, 5.5), (-2.0, 8.0)),
    f=lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
    df=lambda x, y: (-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)),
    d2f=lambda x, y: (2 - 400 * (y - 3 * x**2), -400 * x, np.full_like(y, 200)),
)


# 10 - 10 cos 2πx = 20 sin²πx, and the latter keeps all digits near the minimum.
RASTRIGIN = Landscape(
    name="rastrigin",
    title="Rastrigin",
    formula=r"20 + x^2 - 10\cos 2\pi x + y^2 - 10\cos 2\pi y",
    minimisers=np.array([[0.0, 0.0]]),
    minimum=0.0,
    domain=((-5.12, 5.12), (-5.12, 5.12)),
    f=lambda x, y: x**2 + 20 * np.sin(np.pi * x) ** 2 + y**2 + 20 * np.sin(np.pi * y) ** 2,
    df=lambda x, y: (
        2 * x + 20 * np.pi * np.sin(2 * np.pi * x),
        2 * y + 20 * np.pi * np.sin(2 * np.pi * y),
    ),
    d2f=lambda x, y: (
        2 + 40 * np.pi**2 * np.cos(2 * np.pi * x),
        np.zeros_like(x),
        2 + 40 * np.pi**2 * np.cos(2 * np.pi * y),
    ),
)


# Ackley's function is a funnel in the root mean square r of x and y, 20 - 20 exp(-r/5), and ripples
# on it, e - exp(½ cos 2πx + ½ cos 2πy) = e - exp(1 - s) with s = sin²πx + sin²πy. Written with
# expm1 both keep all digits near the minimum, where their textbook forms cancel.


def _ackley_parts(x: Array, y: Array) -> tuple[Array, Array]:
    """Return r and s."""
    return np.hypot(x, y) / np.sqrt(2), np.sin(np.pi * x) ** 2 + np.sin(np.pi * y) ** 2


def _ackley(x: Array, y: Array) -> Array:
    r, s = _ackley_parts(x, y)
    height: Array = -20 * np.expm1(-r / 5) - np.e * np.expm1(-s)
    return height


def _ackley_gradient(x: Array, y: Array) -> tuple[Array, Array]:
    r, s = _ackley_parts(x, y)
    funnel, ripple = 2 * np.exp(-r / 5), np.pi * np.exp(1 - s)
    r = np.where(r == 0, 1.0, r)  # the cone's tip: see the docstring of ACKLEY
    return (
        funnel * (x / r) + ripple * np.sin(2 * np.pi * x),
        funnel * (y / r) + ripple * np.sin(2 * np.pi * y),
    )


def _ackley_hessian(x: Array, y: Array) -> tuple[Array, Array, Array]:
    r, s = _ackley_parts(x, y)
    funnel, ripple = np.exp(-r / 5), np.pi**2 * np.exp(1 - s)
    u, v = x / r, y / r  # u² + v² = 2; 0/0 at the tip
    sin_x, cos_x = np.sin(2 * np.pi * x), np.cos(2 * np.pi * x)
    sin_y, cos_y = np.sin(2 * np.pi * y), np.cos(2 * np.pi * y)
    return (
        funnel * (v**2 / r - u**2 / 5) + ripple * (2 * cos_x - sin_x**2),
        -funnel * u * v * (1 / r + 1 / 5) - ripple * sin_x * sin_y,
        funnel * (u**2 / r - v**2 / 5) + ripple * (2 * cos_y - sin_y**2),
    )


ACKLEY = Landscape(
    name="ackley",
    title="Ackley",
    formula=r"-20\,e^{-\frac{1}{5}\sqrt{\frac{1}{2}(x^2 + y^2)}}"
    r" - e^{\frac{1}{2}(\cos 2\pi x + \cos 2\pi y)} + e + 20",
    minimisers=np.array([[0.0, 0.0]]),
    minimum=0.0,
    domain=((-5.0, 5.0), (-5.0, 5.0)),
    f=_ackley,
    df=_ackley_gradient,
    d2f=_ackley_hessian,
)
"""Ackley's function, a cone at its minimiser 0: there it climbs at slope 2√2 in every direction.

It has no gradient at 0. Its generalised (Clarke) gradients there fill the disc of radius 2√2, and
`gradient` returns the one of least norm, 0. `hessian` returns nan there.
"""

LANDSCAPES: Mapping[str, Landscape] = MappingProxyType(
    {landscape.name: landscape for landscape in (PARABOLOID, SPHERE, ROSENBROCK, RASTRIGIN, ACKLEY)}
)
"""The test functions of the book by name."""
