"""The auxiliary function Λ_p behind p-norm decay, and the steps that follow from it.

For 0 < p < 2 and s > 0 let Λ_p(x, s) = ½[p s x² + (2 − p) s^(−p/(2−p))]. Its least value over s is
|x|^p, taken at s = |x|^(p−2), so that a p-norm penalty becomes a quadratic one with a strength of
its own for every weight. Names and equation numbers are those of the post by N. Outmezguine,
"Introducing PAdam" (2023).

Everything is elementwise and broadcasts, for NumPy arrays and torch tensors alike. The result has
the kind and the precision of the first array (integers become floating); half precisions are
computed in float32 and rounded once.
"""

import math
from typing import Any

import numpy as np
import torch

from beyond_adam.prox._arrays import (
    Array,
    Strength,
    checked_p,
    checked_strength,
    same_kind,
    working,
)


def lambda_p(x: Array, s: Strength, p: float) -> Array:
    """Return Λ_p(x, s) = ½[p s x² + (2 − p) s^(−p/(2−p))].

    For fixed s it is a parabola in x, for fixed x convex in s, but it is not convex in both; see
    `lambda_p_hessian`.

    Parameters
    ----------
    x
        Weights, of any shape.
    s
        Auxiliary variable, positive and finite; a number, or an array that broadcasts against `x`.
    p
        Exponent of the norm, 0 < p < 2.

    Returns
    -------
    ndarray or Tensor
        The values, of the shape that `x` and `s` broadcast to.

    Raises
    ------
    ValueError
        If an argument is out of its range; the message names the value.
    TypeError
        If `x` is complex or no array of numbers, or `s` an array of another kind.
    """
    p = checked_p(p)
    _, x, back = working(x, "x")
    s = _checked_s(s, x)
    # In this order s·x² overflows only if it is too large itself, not as soon as x² is.
    return back(0.5 * (p * s * x * x + (2 - p) * s ** (-p / (2 - p))))


def lambda_p_gradient(x: Array, s: Strength, p: float) -> tuple[Array, Array]:
    """Return the derivatives ∂_x Λ_p = p s x and ∂_s Λ_p = (p/2)(x² − s^(−2/(2−p))).

    Parameters, shapes and errors are those of `lambda_p`. On the valley s = |x|^(p−2) the second
    is zero and the first is the derivative of |x|^p.
    """
    p = checked_p(p)
    _, x, back = working(x, "x")
    s = _checked_s(s, x)
    return back(p * s * x), back(0.5 * p * (x * x - s ** (-2 / (2 - p))))


def lambda_p_hessian(x: Array, s: Strength, p: float) -> tuple[Array, Array, Array]:
    """Return the second derivatives of Λ_p: ∂_xx, ∂_xs and ∂_ss, each of the broadcast shape.

    They are p s, p x and p/(2−p) s^(−(4−p)/(2−p)). The first and the last are positive: Λ_p is
    convex in each variable. The determinant p²[s^(−2/(2−p))/(2−p) − x²] is negative above
    `indefinite_above`: Λ_p is jointly convex for no p, contrary to what the post says.

    Parameters and errors are those of `lambda_p`.
    """
    p = checked_p(p)
    xp, x, back = working(x, "x")
    s = _checked_s(s, x)
    zero = xp.zeros_like(x + s)
    ss = p / (2 - p) * s ** (-(4 - p) / (2 - p))
    return back(p * s + zero), back(p * x + zero), back(ss + zero)


def indefinite_above(x: Array, p: float) -> Array:
    """Return ((2 − p) x²)^(−(2−p)/2), the s above which the Hessian of Λ_p(x, s) is indefinite.

    It is infinite at x = 0. For p < 1 it lies below the valley `optimal_s`, at p = 1 on it.

    Raises
    ------
    ValueError
        Unless 0 < p < 2.
    TypeError
        If `x` is complex or no array of numbers.
    """
    p = checked_p(p)
    xp, x, back = working(x, "x")
    return back(_power(math.sqrt(2 - p) * xp.abs(x), p - 2))


def optimal_s(x: Array, p: float) -> Array:
    """Return |x|^(p−2), the s that minimises Λ_p(x, s); the least value is |x|^p.

    At x = 0 it is infinite: the infimum 0 is approached as s grows, never reached.

    Raises
    ------
    ValueError
        Unless 0 < p < 2.
    TypeError
        If `x` is complex or no array of numbers.
    """
    p = checked_p(p)
    xp, x, back = working(x, "x")
    return back(_power(xp.abs(x), p - 2))


