"""What the deck "Adam (and beyond)" states in words or formulas on descent, measured.

One function a statement, registered under its id in the ledger (``data/ledger``), which also says
how it is to be measured and what would count as agreement. Results of the deck's tables are
measured elsewhere (`beyond_adam.experiments.deck`); statements *about* one of those runs are
measured here, on the run with the exact gradient.
"""

import dataclasses
import functools
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from beyond_adam import project
from beyond_adam.data import digits
from beyond_adam.experiments.deck import ROWS, Evidence, exact_run
from beyond_adam.experiments.deck_convention import (
    EPS,
    STEPS,
    Convention,
    Point,
    adam,
    digits_match,
    gradient_descent,
    outcome,
)
from beyond_adam.experiments.deck_forensics import ROW, used
from beyond_adam.landscapes import ACKLEY, PARABOLOID, RASTRIGIN, ROSENBROCK, Landscape, polish
from beyond_adam.models import mlp
from beyond_adam.optim import RuleOptimizer
from beyond_adam.reference import Adam, AdaMax, GradientDescent, Momentum, Rule, descend

NAME: Final = "deck-statements"

Array = npt.NDArray[np.float64]
Gradient = Callable[[Array], Array]
Measured = bool | float | list[float] | str
"""Whether it holds, a number, numbers, or what a run does."""

Fact = Callable[[], Measured]
Observation = Callable[[int], Measured]
F = TypeVar("F", Fact, Observation)

FACTS: Final[dict[str, Fact]] = {}
"""Statements that need no long run, by id: functions of nothing."""

OBSERVATIONS: Final[dict[str, Observation]] = {}
"""Statements about runs, by id: functions of the number of steps that stands for 10 000."""

CORRECTED: Final[dict[str, Fact]] = {}
"""Misprints as they should read, by id."""


def _measures(id: str, registry: dict[str, F]) -> Callable[[F], F]:
    """Register a function as the measurement of the statement `id`."""

    def register(function: F) -> F:
        registry[id] = function
        return function

    return register


fact: Final = functools.partial(_measures, registry=FACTS)
observation: Final = functools.partial(_measures, registry=OBSERVATIONS)
correction: Final = functools.partial(_measures, registry=CORRECTED)


# What several statements need ---------------------------------------------------------------------

SADDLE: Final = Landscape(
    name="saddle",
    title="Saddle",
    formula=r"\tfrac14 (x^2 - 1)^2 + \tfrac12 y^2",
    minimisers=np.array([[-1.0, 0.0], [1.0, 0.0]]),
    minimum=0.0,
    domain=((-1.5, 1.5), (-1.0, 1.0)),
    f=lambda x, y: (x**2 - 1) ** 2 / 4 + y**2 / 2,
    df=lambda x, y: (x * (x**2 - 1), y),
    d2f=lambda x, y: (3 * x**2 - 1, np.zeros_like(x), np.ones_like(y)),
)
"""Two minima and the saddle point 0 between them, which attracts along x = 0 only."""

SADDLE_LR: Final = 0.1
SLOW_LR: Final = 1e-3
"""The deck's usual learning rate of gradient descent."""


@functools.cache
def deck_run(row: str, steps: int = STEPS) -> tuple[Array, Evidence]:
    """Return the points of a row's run with the exact gradient, and what they show."""
    run, evidence = exact_run(dataclasses.replace(used(ROW[row]), steps=steps))
    return run.points, evidence


def last_point(row: str, steps: int) -> list[float]:
    """Return the last of a row's points."""
    points, _ = deck_run(row, steps)
    x, y = points[-1].tolist()
    return [x, y]


def end(rule: Rule, landscape: Landscape, start: npt.ArrayLike, steps: int) -> Array:
    """Return where `rule` is after `steps` steps, of the shape of `start`."""
    final: Array = descend(rule, landscape.gradient, start, steps).points[-1]
    return final


