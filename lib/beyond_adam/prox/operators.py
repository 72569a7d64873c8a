"""Proximal operators and projections in closed form.

The proximal operator of a penalty f takes z to the minimiser over u of f(u) + ½‖u − z‖². Each
function here states its f, strength included. With a step size η the strength is η times that of
the objective: one proximal gradient step on ℓ + λ‖·‖₁ is ``prox_l1(w - eta * g, eta * lam)``.

All of them take NumPy arrays and torch tensors of any shape and return a new array of that shape,
kind and floating type (integers become the default floating type). They differentiate through torch
autograd, never to nan at finite entries. Entries that are nan stay nan, and an infinite entry is
what ever larger finite ones tend to.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from beyond_adam.prox._arrays import Array, Strength, checked_strength, same_kind, working

Bound = Strength
"""A number or an array like a strength, only that it may have any sign and be infinite."""


def prox_l0(z: Array, strength: Strength) -> Array:
    """Return the minimiser of strength·[u ≠ 0] + ½(u − z)², entry by entry: hard thresholding.

    An entry is kept if |z| > √(2·strength) and becomes 0 otherwise. At the threshold both are
    minimisers; 0 is returned.

    Parameters
    ----------
    z
        The point, any shape.
    strength
        Not negative: a number, or an array that broadcasts with `z`.

    Raises
    ------
    ValueError
        If an entry of `strength` is negative, infinite or nan.
    TypeError
        If `z` is no array of real numbers or `strength` an array of another kind.

    References
    ----------
    Donoho & Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81 (1994).
    """
    xp, z, restore = working(z)
    threshold = (2 * checked_strength(strength, z)) ** 0.5
    return restore(xp.where(xp.abs(z) <= threshold, 0.0, z))


def prox_l1(z: Array, strength: Strength) -> Array:
    """Return the minimiser of strength·|u| + ½(u − z)², entry by entry: soft thresholding.

    It is sign(z)·max(|z| − strength, 0).

    Parameters
    ----------
    z
        The point, any shape.
    strength
        Not negative: a number, or an array that broadcasts with `z`.

    Raises
    ------
    ValueError
        If an entry of `strength` is negative, infinite or nan.
    TypeError
        If `z` is no array of real numbers or `strength` an array of another kind.

    References
    ----------
    Donoho, "De-noising by soft-thresholding", IEEE Trans. Inf. Theory 41 (1995); Parikh & Boyd,
    "Proximal algorithms" (2014), section 6.5.2.
    """
    xp, z, restore = working(z)
    return restore(_soft(xp, z, checked_strength(strength, z)))


def prox_l2_squared(z: Array, strength: Strength) -> Array:
    """Return the minimiser of strength·u² + ½(u − z)², entry by entry: z/(1 + 2·strength).

    This is the end p = 2 of the family strength·|u|ᵖ. Where weight decay is written as the penalty
    (λ/2)u², the strength is λ/2 and the result z/(1 + λ).

    Parameters
    ----------
    z
        The point, any shape.
    strength
        Not negative: a number, or an array that broadcasts with `z`.

    Raises
    ------
    ValueError
        If an entry of `strength` is negative, infinite or nan.
    TypeError
        If `z` is no array of real numbers or `strength` an array of another kind.

    References
    ----------
    Parikh & Boyd, "Proximal algorithms" (2014), section 6.1.1.
    """
    _, z, restore = working(z)
    return restore(z / (1 + 2 * checked_strength(strength, z)))


def prox_elastic_net(z: Array, l1: Strength, l2: Strength) -> Array:
    """Return the minimiser of l1·|u| + (l2/2)·u² + ½(u − z)², entry by entry.

    It is the soft threshold of z at l1, divided by 1 + l2.

    Parameters
    ----------
    z
        The point, any shape.
    l1, l2
        Not negative: numbers, or arrays that broadcast with `z`.

    Raises
    ------
    ValueError
        If an entry of `l1` or `l2` is negative, infinite or nan.
    TypeError
        If `z` is no array of real numbers or a strength an array of another kind.

    References
    ----------
    Zou & Hastie, "Regularization and variable selection via the elastic net", JRSS B 67 (2005);
    Parikh & Boyd, "Proximal algorithms" (2014), section 6.5.3.
    """
    xp, z, restore = working(z)
    l1, l2 = checked_strength(l1, z, "l1"), checked_strength(l2, z, "l2")
    return restore(_soft(xp, z, l1) / (1 + l2))


def prox_group_lasso(
    z: Array, strength: Strength, axis: int | tuple[int, ...] | None = -1
) -> Array:
    """Return the minimiser of strength·Σ ‖u_g‖₂ + ½‖u − z‖², the sum over the groups g.

    Each group is shortened by its strength, z_g·max(1 − strength/‖z_g‖₂, 0): block soft
    thresholding.

    Parameters
    ----------
    z
        The point, any shape.
    strength
        Not negative: a number, or an array that broadcasts to one entry for each group, that is to
        the shape of `z` with length 1 along `axis`.
    axis
        The axis or axes within a group; None makes one group of all entries.

    Raises
    ------
    ValueError
        If an entry of `strength` is negative, infinite or nan, if its shape does not fit the
        groups, or if `axis` is empty.
    TypeError
        If `z` is no array of real numbers or `strength` an array of another kind.

    References
    ----------
    Yuan & Lin, "Model selection and estimation in regression with grouped variables", JRSS B 68
    (2006); Parikh & Boyd, "Proximal algorithms" (2014), section 6.5.4.
    """
    xp, z, restore = working(z)
    strength = checked_strength(strength, z)
    if axis == ():
        raise ValueError("axis must name at least one axis, not ()")
    if 0 in z.shape:
        return restore(z)
    if axis is None or not z.shape:
        axis = tuple(range(z.ndim))
    largest = xp.amax(xp.abs(z), axis=axis, keepdims=True)
    _check_one_per_group("strength", strength, largest.shape)
    # In units of the largest of all numbers involved nothing overflows, and what underflows is too
    # small to matter; the bounds provide for groups of zeros and for infinite entries.
    limits = xp.finfo(z.dtype)
    scale = xp.clip(xp.clip(largest, strength, None), limits.tiny, limits.max)
    threshold = _cast(strength / scale, xp.float64)
    squares = xp.sum((z / scale) ** 2, axis=axis, keepdims=True, dtype=xp.float64)
    gone = squares <= threshold**2
    # Any norm serves a group that becomes 0, and this one spares the gradient the root at 0.
    norms = xp.sqrt(xp.where(gone, 1.0, squares))
    kept = xp.where(gone, 0.0, 1 - threshold / norms)
    return restore(z * _cast(kept, z.dtype))


def project_box(z: Array, low: Bound, high: Bound) -> Array:
    """Return the point of the box low ≤ u ≤ high nearest to z: min(max(z, low), high).

    Parameters
    ----------
    z
        The point, any shape.
    low, high
        Numbers, or arrays that broadcast with `z`; either may be infinite.

    Raises
    ------
    ValueError
        If an entry of `low` exceeds that of `high`, or one is nan. Under ``torch.compile`` the
        entries of tensors are not looked at.
    TypeError
        If `z` is no array of real numbers or a bound an array of another kind.
    """
    xp, z, restore = working(z)
    low, high = same_kind(low, z, "low"), same_kind(high, z, "high")
    _check_order(xp, low, high)
    return restore(xp.clip(xp.clip(z, low, None), None, high))


def project_l1_ball(z: Array, radius: Strength, axis: int | None = -1) -> Array:
    """Return the point of the ball ‖u‖₁ ≤ radius nearest to z, for each slice along `axis`.

    Outside the ball it is the soft threshold of z at the one level that leaves ‖u‖₁ = radius, found
    by sorting; inside the ball it is z.

    Parameters
    ----------
    z
        The point, any shape.
    radius
        Not negative: a number, or an array that broadcasts to one entry for each slice, that is to
        the shape of `z` with length 1 along `axis`.
    axis
        The axis along which the norm is taken; None takes it over all entries.

    Raises
    ------
    ValueError
        If an entry of `radius` is negative, infinite or nan, or if its shape does not fit.
    TypeError
        If `z` is no array of real numbers or `radius` an array of another kind.

    References
    ----------
    Held, Wolfe & Crowder, "Validation of subgradient optimization", Math. Programming 6 (1974);
    Duchi, Shalev-Shwartz, Singer & Chandra, "Efficient projections onto the ℓ1-ball for learning in
    high dimensions", ICML 2008.
    """
    xp, z, restore = working(z)
    radius = checked_strength(radius, z, "radius")
    if 0 in z.shape:
        return restore(z)
    shape = z.shape
    if axis is None or not shape:
        z, axis = z.reshape(-1), 0
    # Sums of many single precision numbers need double precision.
    wide = _cast(z, xp.float64)
    magnitude = xp.clip(xp.abs(wide), None, xp.finfo(xp.float64).max)
    largest = xp.amax(magnitude, axis=axis, keepdims=True)
    _check_one_per_group("radius", radius, largest.shape)
    # Magnitudes are measured down from the largest, so that no digit of the radius is lost however
    # far out z lies. The radius is then poured like water over these depths: over the k shallowest
    # it would stand (radius + their sum)/k high, and where it truly stands is the least of these.
    # Depths beyond the radius stay dry, and need not be known to be summed.
    depth = xp.clip(largest - magnitude, None, 2 * radius + 1)
    shallowest_first = xp.sort(depth, axis)
    if isinstance(z, torch.Tensor):
        shallowest_first = shallowest_first.values
    count = xp.cumsum(xp.ones_like(depth), axis)
    levels = (radius + xp.cumsum(shallowest_first, axis)) / count
    level = xp.amin(levels, axis=axis, keepdims=True)
    projected = xp.sign(wide) * xp.clip(level - depth, 0.0, None)
    total = xp.sum(xp.clip(magnitude, None, radius), axis=axis, keepdims=True)
    inside = (largest <= radius) & (total <= radius)
    return restore(xp.where(inside, z, _cast(projected, z.dtype)).reshape(shape))


def moreau_envelope(
    objective: Callable[[Array], Array],
    prox: Callable[[Array, float], Array],
    z: Array,
    step: float,
) -> Array:
    """Return the Moreau envelope min over u of f(u) + (u − z)²/(2·step), entry by entry.

    Parameters
    ----------
    objective
        The function f of one variable, applied to every entry of an array.
    prox
        Its proximal operator: ``prox(z, step)`` minimises step·f(u) + ½(u − z)².
    z
        Where to evaluate the envelope, any shape.
    step
        Positive; the smaller, the closer the envelope is to f.

    Returns
    -------
    Array
        The values, in the shape of `z`; their derivative is ``(z - prox(z, step)) / step``.

    Raises
    ------
    ValueError
        If `step` is not positive and finite.

    References
    ----------
    Parikh & Boyd, "Proximal algorithms" (2014), section 3.1.
    """
    if not 0 < step < math.inf:
        raise ValueError(f"step must be positive and finite, not {step}")
    _, z, restore = working(z)
    u = prox(z, step)
    return restore(objective(u) + (u - z) ** 2 / (2 * step))


def _soft(xp: Any, z: Any, threshold: Any) -> Any:
    # Moreau's decomposition: what remains of z beside its projection on the dual ball.
    return z - xp.clip(z, -threshold, threshold)


def _check_one_per_group(name: str, strength: Any, groups: tuple[int, ...]) -> None:
    """Refuse an array that would make groups out of the entries of a group."""
    shape = () if isinstance(strength, float) else tuple(strength.shape)
    pairs = zip(reversed(shape), reversed(groups), strict=False)
    if len(shape) > len(groups) or any(n not in (1, m) for n, m in pairs):
        raise ValueError(
            f"{name} must broadcast to one entry for each group, shape {tuple(groups)}, "
            f"not have shape {shape}"
        )


def _check_order(xp: Any, low: Any, high: Any) -> None:
    if isinstance(low, float) and isinstance(high, float):
        first = None if low <= high else (low, high)
    elif torch.compiler.is_compiling():
        return
    else:
        crossed = ~(low <= high)
        wrong = [xp.where(crossed, bound, 0.0)[crossed].reshape(-1) for bound in (low, high)]
        first = (float(wrong[0][0]), float(wrong[1][0])) if len(wrong[0]) else None
    if first:
        raise ValueError(f"low must not exceed high, but low = {first[0]}, high = {first[1]}")


def _cast(x: Any, dtype: Any) -> Any:
    return x.to(dtype) if isinstance(x, torch.Tensor) else x.astype(dtype)
