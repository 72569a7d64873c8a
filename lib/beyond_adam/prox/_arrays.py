"""What lets one code serve NumPy arrays and torch tensors: namespace, working precision, checks."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

Array = TypeVar("Array", npt.NDArray[Any], torch.Tensor)
"""Both kinds of array; a function of this package returns the kind it is given."""

Strength = float | npt.NDArray[Any] | torch.Tensor
"""A number, or an array of the kind of the input that broadcasts against it."""


def working(x: Array, name: str = "z") -> tuple[Any, Array, Callable[[Array], Array]]:
    """Return the namespace of `x`, `x` in the precision to compute in, and the way back.

    Half precisions are computed in float32 and rounded once, by the way back; integers become the
    default floating type and stay it.

    Raises
    ------
    TypeError
        If `x` is complex, or no array of numbers.
    """
    if isinstance(x, torch.Tensor):
        if x.is_complex():
            raise TypeError(f"{name} must be real, not {x.dtype}")
        if not x.is_floating_point():
            return torch, x.to(torch.get_default_dtype()), _same
        if x.dtype.itemsize < 4:
            return torch, x.float(), lambda result: result.to(x.dtype)
        return torch, x, _same
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of real numbers, not of {array.dtype}")
    if array.dtype.kind != "f":
        return np, array.astype(np.float64), _same
    if array.dtype.itemsize < 4:
        return np, array.astype(np.float32), lambda result: result.astype(array.dtype)
    return np, array, _same


def _same(result: Array) -> Array:
    return result


def same_kind(value: Strength, like: Array, name: str) -> Any:
    """Return `value` as a float if it is a number, else in the dtype and on the device of `like`.

    Raises
    ------
    TypeError
        If it is an array of another kind than `like`, or not of real numbers.
    """
    if isinstance(value, int | float | np.integer | np.floating):
        return float(value)
    kind: Any = torch.Tensor if isinstance(like, torch.Tensor) else np.ndarray
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be a number or, like the input, a {kind.__name__}, "
            f"not a {type(value).__name__}"
        )
    array: Any = working(value, name)[1]
    return array.to(like) if isinstance(like, torch.Tensor) else array.astype(like.dtype)


def checked_strength(strength: Strength, like: Array, name: str = "strength") -> Any:
    """Return `strength`, finite and not negative, as `same_kind` does.

    A number beyond the dtype of `like` becomes its largest. Under ``torch.compile`` the entries of
    a tensor are not looked at: that would break the graph.

    Raises
    ------
    ValueError
        If an entry is negative, infinite or nan; the message names the first such.
    TypeError
        If it is an array of another kind than `like`.
    """
    value = same_kind(strength, like, name)
    if isinstance(value, float):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and not negative, not {strength}")
        return min(value, _largest(like))
    if not torch.compiler.is_compiling():
        given: Any = strength  # before the conversion, which may make a large number infinite
        bad = given[~((given >= 0) & (given < math.inf))]
        if len(bad):
            raise ValueError(f"{name} must be finite and not negative, not {bad[0].item()}")
    return value


def _largest(like: Array) -> float:
    """Return the largest finite number of the dtype of `like`."""
    finfo: Any = torch.finfo if isinstance(like, torch.Tensor) else np.finfo
    return float(finfo(like.dtype).max)


def checked_p(p: float, low: float = 0.0, high: float = 2.0) -> float:
    """Return the exponent `p` as a float if ``low < p < high``.

    Raises
    ------
    ValueError
        Otherwise; the message names the value and what is allowed.
    """
    if not low < p < high:
        raise ValueError(f"p must lie between {low:g} and {high:g}, exclusive, not {p}")
    return float(p)
