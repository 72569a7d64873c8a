"""The training loop.

The whole data set lies on the device, batches are drawn, augmented and normalised there, and the
random numbers of an epoch depend on seed and epoch alone. So a run that is killed and taken up
again at its last checkpoint ends with the same bits as one that was not.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from beyond_adam.data import Dataset, load
from beyond_adam.data.augmentation import Change, augmented
from beyond_adam.data.files import Array
from beyond_adam.optim import sparsity_report
from beyond_adam.prox import prox_lp
from beyond_adam.training import checkpoints
from beyond_adam.training.definition import Definition, Penalty

THRESHOLDS: Final = (0.0, 1e-13, 1e-11, 1e-9, 1e-8, 1e-6, 1e-4, 1e-3)
"""Sizes up to which weights are counted after every epoch."""

WAYS: Final = ("foreach", "fused")
"""Options of optimizers that say how a step is taken."""

EVALUATED_AT_ONCE: Final = 1000
"""Number of examples of a batch that is only looked at."""

Row = dict[str, float | int | str]


@dataclass
class Outcome:
    """A run as far as it got.

    Attributes
    ----------
    model
        As it is after the last epoch, on the CPU.
    epochs
        One row an epoch; see `train`.
    layers
        One row for each epoch, parameter and threshold.
    segments
        Where the epochs were computed: one entry a machine and version of the code.
    failure
        Why the run ended before its time; empty if it did not.
    """

    model: nn.Module
    epochs: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""


class Examples(NamedTuple):
    """What goes into a model, and what should come out of it."""

    inputs: Tensor
    """As `Dataset` has them: images, or measurements."""
    targets: Tensor
    """Classes, int64 of shape (examples,), or numbers, float32 of shape (examples, numbers)."""

    @property
    def classified(self) -> bool:
        """Whether the targets are classes."""
        return not self.targets.is_floating_point()


@dataclass(frozen=True)
class Splits:
    """A data set on a device, with the statistics of its training examples.

    Attributes
    ----------
    train, validation, test
        Examples; those for validation are the last of the training examples in their order, which
        is as good as random. Numbers to predict have mean 0 and deviation 1 over all training
        examples.
    mean, deviation
        By which inputs are normalised, shape (channels, 1, 1) or (features,): of all training
        examples, unless the statistics of the test examples were asked for.
    """

    train: Examples
    validation: Examples
    test: Examples
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(
        cls,
        data: Dataset,
        validation: int,
        device: torch.device,
        statistics: Literal["training", "test"] = "training",
    ) -> "Splits":
        """Return a data set with so many of its training examples held out."""
        if validation >= len(data.x_train):
            raise ValueError(
                f"cannot hold {validation} of the {len(data.x_train)} examples of {data.name} out"
            )
        kept = len(data.x_train) - validation
        train, test = (
            Examples(torch.from_numpy(x).to(device), _targets(y, data).to(device))
            for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test))
        )
        known = data.x_train if statistics == "training" else data.x_test
        axes = (0, *range(2, known.ndim))
        shape = (-1, *(1 for _ in axes[1:]))
        mean, deviation = (
            torch.tensor(x.reshape(shape), dtype=torch.float32, device=device)
            for x in (known.mean(axes, np.float64), known.std(axes, np.float64))
        )
        return cls(
            Examples(train.inputs[:kept], train.targets[:kept]),
            Examples(train.inputs[kept:], train.targets[kept:]),
            test,
            mean,
            deviation,
        )

    def batch(
        self,
        examples: Examples,
        rows: Tensor | slice,
        changes: tuple[Change, ...] = (),
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return normalised inputs and their targets, after random changes if there are any."""
        inputs = examples.inputs[rows]
        if changes and generator is not None:
            inputs = augmented(inputs, changes, generator)
        x = inputs.to(torch.float32, copy=True).sub_(self.mean).div_(self.deviation)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, examples.targets[rows]


