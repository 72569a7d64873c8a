"""Schedulers for hyperparameters other than the learning rate, on PyTorch's conventions."""

import math
import operator
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from beyond_adam._ranges import RANGES


@dataclass(frozen=True)
class _Ramp(ABC):
    """From `start` at epoch 0 to `end` at epoch `steps` − 1, where it stays."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        # Plain numbers, also from NumPy's, so that a checkpoint loads with weights_only=True.
        for name in ("start", "end"):
            value = float(getattr(self, name))
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, not {value}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "steps", operator.index(self.steps))
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def __call__(self, epoch: int | float) -> float:
        """Return the value at an epoch, counted from 0; it need not be whole."""
        way = self._way(min(epoch / max(self.steps - 1, 1), 1.0))
        return self.start + (self.end - self.start) * way if way < 1 else self.end

    @abstractmethod
    def _way(self, time: float) -> float:
        """Return which part of the way from start to end lies behind; time and way in [0, 1]."""

    def knots(self) -> Iterator[tuple[int, float]]:
        """Yield epochs and values between whose values all others lie."""
        yield 0, self.start
        yield max(self.steps - 1, 1), self.end


class LinearSchedule(_Ramp):
    """Go in equal steps, as ``numpy.linspace(start, end, steps)``, and stay at `end`.

    So the post of Chen (2019) on adaptive exponents for Adam takes the exponent to 0.

    Parameters
    ----------
    start, end
        First and last value, finite.
    steps
        Number of epochs that it covers, both ends included; at least 1. With 1 it gives `start` at
        epoch 0 and `end` after it.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def _way(self, time: float) -> float:
        return time


class CosineSchedule(_Ramp):
    """Go along half a period of a cosine, flat at both ends, and stay at `end`.

    Equation (5) of Loshchilov and Hutter (2017), "SGDR", without restarts.

    Parameters
    ----------
    start, end
        First and last value, finite.
    steps
        Number of epochs that it covers, both ends included; at least 1. With 1 it gives `start` at
        epoch 0 and `end` after it.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def _way(self, time: float) -> float:
        return (1 - math.cos(math.pi * time)) / 2


class GeometricSchedule(_Ramp):
    """Go by equal factors, as ``numpy.geomspace(start, end, steps)``, and stay at `end`.

    Parameters
    ----------
    start, end
        First and last value, finite, not 0, of one sign, and not more than 1e308 times apart.
    steps
        Number of epochs that it covers, both ends included; at least 1. With 1 it gives `start` at
        epoch 0 and `end` after it.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.start and 0 < self.end / self.start < math.inf):
            raise ValueError(
                "start and end must have one sign, not be 0, and have a ratio that is a number, "
                f"unlike {self.start} and {self.end}"
            )

    def _way(self, time: float) -> float:
        if self.start == self.end:
            return time
        return math.expm1(time * math.log(self.end / self.start)) / (self.end / self.start - 1)


@dataclass(frozen=True)
class StepSchedule:
    """Stay at one value after the other; the next one holds from each milestone on.

    Parameters
    ----------
    values
        One value more than there are milestones, finite.
    milestones
        Epochs, at least 1 and increasing.

    Raises
    ------
    ValueError
        If a value is not finite, a milestone not greater than the one before it, or their numbers
        do not fit.
    """

    values: Sequence[float]
    milestones: Sequence[int]

    def __post_init__(self) -> None:
        values = tuple(float(value) for value in self.values)
        milestones = tuple(operator.index(epoch) for epoch in self.milestones)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "milestones", milestones)
        if len(values) != len(milestones) + 1:
            raise ValueError(
                f"{len(milestones)} milestones need {len(milestones) + 1} values, not {len(values)}"
            )
        if not all(map(math.isfinite, values)):
            raise ValueError(f"values must be finite, not {values}")
        if not all(map(operator.lt, (0, *milestones), milestones)):
            raise ValueError(f"milestones must increase from 1 or more, unlike {milestones}")

    def __call__(self, epoch: int | float) -> float:
        """Return the value at an epoch, counted from 0; it need not be whole."""
        return self.values[bisect_right(self.milestones, epoch)]

    def knots(self) -> Iterator[tuple[int, float]]:
        """Yield the epochs at which the value changes, and the values."""
        return zip((0, *self.milestones), self.values, strict=True)


_SAVED = {
    kind.__name__: kind
    for kind in (LinearSchedule, CosineSchedule, GeometricSchedule, StepSchedule)
}