def rosenbrock_gradient(x: float, y: float) -> Point:
    """Return the gradient of Rosenbrock's function in plain floats, for very long runs."""
    off_floor = y - x * x
    return -2 * (1 - x) - 400 * x * off_floor, 200 * off_floor


def last(iterates: Iterator[Point], steps: int) -> Point:
    """Return the iterate number `steps`, which is at least 1."""
    return deque(itertools.islice(iterates, steps), maxlen=1)[0]


def rosenbrock_descent(start: Point, lr: float, steps: int) -> Point:
    """Return where gradient descent on Rosenbrock's function is after `steps` steps."""
    return last(gradient_descent(rosenbrock_gradient, start, lr), steps)


def distance(w: npt.ArrayLike, to: npt.ArrayLike) -> float:
    """Return the Euclidean distance of two points."""
    return float(np.linalg.norm(np.subtract(w, to)))


@functools.cache
def lowest_on_grid(landscape: Landscape) -> tuple[Point, float]:
    """Return where f is least on the grid of spacing 0.01 over [−10, 10]², and its value there."""
    axis = np.arange(-1000, 1001) / 100
    best, place = np.inf, (np.nan, np.nan)
    for x in axis.tolist():  # line by line: the whole grid would fill half a gigabyte
        values = landscape.value(np.stack((np.full_like(axis, x), axis), axis=-1))
        i = int(values.argmin())
        if values[i] < best:
            best, place = float(values[i]), (x, float(axis[i]))
    return place, best


def printed_adam(
    gradient: Gradient, start: npt.ArrayLike, lr: float, steps: int, eps: float = EPS
) -> Array:
    """Follow the five lines of the slide "Adam", β = (0.9, 0.999); return points (steps + 1, 2)."""
    beta1, beta2 = 0.9, 0.999
    path = [np.array(start, dtype=np.float64)]
    m = v = np.zeros_like(path[0])
    for t in range(1, steps + 1):
        g = gradient(path[-1])
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        path.append(path[-1] - lr * m_hat / (np.sqrt(v_hat) + eps))
    return np.stack(path)


def printed_adamax(gradient: Gradient, start: npt.ArrayLike, lr: float, steps: int) -> Array:
    """Follow the three lines of the slide "AdaMax", β = (0.9, 0.999); return points (steps + 1, 2).

    As printed there is no guard: a coordinate that never had a gradient becomes 0/0, nan.
    """
    beta1, beta2 = 0.9, 0.999
    path = [np.array(start, dtype=np.float64)]
    m = u = np.zeros_like(path[0])
    for t in range(1, steps + 1):
        g = gradient(path[-1])
        m = beta1 * m + (1 - beta1) * g
        u = np.maximum(beta2 * u, np.abs(g))
        with np.errstate(invalid="ignore"):
            path.append(path[-1] - (lr / (1 - beta1**t)) * m / u)
    return np.stack(path)


def torch_path(
    optimizer: Callable[[list[torch.Tensor]], torch.optim.Optimizer],
    gradient: Gradient,
    start: npt.ArrayLike,
    steps: int,
) -> Array:
    """Return the points, shape (steps + 1, 2), of one of PyTorch's optimizers in float64."""
    w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    stepper = optimizer([w])
    path = [w.detach().numpy().copy()]
    for _ in range(steps):
        w.grad = torch.from_numpy(gradient(path[-1]))
        stepper.step()
        path.append(w.detach().numpy().copy())
    return np.stack(path)


# Slide "Introduction" -----------------------------------------------------------------------------


@fact("aab-vector-objective")
def vectors_can_be_ranked() -> bool:
    """Say whether of f(w) = (w, −w) at 0 and at 1 one value is the smaller in both components."""
    a, b = (np.array([w, -w]) for w in (0.0, 1.0))
    return bool(np.all(a <= b) or np.all(b <= a))


