"""How strong a p-norm decay should be that takes the place of AdamW's weight decay.

A small network learns the handwritten digits from few of them: with AdamW over a grid of weight
decays, and with PAdam over the same grid, translated for every p by `translated`. Strengths are
chosen by validation images; the test images are for the report alone.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from beyond_adam import project
from beyond_adam.data import digits
from beyond_adam.models import mlp
from beyond_adam.optim import (
    LinearSchedule,
    PAdam,
    PNormScheduler,
    decay_groups,
    hard_zero,
    sparsity_report,
)

NAME = "choosing-p"

Array = npt.NDArray[np.float64]

SIZES: Final = (64, 128, 10)
"""Pixels, hidden units and classes of the network."""

TRAINED_ON: Final = 400
"""Number of images to train on: few, so that a decay can help."""

BATCH: Final = 64

LR: Final = 1e-2
"""Learning rate of the first step; it falls to 0 along half a cosine."""

WEIGHT_DECAY: Final = 0.3
"""The weight decay of AdamW that is translated."""

EXPONENTS: Final = (0.5, 0.8, 1.0, 1.5, 2.0)

MULTIPLES: Final = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Strengths of a decay, in units of `WEIGHT_DECAY` or of what `translated` makes of it."""

CUT: Final = 1e-3
"""Weights up to this size are set to zero after the training, to see whether they mattered."""

PRUNED: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Parts of the weights, the smallest ones, that are taken from a network trained with AdamW."""

SCALES: Final = {"smoke": (2, 20), "quick": (8, 400), "paper": (20, 1000)}
"""Numbers of seeds, and of batches that each network is trained for, at each profile."""

VARIED: Final = (0.5, 3.0)
"""Exponent and multiple of the runs that are repeated with one thing changed."""

SLOWER: Final = 3
"""By how much the learning rate is divided in the variations that divide it."""


def translated(weight_decay: float, p: float, size: float) -> float:
    """Return the λ at which PAdam shrinks weights of one size as AdamW does.

    AdamW takes the part ηω of a weight in every step, for ω = `weight_decay`; PAdam takes, as far
    as it is small, the part pηλ abs(w)^(p−2). Both agree at abs(w) = w₀ for λ = ω w₀^(2−p) / p.

    Parameters
    ----------
    weight_decay
        Weight decay ω of AdamW.
    p
        Exponent of the norm, 0 < p ≤ 2.
    size
        The size w₀ > 0; it does not matter at p = 2.
    """
    return float(weight_decay * size ** (2 - p) / p)


@dataclass(frozen=True)
class Setting:
    """How a network is trained.

    Attributes
    ----------
    p
        Exponent of PAdam's norm; None is AdamW.
    weight_decay
        Strength of the decay, which biases are spared.
    lr
        Learning rate of the first step.
    decay_at
        As in `PAdam`.
    from_two
        Whether p falls to its value from 2, linearly, over the first half of the training.
    longer
        By which factor the training is longer than the usual one.
    """

    p: float | None
    weight_decay: float
    lr: float = LR
    decay_at: Literal["previous", "updated"] = "previous"
    from_two: bool = False
    longer: int = 1

    def optimizer(self, groups: Iterable[dict[str, Any]]) -> Optimizer:
        """Return the optimizer for groups of parameters that say how they are decayed."""
        if self.p is None:
            return AdamW(groups, lr=self.lr)
        return PAdam(groups, lr=self.lr, p=self.p, decay_at=self.decay_at)


class Images(NamedTuple):
    """Pixels from 0 to 1, shape (networks, images, 64), and classes, (networks, images)."""

    pixels: Tensor
    classes: Tensor


class Split(NamedTuple):
    """What each network is trained on and validated by, and the test images that all share."""

    train: Images
    validation: Images
    test: Images


def split(seeds: Sequence[int]) -> Split:
    """Return for each seed its own split of the digits' training part."""
    data = digits()
    # An order by raw numbers, as in `beyond_adam.data`: shuffles may differ between versions.
    orders = [np.argsort(np.random.PCG64(seed).random_raw(len(data.train))) for seed in seeds]
    shuffled = np.stack([data.train[order] for order in orders])
    test = np.tile(data.test, (len(seeds), 1))
    pixels = data.images.reshape(-1, SIZES[0]).astype(np.float32) / 16

    def images(chosen: npt.NDArray[np.int64]) -> Images:
        return Images(torch.from_numpy(pixels[chosen]), torch.from_numpy(data.labels[chosen]))

    return Split(images(shuffled[:, :TRAINED_ON]), images(shuffled[:, TRAINED_ON:]), images(test))


def networks(seeds: Sequence[int]) -> list[nn.Sequential]:
    """Return the networks as they start, one a seed."""
    return [mlp(SIZES, seed=seed, dtype=torch.float32) for seed in seeds]