def prox_lambda_p(u: Array, s: Strength, strength: Strength, p: float) -> Array:
    """Return u / (1 + p λ s), the proximal operator of λ Λ_p(·, s) at fixed s.

    It minimises λ Λ_p(x, s) + ½(x − u)² over x.

    Parameters
    ----------
    u
        Where to evaluate it, of any shape.
    s
        Auxiliary variable, positive; where it is infinite the result is zero.
    strength
        The strength λ, not negative; of a step it is the learning rate times the strength of the
        penalty. Where it is zero the result is `u`, whatever s is.
    p
        Exponent of the norm, 0 < p < 2.

    Raises
    ------
    ValueError
        If an argument is out of its range; the message names the value.
    TypeError
        If `u` is complex or no array of numbers, or another argument an array of another kind.
    """
    p = checked_p(p)
    xp, u, back = working(u, "u")
    s = _checked_s(s, u, infinite=True)
    decay = _like(p * checked_strength(strength, u), u)
    # Without decay s must not matter, not even an infinite one.
    return back(u / (1 + decay * xp.where(decay > 0, s, 0.0)))


def adiabatic_step(
    w: Array, gradient: Array, lr: Strength, strength: Strength, p: float, *, l2: Strength = 0.0
) -> Array:
    """Return X / (X (1 + η λ₂) + η p λ) · (w − η g) with X = |w|^(2−p): Eq. (3) of the post.

    It is `prox_lambda_p` after a gradient step, with s held at `optimal_s` of the weight before
    the step, as if s followed w at once ("adiabatically"); λ₂ adds a penalty (λ₂/2) w² (elastic
    net). Being a step of majorise and minimise, it never raises ℓ + λ Σ|w|^p + (λ₂/2) Σw² if g is
    the gradient of the loss ℓ and η below 2/L for the Lipschitz constant L of g.

    Zero is absorbing: where w = 0 the result is 0 (of either sign) whatever the gradient, unless
    η p λ = 0; there the factor is 1 / (1 + η λ₂). No weight is too large for it, and one so small
    that X underflows becomes zero.

    Parameters
    ----------
    w
        Weights, of any shape.
    gradient
        Gradient g of the loss at `w`, of the same shape.
    lr
        Learning rate η, not negative; a number or an array that broadcasts against `w`.
    strength
        Strength λ of the penalty λ Σ|w|^p, not negative.
    p
        Exponent of the norm, 0 < p < 2.
    l2
        Strength λ₂ of the penalty (λ₂/2) Σw², not negative.

    Returns
    -------
    ndarray or Tensor
        The weights after the step.

    Raises
    ------
    ValueError
        If an argument is out of its range; the message names the value.
    TypeError
        If `w` is complex or no array of numbers, or another argument an array of another kind.
    """
    p = checked_p(p)
    xp, w, back = working(w, "w")
    lr = checked_strength(lr, w, "lr")
    decay = lr * p * checked_strength(strength, w)
    ridge = 1 + lr * checked_strength(l2, w, "l2")
    size = xp.abs(w)
    near = size <= 1
    with np.errstate(divide="ignore", over="ignore"):  # of 1/0: the minimum is the other one
        bounded = xp.minimum(size, 1 / size) ** (2 - p)
    # The factor is x / (x·ridge + c) with x = X, c = ηpλ. Beyond |w| = 1 both are divided by X,
    # which could overflow; without decay x is 1, so that 0/0 cannot arise.
    x = xp.where(near & (_like(decay, w) > 0), bounded, 1.0)
    c = xp.where(near, decay, decay * bounded)
    return back(x / (x * ridge + c) * (w - lr * _like(gradient, w, "gradient")))


