"""Which parameters to decay, and how many weights have become zero.

Of a model that is sharded over processes (its parameters are DTensors) all processes must ask, and
all are told of the whole model.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
"""Modules whose weights are scales of units; the first are batch and instance norms."""


def decay_groups(
    model: nn.Module, weight_decay: float, *, skip: str | Iterable[str] = (), **options: Any
) -> list[dict[str, Any]]:
    """Split the parameters of a model into groups with and without weight decay.

    Not decayed are parameters whose own name begins with ``bias``, those of torch's norms and all
    others of at most one dimension; tensors whose entries are all 0 now, as the second factor of a
    low-rank adapter, because a p-norm decay with p < 2 would keep them there for ever; and what
    `skip` names. All others are decayed, embeddings too. Frozen parameters
    (``requires_grad=False``) are left out.

    So the groups depend on the weights. To resume a run, call it on the model as it was initialised
    and load the weights after that, or the groups may not be those of the optimizer's checkpoint.

    Parameters
    ----------
    model
        The model, initialised. A parameter that it shares under several names is taken once.
    weight_decay
        Strength of the decay of the first group, at least 0; that of the second is 0.
    skip
        Names, or patterns as of `fnmatch`, of parameters that are not to be decayed. A shared
        parameter is matched under each of its names.
    **options
        Further options of both groups, but ``lambda_2``, the further decay of PAdam, is 0 in the
        second one. It has to be given here: what the optimizer is given is for both.

    Returns
    -------
    list of dict
        Groups for any torch optimizer, which also keeps their names as ``param_names``: the decayed
        parameters, then the others, each in the order of the model; an empty group is left out.

    Raises
    ------
    ValueError
        If `weight_decay` is negative or not finite, if a pattern matches no parameter, or if there
        is nothing to train, or nothing to look at: on the meta device there are no weights.
    """
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be finite and at least 0, not {weight_decay}")
    skipped = _matching(model, skip)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("the model has no parameter that requires a gradient")
    _check_weights(named)
    zero = _all_zero([p for _, p in named])
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    of_norms = {p for norm in norms for p in norm.parameters(recurse=False)}
    decayed: list[tuple[str, nn.Parameter]] = []
    spared: list[tuple[str, nn.Parameter]] = []
    for (name, p), is_zero in zip(named, zero, strict=True):
        bias = name.rpartition(".")[2].startswith("bias")
        exempt = p.ndim <= 1 or bias or is_zero or p in of_norms or p in skipped
        (spared if exempt else decayed).append((name, p))
    free = {**options, "weight_decay": 0.0, **({"lambda_2": 0.0} if "lambda_2" in options else {})}
    groups = [
        {**options, "weight_decay": weight_decay, "params": decayed},
        {**free, "params": spared},
    ]
    return [group for group in groups if group["params"]]


def warn_if_frozen(params: Iterable[Tensor]) -> None:
    """Warn, once for all, if any of the tensors is all zeros and so can never move.

    Parameters
    ----------
    params
        The tensors that a p-norm decay with p < 2 is to multiply by a factor that is 0 at 0. Of
        tensor subclasses only DTensors are looked into: others need not have numbers to show.
    """
    plain = [p for p in params if type(p) in (Tensor, nn.Parameter) or hasattr(p, "full_tensor")]
    zero = _all_zero([p for p in plain if p.numel() and not p.is_meta])
    if any(zero):
        warnings.warn(
            f"{sum(zero)} of {len(zero)} tensors to be decayed with p < 2 are all zeros: such a "
            "decay never lets them move. Set their weight_decay to 0, as decay_groups does",
            UserWarning,
            stacklevel=3,
        )


@dataclass(frozen=True)
class TensorSparsity:
    """Small weights of one tensor, or of a whole model.

    Attributes
    ----------
    name
        Name of the parameter.
    shape
        Its shape.
    numel
        Number of its entries.
    counts
        Number of entries w with |w| ≤ t, for each threshold t.
    units
        Number of its rows, the slices along the first axis (the output units of linear layers and
        convolutions, but the input units of transposed convolutions), if it has two axes or more;
        otherwise 0.
    dead
        Number of rows without an entry above t, for each threshold t.
    """

    name: str
    shape: tuple[int, ...]
    numel: int
    counts: tuple[int, ...]
    units: int
    dead: tuple[int, ...]

    @property
    def fractions(self) -> tuple[float, ...]:
        """Return `counts` as fractions of all entries, 0 if there are none."""
        return tuple(count / max(self.numel, 1) for count in self.counts)


@dataclass(frozen=True)
class SparsityReport:
    """How many weights of a model are small; printed as a table.

    Attributes
    ----------
    thresholds
        The thresholds t of |w| ≤ t; 0 counts exact zeros.
    rows
        One for each parameter, in the order of the model.
    """

    thresholds: tuple[float, ...]
    rows: tuple[TensorSparsity, ...]

    @property
    def total(self) -> TensorSparsity:
        """Return the sums over all parameters, of shape ()."""

        def add(columns: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
            return tuple(map(sum, zip(*columns, strict=True))) or (0,) * len(self.thresholds)

        return TensorSparsity(
            name="total",
            shape=(),
            numel=sum(row.numel for row in self.rows),
            counts=add(row.counts for row in self.rows),
            units=sum(row.units for row in self.rows),
            dead=add(row.dead for row in self.rows),
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns of a table with one line for each parameter and threshold.

        ``pandas.DataFrame(report.to_dict())`` is in tidy form, with the columns ``name``,
        ``shape``, ``numel``, ``threshold``, ``count``, ``fraction``, ``units`` and ``dead``. The
        total is not part of it.
        """
        columns = ("name", "shape", "numel", "threshold", "count", "fraction", "units", "dead")
        lines = [
            (row.name, row.shape, row.numel, threshold, count, fraction, row.units, dead)
            for row in self.rows
            for threshold, count, fraction, dead in zip(
                self.thresholds, row.counts, row.fractions, row.dead, strict=True
            )
        ]
        return {column: [line[i] for line in lines] for i, column in enumerate(columns)}

    def __str__(self) -> str:
        small = [f"≤ {t:g}" if t else "= 0" for t in self.thresholds]
        table = [["tensor", "shape", "numel", *small, "dead units"]]
        for row in (*self.rows, self.total):
            shape = "×".join(map(str, row.shape))
            dead = f"{', '.join(map(str, row.dead))} of {row.units}" if row.units else ""
            fractions = [f"{fraction:.2%}" for fraction in row.fractions]
            table.append([row.name, shape, str(row.numel), *fractions, dead])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip()
            for cells in table
        ]
        return "\n".join(lines)