def _targets(y: Array, data: Dataset) -> Tensor:
    """Return classes, or numbers in units in which those for training are standardised."""
    if data.classes:
        return torch.from_numpy(y).long()
    mean, deviation = data.y_train.mean(0, np.float64), data.y_train.std(0, np.float64)
    return torch.from_numpy((y - mean) / deviation).float()


def total_loss(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the sum of the losses of examples.

    Parameters
    ----------
    outputs
        Of the model.
    targets
        Classes, for the cross-entropy; or numbers, for the mean of the squared errors of an
        example.
    smoothing
        Of the cross-entropy.

    Raises
    ------
    ValueError
        If there is not an output for every number.
    """
    if not targets.is_floating_point():
        return cross_entropy(outputs, targets, reduction="sum", label_smoothing=smoothing)
    if outputs.shape != targets.shape:
        raise ValueError(
            f"the model's outputs have shape {tuple(outputs.shape)}, what is to be predicted has "
            f"{tuple(targets.shape)}"
        )
    return mse_loss(outputs.float(), targets, reduction="sum") / targets.shape[1]


def train(
    run: Definition,
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    origin: dict[str, Any] | None = None,
    between: float = 20.0,
    until: int | None = None,
    compiled: bool = False,
    show: bool = False,
) -> Outcome:
    """Train a model, from its last checkpoint if there is one.

    With `torch.distributed` initialised all processes train one model, each on its part of every
    batch; batch norm then uses the statistics of the part.

    Parameters
    ----------
    run
        What to train.
    folder
        Where checkpoints are kept, the same for all processes; made if it is not there.
    device
        Where to train.
    origin
        What is kept of commit, versions and hardware with the epochs that this call computes.
    between
        Seconds after which a checkpoint is written at the end of an epoch; the last epoch always
        ends with one.
    until
        Number of epochs to stop after; by default all of the run.
    compiled
        Whether the model is passed through `torch.compile`. It pays on a GPU; on a CPU it made the
        network of the post slower.
    show
        Whether to show a progress bar.

    Returns
    -------
    Outcome
        Its rows of ``epochs`` have ``epoch`` (epochs done), ``lr`` of its last step, ``train_loss``
        and ``train_accuracy`` as seen while training (with dropout, augmentation and penalty),
        ``validation_…`` if examples are held out, ``test_…``, and ``seconds``. There are no
        accuracies where numbers are predicted; the loss is then the mean squared error by the
        variance of the numbers for training. Those of ``layers`` have ``epoch``, ``layer``,
        ``threshold``, and ``count``, how many entries are at most that.
        A loss that is not finite, of a step or measured, ends the run after the epoch; ``failure``
        then says where.

    Raises
    ------
    DatasetError
        If the data are not there.
    ValueError
        If the definition does not fit model or data, or the checkpoint is of another run.
    OSError
        If a checkpoint cannot be written; older ones are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(device)
    data = load(run.data)
    _check(run, data)
    splits = Splits.of(data, run.validation, device)
    model = run.build_model().to(device).to(memory_format=torch.channels_last)
    optimizer = run.build_optimizer(model, device)
    outcome = Outcome(model)
    found = checkpoints.newest(folder)
    done = 0
    if found:
        done, state = found
        if (other := state["run"]) != run.name:
            raise ValueError(f"{folder} has checkpoints of {other}, not of {run.name}")
        model.load_state_dict(state["model"])
        # How a step is taken is a matter of this device, not of the one where it was begun.
        ways = [{k: v for k, v in g.items() if k in WAYS} for g in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
        for group, way in zip(optimizer.param_groups, ways, strict=True):
            group.update(way)
        outcome.epochs, outcome.layers = state["epochs"], state["layers"]
        outcome.segments, outcome.failure = state["segments"], state["failure"]
    segment = {**(origin or {}), "first": done + 1, "last": done, "seconds": 0.0}
    leader = not dist.is_initialized() or dist.get_rank() == 0
    stop = run.epochs if until is None else min(until, run.epochs)
    bar = tqdm(range(done, stop), initial=done, total=stop, disable=not (show and leader))
    loop = _Loop(run, splits, model, optimizer, device, compiled)
    loop.prune(done)  # which only marks again what is zero
    saved = time.perf_counter()
    for epoch in bar if not outcome.failure else ():
        started = time.perf_counter()
        with all_digits():
            row = loop.epoch(epoch)
        seconds = time.perf_counter() - started
        outcome.epochs.append({**row, "seconds": round(seconds, 3)})
        outcome.layers += _small(model, epoch + 1)
        outcome.failure = loop.failure
        segment |= {"last": epoch + 1, "seconds": round(segment["seconds"] + seconds, 3)}
        test = row.get("test_accuracy", row["test_loss"])
        bar.set_postfix(loss=f"{row['train_loss']:.4f}", test=f"{test:.4f}")
        last = epoch + 1 == stop or bool(outcome.failure)
        if leader and (last or time.perf_counter() - saved >= between):
            state = {
                "run": run.name,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epochs": outcome.epochs,
                "layers": outcome.layers,
                "segments": [*outcome.segments, segment],
                "failure": outcome.failure,
            }
            checkpoints.save(folder, epoch + 1, state)
            saved = time.perf_counter()
        if outcome.failure:
            break
    if segment["last"] > done:
        outcome.segments = [*outcome.segments, segment]
    outcome.model = model.cpu()
    return outcome


@contextlib.contextmanager
def all_digits() -> Iterator[None]:
    """Let convolutions of float32 be what they are called, on GPUs that would round to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _check(run: Definition, data: Dataset) -> None:
    """Raise ValueError if a definition asks for what its data cannot have."""
    if run.augmentation and data.x_train.ndim != 4:
        raise ValueError(f"augmentation changes images; {data.name} has none")
    if run.label_smoothing and not data.classes:
        raise ValueError(f"label_smoothing is of classes; {data.name} has none")


class _Loop:
    """One epoch after the other."""

    def __init__(
        self,
        run: Definition,
        splits: Splits,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        compiled: bool,
    ) -> None:
        self.run, self.splits, self.model, self.optimizer = run, splits, model, optimizer
        self.device = device
        self.failure = ""
        spread = dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if spread else (0, 1)
        parallel: nn.Module = DistributedDataParallel(model) if spread else model
        self.forward: Callable[[Tensor], Tensor] = torch.compile(parallel) if compiled else parallel
        self.matrices: list[Tensor] = [p for p in model.parameters() if p.ndim > 1]
        self.kept: list[tuple[Tensor, Tensor]] = []

    def epoch(self, epoch: int) -> Row:
        """Train for an epoch and measure; `failure` says if the loss was not finite."""
        run, train = self.run, self.splits.train
        seeds = np.random.SeedSequence((run.seed, epoch)).generate_state(2 + self.rank, np.uint64)
        generator = Generator().manual_seed(int(seeds[0]))
        count = len(train.targets)
        order = torch.randperm(count, generator=generator, device="cpu").to(self.device)
        batches = torch.split(order, run.batch)
        losses = torch.zeros(len(batches), dtype=torch.float32, device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        self._move(epoch, 0, len(batches))
        self.model.train()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(seeds[-1]))  # of dropout: each process has its own
            for step, rows in enumerate(batches):
                if run.moved == "step":
                    self._move(epoch, step, len(batches))
                x, y = self.splits.batch(train, rows, tuple(run.augmentation), generator)
                x, y = x[self.rank :: self.world], y[self.rank :: self.world]
                with self._autocast():
                    outputs = self.forward(x)
                    each = total_loss(outputs, y, run.label_smoothing)
                    loss = each * self.world / len(rows) + self._penalty()
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                self._after_step()
                losses[step] = loss.detach()
                if train.classified:
                    right += (outputs.detach().argmax(dim=1) == y).sum()
        sizes = torch.tensor([len(rows) for rows in batches], device=self.device)
        if self.world > 1:
            dist.all_reduce(losses)
            dist.all_reduce(right)
            losses /= self.world
            for buffer in self.model.buffers():  # each process has its own statistics of batches
                dist.broadcast(buffer, 0)
        self.prune(epoch + 1)
        row: Row = {
            "epoch": epoch + 1,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "train_loss": ((losses * sizes).sum() / count).item(),
        }
        if train.classified:
            row["train_accuracy"] = right.item() / count
        if len(self.splits.validation.targets):
            row |= self._measured("validation", self.splits.validation)
        row |= self._measured("test", self.splits.test)
        wrong = (~losses.isfinite()).nonzero()
        measured = [name for name, value in row.items() if not math.isfinite(float(value))]
        found = ""
        if len(wrong):
            step = int(wrong[0])
            found = f"loss was {losses[step].item()} at step {step + 1} of {len(batches)} in"
        elif measured:  # the step that broke the model was the last one
            found = f"{measured[0].replace('_', ' ')} was {row[measured[0]]} after"
        if found:
            lr = f"whose last learning rate was {row['lr']:g}"
            self.failure = f"the {found} epoch {epoch + 1}, {lr}"
        return row

    def _move(self, epoch: int, step: int, steps: int) -> None:
        """Set the options that are scheduled to their values now."""
        for name, schedule in self.run.schedules.items():
            value = schedule(epoch + step / steps)
            for group in self.optimizer.param_groups:
                group[name] = value

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        if self.run.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.run.precision))

    def _penalty(self) -> Tensor | float:
        penalty = self.run.penalty
        if penalty is None or penalty.by != "gradient":
            return 0.0
        return penalty.strength * sum(p.abs().pow(penalty.p).sum() for p in self.matrices)

    @torch.no_grad()
    def _after_step(self) -> None:
        """Apply a proximal operator, and keep zero what was pruned."""
        match self.run.penalty:
            case Penalty(strength, p, "prox"):
                lr = self.optimizer.param_groups[0]["lr"]
                for w in self.matrices:
                    w.copy_(prox_lp(w, lr * strength, p))
        for w, kept in self.kept:
            w.mul_(kept)

    @torch.no_grad()
    def prune(self, epochs: int) -> None:
        """Remove the part of the weights that is to be gone after so many epochs."""
        pruning = self.run.pruning
        if pruning is None or epochs < pruning.first:
            return
        sizes = torch.cat([w.abs().flatten() for w in self.matrices])
        gone = round(pruning.at(epochs) * len(sizes))
        cut = sizes.kthvalue(gone).values if gone else -1
        self.kept = [(w, w.abs() > cut) for w in self.matrices]
        for w, kept in self.kept:
            w.mul_(kept)

    @torch.no_grad()
    def _measured(self, name: str, examples: Examples) -> Row:
        """Return loss and accuracy on examples that are not trained on."""
        loss = torch.zeros((), dtype=torch.float32, device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        self.model.eval()
        count = len(examples.targets)
        for first in range(self.rank * EVALUATED_AT_ONCE, count, self.world * EVALUATED_AT_ONCE):
            x, y = self.splits.batch(examples, slice(first, first + EVALUATED_AT_ONCE))
            with self._autocast():
                outputs = self.model(x)
                loss += total_loss(outputs, y)
            if examples.classified:
                right += (outputs.argmax(dim=1) == y).sum()
        if self.world > 1:
            dist.all_reduce(loss)
            dist.all_reduce(right)
        row: Row = {f"{name}_loss": loss.item() / count}
        if examples.classified:
            row[f"{name}_accuracy"] = right.item() / count
        return row


def _small(model: nn.Module, epoch: int) -> list[Row]:
    """Return how many entries of each parameter are small."""
    return [
        {"epoch": epoch, "layer": row.name, "threshold": threshold, "count": count}
        for row in sparsity_report(model, THRESHOLDS).rows
        for threshold, count in zip(THRESHOLDS, row.counts, strict=True)
    ]