@fact("aab-convexity-for-existence")
def convexity_is_needed() -> bool:
    """Say whether Rosenbrock's function is convex or has no minimiser at (1, 1)."""
    smallest_curvature = np.linalg.eigvalsh(ROSENBROCK.hessian((0, 1)))[0]
    _, lowest = lowest_on_grid(ROSENBROCK)
    has_minimiser = bool(ROSENBROCK.value((1, 1)) <= lowest)
    return not (bool(smallest_curvature < 0) and has_minimiser)


# Slide "Gradient-based methods" -------------------------------------------------------------------


@fact("aab-taylor-first-order")
def taylor_error_orders() -> list[float]:
    """Return the lowest and the highest order of the error in the step, over 36 directions."""
    w, angles = np.array([0.3, -0.2]), 2 * np.pi * np.arange(36) / 36
    directions = np.stack((np.cos(angles), np.sin(angles)), axis=-1)
    lengths = np.geomspace(1e-3, 1e-2, 11)
    steps = lengths[:, None, None] * directions
    linear = ROSENBROCK.value(w) + steps @ ROSENBROCK.gradient(w)
    errors = np.abs(ROSENBROCK.value(w + steps) - linear)
    slopes = np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    return [float(slopes.min()), float(slopes.max())]


@fact("aab-directional-derivative")
def product_is_directional_derivative() -> bool:
    """Compare Δwᵀ∇f with the derivative of f(w + s Δw) in s at 0, by automatic differentiation."""
    w, move = np.random.default_rng(0).uniform(-2, 2, size=(2, 1000, 2))
    f: Any = ROSENBROCK.f  # written for arrays; its operations are those of tensors too
    s = torch.zeros(len(w), dtype=torch.float64, requires_grad=True)
    x, y = (torch.from_numpy(w) + s[:, None] * torch.from_numpy(move)).unbind(-1)
    (derivative,) = torch.autograd.grad(f(x, y).sum(), s)
    gradient = ROSENBROCK.gradient(w)
    product = (move * gradient).sum(axis=-1)
    # The two terms of the product may cancel; rounding is relative to their size.
    size = np.linalg.norm(move, axis=-1) * np.linalg.norm(gradient, axis=-1)
    return bool(np.all(np.abs(product - derivative.numpy()) <= 1e-12 * size))


def saddle_ends(steps: int, starts: int = 1000) -> Array:
    """Return where gradient descent ends on `SADDLE` from random starts in [−0.3, 0.3]²."""
    start = np.random.default_rng(0).uniform(-0.3, 0.3, size=(starts, 2))
    return end(GradientDescent(SADDLE_LR), SADDLE, start, steps)


