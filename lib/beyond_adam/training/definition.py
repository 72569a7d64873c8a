"""What a training run is: a definition that can be compared, hashed and written down."""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import nn

from beyond_adam.data.augmentation import Change
from beyond_adam.optim.sparsity import decay_groups

CHOICES: Final = {
    "decay": ("all", "matrices"),
    "moved": ("epoch", "step"),
    "precision": ("float32", "bfloat16"),
}
"""What fields of a `Definition` may be that are words."""

DECAYS: Final = ("weight_decay", "lambda_2")
"""Options that `decay` keeps from parameters that are not to be decayed."""


@dataclass(frozen=True)
class Penalty:
    """A penalty λ‖w‖_p^p on the weights, other than by the decay of an optimizer.

    Attributes
    ----------
    strength
        Its strength λ.
    p
        Its exponent, 0 < p < 2.
    by
        "gradient": it is a part of the loss, for p ≥ 1, with gradient 0 at 0; "prox": each step is
        followed by its exact proximal operator, of strength λ times the learning rate.
    """

    strength: float
    p: float
    by: Literal["gradient", "prox"]

    def __post_init__(self) -> None:
        if self.by not in ("gradient", "prox"):
            raise ValueError(f"by must be 'gradient' or 'prox', not {self.by!r}")
        lowest = 1 if self.by == "gradient" else 0
        if not (0 <= self.strength < math.inf and lowest <= self.p < 2 and self.p > 0):
            raise ValueError(f"strength or p out of range: {self}")


@dataclass(frozen=True)
class Pruning:
    """Set the smallest weights to zero, more and more of them, and keep them there.

    After each epoch from `first` to `last` the weights of all matrices and kernels are ranked by
    size together, and the part s(1 − (1 − t)³) of them is removed, t growing from 0 to 1: the
    schedule of Zhu & Gupta (2017).

    Attributes
    ----------
    part
        Part s of the weights that is gone in the end, in [0, 1).
    first, last
        Numbers of epochs done when pruning begins and when it is complete.
    """

    part: float
    first: int
    last: int

    def __post_init__(self) -> None:
        if not (0 <= self.part < 1 and 0 <= self.first <= self.last):
            raise ValueError(f"need 0 ≤ part < 1 and 0 ≤ first ≤ last, not {self}")

    def at(self, epochs: int) -> float:
        """Return which part is gone when so many epochs are done."""
        if epochs >= self.last:
            return self.part
        time = max(epochs - self.first, 0) / max(self.last - self.first, 1)
        return self.part * (1 - (1 - time) ** 3)