def _checked(key: str, value: float, step: int) -> float:
    """Return the value as a plain float, or raise ValueError if it is out of its range."""
    value = float(value)
    allowed, interval = RANGES.get(key, (math.isfinite, "(−∞, ∞)"))
    if not allowed(value):
        raise ValueError(f"{key} must lie in {interval}; the schedule gives {value} at step {step}")
    return value


def _checked_ahead(key: str, schedule: Callable[[int], float]) -> Callable[[int], float]:
    """Return the schedule; if its extremes are known, raise ValueError if any is out of range.

    So a run fails at its start and not hours later.
    """
    if isinstance(schedule, (_Ramp, StepSchedule)):
        for step, value in schedule.knots():
            _checked(key, value, step)
    return schedule


class HyperparameterScheduler:
    """Set one hyperparameter of the parameter groups to a function of the epoch.

    It behaves as PyTorch's learning-rate schedulers do: the constructor takes the first step, each
    group keeps the value it had before as ``initial_<key>``, a tensor in a group is filled in place
    (so that a compiled optimizer step need not be traced again), and `step` is called after the
    optimizer's, once an epoch or once a batch. Schedulers of different hyperparameters work side by
    side. The schedule gives the value itself, not a factor, and the same one for all groups that it
    is for; one that is added later follows from the next step on, unless `groups` are given.

    Parameters
    ----------
    optimizer
        The optimizer whose groups are changed.
    key
        Name of the hyperparameter in the groups; its value is a number or a tensor.
    schedule
        Value at each epoch 0, 1, …: a `LinearSchedule`, `CosineSchedule`, `StepSchedule` or any
        other function.
    last_epoch
        Epoch that came before the first step; −1, the default, for a new run. A run can also be
        resumed by `load_state_dict`, which sets it.
    groups
        Numbers of the groups that are scheduled, as ``[0]`` for ``weight_decay`` with the groups of
        `decay_groups`, whose second one is not to be decayed. None: all of them.

    Raises
    ------
    KeyError
        If a group has no such hyperparameter or, when resuming, no ``initial_<key>``.
    TypeError
        If `optimizer` is not an optimizer, `schedule` not callable, or the hyperparameter not a
        number.
    ValueError
        If `last_epoch` is less than −1, if there is no group of a number in `groups`, or no number
        in it, or if a value is out of the range of the hyperparameter:
        [0, 1] for ``exponent``, (0, 1/2] for ``partial``, (0, 2] for ``p``, [0, ∞) for ``lr``,
        ``weight_decay`` and ``lambda_2``, and finite for any other. The four schedules of this
        module are checked at once as a whole, other functions step by step; nothing is changed
        then.

    Examples
    --------
    >>> import torch
    >>> optimizer = torch.optim.AdamW([torch.ones(2, requires_grad=True)])
    >>> scheduler = HyperparameterScheduler(optimizer, "weight_decay", LinearSchedule(0.1, 0, 3))
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     print(scheduler.get_last_value())
    ...     scheduler.step()
    [0.1]
    [0.05]
    [0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        key: str,
        schedule: Callable[[int], float],
        last_epoch: int = -1,
        *,
        groups: Iterable[int] | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if not callable(schedule):
            raise TypeError(f"schedule must be callable, unlike {schedule!r}")
        if last_epoch < -1:
            raise ValueError(f"last_epoch must be at least -1, not {last_epoch}")
        self.optimizer = optimizer
        self.key = key
        self.schedule = _checked_ahead(key, schedule)
        self.last_epoch = last_epoch
        self.groups = None if groups is None else tuple(map(operator.index, groups))
        there = range(len(optimizer.param_groups))
        if self.groups is not None and not (self.groups and set(there).issuperset(self.groups)):
            raise ValueError(f"groups must be some of {[*there]}, not {[*self.groups]}")
        if last_epoch >= 0:
            for number, group in self._scheduled():
                if f"initial_{key}" not in group:
                    raise KeyError(
                        f"param_groups[{number}] has no 'initial_{key}', which resuming with "
                        f"{last_epoch=} needs: load the optimizer's state first"
                    )
        self.step()

    def step(self) -> None:
        """Go to the next epoch and set the hyperparameter of every group to its value there."""
        epoch = self.last_epoch + 1
        value = _checked(self.key, self.schedule(epoch), epoch)
        for number, group in self._scheduled():
            if self.key not in group:
                raise KeyError(f"param_groups[{number}] has no {self.key!r} to be scheduled")
            old = group[self.key]
            if isinstance(old, bool) or not isinstance(old, (int, float, Tensor)):
                raise TypeError(f"{self.key} must be a number to be scheduled, not {old!r}")
        self.last_epoch = epoch
        self._set(value)

    def _scheduled(self) -> list[tuple[int, dict[str, Any]]]:
        """Return the groups that are scheduled, with their numbers."""
        every = enumerate(self.optimizer.param_groups)
        return [(i, group) for i, group in every if self.groups is None or i in self.groups]

    def _set(self, value: float) -> None:
        groups = self._scheduled()
        for _, group in groups:
            old = group[self.key]
            if isinstance(old, Tensor):
                group.setdefault(f"initial_{self.key}", old.clone())
                old.fill_(value)
            else:
                group.setdefault(f"initial_{self.key}", old)
                group[self.key] = value
        self._last_value = [value] * len(groups)

    def get_last_value(self) -> list[float]:
        """Return the value last set in each group that is scheduled."""
        return list(self._last_value)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, which ``torch.load`` reads with ``weights_only=True``.

        The schedules of this module are part of it; any other function is not (its entry is None),
        as with the functions of PyTorch's ``LambdaLR``. Save the state of the optimizer beside it.
        """
        schedule = None
        if isinstance(self.schedule, (_Ramp, StepSchedule)):
            fields = asdict(self.schedule).items()
            plain = {name: list(x) if isinstance(x, tuple) else x for name, x in fields}
            schedule = {"kind": type(self.schedule).__name__, **plain}
        return {
            "key": self.key,
            "last_epoch": self.last_epoch,
            "last_value": self.get_last_value(),
            "schedule": schedule,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a saved scheduler was: load the state of the optimizer, too.

        The hyperparameter is set to the value it had. A schedule in the state replaces the present
        one, which stays if there is none.

        Raises
        ------
        ValueError
            If the state is of another hyperparameter, or its schedule unknown or out of range.
        """
        if state_dict["key"] != self.key:
            raise ValueError(f"the state is of {state_dict['key']!r}, not of {self.key!r}")
        schedule = self.schedule
        if state_dict["schedule"] is not None:
            fields = dict(state_dict["schedule"])
            kind = fields.pop("kind")
            if kind not in _SAVED:
                raise ValueError(f"schedule must be one of {', '.join(_SAVED)}, not {kind!r}")
            schedule = _checked_ahead(self.key, _SAVED[kind](**fields))
        last, epoch = state_dict["last_value"], state_dict["last_epoch"]
        value = _checked(self.key, last[0], epoch)  # the same for all groups
        self.schedule, self.last_epoch = schedule, epoch
        self._set(value)


class ExponentScheduler(HyperparameterScheduler):
    """Schedule the power to which the second moment is raised in an adaptive step.

    The post of Chen (2019) on adaptive exponents takes it from 1/2, which is Adam, linearly to 0,
    which is descent with momentum. A lower exponent changes the length of the steps, too.

    Parameters
    ----------
    optimizer, schedule, last_epoch
        As for `HyperparameterScheduler`.
    key
        ``exponent``, in [0, 1], or ``partial``, in (0, 1/2]; by default the one that all groups
        have.

    Raises
    ------
    ValueError
        If `key` is neither, or not given and the groups have none of them or both; and as
        `HyperparameterScheduler`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Callable[[int], float],
        last_epoch: int = -1,
        *,
        key: str | None = None,
    ) -> None:
        if key is None and isinstance(optimizer, Optimizer):  # anything else is refused below
            groups = optimizer.param_groups
            keys = [k for k in ("exponent", "partial") if all(k in group for group in groups)]
            if len(keys) != 1:
                has = "both" if keys else "none"
                raise ValueError(f"give key 'exponent' or 'partial': the groups have {has}")
            key = keys[0]
        elif key not in (None, "exponent", "partial"):
            raise ValueError(f"key must be 'exponent' or 'partial', not {key!r}")
        super().__init__(optimizer, str(key), schedule, last_epoch)


class PNormScheduler(HyperparameterScheduler):
    """Schedule the p of a p-norm weight decay, in (0, 2].

    Parameters
    ----------
    optimizer, schedule, last_epoch
        As for `HyperparameterScheduler`, whose errors are raised.
    """

    def __init__(
        self, optimizer: Optimizer, schedule: Callable[[int], float], last_epoch: int = -1
    ) -> None:
        super().__init__(optimizer, "p", schedule, last_epoch)
