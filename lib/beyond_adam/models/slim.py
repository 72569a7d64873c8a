"""Networks without what cannot matter, and how many bytes it takes to store what is left.

A weight of zero costs as much time and space as any other one, unless it is left out. There are two
ways to do so: whole channels and units go from a network that stays dense, and formats keep only
the weights that are not zero.
"""

import copy
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from beyond_adam.models.mlp import ACTIVATIONS

FORMATS: Final = ("dense", "zlib", "bitmap", "CSR", "coordinates", "best")
"""What `sizes` knows."""

Layer = nn.Linear | nn.Conv2d

POINTWISE: Final = tuple(ACTIVATIONS.values())

POOLINGS: Final = (nn.MaxPool2d, nn.AvgPool2d)

KNOWN: Final = (nn.Linear, nn.Conv2d, nn.Flatten, nn.Dropout, *POOLINGS, *POINTWISE)
"""Types that a chain may consist of."""


def slim(model: nn.Sequential) -> nn.Sequential:
    """Return a network without the channels and units whose removal changes no output.

    A unit, which is a channel of a convolution or an output of a linear layer, goes if

    - all its incoming weights are zero, so that it is a constant and the next layer's bias can take
      up what it contributes; but where zeros are padded, by an average pooling or the next layer,
      what a constant other than 0 contributes depends on the distance from the border, and the unit
      stays;
    - or all its outgoing weights are zero.

    One removal leads to another: a sweep forwards finds all constants, and then one backwards all
    that is unused. Neither makes work for the other, so that nothing is left to remove.

    Parameters
    ----------
    model
        A chain of `Conv2d`, `MaxPool2d`, `AvgPool2d`, `Flatten`, `Dropout`, `Linear` and the
        activations of `beyond_adam.models.mlp`, such as ReLU, which maps batches. It is left as it
        was.

    Returns
    -------
    torch.nn.Sequential
        A copy that has as many inputs and outputs and the same modules, some of them narrower but
        at least one unit wide. In evaluation mode it is the same function for finite inputs and
        weights, up to rounding: sums are taken in another order. In training mode it is not where
        constants would be dropped at random.

    Raises
    ------
    ValueError
        If a module of the chain is of another type, or if it does not follow from the types which
        inputs of a layer belong to which unit. The message says which module it is.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1))
    >>> with torch.no_grad():
    ...     _ = model[0].weight[1:4].zero_()
    >>> slim(model)
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=1, bias=True)
    )
    """
    list(_joints(model))  # raises before the copy, which would fail in its own words
    slimmed = copy.deepcopy(model)
    joints = list(_joints(slimmed))
    with torch.no_grad():
        for joint in joints:
            constants = joint.constants()
            joint.take_up(constants.nan_to_num())
            joint.remove(~constants.isnan())
        for joint in reversed(joints):
            joint.remove((joint.outgoing == 0).flatten(2).all(dim=2).all(dim=0))
    return slimmed


class _Joint(NamedTuple):
    """Two layers, one of which follows the other, and the modules between them."""

    before: Layer
    between: list[nn.Module]
    after: Layer

    @property
    def outgoing(self) -> Tensor:
        """The weights after the units, of shape (outputs, units, …), not copied."""
        weight = self.after.weight
        if isinstance(self.after, nn.Conv2d):
            return weight
        return weight.view(len(weight), len(self.before.weight), -1)

    def constants(self) -> Tensor:
        """Return the values, shape (units,), of the units that are constants and can go.

        NaN stands for the others. It stays NaN, whatever the modules do with it.
        """
        before = self.before
        bias = before.weight.new_zeros(len(before.weight)) if before.bias is None else before.bias
        values = bias.where((before.weight == 0).flatten(1).all(dim=1), torch.nan)
        for module in self.between:
            if isinstance(module, POINTWISE):
                values = module(values)
            elif isinstance(module, nn.AvgPool2d) and not _averages(module):
                values = _zeros_only(values)
        return _zeros_only(values) if _pads_with_zeros(self.after) else values

    def take_up(self, constants: Tensor) -> None:
        """Add to the bias after the units what they contribute by their constants."""
        shift = self.outgoing.double().flatten(2).sum(dim=2) @ constants.double()
        if self.after.bias is not None:
            self.after.bias += shift
        elif shift.any():
            self.after.bias = nn.Parameter(shift.to(self.after.weight.dtype))

    def remove(self, gone: Tensor) -> None:
        """Remove units, of which nothing counts any more; one stays, silent, if all of them go."""
        before, after, outgoing = self.before, self.after, self.outgoing
        kept = ~gone
        if not kept.any():
            kept[0] = True
            for part in (before.weight, before.bias, outgoing):
                if part is not None:
                    part.zero_()
        units = int(kept.sum())
        before.weight = _like(before.weight, before.weight[kept])
        if before.bias is not None:
            before.bias = _like(before.bias, before.bias[kept])
        if isinstance(before, nn.Conv2d):
            before.out_channels = units
        else:
            before.out_features = units
        if isinstance(after, nn.Conv2d):
            after.weight = _like(after.weight, outgoing[:, kept])
            after.in_channels = units
        else:
            after.weight = _like(after.weight, outgoing[:, kept].flatten(1))
            after.in_features = after.weight.shape[1]


