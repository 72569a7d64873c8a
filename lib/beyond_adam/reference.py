"""The textbook optimizers, written to be read.

Each rule is a frozen dataclass of hyperparameters with two pure functions: ``init(w)`` returns the
state before the first step, ``step(w, gradient, state)`` returns the new point and the new state.
Rules are elementwise, so one text serves NumPy arrays and torch tensors of any shape, a single
point or a batch. They are the yardstick for faster code, and `descend` watches them on landscapes.

Symbols: w the parameters, η (`lr`) the learning rate, g the gradient, β or α decay rates of moving
averages, m and v (or u) the first and second moment, t the number of steps taken, λ
(`weight_decay`) the strength of weight decay, and û the parameters after Adam's part of a step.
"""

# `Rule` says what `init` and `step` do; repeated in each rule it would hide the equations.
# ruff: noqa: ARG002, D102

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from beyond_adam._ranges import RANGES

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
        elif name == "decay_at":
            if value not in ("previous", "updated"):
                raise ValueError(f"decay_at must be 'previous' or 'updated', not {value!r}")
        elif name in RANGES:  # the others are switches
            allowed, interval = RANGES[name]
            if not allowed(value):
                raise ValueError(f"{name} must lie in {interval}, not {value}")


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


def _no_moments(w: Array, amsgrad: bool) -> State:
    """Return t = 0 and m = v = 0, with `amsgrad` also the maximum of v."""
    names = ("m", "v", "v_max") if amsgrad else ("m", "v")
    return {"t": 0} | {name: _namespace(w).zeros_like(w) for name in names}


def _moments(
    rule: PAdam | DynamicPAdam | Padam | AdamExponent, gradient: Array, state: State
) -> tuple[int, Array, Array, State]:
    """Return t, m and v, or with ``amsgrad`` the maximum of v, after g; and the state of them."""
    beta1, beta2 = rule.betas
    t = state["t"] + 1
    m = beta1 * state["m"] + (1 - beta1) * gradient
    v = beta2 * state["v"] + (1 - beta2) * gradient**2
    if not rule.amsgrad:
        return t, m, v, {"t": t, "m": m, "v": v}
    v_max = _namespace(v).maximum(state["v_max"], v)
    return t, m, v_max, {"t": t, "m": m, "v": v, "v_max": v_max}


def _square_decay(rule: Padam | AdamExponent, w: Array, gradient: Array) -> tuple[Array, Array]:
    """Return w and g + λw, or w(1 − ηλ) and g if the decay is decoupled from the gradient."""
    if rule.decoupled_weight_decay:
        return w * (1 - rule.lr * rule.weight_decay), gradient
    return w, gradient + rule.weight_decay * w


def _p_norm_decay(rule: PAdam | DynamicPAdam, u: Array, x: Array) -> Array:
    """Return û X / (X(1 + ηλ₂) + pηλ)."""
    ridge = 1 + rule.lr * rule.lambda_2
    decay = rule.p * rule.lr * rule.weight_decay
    if decay == 0:  # then X cancels, also where it is 0
        return u / ridge
    shrunk: Array = x / (x * ridge + decay) * u
    return shrunk


