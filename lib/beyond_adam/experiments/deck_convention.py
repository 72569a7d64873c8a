"""The numerical convention of the deck "Adam (and beyond)", as reconstructed from its results.

The deck prints the last iterate of each run to eight decimals and does not print the code that
made it. Several of those iterates depend on the last bit of every operation, which makes them
fingerprints: only one way to compute them gives all digits. This module is that way, in plain
Python floats whose ``**``, ``cos`` and ``exp`` are the C library's:

- the gradient is a central difference with h = √(2·10⁻¹⁶);
- Rastrigin's additive constant is 100 where the textbook has 20 (the gradient is not affected, but
  its rounding errors are);
- squares are ``x**2``, that is the C library's ``pow``, which differs from ``x * x`` in the last
  bit of about one result in a thousand;
- Adam adds ε to the corrected root, and nothing stops a run before its 10 000 updates.

Each choice is a field of `Convention`, so that the forensics can change one at a time.
"""

import functools
import hashlib
import itertools
import math
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

Point = tuple[float, float]
Function = Callable[[float, float], float]
Gradient = Callable[[float, float], Point]
Method = Literal["GD", "Adam"]
Difference = Literal["central", "forward", "backward"]
Square = Literal["pow", "product"]
Epsilon = Literal["outside root", "inside root", "uncorrected root"]

STEPS: Final = 10_000
"""Updates in every run of the deck."""

EPS: Final = 1e-7
"""Adam's ε in every run of the deck."""

REFERENCE_LIBM: Final = "e4fbe0a25c44"
"""`libm_fingerprint` where the digits were matched: glibc 2.36 on x86-64 with FMA."""


@dataclass(frozen=True)
class Convention:
    """How a run is computed; the defaults are what reproduces the deck.

    Attributes
    ----------
    h
        Step of the difference quotient.
    difference
        Form of the difference quotient.
    rastrigin_constant
        Additive constant of Rastrigin's function.
    square
        How the test functions square: ``"pow"`` for ``x**2``, ``"product"`` for ``x * x``.
    factor_first
        Evaluate Rosenbrock's second term as ``(100·b)·b`` in place of ``100·b²``.
    constant_first
        Evaluate Ackley's function from its constant 20 + e on, not towards it.
    epsilon
        Where Adam adds ε: to the root of the corrected second moment, inside that root, or to the
        root of the uncorrected moment (the "ε-hat" of Kingma and Ba, section 2).
    bias_correction
        Whether Adam corrects its moments for their start at zero.

    Raises
    ------
    ValueError
        If `h` is not positive, or a choice is none of those its type lists.
    """

    h: float = math.sqrt(2e-16)
    difference: Difference = "central"
    rastrigin_constant: float = 100.0
    square: Square = "pow"
    factor_first: bool = False
    constant_first: bool = False
    epsilon: Epsilon = "outside root"
    bias_correction: bool = True

    def __post_init__(self) -> None:
        if not self.h > 0:
            raise ValueError(f"h must be positive, not {self.h}")
        for name, choices in (("difference", Difference), ("square", Square), ("epsilon", Epsilon)):
            value = getattr(self, name)
            if value not in get_args(choices):
                raise ValueError(f"{name} must be one of {get_args(choices)}, not {value!r}")


DECK: Final = Convention()
"""The convention of the deck."""


def objective(name: str, convention: Convention = DECK) -> Function:
    """Return a test function of the deck as it evaluated it.

    Every sum is in the order that gives the deck's digits; no other order may replace it.

    Parameters
    ----------
    name
        ``"paraboloid"``, ``"rosenbrock"``, ``"rastrigin"`` or ``"ackley"``.
    convention
        The choices that enter a function value.

    Raises
    ------
    ValueError
        If `name` is none of these.
    """
    constant = convention.rastrigin_constant
    cos, exp, sqrt, pi, e = math.cos, math.exp, math.sqrt, math.pi, math.e

    def power(x: float) -> float:
        return x**2

    def product(x: float) -> float:
        return x * x

    square = power if convention.square == "pow" else product

    def paraboloid(x: float, y: float) -> float:
        return square(x - 1) + square(y - 2)

    def rosenbrock(x: float, y: float) -> float:
        return square(1 - x) + 100 * square(y - square(x))

    def rosenbrock_factor_first(x: float, y: float) -> float:
        b = y - square(x)
        return square(1 - x) + 100 * b * b

    def rastrigin(x: float, y: float) -> float:
        return constant + (square(x) - 10 * cos(2 * pi * x)) + (square(y) - 10 * cos(2 * pi * y))

    def ackley(x: float, y: float) -> float:
        cone = -20 * exp(-0.2 * sqrt(0.5 * (square(x) + square(y))))
        return cone - exp(0.5 * (cos(2 * pi * x) + cos(2 * pi * y))) + e + 20

    def ackley_constant_first(x: float, y: float) -> float:
        cone = 20 * exp(-0.2 * sqrt(0.5 * (square(x) + square(y))))
        return 20 + e - cone - exp(0.5 * (cos(2 * pi * x) + cos(2 * pi * y)))

    functions: dict[str, Function] = {
        "paraboloid": paraboloid,
        "rosenbrock": rosenbrock_factor_first if convention.factor_first else rosenbrock,
        "rastrigin": rastrigin,
        "ackley": ackley_constant_first if convention.constant_first else ackley,
    }
    if name not in functions:
        raise ValueError(f"the deck has no function {name!r}; allowed: {', '.join(functions)}")
    return functions[name]


