r"""The proximal operator of λ·|u|^p, 0 < p < 2: argmin_u ½(u − z)² + λ|u|^p, elementwise.

With r = |u| / |z|, the share of z that is kept, and a = pλ|z|^(p−2), a non-zero stationary point
solves

.. math:: r + a r^β = 1, \qquad β = p - 1,

one equation in one parameter for every λ and z. `_kept_share` solves it from x = log a, which
neither overflows nor underflows. What p decides is which root, if any, is the minimiser:

* 1 < p < 2: the only one, for every a. Nothing but 0 is sent to 0.
* 0 < p < 1: the left side is convex in r with its least value at r_f = (1−p)/(2−p). The larger root
  is a local minimiser as long as it exists, up to the fold a_f = (1−r_f) r_f^(1−p), and the global
  one as long as r > 2r_f. Beyond, the prox is 0: it jumps, from u = (2λ(1−p))^(1/(2−p)).
* p = 1: r = 1 − a while that is positive, the soft threshold.

The derivatives cost nothing more, since pλ|u|^(p−1) = |z| − |u| at the root.
"""

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from beyond_adam.prox._arrays import Array, Strength, checked_p, checked_strength, working

Scale = TypeVar("Scale", float, npt.NDArray[Any], torch.Tensor)


def prox_lp(z: Array, strength: Strength, p: float) -> Array:
    """Return argmin_u ½(u − z)² + strength·|u|^p, elementwise.

    At the threshold for p < 1 both 0 and the far side of the jump are minimisers; which of them is
    returned there is left to rounding. Infinite z stays infinite, nan stays nan, strength 0 returns
    `z` bit for bit.

    The error in float64 is below 2e-15·|z|, and 1e-12·|z| if p is within 1e-7 of 1 or `strength` or
    `z` is extreme; in float32, for strengths between 1e-6 and 1e3, it is below 3e-6·|z|, and
    8e-6·|z| if p is within 0.15 of 1. Half precisions are computed in float32 and rounded once.

    Torch tensors are differentiable once, in `z` and `strength`; the derivative in z is
    1 / (1 + p(p−1)·strength·|u|^(p−2)), and 0 where the prox is 0.

    Parameters
    ----------
    z
        Array or tensor of real numbers, any shape.
    strength
        The factor λ ≥ 0, a number or an array of the kind of `z` that broadcasts against it.
    p
        The exponent, 0 < p < 2.

    Returns
    -------
    Array
        Of the kind and dtype of `z` (integers become floating) and the broadcast shape.

    Raises
    ------
    ValueError
        If `p` is outside (0, 2), or an entry of `strength` is negative or not finite. Under
        ``torch.compile`` the entries of a tensor `strength` are not checked.
    TypeError
        If `z` is not real, or `strength` an array of another kind.
    """
    p = checked_p(p)
    return _minimiser(
        z, strength, p, _log_a(2 * (1 - p) / (2 - p), math.log(p) - math.log(2 - p), p)
    )


def lp_minimiser_near(z: Array, strength: Strength, p: float) -> Array:
    """Return the non-zero local minimiser of ½(u − z)² + strength·|u|^p where there is one, else 0.

    For p < 1 it exists from `lp_fold` on, sooner than it is the global minimum: this is what a
    local method started at z converges to. For p ≥ 1 it is the prox. At the fold the minimiser is a
    double root: there its error is a few times the root of the unit of rounding.

    Parameters, return value and errors are those of `prox_lp`.
    """
    p = checked_p(p)
    return _minimiser(z, strength, p, _log_a((1 - p) / (2 - p), -math.log(2 - p), p))


