"""Inexact proximal operators of strength·|u|ᵖ by majorisation and minimisation.

In place of the exact minimiser of strength·|u|ᵖ + ½(u − z)², O'Brien & Plumbley ("Inexact proximal
operators for ℓp-quasinorm minimization", ICASSP 2018) take a few steps towards it. Each step
replaces |u|ᵖ by a majoriser that touches it at the current u and has a minimiser in closed form, so
the objective never increases. The start is u = z.

For p < 1 the objective has a minimum at 0 and, if |z| exceeds
(2 − p)/(1 − p)·(strength·p·(1 − p))^(1/(2 − p)), also a local one away from 0. Both operators tend
to the latter where it exists, even where 0 is the lower of the two, and to 0 where it does not.

Both take NumPy arrays and torch tensors of any shape and return a new array of that shape, kind and
floating type (integers become the default floating type).
"""

from beyond_adam.prox._arrays import Array, Strength, checked_p, checked_strength, working


def prox_lp_reweighted_l1(z: Array, strength: Strength, p: float, iterations: int = 1) -> Array:
    """Step towards the minimiser of strength·|u|ᵖ + ½(u − z)² by reweighted soft thresholding.

    The concave power lies below its tangent, |u|ᵖ ≤ |v|ᵖ + p|v|ᵖ⁻¹(|u| − |v|). From v = z on, each
    step takes v to the soft threshold of z at strength·p·|v|ᵖ⁻¹; 0 stays 0. At p = 1 one step
    is exact. An entry that tends to 0 is exactly 0 after finitely many steps.

    Parameters
    ----------
    z
        The point, any shape.
    strength
        Not negative: a number, or an array that broadcasts with `z`.
    p
        Exponent, 0 < p ≤ 1.
    iterations
        Number of steps; 0 returns `z`.

    Raises
    ------
    ValueError
        If an entry of `strength` is negative, infinite or nan, if `p` is not in (0, 1], or if
        `iterations` is negative.
    TypeError
        If `z` is no array of real numbers or `strength` an array of another kind.

    References
    ----------
    O'Brien & Plumbley (ICASSP 2018); Candès, Wakin & Boyd, "Enhancing sparsity by reweighted ℓ1
    minimization", J. Fourier Anal. Appl. 14 (2008).
    """
    xp, z, restore = working(z)
    if not 0 < p <= 1:
        raise ValueError(f"p must be greater than 0 and at most 1, not {p}")
    _check_iterations(iterations)
    c = checked_strength(strength, z) * p
    size = xp.abs(z)
    floor = (c + 1) * xp.finfo(z.dtype).tiny
    u = size
    for _ in range(iterations):
        # The floor only keeps thresholds finite that no entry reaches. The power is taken again
        # where it matters: at 0 its derivative is infinite and would turn the gradient into nan.
        below = size <= c / xp.clip(u ** (1 - p), floor, None)
        power = xp.where(below, 1.0, u) ** (1 - p)
        u = xp.where(below, 0.0, size - c / power)
    return restore(xp.sign(z) * u)


def prox_lp_reweighted_l2(z: Array, strength: Strength, p: float, iterations: int = 1) -> Array:
    """Step towards the minimiser of strength·|u|ᵖ + ½(u − z)² by reweighted shrinkage.

    As a function of u² the power is concave, |u|ᵖ ≤ |v|ᵖ + (p/2)|v|ᵖ⁻²(u² − v²). From v = z on,
    each step takes v to z/(1 + strength·p·|v|ᵖ⁻²); 0 stays 0. PAdam takes one such step a
    time, with v the weight before the gradient step in place of z. For p > 1 the steps converge to
    the exact minimiser. An entry that tends to 0 reaches it only by underflow.

    Parameters
    ----------
    z
        The point, any shape.
    strength
        Not negative: a number, or an array that broadcasts with `z`.
    p
        Exponent, 0 < p < 2.
    iterations
        Number of steps; 0 returns `z`.

    Raises
    ------
    ValueError
        If an entry of `strength` is negative, infinite or nan, if `p` is not in (0, 2), or if
        `iterations` is negative.
    TypeError
        If `z` is no array of real numbers or `strength` an array of another kind.

    References
    ----------
    Daubechies, DeVore, Fornasier & Güntürk, "Iteratively reweighted least squares minimization for
    sparse recovery", Comm. Pure Appl. Math. 63 (2010).
    """
    xp, z, restore = working(z)
    p = checked_p(p)
    _check_iterations(iterations)
    c = checked_strength(strength, z) * p
    # For p > 1 the derivative of the power |u|²⁻ᵖ is infinite at 0; from here on it is not.
    floor = xp.finfo(z.dtype).tiny if p > 1 else 0.0
    u = 1 * z
    for _ in range(iterations):
        # 1/(1 + c|u|ᵖ⁻²) as X/(X + cY), where X = |u|²⁻ᵖ and Y = 1, or X = 1 and Y = |u|ᵖ⁻²,
        # whichever cannot overflow. Only strength 0 can leave nothing below the line.
        size = xp.abs(u)
        large = size > 1
        power = xp.clip(xp.where(large, 1.0, size), floor, None) ** (2 - p)
        total = power + c * xp.where(large, size, 1.0) ** (p - 2)
        u = z * xp.where(total == 0, 1.0, power / xp.where(total == 0, 1.0, total))
    return restore(u)


def _check_iterations(iterations: int) -> None:
    if iterations < 0:
        raise ValueError(f"iterations must not be negative, not {iterations}")