@torch.no_grad()
def sparsity_report(
    model: nn.Module, thresholds: Iterable[float] = (0, 1e-13, 1e-8, 1e-6, 1e-3)
) -> SparsityReport:
    """Count the small weights of a model, and the rows that have no others.

    For p ≥ 1 a p-norm decay brings weights close to 0 rather than to it: they are counted up to a
    threshold; 1e-13 is the one of the authors of PAdam (arXiv 2404.10824) in their code.

    Parameters
    ----------
    model
        The model; frozen parameters are counted too, shared ones once.
    thresholds
        Thresholds t of |w| ≤ t, finite and at least 0; t is rounded to the type of the weights, as
        PyTorch's comparisons do. NaN is not small.

    Raises
    ------
    ValueError
        If there is no threshold, or one out of its range, or if the model is on the meta device,
        where there are no weights.
    """
    levels = tuple(_checked(threshold) for threshold in thresholds)
    if not levels:
        raise ValueError("thresholds must not be empty")
    named = list(model.named_parameters())
    _check_weights(named)
    numbers = _to_host([_small(p, levels) for _, p in named])
    n = len(levels)
    rows = [
        TensorSparsity(
            name=name,
            shape=tuple(p.shape),
            numel=p.numel(),
            counts=tuple(counts[:n]),
            units=len(p) if p.ndim > 1 else 0,
            dead=tuple(counts[n:]),
        )
        for (name, p), counts in zip(named, numbers, strict=True)
    ]
    return SparsityReport(levels, tuple(rows))