def lp_threshold(strength: Scale, p: float) -> tuple[Scale, Scale]:
    """Return the threshold of `prox_lp` for 0 < p ≤ 1, and the size it jumps to there.

    Parameters
    ----------
    strength
        The factor λ ≥ 0, a number or an array.
    p
        The exponent, 0 < p ≤ 1.

    Returns
    -------
    threshold
        The |z| up to which the prox is 0: (2−p)/(2(1−p)) · jump, and λ for p = 1.
    jump
        |prox| just above: (2λ(1−p))^(1/(2−p)), and 0 for p = 1.

    Raises
    ------
    ValueError
        If `p` is outside (0, 1], in particular for 1 < p < 2, where there is no threshold; or if
        `strength` is negative or not finite.
    """
    if not 0 < p <= 1:
        raise ValueError(f"there is a threshold for p above 0 and up to 1 only, not for p = {p}")
    strength = _checked_scale(strength)
    if p == 1:
        return strength, 0 * strength
    jump = (2 * (1 - p) * strength) ** (1 / (2 - p))
    return (2 - p) / (2 * (1 - p)) * jump, jump


def lp_fold(strength: Scale, p: float) -> tuple[Scale, Scale]:
    """Return where the non-zero local minimiser of ½(u − z)² + strength·|u|^p is born, 0 < p < 1.

    Parameters
    ----------
    strength
        The factor λ ≥ 0, a number or an array.
    p
        The exponent, 0 < p < 1.

    Returns
    -------
    z_fold
        The |z| from which it exists, (2−p)/(1−p) · u_fold.
    u_fold
        Its size there, (λp(1−p))^(1/(2−p)).

    Raises
    ------
    ValueError
        If `p` is outside (0, 1), or `strength` is negative or not finite.
    """
    p = checked_p(p, high=1)
    u_fold = (p * (1 - p) * _checked_scale(strength)) ** (1 / (2 - p))
    return (2 - p) / (1 - p) * u_fold, u_fold


@np.errstate(all="ignore")
def prox_l_half(z: Array, strength: Strength) -> Array:
    """Return `prox_lp` for p = 1/2 by its closed form, Cardano's cosine.

    Xu, Chang, Xu & Zhang (2012), L1/2 regularization: a thresholding representation theory and a
    fast solver, IEEE TNNLS 23(7), write |u − z|² + λ|u|^(1/2); their λ is 2·strength. For reading
    and for checking `prox_lp`, which is faster.

    Parameters, return value and errors are those of `prox_lp`.
    """
    xp, z, back = working(z)
    strength = checked_strength(strength, z)
    size = xp.abs(z)
    power = size**-0.75  # its square may overflow, and meet strength 0
    angle = xp.arccos(xp.clip(3**1.5 / 4 * strength * power * power, None, 1))
    u = 2 / 3 * z * (1 + xp.cos(2 / 3 * (math.pi - angle)))
    return back(xp.where(size <= 1.5 * strength ** (2 / 3), xp.copysign(0 * size, z), u))


def _checked_scale(strength: Scale) -> Scale:
    number = isinstance(strength, int | float)
    like: Any = np.zeros(()) if number else working(strength, "strength")[1]  # type: ignore[type-var]
    checked: Scale = checked_strength(strength if number else like, like)
    return checked


def _log_a(r: float, log_rest: float, p: float) -> float:
    """Return log a where the root is r, given log (1 − r) without cancellation; ∞ for p ≥ 1."""
    return log_rest + (1 - p) * math.log(r) if p < 1 else math.inf


def _minimiser(z: Array, strength: Strength, p: float, end: float) -> Array:
    """Return the stationary point that keeps the largest share of z where log a < end, else 0."""
    _, z, back = working(z)
    strength = checked_strength(strength, z)
    if isinstance(z, torch.Tensor):
        return back(_Minimiser.apply(z, strength, p, end)[0])
    with np.errstate(all="ignore"):  # 0·inf and log 0 at z = 0, λ = 0, and where there is no root
        return back(np.asarray(_solve(np, z, strength, p, end)[0]))


