"""What becomes of weights under PAdam: a step of Adam, and the factor of equation (3) after it.

Single weights with losses ½a(w − 1)² show what the update is, where it ends, what it does near
zero, and what it costs. The post is Outmezguine's "Introducing PAdam" (2023); its algorithm has
seven lines, six of Adam and one of decay. All numbers are in double precision, but where memory is
counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR
from torch.optim.optimizer import ParamsT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from beyond_adam import project
from beyond_adam.optim import DynamicPAdam, LinearSchedule, PAdam, PNormScheduler, RuleOptimizer
from beyond_adam.prox import lp_minimiser_near
from beyond_adam.reference import Rule, State, descend

NAME = "padam-dynamics"

Array = npt.NDArray[np.float64]
Gradient = Callable[[Array, int], Array]
"""The gradient at weights of shape (..., n), in a step counted from 0."""
Make = Callable[[list[Tensor]], Sequence[Any]]
"""Returns what is to be stepped, in this order: an optimizer of the tensors, then schedulers."""
Numbers = TypeVar("Numbers", float, Array, Tensor)

SEED: Final = 0

LR: Final = 1e-2

STRENGTH: Final = 0.2
"""The λ of all runs."""

EXPONENTS: Final = (0.5, 0.8, 1.0, 1.5, 2.0)

COMPARED: Final = 100
"""Steps over which two implementations are compared."""

LEAST: Final = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)
"""Below it, rounding errors are no longer relative to a number."""

TWIN_RATES: Final = np.geomspace(1e-5, 1e-1, 17)

BALANCED: Final = (0.5, 1.0, 1.5, 2.0)
"""Exponents for which the ends of runs are compared with stationary points."""

CURVATURES: Final = np.geomspace(10**-0.5, 10, 7)
"""Curvatures a; the fifth is ten times the first, and so on."""

NOISES: Final = (0.0, 0.3, 3.0)
"""Standard deviations σ of the noise in gradients; the third is ten times the second."""

COPIES: Final = 16
"""Weights of every kind, each with noise of its own."""

PLAIN_RATES: Final = (0.05, 0.15)
"""Learning rates of equation (3) with plain gradients."""

FALLING_RATES: Final = (3e-2, 3e-4)
"""First and last learning rate of runs with noise; it falls by equal factors."""

ESCAPING: Final = 0.8
"""Exponent of the runs that start near zero."""

STARTS: Final = np.array([0.0, *np.geomspace(1e-10, 1, 41)])

GONE: Final = 1e-30
"""A weight below it is as good as 0."""

QUIET, PUSHED = 20, 40
"""Steps without gradient, and then with the gradient −1."""

KICK_STARTS: Final = (0.1, 0.05, 0.02)

NETWORK: Final = (
    (32, 1, 3, 3), (32,), (64, 32, 3, 3), (64,), (128, 3136), (128,), (10, 128), (10,)
)  # fmt: skip
"""Shapes of the weights and biases of the post's network, 421 642 numbers."""

POSTS_RATES: Final = (3e-3, 3e-3 * 10**-0.6)
"""First and last learning rate of the post's training on Fashion-MNIST."""

POSTS_P, POSTS_STRENGTH = 0.8, 0.003
"""Its exponent and its λ."""


def factor(w: Numbers, lr: float, strength: float, p: float) -> Numbers:
    """Return X / (X + ηpλ) with X = abs(w)^(2−p): the factor of equation (3) and of line 7.

    Parameters
    ----------
    w
        Weights, of any shape.
    lr, strength
        Learning rate η and strength λ, both positive.
    p
        Exponent of the norm, 0 < p ≤ 2.
    """
    x: Numbers = abs(w) ** (2 - p)
    return x / (x + lr * p * strength)


