"""The textbook optimizers, written to be read.

Each rule is a frozen dataclass of hyperparameters with two pure functions: ``init(w)`` returns the
state before the first step, ``step(w, gradient, state)`` returns the new point and the new state.
Rules are elementwise, so one text serves NumPy arrays and torch tensors of any shape, a single
point or a batch. They are the yardstick for faster code, and `descend` watches them on landscapes.

Symbols: w the parameters, η (`lr`) the learning rate, g the gradient, β or α decay rates of moving
averages, m and v (or u) the first and second moment, t the number of steps taken.
"""

# `Rule` says what `init` and `step` do; repeated seven times it would hide the equations.
# ruff: noqa: ARG002, D102

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", "npt.NDArray[Any]", "torch.Tensor")
State = dict[str, Any]
"""What a rule remembers: arrays shaped like w, and for some rules the step count ``"t"``."""


class Rule(Protocol):
    """An optimizer as pure functions; the dataclasses of this module are rules."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def lr(self) -> float:
        """The learning rate η."""
        ...

    def init(self, w: Array) -> State:
        """Return the state before the first step from `w`."""
        ...

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        """Return the point and the state after one step; the arguments are left as they are."""
        ...


def _namespace(w: Any) -> Any:
    """Return the module with the functions for `w`: numpy or torch."""
    if isinstance(w, np.ndarray | np.generic):
        return np
    import torch

    return torch


def _check(rule: Rule) -> None:
    """Raise ValueError for a hyperparameter of `rule` out of its range."""
    for name in rule.__dataclass_fields__:
        value = getattr(rule, name)
        if name == "betas":
            if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
                raise ValueError(f"betas must be two numbers in [0, 1), not {value}")
        elif name in ("momentum", "alpha"):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {value}")
        elif not 0 <= value < float("inf"):
            raise ValueError(f"{name} must lie in [0, ∞), not {value}")


@dataclass(frozen=True)
class GradientDescent(Rule):
    """Gradient descent: w ← w − ηg.

    On a quadratic it converges if and only if η < 2/λ for the largest curvature λ.
    """

    lr: float = 1e-3

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        return {}

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        return w - self.lr * gradient, {}


@dataclass(frozen=True)
class Momentum(Rule):
    """Gradient descent along a moving average of gradients: v ← αv + (1 − α)g, w ← w − ηv.

    Unrolled, v = Σ_{k≤t} α^(t−k) (1 − α) g_k: the *latest* gradient weighs most. (The slide deck
    prints the exponent the other way round, α^k, which would fade out the new gradients.)

    PyTorch's ``SGD(lr, momentum=α)`` accumulates without the factor, b ← αb + g, so it takes the
    same steps at ``lr`` = η(1 − α). Its ``dampening=α`` is not the same: the first step is
    undamped.
    """

    lr: float = 1e-3
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        return {"v": _namespace(w).zeros_like(w)}

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        v = self.momentum * state["v"] + (1 - self.momentum) * gradient
        return w - self.lr * v, {"v": v}


@dataclass(frozen=True)
class AdaGrad(Rule):
    """AdaGrad: s ← s + g², w ← w − ηg / (√s + ε) (Duchi, Hazan & Singer, 2011).

    The sum only grows, so the steps shrink for ever.
    """

    lr: float = 1e-2
    eps: float = 1e-10

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        return {"s": _namespace(w).zeros_like(w)}

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        xp = _namespace(w)
        s = state["s"] + gradient**2
        return w - self.lr * gradient / (xp.sqrt(s) + self.eps), {"s": s}


@dataclass(frozen=True)
class RMSProp(Rule):
    """RMSProp: v ← αv + (1 − α)g², w ← w − ηg / (√v + ε) (Tieleman & Hinton, 2012).

    The average starts at 0 and is not corrected for it, so the first step is η/√(1 − α) long.
    """

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        return {"v": _namespace(w).zeros_like(w)}

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        xp = _namespace(w)
        v = self.alpha * state["v"] + (1 - self.alpha) * gradient**2
        return w - self.lr * gradient / (xp.sqrt(v) + self.eps), {"v": v}


@dataclass(frozen=True)
class Adam(Rule):
    """Adam (Kingma & Ba, 2015, Algorithm 1).

    Moving averages m of g and v of g² start at 0; dividing them by 1 − βᵗ makes them unbiased, so
    that the first step is η·sign(g) but for ε.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        xp = _namespace(w)
        return {"t": 0, "m": xp.zeros_like(w), "v": xp.zeros_like(w)}

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        xp, (beta1, beta2) = _namespace(w), self.betas
        t = state["t"] + 1
        m = beta1 * state["m"] + (1 - beta1) * gradient
        v = beta2 * state["v"] + (1 - beta2) * gradient**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w = w - self.lr * m_hat / (xp.sqrt(v_hat) + self.eps)
        return w, {"t": t, "m": m, "v": v}