@dataclass(frozen=True)
class WarmUp:
    """Go linearly from `start` to where `then` begins, in so many epochs, and on as `then`."""

    start: float
    epochs: float
    then: Callable[[float], float]

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise ValueError(f"epochs must be positive, not {self.epochs}")

    def __call__(self, epoch: float) -> float:
        """Return the value at a time in epochs."""
        if epoch >= self.epochs:
            return self.then(epoch - self.epochs)
        return self.start + (self.then(0) - self.start) * epoch / self.epochs


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A training run, down to the seed.

    Two equal definitions on the same data give the same weights, bit for bit, on one CPU with one
    number of threads.

    Attributes
    ----------
    data
        Name of the data set, as `beyond_adam.data.load` knows it.
    model, model_options
        Function or class that makes the model, drawn from torch's global generator, and what is
        passed to it. It is written down by its name and so has to have one.
    optimizer, options
        Class of the optimizer, and what is passed to it.
    decay
        Which parameters are decayed: "all" of them, or "matrices", as `decay_groups` has it.
    schedules
        How options move: by option, a function of the time in epochs, as those of
        `beyond_adam.optim`.
    moved
        Whether options move after each "epoch" or each "step".
    penalty, pruning
        What else is done to weights of two dimensions or more, if anything.
    epochs, batch
        How often the training examples are gone through, and how many make a step.
    augmentation
        Random changes of the training images, in this order.
    label_smoothing
        Of the cross-entropy, in [0, 1).
    validation
        Number of training examples that are held out, the same for every seed. The test ones are
        measured in any case; whoever chooses by results has to choose by these.
    precision
        "float32", or "bfloat16" by autocast with float32 weights.
    seed
        Of start, batches, augmentation and dropout.
    """

    data: str
    model: Callable[..., nn.Module]
    optimizer: Callable[..., torch.optim.Optimizer]
    options: Mapping[str, Any]
    epochs: int
    batch: int
    seed: int
    model_options: Mapping[str, Any] = field(default_factory=dict)
    decay: Literal["all", "matrices"] = "matrices"
    schedules: Mapping[str, Any] = field(default_factory=dict)
    moved: Literal["epoch", "step"] = "step"
    penalty: Penalty | None = None
    pruning: Pruning | None = None
    augmentation: Sequence[Change] = ()
    label_smoothing: float = 0.0
    validation: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentation", tuple(self.augmentation))
        for name in ("options", "model_options"):
            object.__setattr__(self, name, _without_numpy(getattr(self, name)))
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                allowed = ", ".join(known)
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        for name, least in (("epochs", 1), ("batch", 1), ("seed", 0), ("validation", 0)):
            try:
                object.__setattr__(self, name, operator.index(getattr(self, name)))
            except TypeError:
                value = getattr(self, name)
                raise ValueError(f"{name} must be a whole number, not {value!r}") from None
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {self.label_smoothing}")
        if unknown := self.schedules.keys() - self.options.keys():
            raise ValueError(f"schedules move options that are not set: {', '.join(unknown)}")
        for name, schedule in self.schedules.items():
            if not callable(schedule):
                raise ValueError(f"the schedule of {name} must be callable, unlike {schedule!r}")
        if self.decay == "matrices" and (moved := self.schedules.keys() & set(DECAYS)):
            raise ValueError(
                f"schedules move {', '.join(moved)} of all parameters: decay must be 'all'"
            )
        self.as_json()  # which refuses what cannot be written down

    def as_json(self) -> dict[str, Any]:
        """Return the definition as JSON has it; what has its default is left out."""
        plain: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value != _default(item):
                plain[item.name] = _plain(value)
        return plain

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of `as_json`."""
        text = json.dumps(self.as_json(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """What the record is called, by data, model and optimizer in lower case and the digest."""
        model, optimizer = _named(self.model), _named(self.optimizer)
        return f"{self.data}-{model}-{optimizer}-{self.digest}".lower()

    @property
    def modules(self) -> set[str]:
        """The modules that have the model, optimizer, schedules and changes that are named."""
        parts = [self.model, self.optimizer, *self.schedules.values(), *self.augmentation]
        for part in parts:  # and what these are made of, which is appended
            if dataclasses.is_dataclass(part) and not isinstance(part, type):
                inner = (getattr(part, item.name) for item in dataclasses.fields(part))
                parts += filter(callable, inner)
        return {part.__module__ for part in parts}

    def build_model(self) -> nn.Module:
        """Return the model at its start, whatever torch's defaults for dtype and device are.

        These, and the global generators, are left as they were.
        """
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), _float32():
            # Not torch.manual_seed, which would seed the generators of all GPUs, too.
            torch.default_generator.manual_seed(self.seed)
            return self.model(**self.model_options)

    def build_optimizer(self, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        """Return the optimizer of a model on a device, with its fused step if it has one there."""
        options, known = dict(self.options), inspect.signature(self.optimizer).parameters
        if "fused" in known and not options.get("foreach"):
            # Our own kernel for GPUs has not run on one yet.
            fused = device.type == "cpu" or self.optimizer.__module__.startswith("torch.")
            options.setdefault("fused", fused)
        if self.decay == "all":
            return self.optimizer(model.parameters(), **options)
        decays = {k: options.pop(k, known[k].default) for k in DECAYS if k in known}
        return self.optimizer(decay_groups(model, **({"weight_decay": 0.0} | decays)), **options)


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _without_numpy(value: Any) -> Any:
    """Return a value without NumPy's numbers, which checkpoints cannot hold."""
    if isinstance(value, Mapping):
        return {key: _without_numpy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_numpy(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_without_numpy(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def _named(kind: Callable[..., Any]) -> str:
    """Return the name of a function or class; its module is named only if it is not well known."""
    if not getattr(kind, "__qualname__", "<").isidentifier():
        raise ValueError(f"functions and classes need a name in their module, unlike {kind}")
    name = kind.__qualname__.replace("_", "-")
    known = kind.__module__.split(".")[0] in ("beyond_adam", "torch")
    return name if known else f"{kind.__module__}.{name}"


def _default(item: "dataclasses.Field[Any]") -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; an object as its class and its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return {"kind": _named(type(value)), **{k: _plain(v) for k, v in fields.items()}}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if callable(value):
        return _named(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{value!r} cannot be written down, being of {type(value)}")