@dataclass(frozen=True)
class EquationThree(Rule):
    """Equation (3) of the post: a gradient step, and the `factor` of the weight before it.

    Without decay it is gradient descent.
    """

    lr: float = LR
    weight_decay: float = STRENGTH
    p: float = 1.0

    def init(self, w: Any) -> State:  # noqa: ARG002
        """Return the state, which is empty."""
        return {}

    def step(self, w: Any, gradient: Any, state: State) -> tuple[Any, State]:
        """Return the weights after a step, and the state."""
        moved = w - self.lr * gradient
        if self.weight_decay == 0:
            return moved, state
        return factor(w, self.lr, self.weight_decay, self.p) * moved, state


def equation_3(w: list[Tensor], **options: Any) -> Optimizer:
    """Return equation (3) as an optimizer of tensors, with the options of `EquationThree`."""
    return RuleOptimizer(w, EquationThree(**options))


def only(optimizer: Callable[..., Optimizer], **options: Any) -> Make:
    """Return what makes an optimizer with these options, and no scheduler."""
    return lambda w: [optimizer(w, **options)]


def follow(make: Make, gradient: Gradient, start: Array, steps: int) -> Array:
    """Return the way of weights under an optimizer of torch.

    Parameters
    ----------
    make
        Makes the optimizer and its schedulers.
    gradient
        Gradient of the loss.
    start
        Weights before the first step, of any shape.
    steps
        Number of steps.

    Returns
    -------
    ndarray
        The start and the weights after each step, shape (steps + 1, ...).
    """
    w = torch.tensor(start, requires_grad=True)
    stepped = make([w])
    points = np.empty((steps + 1, *start.shape))
    points[0] = start
    for t in range(steps):
        w.grad = torch.from_numpy(gradient(points[t], t))
        for one in stepped:
            one.step()
        points[t + 1] = w.detach().numpy()
    return points


def towards_one(w: Array, _: int) -> Array:
    """Return the gradient of ½(w − 1)²."""
    return w - 1


# What the update is.


def seven_lines(
    gradient: Gradient, start: Array, steps: int, lr: float, strength: float, p: float
) -> Array:
    """Return the way of weights by lines 1 to 7 of the post's algorithm.

    β₁, β₂ and ε are 0.9, 0.999 and 1e-8. In line 7 the weight is the one before the step, as in the
    post's listing and text; the line itself prints the one that it defines.

    Parameters
    ----------
    gradient, start, steps
        As for `follow`, whose result this is too.
    lr, strength, p
        η, λ and the exponent of the norm.
    """
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    w, m, v = start, np.zeros_like(start), np.zeros_like(start)
    points = [w]
    for t in range(1, steps + 1):
        g = gradient(w, t - 1)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w_hat = w - lr * m_hat / (np.sqrt(v_hat) + eps)
        w = np.abs(w) ** (2 - p) * w_hat / (np.abs(w) ** (2 - p) + lr * p * strength)
        points.append(w)
    return np.stack(points)


