"""What is measured of a trained model, once, in float32."""

import copy
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd
import torch
from torch import Tensor, nn

from beyond_adam.data import load
from beyond_adam.training.definition import Definition
from beyond_adam.training.engine import (
    EVALUATED_AT_ONCE,
    Examples,
    Row,
    Splits,
    all_digits,
    total_loss,
)

CUTS: Final = (0.0, 1e-13, 1e-11, 1e-9, 1e-8, 1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Sizes up to which entries are set to zero."""

PARTS: Final = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
"""Parts of the weights, the smallest ones, that are set to zero."""


@all_digits()
def measure(
    run: Definition, model: nn.Module, device: str | torch.device
) -> dict[str, pd.DataFrame]:
    """Return what a trained model is worth, also without its small weights.

    Parameters
    ----------
    run
        The definition it was trained by.
    model
        The model, which is left as it was.
    device
        Where to compute.

    Returns
    -------
    dict of DataFrame
        ``cuts``: for each ``size`` of `CUTS` the ``part`` of all entries, biases too, that are at
        most that, and ``loss`` and ``accuracy`` on the ``split`` "test" (and "validation", if there
        is one) with those entries at zero. ``pruned``: the same for each ``part`` of `PARTS` of
        the weights that biases and norms are not among; at least that part is at zero.
        ``normalisation``: loss and accuracy on the test images if they are normalised by the
        ``statistics`` of the images for "training", which is right, or of those for "test".
        ``units``: for each ReLU, by ``layer``, how many ``units`` it has, channels or neurons, and
        how many are ``dead``: positive for no test image. Where numbers are predicted, there are no
        accuracies, and where there is no ReLU, ``units`` has no rows.
    """
    device = torch.device(device)
    data = load(run.data)
    splits = Splits.of(data, run.validation, device)
    model = copy.deepcopy(model).to(device).to(memory_format=torch.channels_last).eval()
    held = {"test": splits.test}
    if run.validation:
        held["validation"] = splits.validation
    known: dict[tuple[bool, int], dict[str, Row]] = {}  # many sizes cut the same entries

    def without(only_matrices: bool, size: float) -> tuple[float, dict[str, Row]]:
        cut, gone, count = _without(model, only_matrices, size)
        key = (only_matrices and gone > 0, gone)
        if key not in known:
            known[key] = {split: _worth(cut, splits, images) for split, images in held.items()}
        return gone / count, known[key]

    lines: dict[str, list[Row]] = {"cuts": [], "pruned": [], "normalisation": []}
    for size in CUTS:
        part, found = without(False, size)
        label: Row = {"size": size, "part": part}
        lines["cuts"] += [{**label, "split": split, **row} for split, row in found.items()]
    sizes = torch.cat([p.detach().abs().flatten() for p in model.parameters() if p.ndim > 1])
    for part in PARTS:
        gone = round(part * len(sizes))
        _, found = without(True, sizes.kthvalue(gone).values.item() if gone else -1.0)
        lines["pruned"] += [{"part": part, "split": split, **row} for split, row in found.items()]
    own = Splits.of(data, run.validation, device, statistics="test")
    for statistics, chosen in (("training", splits), ("test", own)):
        worth = _worth(model, chosen, chosen.test)
        lines["normalisation"].append({"statistics": statistics, **worth})
    tables = {name: pd.DataFrame(rows) for name, rows in lines.items()}
    units = pd.DataFrame(_units(model, splits), columns=["layer", "units", "dead"])
    return tables | {"units": units}


@torch.no_grad()
def _without(model: nn.Module, only_matrices: bool, size: float) -> tuple[nn.Module, int, int]:
    """Return the model without its small entries, how many these are, and of how many."""
    cut = copy.deepcopy(model)
    gone = count = 0
    for entries in cut.parameters():
        if entries.ndim > 1 or not only_matrices:
            small = entries.abs() <= size
            entries.masked_fill_(small, 0)
            gone, count = gone + int(small.sum()), count + small.numel()
    return cut, gone, count


def _batches(splits: Splits, examples: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(examples.targets), EVALUATED_AT_ONCE):
        yield splits.batch(examples, slice(first, first + EVALUATED_AT_ONCE))


@torch.no_grad()
def _worth(model: nn.Module, splits: Splits, examples: Examples) -> Row:
    loss, right, count = 0.0, 0, len(examples.targets)
    for x, y in _batches(splits, examples):
        outputs = model(x)
        loss += total_loss(outputs, y).item()
        if examples.classified:
            right += int((outputs.argmax(dim=1) == y).sum())
    row: Row = {"loss": loss / count}
    if examples.classified:
        row["accuracy"] = right / count
    return row


@torch.no_grad()
def _units(model: nn.Module, splits: Splits) -> list[Row]:
    highest: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def seen(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found = output.transpose(0, 1).flatten(1).amax(dim=1)
            highest[name] = torch.maximum(highest[name], found) if name in highest else found

        return seen

    named = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ReLU)]
    handles = [module.register_forward_hook(watch(name)) for name, module in named]
    for x, _ in _batches(splits, splits.test):
        model(x)
    for handle in handles:
        handle.remove()
    return [
        {"layer": name, "units": len(top), "dead": int((top <= 0).sum())}
        for name, top in highest.items()
    ]