def _solve(xp: Any, z: Any, strength: Any, p: float, end: float) -> tuple[Any, Any]:
    """Return the minimiser and its derivative in z."""
    size = xp.abs(z)
    if abs(p - 1) <= float(xp.finfo(size.dtype).eps):  # closer to 1 than z can tell
        kept = xp.where(size <= strength, 0.0, size - strength)
        return xp.copysign(kept, z), xp.where(size <= strength, 0.0, xp.ones_like(size))
    if isinstance(strength, float):
        log_strength = math.log(strength) if strength else -math.inf
    else:
        log_strength = xp.log(strength)
    # Every z but 0 has a logarithm above −800: the bound keeps inf − inf out, and nothing else.
    x = math.log(p) + log_strength + (p - 2) * xp.clip(xp.log(size), -800, None)
    r = _kept_share(xp, x, p - 1)
    if p < 1:
        r = xp.where(x >= end, 0.0, r)
    return r * z, r / ((2 - p) * r + (p - 1))


def _kept_share(xp: Any, x: Any, beta: float) -> Any:
    """Return the largest r in [0, 1] with r + exp(x)·r^beta = 1, −1 < beta < 1, beta ≠ 0.

    The root is an analytic function of a = exp(x) up to where it meets another root, at
    r_f = −β/(1−β). Guesses with that square root singularity in the right place, and the right
    value and slope at a = 0, are within 4e-3 of the root for β < 0, and within 0.05 for β ≥ 0.1;
    they are exact for β = 1/2 and in the limits of β = −1, ∓0 and 1.
    """
    eps, tiny = float(xp.finfo(x.dtype).eps), float(xp.finfo(x.dtype).tiny)
    if beta < 0:  # the fold, at a real a_f
        fold = -beta / (1 - beta)
        x_fold = _log_a(fold, -math.log(1 - beta), 1 + beta)
        x = xp.clip(x, None, x_fold - 16 * eps)  # so that f' below is never lost in rounding
        q = xp.sqrt(1 - xp.exp(x - x_fold))
        bend = 2 - 2 * fold**-beta
        r = fold + (1 - fold) * q * (bend + (1 - bend) * q)
        w = xp.exp(x + beta * xp.log(r))
    else:  # a complex pair, at the angle ±πβ: guess y = r^−β, which is a for large a
        x = xp.clip(x, None, -0.49 * math.log(tiny))  # a² is finite, and r below sqrt(tiny) beyond
        a = xp.exp(x)
        b = (1 - beta) * a
        sine2 = min(math.sin(math.pi / 2 * beta) ** 2, 0.975)  # near β = 1 it would cancel
        root = xp.sqrt((1 - b) ** 2 + 4 * sine2 * b)
        y = a + (1 - 2 * sine2 + root - b) * (0.5 / (1 - sine2))
        r = xp.exp(xp.log(y) * (-1 / beta))
        w = a / y
    # Householder's method of order 3: an error e becomes O(e⁴). All derivatives of f = r + w − 1
    # follow from w = a·r^β, so that one logarithm and one exponential pay for a step. For β > 0 its
    # denominator is positive everywhere: with order 4, a step could leap to infinity.
    for step in range((1 if eps > 1e-10 else 2) * (2 if abs(beta) < 0.15 else 1)):
        if step:
            w = xp.exp(x + beta * xp.log(r))
        slope = 1 / (r + beta * w)  # 1 / (r·f')
        newton = (r + w - 1) * slope
        halley = beta * (beta - 1) * w * slope * newton  # r²f'' · newton / (r·f')
        third = (beta - 2) / 6 * halley * newton
        r = xp.clip(r - r * newton * (1 - 0.5 * halley) / (1 - halley + third), tiny, 1)
    return r


class _Minimiser(torch.autograd.Function):
    """`_solve` with the derivative of the root instead of that of the iteration."""

    @staticmethod
    def forward(z: Any, strength: Any, p: float, end: float) -> Any:
        return _solve(torch, z, strength, p, end)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.p = inputs[2]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Any, _: Any) -> Any:
        u, slope = ctx.saved_tensors
        along_z = grad * slope
        along_strength = None
        if ctx.needs_input_grad[1]:
            pull = torch.where(u == 0, 0 * u, torch.sign(u) * torch.abs(u) ** (ctx.p - 1))
            along_strength = -ctx.p * along_z * pull
        return along_z, along_strength, None, None  # autograd sums them over broadcast dimensions