class Listing(Adam):
    """Adam and line 7 in the order of the post's listing: save weights, step as Adam does, decay.

    Parameters
    ----------
    params
        Parameters or groups, as for Adam.
    lr, weight_decay, p
        η, λ and the exponent of the norm.
    saves
        Whether weights are saved for line 7, as in the listing; else its factor is that of the
        updated weights.
    """

    def __init__(
        self, params: ParamsT, lr: float, weight_decay: float, p: float, *, saves: bool = True
    ) -> None:
        super().__init__(params, lr=lr, foreach=False)
        self.strength, self.p, self.saves = weight_decay, p, saves

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; weights with a gradient are saved before `closure` runs, as in the listing.

        Raises
        ------
        KeyError
            If the closure gives a gradient to a weight that had none.
        """
        weights = [w for group in self.param_groups for w in group["params"]]
        saved = {w: w.clone() for w in weights if self.saves and w.grad is not None}
        loss = super().step(closure)
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    previous = saved[w] if self.saves else w
                    w.mul_(factor(previous, group["lr"], self.strength, self.p))
        return loss


def compared_runs() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare PAdam without decay with Adam, and with decay with `seven_lines`.

    Weights from 10⁻⁶ to 1, of either sign, and one of 0 have quadratic losses and noise.

    Returns
    -------
    tuple of DataFrame
        ``adam``: for each ``p`` the largest ``difference`` after any of `COMPARED` steps, relative
        to the weight or, if that is greater, to η, and the largest ``relative`` to the weight
        alone. The first shows whether two programs say the same. The second grows with the errors
        of rounding in weights that nearly cancel or that collapse, where every step multiplies
        those of the last one by up to 3 − p. ``algorithm``: the same for each ``implementation``,
        "PAdam" or "listing".
    """
    rng = np.random.default_rng(SEED)
    start = np.append(10 ** rng.uniform(-6, 0, 200) * rng.choice([-1, 1], 200), 0.0)
    curvature = 10 ** rng.uniform(-1, 1, len(start))
    noise = rng.standard_normal((COMPARED, len(start)))

    def gradient(w: Array, step: int) -> Array:
        return np.asarray(curvature * (w - 1) + noise[step])

    def compared(ours: Array, theirs: Array) -> dict[str, float]:
        off, size = np.abs(ours - theirs), np.abs(theirs)
        floors = {"difference": LR, "relative": LEAST}
        return {name: float(np.max(off / np.maximum(size, low))) for name, low in floors.items()}

    run = partial(follow, gradient=gradient, start=start, steps=COMPARED)
    theirs = run(only(Adam, lr=LR))
    adam, algorithm = [], []
    for p in EXPONENTS:
        free = run(only(PAdam, lr=LR, p=p, weight_decay=0))
        adam.append({"p": p, **compared(free, theirs)})
        lines = seven_lines(gradient, start, COMPARED, LR, STRENGTH, p)
        for name, optimizer in (("PAdam", PAdam), ("listing", Listing)):
            ours = run(only(optimizer, lr=LR, p=p, weight_decay=STRENGTH))
            algorithm.append({"implementation": name, "p": p, **compared(ours, lines)})
    return pd.DataFrame(adam), pd.DataFrame(algorithm)


def twin() -> pd.DataFrame:
    """Compare one step of PAdam at p = 2 with one of AdamW with weight decay 2λ.

    Returns
    -------
    DataFrame
        For each learning rate ``lr`` the largest ``difference`` of 200 weights, absolute.
    """
    start, g = np.random.default_rng(SEED).standard_normal((2, 200))
    lines = []
    for lr in TWIN_RATES.tolist():
        ours, theirs = (
            follow(make, lambda *_: g, start, 1)[1]
            for make in (
                only(PAdam, lr=lr, p=2, weight_decay=STRENGTH),
                only(AdamW, lr=lr, weight_decay=2 * STRENGTH),
            )
        )
        lines.append({"lr": lr, "difference": float(np.max(np.abs(ours - theirs)))})
    return pd.DataFrame(lines)


def slope(table: pd.DataFrame) -> float:
    """Return by which power of η the difference in `twin` grows: a slope in logarithms."""
    return float(np.polyfit(np.log(table["lr"]), np.log(table["difference"]), 1)[0])


# Where it ends.


def stationary_point(curvature: Array, strength: Array | float, p: float) -> Array:
    """Return the local minimiser of ½a(w − 1)² + λ·abs(w)^p that descent from 1 leads to.

    It solves a(1 − w) = pλw^(p−1), or is 0 if no positive number does.

    Parameters
    ----------
    curvature, strength
        Curvatures a > 0, and strengths λ ≥ 0 of the same shape or one for all.
    p
        Exponent of the norm, 0 < p ≤ 2.
    """
    if p == 2:
        return curvature / (curvature + 2 * strength)
    return lp_minimiser_near(np.ones_like(curvature), strength / curvature, p)