def dynamic_s(s: Strength, w: Array, p: float, rate: float) -> Array:
    """Return 1 / ((1 − ρ)/s + ρ|w|^(2−p)): s moved a part ρ of the way to `optimal_s` of `w`.

    The post proposes an s that is slower than w but gives no rule. Here 1/s is a moving average of
    |w|^(2−p), for small ρ the flow ds/dt = ρ s (1 − s|w|^(2−p)). That has the sign of −∂_s Λ_p, and
    for no ρ does s go past the optimum; as Λ_p is convex in s, Λ_p(w, s) never increases.

    ρ = 1 arrives at once, which with `prox_lambda_p` is the `adiabatic_step`. For ρ < 1 a weight of
    zero makes s only 1/(1 − ρ) times as large, so that it is not bound to stay zero.

    Parameters
    ----------
    s
        Auxiliary variable before the step, positive; infinity is allowed.
    w
        Weights, of any shape.
    p
        Exponent of the norm, 0 < p < 2.
    rate
        The part ρ, 0 < ρ ≤ 1.

    Returns
    -------
    ndarray or Tensor
        The new s, of the shape that `s` and `w` broadcast to.

    Raises
    ------
    ValueError
        If an argument is out of its range; the message names the value.
    TypeError
        If `w` is complex or no array of numbers, or `s` an array of another kind.
    """
    p = checked_p(p)
    if not 0 < rate <= 1:
        raise ValueError(f"rate must lie in (0, 1], not {rate}")
    rate = float(rate)  # a scalar of NumPy would raise float32 to float64
    xp, w, back = working(w, "w")
    s = _checked_s(s, w, infinite=True)
    size = xp.abs(w)
    best, half = _power(size, p - 2), size ** ((2 - p) / 2)
    # Warnings are of the line that is not taken, or of a result beyond every number.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ratio = s * half * half  # of s to the best; |w|^(2−p) itself may overflow
        up = s / (1 - rate + rate * ratio)
        down = best / (rate + (1 - rate) / ratio)
    # The best itself at ρ = 1 and where s is there already, be it at infinity: ratio is nan then.
    return back(xp.where((ratio < 1) & (rate < 1), up, xp.where(ratio > 1, down, best)))


def decay_scale(lr: float, strength: float, p: float) -> float:
    """Return (η p λ)^(1/(2−p)), the |w| that an `adiabatic_step` without gradient halves.

    Smaller weights shrink faster, larger ones slower. (The post names (p λ)^(1/(2−p)) instead,
    without the learning rate.)

    Raises
    ------
    ValueError
        Unless `lr` and `strength` are finite and not negative and 0 < p < 2.
    OverflowError
        If the scale exceeds the largest float.
    """
    p = checked_p(p)
    for name, value in (("lr", lr), ("strength", strength)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and not negative, not {value}")
    return math.pow(lr * p * strength, 1 / (2 - p))


def collapse_basin(gradient: Array, strength: Strength, p: float) -> Array:
    """Return (p λ / |g|)^(1/(1−p)), the |w| below which `adiabatic_step` collapses to zero, p < 1.

    Under a constant gradient g every weight below it shrinks, ever faster, to exactly zero, for
    every learning rate but 0. At it the decay balances a gradient that pushes away from zero, and
    a weight pushed away from above it grows. It is infinite without gradient and zero without
    decay. For p ≥ 1 there is no such basin.

    Parameters
    ----------
    gradient
        Gradient g, of any shape.
    strength
        Strength λ of the penalty λ Σ|w|^p, not negative.
    p
        Exponent of the norm, 0 < p < 1.

    Raises
    ------
    ValueError
        If `strength` or `p` is out of its range; the message names the value.
    TypeError
        If `gradient` is complex or no array of numbers, or `strength` an array of another kind.
    """
    p = checked_p(p, 0, 1)
    xp, g, back = working(gradient, "gradient")
    pull = _like(p * checked_strength(strength, g), g)
    push = xp.where(pull > 0, xp.abs(g), 1.0)  # so that 0/0 cannot arise
    with np.errstate(divide="ignore", over="ignore"):
        return back((pull / push) ** (1 / (1 - p)))


def _power(base: Array, exponent: float) -> Array:
    """Return `base` to a negative power; NumPy is not to warn of the infinity at zero."""
    with np.errstate(divide="ignore", over="ignore"):
        result: Array = base**exponent
    return result


def _like(value: Any, x: Array, name: str = "strength") -> Array:
    """Return `value`, a number or an array of the kind of `x`, as an array in the dtype of `x`."""
    value = same_kind(value, x, name)
    if isinstance(value, float):
        return x.new_tensor(value) if isinstance(x, torch.Tensor) else np.asarray(value, x.dtype)
    result: Array = value
    return result


def _checked_s(s: Strength, x: Array, *, infinite: bool = False) -> Array:
    """Return `s`, positive and unless `infinite` finite, as an array in the dtype of `x`."""
    s = _like(s, x, "s")
    if not torch.compiler.is_compiling():  # there, looking at entries would break the graph
        bad = s[~((s > 0) & (s <= math.inf if infinite else s < math.inf))]
        if len(bad):
            allowed = "positive" if infinite else "positive and finite"
            raise ValueError(f"s must be {allowed}, not {float(bad[0])}")
    return s