@dataclass(frozen=True)
class PAdam(Rule):
    """Adam with decoupled decay for any p-norm (Outmezguine, "Introducing PAdam", 2023, Eq. 3).

    With û = w − η m̂ / (√v̂ + ε)^(2c), Adam's step for c = `partial` = 1/2, and X = |w|^(2−p) at the
    weight before the step, or |û|^(2−p) for `decay_at` = "updated",

        w ← û X / (X(1 + ηλ₂) + pηλ).

    A weight of 0 has X = 0, so it stays 0 if it is decayed at the previous weight, but for p = 2:
    there X is 1 everywhere, and the decay is w = û / (1 + 2ηλ + ηλ₂). Without decay, ηλ = 0, X
    cancels, also at w = 0. With `amsgrad`, v is replaced by its maximum as in `AMSGrad`.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    p: float = 1.0
    lambda_2: float = 0.0
    partial: float = 0.5
    amsgrad: bool = False
    decay_at: Literal["previous", "updated"] = "previous"

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        return _no_moments(w, self.amsgrad)

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        xp, (beta1, beta2) = _namespace(w), self.betas
        t, m, v, state = _moments(self, gradient, state)
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        u = w - self.lr * m_hat / (xp.sqrt(v_hat) + self.eps) ** (2 * self.partial)
        x = abs(w if self.decay_at == "previous" else u) ** (2 - self.p)
        return _p_norm_decay(self, u, x), state


@dataclass(frozen=True)
class DynamicPAdam(Rule):
    """PAdam whose auxiliary variable s follows the weights with a delay.

    In `PAdam` the decay is that of a square norm, û / (1 + ηλ₂ + pηλs), with s at once at
    |w|^(p−2), where Λ_p(w, ·) is least (`beyond_adam.prox.lambda_p`). Outmezguine's post
    ("Introducing PAdam", 2023, "Departure from the adiabatic limit") proposes to start at s = 1 and
    to let s learn more slowly than w, but gives no rule. Here r = 1/s is a moving average with
    decay rate β_s (`beta_s`):

        r ← β_s r + (1 − β_s)|w|^(2−p), at the weight before the step, then
        w ← û r / (r(1 + ηλ₂) + pηλ), with û as in `PAdam`.

    As r moves towards |w|^(2−p) and never past it, s = 1/r moves towards |w|^(p−2). Λ_p(w, s) is
    convex in s and least there, so it never increases by the move, whatever β_s is. At s = 1 the
    penalty λΛ_p is (pλ/2)w² and a constant: the decay begins as that of p = 2. Because r stays
    finite and, unless β_s = 0, positive, a weight that is 0 or passes through 0 is not bound to
    stay there, as it is in `PAdam`, which this is for β_s = 0. The move is that of
    `beyond_adam.prox.dynamic_s` at the rate ρ = 1 − β_s.

    The state has r as ``"inverse_s"``, beginning at 1.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    p: float = 1.0
    lambda_2: float = 0.0
    partial: float = 0.5
    amsgrad: bool = False
    beta_s: float = 0.999

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        return {**_no_moments(w, self.amsgrad), "inverse_s": _namespace(w).ones_like(w)}

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        xp, (beta1, beta2) = _namespace(w), self.betas
        r = self.beta_s * state["inverse_s"] + (1 - self.beta_s) * abs(w) ** (2 - self.p)
        t, m, v, state = _moments(self, gradient, state)
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        u = w - self.lr * m_hat / (xp.sqrt(v_hat) + self.eps) ** (2 * self.partial)
        return _p_norm_decay(self, u, r), {**state, "inverse_s": r}


@dataclass(frozen=True)
class Padam(Rule):
    """Padam: AMSGrad with a smaller power of v (Chen et al., 2018), as its authors' code has it.

    With c = `partial` and v̂ the maximum of v, or v itself without `amsgrad`,

        w ← w − η √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v̂ + ε)^(2c).

    For every c the correction for the start at 0 is that of c = 1/2, so that for smaller ones it
    is a warm-up. At c = 1/2 this is `AMSGrad`, but ε is added to the uncorrected root. Weight decay
    adds λw to g; decoupled, w becomes w(1 − ηλ) before the step, as in AdamW.
    """

    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    partial: float = 0.125
    amsgrad: bool = True
    decoupled_weight_decay: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        return _no_moments(w, self.amsgrad)

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        xp, (beta1, beta2) = _namespace(w), self.betas
        w, gradient = _square_decay(self, w, gradient)
        t, m, v, state = _moments(self, gradient, state)
        lr = self.lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        return w - lr * m / (xp.sqrt(v) + self.eps) ** (2 * self.partial), state


@dataclass(frozen=True)
class AdamExponent(Rule):
    """Adam with an exponent c in place of the square root: w ← w − η m̂ / (v̂^c + ε) (Chen, 2019).

    At c = `exponent` = 1/2 this is `Adam`. Without `bias_correction` the moments are taken as they
    are, as in the source's formulas; then at c = 0, where v⁰ = 1 also for v = 0, it is `Momentum`
    at the rate η/(1 + ε), which is PyTorch's ``SGD(lr=η(1 − β₁)/(1 + ε), momentum=β₁)``. With
    `amsgrad`, v is replaced by its maximum as in `AMSGrad`. Weight decay adds λw to g; decoupled, w
    becomes w(1 − ηλ) before the step, as in AdamW.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    exponent: float = 0.5
    bias_correction: bool = True
    amsgrad: bool = False
    decoupled_weight_decay: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def init(self, w: Array) -> State:
        return _no_moments(w, self.amsgrad)

    def step(self, w: Array, gradient: Array, state: State) -> tuple[Array, State]:
        beta1, beta2 = self.betas
        w, gradient = _square_decay(self, w, gradient)
        t, m, v, state = _moments(self, gradient, state)
        if self.bias_correction:
            m = m / (1 - beta1**t)
            v = v / (1 - beta2**t)
        return w - self.lr * m / (v**self.exponent + self.eps), state


RULES: Mapping[str, type[Any]] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (GradientDescent, Momentum, AdaGrad, RMSProp, Adam, AdaMax, AMSGrad)
    }
)
"""The rules of which PyTorch has its own optimizer, with which chapter 1 compares them, by name."""


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