@torch.no_grad()
def hard_zero(model: nn.Module, threshold: float, *, skip: str | Iterable[str] = ()) -> int:
    """Set the weights w with |w| ≤ threshold to exactly 0 (never −0), in place.

    Parameters
    ----------
    model
        The model; its frozen parameters are treated too, shared ones once.
    threshold
        Finite and at least 0; rounded to the type of the weights, as PyTorch's comparisons do.
    skip
        Names, or patterns as of `fnmatch`, of parameters to be left alone.

    Returns
    -------
    int
        Number of weights that have become 0; those that were 0 before are not counted.

    Raises
    ------
    ValueError
        If the threshold is out of its range, if a pattern matches no parameter, or if the model is
        on the meta device, where there are no weights.
    """
    threshold = _checked(threshold)
    skipped = _matching(model, skip)
    _check_weights(model.named_parameters())
    counts = []
    for p in model.parameters():
        if p not in skipped:
            magnitude = _magnitude(p)
            small = magnitude <= threshold
            counts.append((small & (magnitude > 0)).sum().reshape(1))
            p.copy_(_computable(p).masked_fill(small, 0))
    return sum(count for (count,) in _to_host(counts))


def _checked(threshold: float) -> float:
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be finite and at least 0, not {threshold}")
    return float(threshold)


def _check_weights(named: Iterable[tuple[str, Tensor]]) -> None:
    """Raise ValueError for a parameter without weights."""
    if empty := [name for name, p in named if p.is_meta]:
        raise ValueError(f"the model must have weights, but {empty[0]} is on device 'meta'")


def _matching(model: nn.Module, patterns: str | Iterable[str]) -> set[Tensor]:
    """Return the parameters one of whose names matches a pattern; each pattern has to match."""
    named = list(model.named_parameters(remove_duplicate=False))
    found: set[Tensor] = set()
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        matches = [p for name, p in named if fnmatchcase(name, pattern)]
        if not matches:
            names = ", ".join(name for name, _ in named)
            raise ValueError(f"skip: {pattern!r} matches no parameter; there are {names}")
        found.update(matches)
    return found


def _computable(tensor: Tensor) -> Tensor:
    # PyTorch has no comparisons for floats of 8 bits.
    return tensor.float() if tensor.itemsize == 1 else tensor


def _magnitude(tensor: Tensor) -> Tensor:
    return _computable(tensor).abs()


def _whole(tensor: Tensor) -> Tensor:
    """Return what the processes hold together, or a tensor that is not sharded itself."""
    return cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _small(tensor: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    """Return the number of small entries for each threshold, then that of rows of small entries."""
    magnitude = _whole(_magnitude(tensor))
    counts, dead = [], []
    for threshold in thresholds:
        small = magnitude <= threshold
        counts.append(small.sum())
        rows = small.flatten(1).all(1) if tensor.ndim > 1 else small.new_zeros(1)
        dead.append(rows.sum())
    return torch.stack(counts + dead)


@torch.no_grad()
def _all_zero(tensors: list[Tensor]) -> list[bool]:
    """Return for each tensor whether all its entries are 0."""
    return [not nonzero for (nonzero,) in _to_host([t.any().reshape(1) for t in tensors])]


def _to_host(vectors: list[Tensor]) -> list[list[int]]:
    """Return vectors of one length as lists; each device is waited for once, not each vector."""
    places: dict[torch.device, list[int]] = {}
    vectors = [_whole(vector) for vector in vectors]
    for place, vector in enumerate(vectors):
        places.setdefault(vector.device, []).append(place)
    lists: dict[int, list[int]] = {}
    for there in places.values():
        lists.update(zip(there, torch.stack([vectors[i] for i in there]).tolist(), strict=True))
    return [lists[place] for place in range(len(vectors))]
