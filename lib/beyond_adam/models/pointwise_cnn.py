r"""A convolutional network with two weights, whose whole loss surface can be drawn.

One hidden layer, one channel, kernels of size 1: each pixel x of an image becomes
ŷ = w₂ φ(w₁x), with φ the leaky ReLU, and the loss is the mean of (ŷ − y)² over all pixels.

φ is piecewise linear, so w₁ can be taken out of it up to its sign s:

    φ(w₁x) = w₁ φₛ(x),    φ₊(x) = φ(x),    φ₋(x) = −φ(−x).

Hence the network depends on the weights through their product p = w₁w₂ and that sign only. On each
half plane the loss is a parabola in p, and completing its square gives

    L(w) = aₛ (p − pₛ)² + cₛ,
    aₛ = mean φₛ(x)²,    pₛ = mean(φₛ(x) y) / aₛ,    cₛ = mean (pₛ φₛ(x) − y)²:

three numbers a side, computed once, give loss, gradient and Hessian exactly at any weights. Each
side is a curved valley, level along the branch w₁w₂ = pₛ of a hyperbola. Between them w = 0 is
stationary, a saddle unless both pₛ are 0. Across w₁ = 0 the loss is continuous and has a kink.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beyond_adam.data import digits
from beyond_adam.landscapes import Landscape

Array = npt.NDArray[np.float64]


class Valley(NamedTuple):
    """The loss on one side of w₁ = 0: ``curvature``·(w₁w₂ − ``product``)² + ``floor``."""

    curvature: float
    product: float
    floor: float


@dataclass(frozen=True, eq=False)
class PointwiseCNN:
    """The loss of ŷ = w₂ φ(w₁x) on given images, as a function of w = (w₁, w₂).

    Attributes
    ----------
    images
        The pixels x, any shape; not all 0.
    targets
        The wanted outputs y, of the same shape.
    slope
        Slope of the leaky ReLU φ left of 0, in (0, 1]. Its default 0.1 bends the surface visibly
        and still leaves the gradient something to work with on either side.

    Raises
    ------
    ValueError
        If the shapes differ, a pixel or target is not finite, all pixels are 0, or `slope` is out
        of range.
    """

    images: Array = field(repr=False)
    targets: Array = field(repr=False)
    slope: float = 0.1

    def __post_init__(self) -> None:
        for name in ("images", "targets"):
            array = np.array(getattr(self, name), dtype=np.float64)
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.images.shape != self.targets.shape:
            raise ValueError(
                "images and targets must have one shape, "
                f"not {self.images.shape} and {self.targets.shape}"
            )
        if not self.images.any():
            raise ValueError("images need a pixel that is not 0")
        if not 0 < self.slope <= 1:
            raise ValueError(f"slope must lie in (0, 1], not {self.slope}")

    def activation(self, x: Array) -> Array:
        """Return the leaky ReLU φ(x), elementwise."""
        return np.where(x > 0, x, self.slope * x)

    def predict(self, w: npt.ArrayLike) -> Array:
        """Return the outputs, ``(..., *images.shape)``, for weights of shape (..., 2)."""
        weights = np.asarray(w, dtype=np.float64)
        pixel_axes = tuple(range(-self.images.ndim, 0))
        w1, w2 = (np.expand_dims(weights[..., i], pixel_axes) for i in (0, 1))
        return w2 * self.activation(w1 * self.images)

    @cached_property
    def valleys(self) -> tuple[Valley, Valley]:
        """The loss for w₁ ≥ 0 and for w₁ < 0."""
        y = self.targets
        positive, negative = self.activation(self.images), -self.activation(-self.images)

        def valley(x: Array) -> Valley:
            curvature = np.mean(x * x)
            product = np.mean(x * y) / curvature
            return Valley(float(curvature), float(product), float(np.mean((product * x - y) ** 2)))

        return valley(positive), valley(negative)

    def landscape(self) -> Landscape:
        """Return the loss as a landscape.

        Minimisers of the loss fill the branch w₁w₂ = p of a hyperbola; listed is the balanced one,
        |w₁| = |w₂| = √|p|, which is the nearest to 0.
        """
        minimum = min(valley.floor for valley in self.valleys)
        balanced = [
            side * np.sqrt(np.abs(p)) * np.array([1.0, np.sign(p)])
            for side, (_, p, floor) in zip((1, -1), self.valleys, strict=True)
            if floor == minimum
        ]
        reach = 2.5 * float(np.abs(balanced).max()) or 1.0
        return Landscape(
            name="pointwise_cnn",
            title="Pointwise CNN",
            formula=r"\operatorname{mean}\,\bigl(w_2\,\phi(w_1 x) - y\bigr)^2",
            minimisers=np.unique(balanced, axis=0),
            minimum=minimum,
            domain=((-reach, reach), (-reach, reach)),
            f=self._loss,
            df=self._gradient,
            d2f=self._hessian,
        )

    def value(self, w: npt.ArrayLike) -> Array:
        """Return the loss at weights of shape (..., 2), as shape (...)."""
        return self._landscape.value(w)

    def gradient(self, w: npt.ArrayLike) -> Array:
        """Return the gradient at weights of shape (..., 2); at w₁ = 0 that of the side w₁ > 0."""
        return self._landscape.gradient(w)

    def hessian(self, w: npt.ArrayLike) -> Array:
        """Return the Hessian at weights of shape (..., 2); at w₁ = 0 that of the side w₁ > 0."""
        return self._landscape.hessian(w)

    @cached_property
    def _landscape(self) -> Landscape:
        return self.landscape()

    def _valley(self, w1: Array) -> tuple[Array, Array, Array]:
        """Return a, p and c of the side that each of `w1` is on."""
        a, p, c = (
            np.where(w1 < 0, negative, positive)
            for positive, negative in zip(*self.valleys, strict=True)
        )
        return a, p, c

    def _loss(self, w1: Array, w2: Array) -> Array:
        a, p, c = self._valley(w1)
        return a * (w1 * w2 - p) ** 2 + c

    def _gradient(self, w1: Array, w2: Array) -> tuple[Array, Array]:
        a, p, _ = self._valley(w1)
        slope = 2 * a * (w1 * w2 - p)
        return slope * w2, slope * w1

    def _hessian(self, w1: Array, w2: Array) -> tuple[Array, Array, Array]:
        a, p, _ = self._valley(w1)
        return 2 * a * w2**2, 2 * a * (2 * w1 * w2 - p), 2 * a * w1**2


def digits_problem(
    seed: int = 0,
    teacher: tuple[float, float] = (1.5, 1.0),
    noise: float = 0.5,
    slope: float = 0.1,
) -> PointwiseCNN:
    """Return the loss of learning from a teacher network on handwritten digits.

    The images are all of `beyond_adam.data.digits`, standardised to mean 0 and standard deviation
    1 over all pixels; the targets are the teacher's outputs plus normal noise. The lowest loss is
    near ``noise**2``, along w₁w₂ ≈ the product of the teacher's weights.

    Parameters
    ----------
    seed
        Seed of the noise.
    teacher
        Weights (w₁, w₂) of the teacher.
    noise
        Standard deviation of the noise, in units of the targets; at least 0.
    slope
        Slope of the leaky ReLU left of 0, of both networks.
    """
    pixels = digits().images.astype(np.float64)
    images = (pixels - pixels.mean()) / pixels.std()
    clean = PointwiseCNN(images, np.zeros_like(images), slope).predict(teacher)
    errors = np.random.default_rng(seed).normal(scale=noise, size=images.shape)
    return PointwiseCNN(images, clean + errors, slope)
