"""Where each hyperparameter may lie."""

import math
from collections.abc import Callable
from typing import Any


def _not_negative(value: Any) -> bool:
    return bool(0 <= value < math.inf)


def _below_one(value: Any) -> bool:
    return bool(0 <= value < 1)


RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (_not_negative, "[0, ∞)"),
    "eps": (_not_negative, "[0, ∞)"),
    "weight_decay": (_not_negative, "[0, ∞)"),
    "lambda_2": (_not_negative, "[0, ∞)"),
    "momentum": (_below_one, "[0, 1)"),
    "alpha": (_below_one, "[0, 1)"),
    "beta_s": (_below_one, "[0, 1)"),
    "p": (lambda x: 0 < x <= 2, "(0, 2]"),
    "partial": (lambda x: 0 < x <= 0.5, "(0, 1/2]"),
    "exponent": (lambda x: 0 <= x <= 1, "[0, 1]"),
}
"""By name: whether a value is allowed, and the interval in words."""
