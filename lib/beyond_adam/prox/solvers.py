"""Proximal-gradient methods for F(x) = f(x) + g(x) with f smooth and g simple.

"Simple" means that g has a proximal operator at hand. The methods are those of A. Beck and
M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM
J. Imaging Sciences 2 (2009) 183–202, with the restart of B. O'Donoghue and E. Candès, "Adaptive
restart for accelerated gradient schemes", Found. Comput. Math. 15 (2015) 715–732.

They serve NumPy arrays and torch tensors of any shape. Several problems of one shape can be solved
by one call, say as the columns of x, if f and g sum over them; they then share the step, and the
norms are over all of them. Integers become floating, half precisions float32.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
import torch

from beyond_adam.prox._arrays import Array, working


@dataclass(frozen=True)
class Composite(Generic[Array]):
    """A problem: minimise F(x) = f(x) + g(x).

    Attributes
    ----------
    value
        f, as a function of x that returns a number (or an array with a single entry).
    gradient
        ∇f, as a function of x that returns an array of its shape.
    penalty
        g, as a function of x that returns a number; it may be infinite, but not at the start.
    prox
        Proximal operator of g: ``prox(z, step)`` minimises step·g(x) + ½‖x − z‖² over x.
    """

    value: Callable[[Array], Any]
    gradient: Callable[[Array], Array]
    penalty: Callable[[Array], Any]
    prox: Callable[[Array, float], Array]

    def objective(self, x: Array) -> float:
        """Return F(x) = f(x) + g(x)."""
        return float(self.value(x)) + float(self.penalty(x))


@dataclass(frozen=True, eq=False)
class Solution(Generic[Array]):
    """What `ista` and `fista` return.

    Attributes
    ----------
    x
        The last iterate.
    objective
        F(x_0), F(x_1), …, F(x_K), float64.
    step
        The last step length t. With backtracking it never grows, so it is the shortest.
    steps
        Number of steps K.
    residual
        ‖y − x‖/t, the norm of the gradient mapping at the point y from which the last step went to
        x (for `ista` the iterate before x). Steps on convex problems being nonexpansive for
        t ≤ 2/L, the gradient mapping at x itself is then no longer.
    converged
        Whether the tolerance was reached, not just `max_steps`.
    """

    x: Array
    objective: npt.NDArray[np.float64]
    step: float
    steps: int
    residual: float
    converged: bool


def proximal_gradient(problem: Composite[Array], start: Array, step: float, steps: int) -> Array:
    """Return all iterates of x ← prox(x − t∇f(x), t), nothing more than this.

    Parameters
    ----------
    problem
        The problem; no convexity is asked for. `value` and `penalty` are not evaluated.
    start
        The first iterate x_0.
    step
        Step length t, positive. If ∇f has Lipschitz constant L, then F never rises for t ≤ 1/L.
        For longer steps the iterates may diverge, which this function does not look for.
    steps
        Number of steps, not negative.

    Returns
    -------
    ndarray or Tensor
        The iterates x_0, x_1, …, shape (steps + 1, …).

    Raises
    ------
    ValueError
        If `step` or `steps` is out of its range, or a step changes the shape of x.
    TypeError
        If `start` is complex or no array of numbers.
    """
    _check_step(step)
    if steps < 0:
        raise ValueError(f"steps must not be negative, not {steps}")
    xp, x = _detached(start)
    iterates = [x]
    for _ in range(steps):
        iterates.append(_step(problem, iterates[-1], problem.gradient(iterates[-1]), step))
    result: Array = xp.stack(iterates)
    return result


def ista(
    problem: Composite[Array],
    start: Array,
    *,
    step: float = 1.0,
    backtracking: bool = True,
    shrink: float = 0.5,
    tolerance: float = 1e-10,
    max_steps: int = 10_000,
) -> Solution[Array]:
    """Minimise F by proximal-gradient steps x ← prox(x − t∇f(x), t).

    For convex f and g, F(x_k) − F* ≤ αL‖x_0 − x*‖²/(2k), where L is the Lipschitz constant of ∇f
    and α = max(1/shrink, 1/(L·step)), or α = 1/(L·step) without backtracking for step ≤ 1/L
    (Beck & Teboulle, theorem 3.1).

    It stops after the first step with ‖x_k − x_{k+1}‖/t ≤ tolerance · max(1, r), where r is the
    left side in the first step: at a small gradient mapping, relative to a large one at the start.

    Parameters
    ----------
    problem
        The problem. Of f and g convexity is needed for the bound only.
    start
        The first iterate x_0, where F must be finite.
    step
        Step length t, positive. With backtracking the length to try first: t is multiplied by
        `shrink` until f(x⁺) ≤ f(x) + ⟨∇f(x), x⁺ − x⟩ + ‖x⁺ − x‖²/(2t), and never grows, so it is
        better too long than too short. Without backtracking, 1/L is safe.
    backtracking
        Whether to shorten the step where needed.
    shrink
        By what to multiply a step that is too long, between 0 and 1.
    tolerance
        Precision, not negative. Rounding of the gradient sets a limit: the default is for float64.
    max_steps
        Largest number of steps, positive.

    Returns
    -------
    Solution
        The last iterate and the history; check its `converged`.

    Raises
    ------
    ValueError
        If an argument is out of its range, or a step changes the shape of x.
    FloatingPointError
        If F or ∇f is not finite; the message names the step. Without backtracking this tells of a
        step that is too long.
    TypeError
        If `start` is complex or no array of numbers.
    """
    return _solve(
        problem,
        start,
        step,
        backtracking,
        shrink,
        tolerance,
        max_steps,
        accelerated=False,
        restart=False,
    )


def fista(
    problem: Composite[Array],
    start: Array,
    *,
    step: float = 1.0,
    backtracking: bool = True,
    shrink: float = 0.5,
    tolerance: float = 1e-10,
    max_steps: int = 10_000,
    restart: bool = True,
) -> Solution[Array]:
    """Minimise F by accelerated proximal-gradient steps.

    A step x_k = prox(y_k − t∇f(y_k), t) starts from an extrapolation of the last two iterates,
    y_{k+1} = x_k + (θ_k − 1)/θ_{k+1} · (x_k − x_{k−1}) with θ_{k+1} = (1 + √(1 + 4θ_k²))/2 and
    θ_1 = 1, y_1 = x_0. For convex f and g, F(x_k) − F* ≤ 2αL‖x_0 − x*‖²/(k + 1)² with `restart`
    off and α as in `ista` (Beck & Teboulle, theorem 4.4). F may rise from step to step.

    With `restart`, θ is set back to 1 whenever a step turns against the motion,
    ⟨y_k − x_k, x_k − x_{k−1}⟩ > 0 (the gradient scheme of O'Donoghue & Candès, section 3.2). On
    strongly convex problems this makes the convergence linear without knowledge of the convexity.

    It stops as `ista` does, by ‖y_k − x_k‖/t. Parameters, result and errors are those of `ista`.
    """
    return _solve(
        problem,
        start,
        step,
        backtracking,
        shrink,
        tolerance,
        max_steps,
        accelerated=True,
        restart=restart,
    )


@np.errstate(over="ignore", invalid="ignore")  # whatever overflows, the checks below find
def _solve(
    problem: Composite[Array],
    start: Array,
    step: float,
    backtracking: bool,
    shrink: float,
    tolerance: float,
    max_steps: int,
    *,
    accelerated: bool,
    restart: bool,
) -> Solution[Array]:
    """Run `ista` or, with `accelerated`, `fista`."""
    _check_step(step)
    if not 0 < shrink < 1:
        raise ValueError(f"shrink must lie between 0 and 1, exclusive, not {shrink}")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be finite and not negative, not {tolerance}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, not {max_steps}")
    xp, first = _detached(start)
    x = y = _Point(problem, first)
    objective = [_finite(x.objective, "objective", 0)]
    epsilon = float(xp.finfo(first.dtype).eps)
    theta, limit = 1.0, math.nan
    for k in range(1, max_steps + 1):
        if not xp.isfinite(y.gradient).all():
            raise FloatingPointError(f"the gradient is not finite before step {k}")
        new = _Point(problem, _step(problem, y.x, y.gradient, step))
        while backtracking and not _is_bounded(new, y, step, epsilon):
            step *= shrink
            new = _Point(problem, _step(problem, y.x, y.gradient, step))
        objective.append(_finite(new.objective, "objective", k))
        move = new.x - y.x
        residual = _finite(math.sqrt(_inner(move, move)) / step, "gradient mapping", k)
        if k == 1:
            limit = tolerance * max(1.0, residual)
        if residual <= limit:
            break
        if not accelerated or (restart and _inner(move, new.x - x.x) < 0):
            theta = 1.0
        theta, previous = (1 + math.sqrt(1 + 4 * theta * theta)) / 2, theta
        momentum = (previous - 1) / theta
        # Where y is x again, what is known of it need not be computed again.
        y = _Point(problem, new.x + momentum * (new.x - x.x)) if momentum else new
        x = new
    return Solution(new.x, np.array(objective), step, k, residual, residual <= limit)


@dataclass(eq=False)
class _Point(Generic[Array]):
    """A point with f, ∇f and F there, each computed at most once and only if asked for."""

    problem: Composite[Array]
    x: Array

    @cached_property
    def value(self) -> float:
        return float(self.problem.value(self.x))

    @cached_property
    def gradient(self) -> Array:
        return self.problem.gradient(self.x)

    @cached_property
    def objective(self) -> float:
        return self.value + float(self.problem.penalty(self.x))


def _step(problem: Composite[Array], x: Array, gradient: Array, step: float) -> Array:
    """Return prox(x − t∇f(x), t), of the shape of `x`."""
    new = problem.prox(x - step * gradient, step)
    if new.shape != x.shape:  # broadcasting would go on without a word
        raise ValueError(
            f"gradient and prox must keep the shape {tuple(x.shape)}, not make it "
            f"{tuple(new.shape)}"
        )
    return new


def _is_bounded(new: _Point[Array], y: _Point[Array], step: float, epsilon: float) -> bool:
    """Return whether f(x⁺) ≤ f(y) + ⟨∇f(y), d⟩ + ‖d‖²/(2t) for the step d = x⁺ − y of length t.

    That is a statement about f(x⁺) − f(y) − ⟨∇f(y), d⟩, which goes to zero with ‖d‖² and is lost
    in the rounding of f when ‖d‖ still is about √ε. There it is put in terms of the gradients,
    ⟨∇f(x⁺) − ∇f(y), d⟩ ≤ ‖d‖²/t: the same for a quadratic f, and in the limit d → 0 for every f
    twice differentiable. This is lost at ‖d‖ about ε‖y‖, where there is nothing left to gain, and
    the step is kept. The slack √ε lets t = 1/L pass, where the two sides may be equal.
    """
    move = new.x - y.x
    square = _inner(move, move)
    if not math.isfinite(new.value + square):
        return False
    slack = math.sqrt(epsilon)
    if square / step > slack * abs(new.value):
        gap = new.value - y.value - _inner(y.gradient, move)
        return gap <= (0.5 + slack) * square / step
    if square <= (100 * epsilon) ** 2 * _inner(y.x, y.x):
        return True
    return _inner(new.gradient - y.gradient, move) <= (1 + slack) * square / step


def _detached(start: Array) -> tuple[Any, Array]:
    """Return the namespace of `start` and `start`, floating and cut off from autograd.

    Otherwise the graph would grow with every step.
    """
    xp, x, _ = working(start, "start")
    return xp, x.detach() if isinstance(x, torch.Tensor) else x


def _inner(a: Array, b: Array) -> float:
    return float((a * b).sum())


def _finite(value: float, name: str, step: int) -> float:
    if not math.isfinite(value):
        where = f"after step {step}" if step else "at the start"
        raise FloatingPointError(f"the {name} is {value} {where}")
    return value


def _check_step(step: float) -> None:
    if not 0 < step < math.inf:
        raise ValueError(f"step must be positive and finite, not {step}")