def difference_gradient(f: Function, convention: Convention = DECK) -> Gradient:
    """Return the difference quotient of `f` that the convention asks for."""
    h = convention.h

    def central(x: float, y: float) -> Point:
        return (f(x + h, y) - f(x - h, y)) / (2 * h), (f(x, y + h) - f(x, y - h)) / (2 * h)

    def forward(x: float, y: float) -> Point:
        here = f(x, y)
        return (f(x + h, y) - here) / h, (f(x, y + h) - here) / h

    def backward(x: float, y: float) -> Point:
        here = f(x, y)
        return (here - f(x - h, y)) / h, (here - f(x, y - h)) / h

    return {"central": central, "forward": forward, "backward": backward}[convention.difference]


def gradient_descent(gradient: Gradient, start: Point, lr: float) -> Iterator[Point]:
    """Yield the iterates of w ← w − η ∇f(w) after `start`, for ever."""
    x, y = start
    while True:
        gx, gy = gradient(x, y)
        x, y = x - lr * gx, y - lr * gy
        yield x, y


def adam(
    gradient: Gradient,
    start: Point,
    lr: float,
    betas: tuple[float, float],
    eps: float = EPS,
    convention: Convention = DECK,
) -> Iterator[Point]:
    """Yield the iterates of Adam after `start`, for ever.

    The operations are those of the deck's slide "Adam", in its order.
    """
    beta1, beta2 = betas
    (x, y), mx, my, vx, vy = start, 0.0, 0.0, 0.0, 0.0
    correction1 = correction2 = 1.0
    sqrt = math.sqrt
    # ε goes into exactly one of three places.
    outside = eps if convention.epsilon == "outside root" else 0.0
    inside = eps if convention.epsilon == "inside root" else 0.0
    uncorrected = eps if convention.epsilon == "uncorrected root" else 0.0
    for t in itertools.count(1):
        gx, gy = gradient(x, y)
        mx, my = beta1 * mx + (1 - beta1) * gx, beta1 * my + (1 - beta1) * gy
        vx, vy = beta2 * vx + (1 - beta2) * gx**2, beta2 * vy + (1 - beta2) * gy**2
        if convention.bias_correction:
            correction1, correction2 = 1 - beta1**t, 1 - beta2**t
        shift = outside + uncorrected / sqrt(correction2)
        x -= lr * (mx / correction1) / (sqrt(vx / correction2 + inside) + shift)
        y -= lr * (my / correction1) / (sqrt(vy / correction2 + inside) + shift)
        yield x, y


@dataclass(frozen=True)
class Setting:
    """What determines a run, apart from the convention.

    Attributes
    ----------
    function
        Name of the test function, as for `objective`.
    method
        ``"GD"`` or ``"Adam"``.
    lr
        Learning rate.
    start
        Starting point.
    betas
        Adam's β₁ and β₂; None for gradient descent.
    eps
        Adam's ε; without effect for gradient descent.
    steps
        Number of updates, at least 1.

    Raises
    ------
    ValueError
        If the method is unknown, its betas are missing or too many, or `steps` is below 1.
    """

    function: str
    method: Method
    lr: float
    start: Point
    betas: tuple[float, float] | None = None
    eps: float = EPS
    steps: int = STEPS

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, not {self.method!r}")
        if (self.betas is None) == (self.method == "Adam"):
            raise ValueError(f"Adam needs betas, GD has none; got {self.method} with {self.betas}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")


def iterates(setting: Setting, convention: Convention = DECK) -> Iterator[Point]:
    """Yield the points of a run after its start, by the convention, for ever."""
    gradient = difference_gradient(objective(setting.function, convention), convention)
    if setting.betas is None:
        return gradient_descent(gradient, setting.start, setting.lr)
    return adam(gradient, setting.start, setting.lr, setting.betas, setting.eps, convention)


@functools.cache
def outcome(setting: Setting, convention: Convention = DECK) -> Point:
    """Return the last point of a run by the convention, NaNs if it overflows on the way."""
    try:
        return deque(itertools.islice(iterates(setting, convention), setting.steps), maxlen=1)[0]
    except OverflowError:  # Python's power raises it where C's gives an infinity
        return math.nan, math.nan


def digits_match(point: Point, printed: tuple[str, str]) -> bool:
    """Return whether NumPy would have printed `point` as the slide has it.

    NumPy prints eight decimals, of the number or (where the text has an exponent) of its mantissa,
    and leaves trailing zeros out: ``1.0001373`` stands for 1.00013730.
    """
    return all(
        float(f"{value:.8{'e' if 'e' in text else 'f'}}") == float(text)
        for value, text in zip(point, printed, strict=True)
    )


def libm_fingerprint() -> str:
    """Return a short SHA-256 of how this platform rounds ``cos``, ``exp`` and ``pow``.

    The arguments cover what the deck's functions evaluate: cosines up to ten periods from zero,
    exponentials of [−3, 1], squares, and the powers β^t of the bias corrections. They are enough to
    tell the reference library from one that always rounds correctly by some thirty values.
    """
    digest = hashlib.sha256()
    for i in range(2**13):
        u = (i * 0.6180339887498949) % 1.0
        values = math.cos(62.8 * u), math.exp(4 * u - 3), (10 * u) ** 2, (0.7 + 0.299 * u) ** i
        digest.update(struct.pack("<4d", *values))
    return digest.hexdigest()[:12]


def libm_matches() -> bool:
    """Return whether this platform rounds like the one on which the digits were matched.

    Where it does not, the chaotic and noise-limited rows lose their digits, and rightly so.
    """
    return libm_fingerprint() == REFERENCE_LIBM