@dataclass(frozen=True)
class AdaMax(Rule):
    """AdaMax: Adam with the decaying maximum of |g| for its scale (Kingma & Ba, 2015, Algorithm 2).

    There is no ε, as in the paper (PyTorch's ``Adamax`` adds one to |g|). Where u is 0 there has
    never been a gradient, and the step is 0.
    """

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        xp = _namespace(w)
        return {"t": 0, "m": xp.zeros_like(w), "u": xp.zeros_like(w)}

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        xp, (beta1, beta2) = _namespace(w), self.betas
        t = state["t"] + 1
        m = beta1 * state["m"] + (1 - beta1) * gradient
        u = xp.maximum(beta2 * state["u"], abs(gradient))
        m_hat = m / (1 - beta1**t)
        w = w - self.lr * m_hat / xp.where(u == 0, xp.inf, u)
        return w, {"t": t, "m": m, "u": u}


@dataclass(frozen=True)
class AMSGrad(Rule):
    """AMSGrad: Adam whose scale never falls (Reddi, Kale & Kumar, 2018), as PyTorch defines it.

    The maximum is that of the *uncorrected* v, and both moments are then corrected for their start
    at 0. Reddi et al. (Algorithm 2) correct neither, and have no ε.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        xp = _namespace(w)
        return {"t": 0, "m": xp.zeros_like(w), "v": xp.zeros_like(w), "v_max": xp.zeros_like(w)}

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        xp, (beta1, beta2) = _namespace(w), self.betas
        t = state["t"] + 1
        m = beta1 * state["m"] + (1 - beta1) * gradient
        v = beta2 * state["v"] + (1 - beta2) * gradient**2
        v_max = xp.maximum(state["v_max"], v)
        m_hat = m / (1 - beta1**t)
        v_hat = v_max / (1 - beta2**t)
        w = w - self.lr * m_hat / (xp.sqrt(v_hat) + self.eps)
        return w, {"t": t, "m": m, "v": v, "v_max": v_max}


RULES: Mapping[str, type[Any]] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (GradientDescent, Momentum, AdaGrad, RMSProp, Adam, AdaMax, AMSGrad)
    }
)
"""The rules by class name."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where a rule went.

    Attributes
    ----------
    points
        The start and the point after each step, shape (steps + 1, ..., n).
    history
        Each array of the rule's state after each step, shape (steps, ..., n), by its name.
    """

    points: npt.NDArray[np.float64]
    history: dict[str, npt.NDArray[np.float64]]


def descend(
    rule: Rule,
    gradient: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    start: npt.ArrayLike,
    steps: int,
) -> Trajectory:
    """Take exactly `steps` steps of `rule` from `start`; nothing stops it early.

    A run that diverges goes on through inf to nan without a warning.

    Parameters
    ----------
    rule
        The optimizer.
    gradient
        Gradient at points of shape (..., n), of the same shape.
    start
        Starting points, shape (..., n); a batch of them runs in one pass.
    steps
        Number of steps, at least 0.

    Raises
    ------
    ValueError
        If `steps` is negative, or `gradient` returns another shape than that of its argument.
    """
    if steps < 0:
        raise ValueError(f"steps must be at least 0, not {steps}")
    w = np.array(start, dtype=np.float64)
    state = rule.init(w)
    points = np.empty((steps + 1, *w.shape))
    history = {
        name: np.empty((steps, *w.shape))
        for name, value in state.items()
        if isinstance(value, np.ndarray)
    }
    points[0] = w
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for t in range(steps):
            g = gradient(w)
            if g.shape != w.shape:
                raise ValueError(f"the gradient has shape {g.shape} at points of shape {w.shape}")
            w, state = rule.step(w, g, state)
            points[t + 1] = w
            for name, record in history.items():
                record[t] = state[name]
    return Trajectory(points, history)