def fixed_point(curvature: Array, noise: Array, strength: float, p: float) -> Array:
    """Return where PAdam's decay balances its mean step, for weights that start at 1.

    With gradients a(w − 1) + σξ, v̂ is about σ² + a²(1 − w)², and the balance is
    a(1 − w)/√v̂ = pλw^(p−1): that of a `stationary_point`, but with λ√v̂ in place of λ. This is the
    greatest solution, or 0 if there is none; ε and the scatter of w are neglected.

    Parameters
    ----------
    curvature, noise
        Curvatures a > 0 and standard deviations σ ≥ 0, of one shape.
    strength, p
        λ, and the exponent of the norm, 0 < p ≤ 2.
    """
    w = np.ones_like(curvature)
    for _ in range(300):  # w falls from above, since a lower w means a greater v̂
        root = np.hypot(noise, curvature * (1 - w))
        w = stationary_point(curvature, strength * root, p)
    return w


def mean_ends(
    optimizer: Callable[..., Optimizer], curvature: Array, noise: Array, steps: int
) -> Array:
    """Return where weights end that start at 1, with gradients a(w − 1) + σξ.

    Parameters
    ----------
    optimizer
        Makes an optimizer of weights; it is given the first learning rate.
    curvature, noise
        Curvatures a and standard deviations σ, shape (n,); all weights of one copy, and all
        optimizers, get the same normal ξ.
    steps
        Number of steps, in which the learning rate falls as `FALLING_RATES` says.

    Returns
    -------
    ndarray
        Means over the last quarter of the steps, and of them the median of `COPIES` weights, as
        some may fall to 0 by chance; shape (n,).
    """
    rng = np.random.default_rng(SEED)
    first, last = FALLING_RATES

    def make(w: list[Tensor]) -> Sequence[Any]:
        stepped = optimizer(w, lr=first)
        return stepped, ExponentialLR(stepped, (last / first) ** (1 / steps))

    def gradient(w: Array, _: int) -> Array:
        return curvature * (w - 1) + noise * rng.standard_normal((COPIES, 1))

    points = follow(make, gradient, np.ones((COPIES, len(curvature))), steps)
    return np.asarray(np.median(points[-(steps // 4) :].mean(axis=0), axis=0))


def fixed_points(steps: int) -> pd.DataFrame:
    """Compare ends of runs with the stationary points of ½a(w − 1)² + λ·abs(w)^p.

    Parameters
    ----------
    steps
        Number of steps of the runs with Adam.

    Returns
    -------
    DataFrame
        For each ``method`` ("equation (3)" at two learning rates, without noise; "PAdam"; at p = 2
        "AdamW" with weight decay 2λ), ``p``, ``curvature`` a and ``noise`` σ: the last learning
        rate ``lr``, the weight at the ``end``, where it is expected, ``balance`` (`fixed_point` for
        Adam), and the ``stationary`` point.
    """
    curvature, noise = (x.ravel() for x in np.meshgrid(CURVATURES, NOISES))
    frames = []
    for p in BALANCED:
        target = stationary_point(CURVATURES, STRENGTH, p)
        for lr in PLAIN_RATES:
            rule = EquationThree(lr, STRENGTH, p)
            path = descend(rule, lambda w: CURVATURES * (w - 1), np.ones_like(CURVATURES), 2000)
            labels = {"method": "equation (3)", "p": p, "curvature": CURVATURES, "noise": 0.0}
            columns = {"end": path.points[-1], "balance": target, "stationary": target}
            frames.append(pd.DataFrame({**labels, "lr": lr, **columns}))

        optimizers: dict[str, Callable[..., Optimizer]] = {
            "PAdam": partial(PAdam, p=p, weight_decay=STRENGTH)
        }
        if p == 2:
            optimizers["AdamW"] = partial(AdamW, weight_decay=2 * STRENGTH)
        target = stationary_point(curvature, STRENGTH, p)
        expected = fixed_point(curvature, noise, STRENGTH, p)
        for method, optimizer in optimizers.items():
            end = mean_ends(optimizer, curvature, noise, steps)
            labels = {"method": method, "p": p, "curvature": curvature, "noise": noise}
            columns = {"end": end, "balance": expected, "stationary": target}
            frames.append(pd.DataFrame({**labels, "lr": FALLING_RATES[1], **columns}))
    return pd.concat(frames, ignore_index=True)


def balance() -> pd.DataFrame:
    """Return `fixed_point` and `stationary_point` as curves over the curvature.

    Returns
    -------
    DataFrame
        For each ``p``, ``noise`` and ``curvature``: the ``balance`` of PAdam and the ``stationary``
        point.
    """
    grid = np.geomspace(CURVATURES[0], CURVATURES[-1], 121)
    curvature, noise = (x.ravel() for x in np.meshgrid(grid, NOISES))
    frames = []
    for p in BALANCED:
        columns = {
            "balance": fixed_point(curvature, noise, STRENGTH, p),
            "stationary": stationary_point(curvature, STRENGTH, p),
        }
        frames.append(pd.DataFrame({"p": p, "noise": noise, "curvature": curvature, **columns}))
    return pd.concat(frames, ignore_index=True)


# What it does near zero.

NEAR_ZERO: Final[Mapping[str, Callable[..., Optimizer]]] = {
    "equation (3)": equation_3,
    "previous": PAdam,
    "updated": partial(PAdam, decay_at="updated"),
}
"""By name: equation (3), and PAdam with the factor of either weight."""


def lands_on_zero(make: Make) -> float:
    """Return a weight that a first step takes from below to exactly 0, with the loss ½(w − 1)².

    Parameters
    ----------
    make
        Makes the optimizer, which should not decay.
    """
    start = np.array([-LR])
    for _ in range(20):  # the length of a step hardly depends on where it begins
        start -= follow(make, towards_one, start, 1)[1]
    return float(start[0])


def absorbing(steps: int = 1500) -> pd.DataFrame:
    """Let weights begin at, near and below zero, with the loss ½(w − 1)².

    Returns
    -------
    DataFrame
        For each ``method`` of `NEAR_ZERO`, ``p`` and ``case``: ``start``, ``end``, and ``zeros``,
        the number of steps after which the weight was exactly 0. The cases: "at 0"; "at 10⁻⁶";
        "crosses 0", from −0.1; "hits 0", where the first step would end if it did not decay; and
        "misses 0", from above that by a billionth of it.
    """
    frames = []
    for p in (0.8, 1.5):
        for method, optimizer in NEAR_ZERO.items():
            hit = lands_on_zero(only(optimizer, lr=LR, p=p, weight_decay=0))
            starts = {"at 0": 0.0, "at 10⁻⁶": 1e-6, "crosses 0": -0.1, "hits 0": hit}
            starts["misses 0"] = hit * (1 - 1e-9)
            make = only(optimizer, lr=LR, p=p, weight_decay=STRENGTH)
            points = follow(make, towards_one, np.array(list(starts.values())), steps)
            labels = {"method": method, "p": p, "case": list(starts), "start": points[0]}
            columns = {"end": points[-1], "zeros": (points[1:] == 0).sum(axis=0)}
            frames.append(pd.DataFrame({**labels, **columns}))
    return pd.concat(frames, ignore_index=True)


def escapes(steps: int) -> dict[str, Make]:
    """Return, by name, PAdam with p = `ESCAPING` and what may let small weights escape from zero.

    The p of "p from 2" falls over the first half of the steps.
    """
    options: dict[str, Any] = {"lr": LR, "weight_decay": STRENGTH}
    fixed: dict[str, Any] = {**options, "p": ESCAPING}

    def scheduled(w: list[Tensor]) -> Sequence[Any]:
        optimizer = PAdam(w, p=2, **options)
        return optimizer, PNormScheduler(optimizer, LinearSchedule(2, ESCAPING, steps // 2))

    return {
        "previous": only(PAdam, **fixed),
        "elastic net": only(PAdam, **fixed, lambda_2=STRENGTH),
        "updated": only(PAdam, **fixed, decay_at="updated"),
        "p from 2": scheduled,
        "dynamic s": only(DynamicPAdam, **fixed),
    }


def escape(steps: int = 1000) -> pd.DataFrame:
    """Let weights start at each of `STARTS`, with the loss ½(w − 1)².

    Returns
    -------
    DataFrame
        For each ``method`` of `escapes` and ``start``: ``end``, and ``steps``, the number of steps
        after which the weight is below `GONE` for good (nan if it ends above).
    """
    frames = []
    for method, make in escapes(steps).items():
        size = np.abs(follow(make, towards_one, STARTS, steps))
        # One more than the last step after which it was not gone; 0 if it never was.
        taken = np.max(np.arange(1, steps + 2)[:, None] * (size >= GONE), axis=0)
        columns = {"end": size[-1], "steps": np.where(size[-1] < GONE, taken, np.nan)}
        frames.append(pd.DataFrame({"method": method, "start": STARTS, **columns}))
    return pd.concat(frames, ignore_index=True)


def kick() -> pd.DataFrame:
    """Give weights gradients that are 0 at first and then −1, with the factor of either weight.

    Returns
    -------
    DataFrame
        For each ``decay_at`` ("previous" or "updated"), ``start`` and ``step``: the weight ``w``
        after so many steps.
    """
    g = np.repeat([0.0, -1.0], [QUIET, PUSHED])
    start = np.array(KICK_STARTS)
    frames = []
    for decay_at in ("previous", "updated"):
        make = only(PAdam, lr=LR, p=ESCAPING, weight_decay=STRENGTH, decay_at=decay_at)
        points = follow(make, lambda w, t: np.full_like(w, g[t]), start, len(g))
        for number, begun in enumerate(KICK_STARTS):
            columns = {"step": np.arange(len(points)), "w": points[:, number]}
            frames.append(pd.DataFrame({"decay_at": decay_at, "start": begun, **columns}))
    return pd.concat(frames, ignore_index=True)


# What it costs, and what the listing does with a closure.


class PeakMemory(TorchDispatchMode):
    """The most bytes that are alive at once in tensors made while this context is entered.

    Attributes
    ----------
    bytes
        That number so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._alive: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and _storage(x) not in given:
                self._alive[_storage(x)] = x.untyped_storage().nbytes()
        self._alive = {ref: size for ref, size in self._alive.items() if not _gone(ref)}
        self.bytes = max(self.bytes, sum(self._alive.values()))
        return result


def _storage(x: Tensor) -> StorageWeakRef:
    return StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]


def _gone(reference: StorageWeakRef) -> bool:
    return bool(reference.expired())  # type: ignore[no-untyped-call]


def memory() -> pd.DataFrame:
    """Count what a step holds beside weights, gradients and moments, for the post's network.

    Tensors are float32, and stepped one by one.

    Returns
    -------
    DataFrame
        For each ``implementation`` ("Adam", the "listing" or "PAdam") and ``decay_at`` ("previous",
        "updated", "" for Adam): ``bytes``, the most that is held at once during a second step, and
        ``floats``, the same in numbers per parameter.
    """
    listing: dict[str, Any] = {"lr": LR, "weight_decay": STRENGTH, "p": ESCAPING}
    ours: dict[str, Any] = {"p": ESCAPING, "foreach": False}
    makes = {
        ("Adam", ""): only(Adam, foreach=False),
        ("listing", "previous"): only(Listing, **listing),
        ("listing", "updated"): only(Listing, **listing, saves=False),
        ("PAdam", "previous"): only(PAdam, **ours),
        ("PAdam", "updated"): only(PAdam, **ours, decay_at="updated"),
    }
    lines = []
    for (implementation, decay_at), make in makes.items():
        weights = [torch.ones(shape, requires_grad=True) for shape in NETWORK]
        for w in weights:
            w.grad = torch.ones_like(w)
        (optimizer,) = make(weights)
        optimizer.step()  # this makes the moments
        with PeakMemory() as peak:
            optimizer.step()
        floats = peak.bytes / 4 / sum(w.numel() for w in weights)
        labels = {"implementation": implementation, "decay_at": decay_at}
        lines.append({**labels, "bytes": peak.bytes, "floats": floats})
    return pd.DataFrame(lines)


def closure() -> pd.DataFrame:
    """Take the first step of the listing, and of PAdam, with a closure that makes the gradients.

    Returns
    -------
    DataFrame
        For each ``implementation`` the name of the error that is ``raised``, "" if none.
    """
    options: dict[str, Any] = {"lr": LR, "weight_decay": STRENGTH, "p": ESCAPING}
    lines = []
    for implementation, make in (("listing", Listing), ("PAdam", PAdam)):
        w = torch.ones(1, requires_grad=True)
        optimizer = make([w], **options)

        def evaluate(w: Tensor = w) -> float:
            w.grad = 2 * w.detach()
            return float(w.detach() ** 2)

        raised = ""
        try:
            optimizer.step(evaluate)
        except KeyError as error:
            raised = type(error).__name__
        lines.append({"implementation": implementation, "raised": raised})
    return pd.DataFrame(lines)


# At which size weights are suppressed.


def half_weight(lr: float, p: float, strength: float) -> float:
    """Return the size of a weight that loses half in a step without gradient.

    It is found as a root of `factor` − ½, not by a formula.

    Parameters
    ----------
    lr, strength
        Learning rate η and strength λ, both positive.
    p
        Exponent of the norm, 0 < p < 2.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the size beyond 1e-100 or 1e100.
    """
    if not 0 < p < 2:
        raise ValueError(f"p must lie in (0, 2), not {p}")
    for name, value in (("lr", lr), ("strength", strength)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, not {value}")

    def excess(exponent: float) -> float:
        return factor(10**exponent, lr, strength, p) - 0.5

    if not excess(-100) < 0 < excess(100):
        raise ValueError(f"no size from 1e-100 to 1e100 is halved at {lr=}, {p=}, {strength=}")
    return float(10 ** brentq(excess, -100, 100, xtol=1e-14))


def scale() -> pd.DataFrame:
    """Return at which size weights lose half in a step of the post's training.

    Returns
    -------
    DataFrame
        For each learning rate ``lr`` of `POSTS_RATES`: that size, ``half``, and the one that the
        post names, (pλ)^(1/(2−p)), ``named``.
    """
    halves = [half_weight(lr, POSTS_P, POSTS_STRENGTH) for lr in POSTS_RATES]
    named = (POSTS_P * POSTS_STRENGTH) ** (1 / (2 - POSTS_P))
    return pd.DataFrame({"lr": POSTS_RATES, "half": halves, "named": named})


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Measure all of it.

    Parameters
    ----------
    profile
        Runs to fixed points take 1000 steps at "smoke", else 4000; the rest is the same.

    Returns
    -------
    dict of DataFrame
        ``adam`` and ``algorithm``, which `compared_runs` describes, and ``twin``,
        ``fixed_points``, ``balance``, ``absorbing``, ``escape``, ``kick``, ``memory``, ``closure``
        and ``scale``, which the functions of these names describe.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    steps = 1000 if project.check_profile(profile) == "smoke" else 4000
    adam, algorithm = compared_runs()
    return {
        "adam": adam,
        "algorithm": algorithm,
        "twin": twin(),
        "fixed_points": fixed_points(steps),
        "balance": balance(),
        "absorbing": absorbing(),
        "escape": escape(),
        "kick": kick(),
        "memory": memory(),
        "closure": closure(),
        "scale": scale(),
    }