def train(setting: Setting, seeds: Sequence[int], data: Split, steps: int) -> list[nn.Sequential]:
    """Return networks trained for ``longer`` times `steps` batches, one a seed.

    They are trained side by side, as slices of stacked tensors: Adam and its decays treat every
    weight for itself, so each network becomes what it would alone, up to rounding.
    """
    trained = networks(seeds)
    stacked, _ = stack_module_state(list[nn.Module](trained))
    frame = copy.deepcopy(trained[0])
    outputs = vmap(lambda weights, x: functional_call(frame, weights, (x,)))
    # Which are the biases is seen from one network: stacked, they have two dimensions as well.
    optimizer = setting.optimizer(
        {**group, "params": [stacked[name] for name in names], "param_names": names}
        for group in decay_groups(frame, setting.weight_decay)
        for names in [[name for name, _ in group["params"]]]
    )
    steps *= setting.longer
    rate = CosineAnnealingLR(optimizer, steps)
    exponent = None
    if setting.from_two and setting.p is not None:
        exponent = PNormScheduler(optimizer, LinearSchedule(2, setting.p, max(steps // 2, 1)))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    row = torch.arange(len(seeds))[:, None]
    for _ in range(steps):
        batch = torch.stack([torch.randint(TRAINED_ON, (BATCH,), generator=g) for g in generators])
        x, y = (part[row, batch] for part in data.train)
        optimizer.zero_grad()
        # A mean over the batch but a sum over the networks: neither feels the others.
        loss = cross_entropy(outputs(stacked, x).mT, y, reduction="sum") / BATCH
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        if exponent is not None:
            exponent.step()
    for number, network in enumerate(trained):
        network.load_state_dict({name: weights[number] for name, weights in stacked.items()})
    return trained


@torch.no_grad()
def accuracies(models: Sequence[nn.Module], data: Images) -> list[float]:
    """Return for each network which part of its images it classifies rightly."""
    return [
        (model(x).argmax(dim=-1) == y).double().mean().item()
        for model, x, y in zip(models, *data, strict=True)
    ]


def weights(model: nn.Module) -> Tensor:
    """Return all weights but the biases, shape (weights,)."""
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1])


def small(model: nn.Module, threshold: float) -> float:
    """Return which part of the weights, biases left out, is at most `threshold` in size."""
    rows = [row for row in sparsity_report(model, [threshold]).rows if row.units]
    return sum(row.counts[0] for row in rows) / sum(row.numel for row in rows)


def measured(models: Sequence[nn.Module], data: Split) -> pd.DataFrame:
    """Return one line a network, as `run` describes them; the networks are cut by it."""
    columns = {
        "validation": accuracies(models, data.validation),
        "test": accuracies(models, data.test),
        "zero": [small(model, 0) for model in models],
        "tiny": [small(model, 1e-8) for model in models],
        "cut": [small(model, CUT) for model in models],
    }
    for model in models:
        hard_zero(model, CUT)
    columns["validation_cut"] = accuracies(models, data.validation)
    columns["test_cut"] = accuracies(models, data.test)
    return pd.DataFrame(columns)


def variations(setting: Setting) -> dict[str, Setting]:
    """Return the setting, and others that differ from it in one thing, by what that is."""
    slower = replace(setting, lr=setting.lr / SLOWER)
    return {
        "as it is": setting,
        "p falls from 2": replace(setting, from_two=True),
        "decay at the updated weight": replace(setting, decay_at="updated"),
        f"η/{SLOWER}": slower,
        f"η/{SLOWER}, {SLOWER}λ": replace(slower, weight_decay=SLOWER * setting.weight_decay),
        f"η/{SLOWER}, {SLOWER} times as long": replace(slower, longer=SLOWER),
    }


def shrinkage(setting: Setting, size: Array) -> Array:
    """Return which part of weights of these sizes is lost in a step without gradient."""
    weight = torch.tensor(size, dtype=torch.float64, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    setting.optimizer([{"params": [weight], "weight_decay": setting.weight_decay}]).step()
    return np.asarray(1 - weight.detach().numpy() / size)


def pruned(models: Sequence[nn.Module], data: Images, part: float) -> list[float]:
    """Return the accuracies of networks less the smallest `part` of their weights."""
    copies = copy.deepcopy(list(models))
    for model in copies:
        hard_zero(model, weights(model).abs().quantile(part).item(), skip="*.bias")
    return accuracies(copies, data)


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Train over the grid, compare PAdam at p = 2 with AdamW, and vary a few runs.

    Parameters
    ----------
    profile
        Decides on the scale; see `SCALES`.

    Returns
    -------
    dict of DataFrame
        ``sweep``: ``method``, ``p`` (2 for AdamW), ``multiple``, ``strength`` (λ, or AdamW's weight
        decay), ``seed``, accuracy on ``validation`` and ``test`` images, parts of the weights that
        are ``zero``, ``tiny`` (at most 1e-8) and ``cut`` (at most `CUT`), and accuracies
        ``validation_cut`` and ``test_cut`` without the latter. ``variations``: the same for
        ``variation`` in place of ``method``, ``p`` and ``multiple``. ``pruned``: for each
        ``part`` of `PRUNED` and ``seed``, the accuracy ``validation_cut`` of AdamW's network at
        `WEIGHT_DECAY` without that part. ``twins``: for each ``multiple`` and ``seed`` the
        ``distance`` of the weights that PAdam with p = 2 and λ = ``strength`` ends at from AdamW's,
        and the distance ``without`` of those that AdamW ends at without decay, both relative to
        AdamW's. ``sizes``: for each ``seed`` the ``median`` and the root mean square ``rms`` of the
        sizes of weights at the ``moment`` "start" and after training with "AdamW" at
        `WEIGHT_DECAY`. ``shrinkage``: for each ``p`` the part ``lost`` of a weight of ``size`` in
        a first step without gradient, at λ as translated.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    count, steps = SCALES[project.check_profile(profile)]
    seeds = list(range(count))
    data = split(seeds)
    sizes = [_sizes(networks(seeds), "start")]
    size = float(sizes[0]["median"].mean())

    def line(models: list[nn.Sequential], **labels: Any) -> pd.DataFrame:
        return measured(models, data).assign(seed=seeds, **labels)

    free = train(Setting(None, 0.0), seeds, data, steps)
    unregularised = [weights(model) for model in free]
    sweep = [line(free, method="AdamW", p=2.0, multiple=0.0, strength=0.0)]
    twins: list[pd.DataFrame] = []
    cut: list[pd.DataFrame] = []
    for multiple in MULTIPLES:
        wd = multiple * WEIGHT_DECAY
        theirs = train(Setting(None, wd), seeds, data, steps)
        ends = [weights(model) for model in theirs]
        if multiple == 1:
            sizes.append(_sizes(theirs, "AdamW"))
            for part in PRUNED:
                accuracy = pruned(theirs, data.validation, part)
                columns = {"part": part, "seed": seeds, "validation_cut": accuracy}
                cut.append(pd.DataFrame(columns))
        sweep.append(line(theirs, method="AdamW", p=2.0, multiple=multiple, strength=wd))
        for p in EXPONENTS:
            strength = translated(wd, p, size)
            ours = train(Setting(p, strength), seeds, data, steps)
            if p == 2:
                distance = _relative_distance([weights(model) for model in ours], ends)
                without = _relative_distance(unregularised, ends)
                labels = {"multiple": multiple, "strength": strength, "seed": seeds}
                columns = {"distance": distance, "without": without}
                twins.append(pd.DataFrame({**labels, **columns}))
            sweep.append(line(ours, method="PAdam", p=p, multiple=multiple, strength=strength))

    p, multiple = VARIED
    usual = Setting(p, translated(multiple * WEIGHT_DECAY, p, size))
    varied = [
        line(train(other, seeds, data, steps), variation=name, strength=other.weight_decay)
        for name, other in variations(usual).items()
    ]
    grid = np.geomspace(1e-5, 1, 101)
    shrunk = [
        pd.DataFrame({"p": p, "size": grid, "lost": shrinkage(Setting(p, strength), grid)})
        for p in EXPONENTS
        for strength in [translated(WEIGHT_DECAY, p, size)]
    ]
    return {
        "sweep": pd.concat(sweep, ignore_index=True),
        "variations": pd.concat(varied, ignore_index=True),
        "pruned": pd.concat(cut, ignore_index=True),
        "twins": pd.concat(twins, ignore_index=True),
        "sizes": pd.concat(sizes, ignore_index=True),
        "shrinkage": pd.concat(shrunk, ignore_index=True),
    }


def _sizes(models: Sequence[nn.Module], moment: str) -> pd.DataFrame:
    sizes = [weights(model).abs() for model in models]
    columns = {
        "seed": range(len(models)),
        "median": [size.median().item() for size in sizes],
        "rms": [size.square().mean().sqrt().item() for size in sizes],
    }
    return pd.DataFrame(columns).assign(moment=moment)


def _relative_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[float]:
    return [((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True)]


def compared(
    runs: pd.DataFrame, sweep: pd.DataFrame, by: list[str], column: str = "validation"
) -> pd.DataFrame:
    """Return means over seeds, and how the accuracy compares with AdamW's at `WEIGHT_DECAY`.

    Networks of one seed have the same start, images and batches. So accuracies are compared seed by
    seed: differences spread less than the accuracies.

    Parameters
    ----------
    runs
        Lines to be compared, with a ``seed``.
    sweep
        The table of `run`, for AdamW's accuracies.
    by
        Columns that tell settings apart.
    column
        The accuracy. That of cut networks, ``…_cut``, is compared with that of AdamW's uncut ones.

    Returns
    -------
    DataFrame
        One line a setting, in the order of `runs`: the columns `by`, the means of all others that
        are numbers, and the mean difference in percentage ``points`` with the half width of its
        95 % ``interval`` by Student's distribution (nan for one seed).
    """
    theirs = sweep[(sweep["method"] == "AdamW") & (sweep["multiple"] == 1)].set_index("seed")
    reference = runs["seed"].map(theirs[column.removesuffix("_cut")])
    runs = runs.assign(points=100 * (runs[column] - reference))
    settings = runs.groupby(by, sort=False)
    means = settings.mean(numeric_only=True).drop(columns="seed")
    return means.assign(interval=settings["points"].agg(_half_width)).reset_index()


def _half_width(values: "pd.Series[float]") -> float:
    return float(stats.t.ppf(0.975, len(values) - 1) * values.sem())