@observation("aab-gd-stuck-saddle")
def stuck_at_saddle(steps: int) -> bool:
    """Say whether more than half of the runs end at the saddle.

    Off the axis x = 0 a run leaves by a factor of 1.1 per step: a twentieth of the steps will do.
    """
    at_saddle = np.linalg.norm(saddle_ends(steps // 20), axis=-1) < 1e-3
    return bool(at_saddle.mean() > 0.5)


@observation("aab-gd-stuck-ravine")
def stuck_in_ravine(steps: int) -> bool:
    """Say whether the run is more than 1e-6 from (1, 1) after five times the deck's steps."""
    w = rosenbrock_descent((0.0, 0.0), SLOW_LR, 5 * steps)
    return distance(w, (1, 1)) > 1e-6


@observation("aab-gd-stuck-local-minimum")
def end_in_first_cell(steps: int) -> list[float]:
    """Return where the deck's run on Rastrigin from (−5, −5) ends."""
    return last_point("R03", steps)


@observation("aab-all-stuck-local-minimum")
def all_stuck_in_local_minimum(steps: int) -> bool:
    """Say whether four methods with η = 0.001 all end at the minimum of the cell they start in."""
    minimum = polish(RASTRIGIN, (-5, -5))
    rules = GradientDescent(SLOW_LR), Momentum(SLOW_LR), Adam(SLOW_LR), AdaMax(SLOW_LR)
    return all(distance(end(rule, RASTRIGIN, (-5, -5), steps), minimum) < 0.01 for rule in rules)


@observation("aab-momentum-remedy")
def momentum_is_a_remedy(steps: int) -> bool:
    """Say whether averaged momentum leaves saddle and local minimum, and halves the ravine's error.

    The rate is that of gradient descent, and from (0, 0.5) the saddle attracts both.
    """
    plain, averaged = GradientDescent(SLOW_LR), Momentum(SLOW_LR, momentum=0.9)
    leaves_saddle = distance(end(Momentum(SADDLE_LR), SADDLE, (0, 0.5), steps), (0, 0)) > 1e-3
    cell = np.round(end(averaged, RASTRIGIN, (-5, -5), steps))
    leaves_minimum = not np.array_equal(cell, (-5, -5))
    error, without = (
        distance(end(rule, ROSENBROCK, (0, 0), steps), (1, 1)) for rule in (averaged, plain)
    )
    return leaves_saddle and leaves_minimum and error <= without / 2


ALPHA: Final = 0.9
STEP: Final = np.arange(1.0, 51.0)
"""Steps t = 1 … k of the momentum formula, k = 50."""


def momentum_weights() -> Array:
    """Return the weight that v ← αv + (1 − α)g gives to each of the k gradients, oldest first."""
    rule, w = Momentum(momentum=ALPHA), np.zeros(len(STEP))
    state = rule.init(w)
    for unit in np.eye(len(STEP)):  # gradient t is 1 in component t, where its weight remains
        _, state = rule.step(w, unit, state)
    weights: Array = state["v"]
    return weights


def power_weights(exponent: Array) -> Array:
    """Return the weights α**exponent · (1 − α)."""
    weights: Array = ALPHA**exponent * (1 - ALPHA)
    return weights


def are_momentum_weights(weights: Array) -> bool:
    """Return whether weights are those of the recursion, to 1e-12."""
    return bool(np.abs(weights - momentum_weights()).max() <= 1e-12)


@fact("aab-momentum-formula")
def printed_sum_is_momentum() -> bool:
    """Say whether the weights with the exponent t are those of the recursion."""
    return are_momentum_weights(power_weights(STEP))


@correction("aab-momentum-formula")
def corrected_sum_is_momentum() -> bool:
    """Say whether the weights with the exponent k − t are those of the recursion."""
    return are_momentum_weights(power_weights(STEP[-1] - STEP))


# Slides "Adam" and "AdaMax", and the figure of Adam's moments -------------------------------------


@observation("aab-adam-formula")
def printed_adam_is_adam(steps: int) -> bool:
    """Say whether the printed lines and PyTorch's Adam take the same path."""
    task = (ROSENBROCK.gradient, (3, 0))
    printed = printed_adam(*task, lr=0.1, steps=steps // 10)
    pytorch = torch_path(lambda w: torch.optim.Adam(w, lr=0.1, eps=EPS), *task, steps // 10)
    return bool(np.abs(printed - pytorch).max() <= 1e-8)


@observation("aab-adamax-formula")
def printed_adamax_is_adamax(steps: int) -> bool:
    """Say whether the printed lines and PyTorch's Adamax, its ε at 0, take the same path."""
    task = (ROSENBROCK.gradient, (3, 0))
    printed = printed_adamax(*task, lr=2e-3, steps=steps // 10)
    pytorch = torch_path(lambda w: torch.optim.Adamax(w, lr=2e-3, eps=0), *task, steps // 10)
    return bool(np.abs(printed - pytorch).max() <= 1e-8)


@fact("aab-moments-beta2")
def beta2_is_fixed() -> bool:
    """Say whether β₂ is 0.999 in every table of Adam."""
    return {row.betas[1] for row in ROWS if row.betas} == {0.999}


# Slides "Optimization tests", with their continuation in the appendix -----------------------------

ROUNDING_ROWS: Final = ("R04", "R05", "R06")
"""The Rastrigin results whose digits depend on the rounding of f."""


def rastrigin_digits(constant: float) -> bool:
    """Return whether f with this additive constant gives all digits of `ROUNDING_ROWS`."""
    convention = Convention(rastrigin_constant=constant)
    rows = [ROW[id] for id in ROUNDING_ROWS]
    return all(digits_match(outcome(used(row), convention), row.printed) for row in rows)


@fact("aab-standard-functions")
def functions_are_standard() -> bool:
    """Say whether the standard Rastrigin function, with constant 20, gives the digits."""
    return rastrigin_digits(20)


def _on_grid(landscape: Landscape) -> list[float]:
    """Return the lowest point of the grid."""
    return list(lowest_on_grid(landscape)[0])


for _landscape in (PARABOLOID, ROSENBROCK, RASTRIGIN, ACKLEY):
    FACTS[f"aab-minimum-{_landscape.name}"] = functools.partial(_on_grid, _landscape)


def ravine_point(x: float, y: float) -> Point:
    """Return the point of the floor y = x² of Rosenbrock's ravine that is nearest to (x, y)."""
    # Half the derivative of the squared distance (t − x)² + (t² − y)² in t.
    roots = np.roots([2, 0, 1 - 2 * y, -x])
    t = roots[np.abs(roots.imag) < 1e-9].real
    nearest = float(t[np.argmin(np.hypot(t - x, t**2 - y))])
    return nearest, nearest**2


@fact("aab-rosenbrock-start-in-ravine")
def start_is_in_ravine() -> bool:
    """Say whether (5, 0) is within 0.5 of the floor."""
    return distance((5, 0), ravine_point(5, 0)) < 0.5


@observation("aab-rosenbrock-adam-finds-way")
def adam_on_rosenbrock(steps: int) -> list[float]:
    """Return where Adam ends from (5, 0)."""
    return last_point("R02", steps)


@observation("aab-rosenbrock-gd-unsettled")
def descent_on_rosenbrock(steps: int) -> str:
    """Say what gradient descent does from (5, 0)."""
    return deck_run("R01", steps)[1].behaviour


@observation("aab-rastrigin-adam-pushed-out")
def adam_leaves_its_cell(steps: int) -> bool:
    """Say whether the first and the last iterate are nearest to different integer points."""
    points, _ = deck_run("R04", steps)
    return not np.array_equal(np.round(points[0]), np.round(points[-1]))


@observation("aab-rastrigin-gd-jumps")
def share_of_jumps(steps: int) -> float:
    """Return the share of the steps of gradient descent with η = 0.02 that change the cell."""
    points, _ = deck_run("R05", steps)
    return float(np.any(np.diff(np.round(points), axis=0) != 0, axis=-1).mean())


@observation("aab-rastrigin-good-start")
def adam_from_good_start(steps: int) -> list[float]:
    """Return where Adam with η = 0.5 ends from (−1, −1)."""
    return last_point("R29", steps)


@observation("aab-rastrigin-gd-does-not-move")
def descent_stands_still(steps: int) -> bool:
    """Say whether the last iterate is the start, to the eight decimals of the table."""
    points, _ = deck_run("R28", steps)
    return bool(np.all(np.round(points[-1], 8) == np.round(points[0], 8)))


@observation("aab-ackley-adam-very-close")
def adam_on_ackley(steps: int) -> list[float]:
    """Return where Adam with η = 0.5 ends from (−4, −4)."""
    return last_point("R35", steps)


@observation("aab-ackley-adam-unsettled")
def adam_on_ackley_behaviour(steps: int) -> str:
    """Say what Adam with η = 0.5 does from (−4, −4)."""
    return deck_run("R35", steps)[1].behaviour


@functools.cache
def cooled_run(steps: int) -> Array:
    """Return the points of Adam on Ackley from (−4, −4), η falling linearly from 0.5 to 0.

    The first step is taken at 0.5, the last at 0.5 divided by `steps`.
    """
    adam_rule, w = Adam(0.5, eps=EPS), np.array([-4.0, -4.0])
    state = adam_rule.init(w)
    points = [w]
    for t in range(steps):
        rule = dataclasses.replace(adam_rule, lr=0.5 * (1 - t / steps))
        w, state = rule.step(w, ACKLEY.gradient(w), state)
        points.append(w)
    return np.stack(points)


@observation("aab-ackley-settling-infeasible")
def cooling_does_not_settle(steps: int) -> bool:
    """Say whether the run ends more than 0.001 from the minimum with a falling rate too."""
    return distance(cooled_run(steps)[-1], (0, 0)) > 1e-3


def ackley_mean_value(lr: float, start: npt.ArrayLike, steps: int) -> Array:
    """Return the mean of f over the last tenth of gradient descent's steps, for each start."""
    points = descend(GradientDescent(lr), ACKLEY.gradient, start, steps).points
    mean: Array = ACKLEY.value(points[-(steps // 10) :]).mean(axis=0)
    return mean


@observation("aab-ackley-gd-large-rate")
def large_rate_improves(steps: int) -> bool:
    """From (−4, −4), the mean of f is lower at η = 0.1 than at η = 0.001."""
    large, small = (ackley_mean_value(lr, (-4, -4), steps) for lr in (0.1, SLOW_LR))
    return bool(large < small)


@observation("aab-ackley-gd-large-rate-expected")
def share_that_improves(steps: int) -> float:
    """Return the share of 100 uniform starts in [−5, 5]² from which the larger rate does better."""
    starts = np.random.default_rng(0).uniform(-5, 5, size=(100, 2))
    large, small = (ackley_mean_value(lr, starts, steps) for lr in (0.1, SLOW_LR))
    return float(np.mean(large < small))


# Slide "MLP trained on MNIST data" ----------------------------------------------------------------

Method = Literal["gradient descent", "our Adam", "torch.optim.Adam"]
METHODS: Final[tuple[Method, ...]] = ("gradient descent", "our Adam", "torch.optim.Adam")
BATCH: Final = 32
EPOCHS: Final = 3


def training_losses(
    method: Method,
    hidden: tuple[int, ...] = (32, 32),
    activation: str = "relu",
    batch: int = BATCH,
    epochs: int = EPOCHS,
    descent_lr: float = 1e-3,
) -> list[float]:
    """Train an MLP on the embedded digits and return the loss of each batch before its step.

    Float64; cross-entropy; the last batch of an epoch is what remains. Weights and batches are the
    same whatever the method. Both Adams have their default hyperparameters.

    Parameters
    ----------
    method
        Optimizer, in `METHODS`.
    hidden, activation, batch, epochs
        Units of the hidden layers, what follows them, size of a batch, and passes over the data.
    descent_lr
        Learning rate of gradient descent. Its default is Adam's, as the deck prints no other.
    """
    data = digits()
    pixels = torch.from_numpy(data.images[data.train]).flatten(1).double() / 16
    labels = torch.from_numpy(data.labels[data.train])
    model = mlp((pixels.shape[1], *hidden, 10), activation)
    optimizer: torch.optim.Optimizer
    match method:
        case "gradient descent":
            optimizer = RuleOptimizer(model.parameters(), GradientDescent(descent_lr))
        case "our Adam":
            optimizer = RuleOptimizer(model.parameters(), Adam())
        case "torch.optim.Adam":
            optimizer = torch.optim.Adam(model.parameters())
    shuffle, losses = torch.Generator().manual_seed(0), []
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(labels), generator=shuffle), batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(pixels[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return losses


@fact("aab-mlp-adam-agrees")
def largest_difference_of_losses() -> float:
    """Return the largest relative difference of the losses of both Adams over one epoch."""
    ours, theirs = (np.array(training_losses(m, epochs=1)) for m in METHODS[1:])
    return float(np.max(np.abs(ours - theirs) / theirs))


@fact("aab-mlp-default-rate")
def default_rate() -> float:
    """Return the default learning rate of PyTorch's Adam."""
    return float(torch.optim.Adam([torch.zeros(1)]).defaults["lr"])


# The experiment -----------------------------------------------------------------------------------

RATES: Final = tuple(float(lr) for lr in np.logspace(-6, 1, 29))
"""Learning rates that both methods are given alike, four a decade."""


def statements(steps: int) -> pd.DataFrame:
    """Measure every statement: its ``id``, ``measured`` and ``corrected`` (or None), as JSON."""
    measured = {id: function() for id, function in FACTS.items()}
    measured |= {id: function(steps) for id, function in OBSERVATIONS.items()}
    corrected = {id: json.dumps(function()) for id, function in CORRECTED.items()}
    return pd.DataFrame(
        {"id": id, "measured": json.dumps(value), "corrected": corrected.get(id)}
        for id, value in measured.items()
    )


def saddle(steps: int = 150) -> pd.DataFrame:
    """Return twelve runs of gradient descent near the saddle: ``run``, ``step``, ``x``, ``y``.

    Eleven start at random in [−0.3, 0.3]², the last one on x = 0, from where it ends at the saddle.
    """
    start = np.random.default_rng(1).uniform(-0.3, 0.3, size=(12, 2))
    start[-1, 0] = 0
    points = descend(GradientDescent(SADDLE_LR), SADDLE.gradient, start, steps).points
    run, step = (index.ravel() for index in np.indices((len(start), steps + 1)))
    x, y = points.transpose(2, 1, 0).reshape(2, -1)
    return pd.DataFrame({"run": run, "step": step, "x": x, "y": y})


def cooling(steps: int) -> pd.DataFrame:
    """Return how far Adam with η = 0.5 is from Ackley's minimum, with two schedules of the rate.

    Returns
    -------
    DataFrame
        ``schedule`` ("constant" or "linear decay"), ``step`` from 0 on, ``distance`` from 0.
    """
    runs = {"constant": deck_run("R35", steps)[0], "linear decay": cooled_run(steps)}
    return pd.concat(
        pd.DataFrame(
            {"schedule": name, "step": range(steps + 1)}
            | {"distance": np.linalg.norm(points, axis=-1)}
        )
        for name, points in runs.items()
    ).reset_index(drop=True)


def rates(steps: int) -> pd.DataFrame:
    """Run gradient descent and Adam on Rosenbrock from (5, 0), both with each of `RATES`.

    Returns
    -------
    DataFrame
        ``method`` ("GD" or "Adam"), ``lr``, the final ``x``, ``y`` and ``f``, which is inf where
        the run has overflowed.
    """
    start, lines = (5.0, 0.0), []
    for lr in RATES:
        runs = {
            "GD": gradient_descent(rosenbrock_gradient, start, lr),
            "Adam": adam(rosenbrock_gradient, start, lr, (0.9, 0.999)),
        }
        for method, iterates in runs.items():
            x, y = last(iterates, steps)
            lines.append({"method": method, "lr": lr, "x": x, "y": y})
    table = pd.DataFrame(lines)
    f = ROSENBROCK.value(table[["x", "y"]].to_numpy())
    return table.assign(f=np.where(np.isfinite(f), f, np.inf))


def network() -> pd.DataFrame:
    """Return the training losses of the network: ``method``, ``step`` from 1 on, ``loss``."""
    losses = {method: training_losses(method) for method in METHODS}
    return pd.DataFrame(
        {"method": method, "step": step, "loss": loss}
        for method, curve in losses.items()
        for step, loss in enumerate(curve, start=1)
    )


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Measure the statements, and compute what their figures show.

    Parameters
    ----------
    profile
        At "smoke" 1000 steps stand for the deck's 10 000, so that measured values may be wrong; at
        "quick" and "paper" every run is as long as the ledger asks.

    Returns
    -------
    dict of DataFrame
        ``statements``, ``saddle``, ``cooling``, ``rates``, ``network``: see the functions of these
        names.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    steps = 1_000 if project.check_profile(profile) == "smoke" else STEPS
    return {
        "statements": statements(steps),
        "saddle": saddle(),
        "cooling": cooling(steps),
        "rates": rates(steps),
        "network": network(),
    }