def _like(old: Tensor, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new, requires_grad=old.requires_grad)


def _zeros_only(values: Tensor) -> Tensor:
    return values.where(values == 0, torch.nan)


def _averages(pooling: nn.AvgPool2d) -> bool:
    """Return whether the pooling keeps a constant image as it is, at the border too."""
    padded = pooling.padding not in (0, (0, 0)) and pooling.count_include_pad
    return pooling.divisor_override is None and not padded


def _pads_with_zeros(layer: Layer) -> bool:
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros":
        return False
    return layer.padding not in ("valid", (0, 0))


def _joints(model: nn.Sequential) -> Iterator[_Joint]:
    """Yield the pairs of layers that follow each other, or raise ValueError."""
    before: Layer | None = None
    between: list[nn.Module] = []
    seen: list[nn.Module] = []
    for number, module in enumerate(model):
        place = f"module {number}, {module},"
        if type(module) not in KNOWN:
            names = ", ".join(kind.__name__ for kind in KNOWN)
            raise ValueError(f"{place} is none of {names}")
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
            raise ValueError(f"{place} must flatten all dimensions but the first")
        if not isinstance(module, Layer):
            between.append(module)
            continue
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            raise ValueError(f"{place} must have one group")
        if any(module is other for other in seen):
            raise ValueError(f"{place} must have one place only")
        if "weight" not in dict(module.named_parameters(recurse=False)):
            raise ValueError(f"{place} computes its weight: make pruning permanent first")
        if before is not None:
            if not _fits(before, between, module):
                raise ValueError(f"{place} has inputs that do not go with the units of {before}")
            yield _Joint(before, between, module)
        before, between = module, []
        seen.append(module)


def _fits(before: Layer, between: list[nn.Module], after: Layer) -> bool:
    """Return whether each unit leads to the same number of inputs, one after the other."""
    units = len(before.weight)
    flat = any(isinstance(module, nn.Flatten) for module in between)
    match before, after:
        case nn.Conv2d(), nn.Conv2d():
            return not flat and after.in_channels == units
        case nn.Conv2d(), nn.Linear():
            return flat and after.in_features % units == 0
        case nn.Linear(), nn.Linear():
            pooled = any(isinstance(module, POOLINGS) for module in between)
            return not pooled and after.in_features == units
    return False


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return how many bytes it takes to store tensors as float32, by format.

    Names, shapes and other headers, which are the same for all formats, are not counted.

    Parameters
    ----------
    state
        The tensors by name, as from ``state_dict()``.

    Returns
    -------
    dict
        By the names in `FORMATS`:

        - "dense": 4 bytes an entry;
        - "zlib": all of "dense", little-endian and in the order of names, compressed at level 9.
          This number, and no other one, may change with the version of zlib;
        - "bitmap": a bit an entry, a tensor at a time, and 4 bytes for each that is not zero;
        - "CSR": compressed sparse rows. Of a tensor with two dimensions or more, whose first one
          counts rows, each entry that is not zero takes 4 bytes and its column an index; so does
          where each row begins, and where the last one ends. Indices are int16 where they suffice
          and int32 elsewhere, columns and beginnings apart. Other tensors are dense;
        - "coordinates": 4 bytes for each entry that is not zero, and an index for its place in the
          flattened tensor;
        - "best": the smallest for each tensor, but for "zlib".
    """
    ordered = [state[name] for name in sorted(state)]
    raw = b"".join(x.detach().cpu().float().numpy().astype("<f4").tobytes() for x in ordered)
    tensors = [_formats(x) for x in ordered]
    by_tensor = FORMATS[2:]
    return {
        "dense": len(raw),
        "zlib": len(zlib.compress(raw, 9)),
        **{name: sum(one[name] for one in tensors) for name in by_tensor},
    }


def _formats(tensor: Tensor) -> dict[str, int]:
    """Return the bytes of one tensor, in the formats that `FORMATS` counts by tensor."""
    count, left = tensor.numel(), int(tensor.count_nonzero())
    found = {"bitmap": -(-count // 8) + 4 * left, "CSR": 4 * count}
    if tensor.ndim > 1:
        rows = len(tensor)
        columns = count // max(rows, 1)
        found["CSR"] = (4 + _index(columns - 1)) * left + _index(left) * (rows + 1)
    found["coordinates"] = (4 + _index(count - 1)) * left
    return found | {"best": min(4 * count, *found.values())}


def _index(greatest: int) -> int:
    """Return the bytes of an index that may be as great."""
    return 2 if greatest < 2**15 else 4
