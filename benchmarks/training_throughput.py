"""How many images a second the training engine gets through, beside the usual PyTorch loop.

The usual loop is a torchvision-style data set of PIL images with a transform for each image, a
DataLoader and a contiguous float32 model. Input alone and whole training epochs are measured in one
run, in turn and in random order, so that a busy minute does not hit one case only. Rates are
reported with the goals and never judged.
"""

import argparse
import dataclasses
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import PIL
import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from beyond_adam import provenance
from beyond_adam.data import DATASETS, Dataset, DatasetError, load
from beyond_adam.data.augmentation import Crop, Flip
from beyond_adam.experiments import fashion_mnist
from beyond_adam.models import resnet18
from beyond_adam.training import Definition
from beyond_adam.training.engine import Examples, Splits, _Loop
from beyond_adam.workflow.runs import keep_freed_memory

BATCH = 256
USUAL, ENGINE = "usual", "engine"
PRECISIONS = ("float32", "bfloat16")
CHANGED, UNCHANGED, SAME = "augmented", "not augmented", "one batch"
SAMPLED = 3.0  # seconds for which the utilisation of a GPU is sampled

Epoch = Callable[[], object]


class Case(NamedTuple):
    """What is measured."""

    task: str
    """Name of a network, or that of its `input`."""
    way: str
    """The usual loop, the engine's batches, or the engine's loop in a precision."""
    detail: str
    """Number of workers of the usual loop, or what the engine is fed."""


class Network(NamedTuple):
    """A network as the engine trains it, and as it is usually trained."""

    run: Definition
    usual: Callable[[], nn.Module]
    changes: tuple[Callable[[Image.Image], Image.Image], ...]


class Goal(NamedTuple):
    """How many times as fast a case has to be as another one, or as the best usual one."""

    case: Case
    reference: str
    least: float


class Published(NamedTuple):
    """A training on CIFAR-10 as published, on one NVIDIA A100."""

    what: str
    seconds: float
    epochs: float
    pflop: float


def usual_cnn() -> nn.Module:
    """Return the post's network as it is usually written, with ReLU before pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 10),
    )


DECAY = {"weight_decay": fashion_mnist.ADAMW_DECAY}
NETWORKS = {
    "CNN": Network(
        fashion_mnist.published(AdamW, DECAY, "paper", seed=1, batch=BATCH),
        usual_cnn,
        (transforms.RandomRotation(10), transforms.RandomAffine(0, translate=(0.1, 0.1))),
    ),
    "ResNet-18": Network(
        Definition(
            data="cifar10",
            model=resnet18,
            optimizer=AdamW,
            options={"lr": 1e-3, **DECAY},
            epochs=1,
            batch=BATCH,
            seed=1,
            augmentation=(Crop(4), Flip()),
        ),
        resnet18,
        (transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()),
    ),
}


def input_of(network: str) -> str:
    """Return what the task is called in which only the input of a network is made."""
    return f"input of {network}"


GOALS = {
    "cpu": (
        Goal(Case(input_of("CNN"), ENGINE, CHANGED), USUAL, 5),
        Goal(Case("CNN", "bfloat16", CHANGED), SAME, 0.9),
        Goal(Case("CNN", "bfloat16", CHANGED), USUAL, 3.5),
    ),
    "cuda": (
        Goal(Case("CNN", "bfloat16", CHANGED), USUAL, 5),
        Goal(Case("ResNet-18", "bfloat16", CHANGED), USUAL, 5),
    ),
}

# Seconds and PFLOP from the README of github.com/KellerJordan/cifar10-airbench (K. Jordan,
# arXiv:2404.00498), epochs from its scripts. Both airbench94 train a smaller network of their own;
# how many epochs its ResNet-18 took is not stated there.
PUBLISHED = (
    Published("airbench94, not compiled", 3.83, 9.9, 0.36),
    Published("airbench94_muon, compiled", 2.59, 8, 0.29),
    Published("ResNet-18, standard training", 420, math.nan, 32.3),
)


class Pictures(torch.utils.data.Dataset[tuple[object, int]]):
    """Images as the data sets of torchvision give them: one by one, from PIL, transformed."""

    def __init__(self, images: Examples, transform: Callable[[Image.Image], object]) -> None:
        # Channels last, as PIL has them; grey images have no axis of channels there.
        pixels = images.inputs.cpu().movedim(1, -1).contiguous().numpy()
        self.pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        self.classes = images.targets.cpu()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.classes[index])


@dataclass(frozen=True)
class OneBatch(Splits):
    """A data set that always gives the same training batch, which takes no work."""

    given: tuple[Tensor, Tensor]

    def batch(self, examples: Examples, rows: Tensor | slice, *_: object) -> tuple[Tensor, Tensor]:
        """Return as much of the batch as is asked for; by a slice, images that are measured."""
        if isinstance(rows, slice):
            return super().batch(examples, rows)
        x, y = self.given
        return x[: len(rows)], y[: len(rows)]


def data_set(name: str, count: int) -> Dataset:
    """Return so many training images and one test image: real ones, or random if there are none."""
    try:
        data = load(name)
    except DatasetError:
        wanted = DATASETS[name]
        generator = np.random.default_rng(1)
        height, width, *colours = wanted.shape
        shape = (count + 1, *(colours or [1]), height, width)
        x = generator.integers(256, size=shape, dtype=np.uint8)
        y = generator.integers(len(wanted.classes), size=count + 1, dtype=np.uint8)
        return Dataset("random", x[:-1], y[:-1], x[-1:], y[-1:], wanted.classes, 255, "")
    return dataclasses.replace(
        data,
        x_train=data.x_train[:count],
        y_train=data.y_train[:count],
        x_test=data.x_test[:1],
        y_test=data.y_test[:1],
    )


def usual_loader(network: Network, splits: Splits, workers: int) -> DataLoader[tuple[object, int]]:
    """Return the usual input of a network."""
    mean, deviation = ((x.flatten() / 255).tolist() for x in (splits.mean, splits.deviation))
    last = (transforms.ToTensor(), transforms.Normalize(mean, deviation))
    return DataLoader(
        Pictures(splits.train, transforms.Compose([*network.changes, *last])),
        batch_size=network.run.batch,
        shuffle=True,
        num_workers=workers,
        # Starting them anew in every epoch would weigh too much where an epoch is short.
        persistent_workers=workers > 0,
        pin_memory=splits.train.inputs.is_cuda,
    )


def usual_input(loader: Iterable[list[Tensor]], device: torch.device) -> Epoch:
    """Return an epoch of the usual input, on the device."""

    def epoch() -> None:
        for x, y in loader:
            x.to(device, non_blocking=True)
            y.to(device, non_blocking=True)

    return epoch


def usual_training(network: Network, loader: Iterable[list[Tensor]], device: torch.device) -> Epoch:
    """Return an epoch of the usual loop, with a model at its start."""
    model = network.usual().to(device)
    optimizer = network.run.optimizer(model.parameters(), **network.run.options)
    criterion = nn.CrossEntropyLoss()

    def epoch() -> float:
        model.train()
        total = torch.zeros((), device=device)
        for batch in loader:
            x, y = (part.to(device, non_blocking=True) for part in batch)
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item()

    return epoch


def engine_input(run: Definition, splits: Splits) -> Epoch:
    """Return an epoch of the engine's input."""

    def epoch() -> None:
        generator = Generator().manual_seed(run.seed)
        order = torch.randperm(len(splits.train.targets), generator=generator)
        for rows in order.to(splits.train.targets.device).split(run.batch):
            splits.batch(splits.train, rows, tuple(run.augmentation), generator)

    return epoch


def engine_training(run: Definition, splits: Splits, device: torch.device) -> Epoch:
    """Return an epoch of the engine's own loop, with a model at its start."""
    model = run.build_model().to(device).to(memory_format=torch.channels_last)
    optimizer = run.build_optimizer(model, device)
    return partial(_Loop(run, splits, model, optimizer, device, compiled=False).epoch, 0)


def cases(
    name: str, splits: Splits, workers: list[int], device: torch.device
) -> dict[Case, Callable[[], Epoch]]:
    """Return the cases of a network, each with what prepares an epoch of it."""
    network = NETWORKS[name]
    loaders = {f"{number} workers": usual_loader(network, splits, number) for number in workers}
    plain = dataclasses.replace(network.run, augmentation=())
    same = OneBatch(**vars(splits), given=splits.batch(splits.train, slice(network.run.batch)))
    fed = {CHANGED: (network.run, splits), UNCHANGED: (plain, splits), SAME: (plain, same)}
    prepare: dict[Case, Callable[[], Epoch]] = {}
    for detail, loader in loaders.items():
        prepare[Case(input_of(name), USUAL, detail)] = partial(usual_input, loader, device)
    for detail in (CHANGED, UNCHANGED):
        prepare[Case(input_of(name), ENGINE, detail)] = partial(engine_input, *fed[detail])
    for detail, loader in loaders.items():
        prepare[Case(name, USUAL, detail)] = partial(usual_training, network, loader, device)
    for precision in PRECISIONS:
        for detail, (run, given) in fed.items():
            run = dataclasses.replace(run, precision=precision)
            prepare[Case(name, precision, detail)] = partial(engine_training, run, given, device)
    return prepare


def measure(
    prepare: Mapping[Case, Callable[[], Epoch]], count: int, rounds: int, device: torch.device
) -> dict[Case, list[float]]:
    """Return images per second of all cases, by rounds; one round before them is not counted."""
    rates: dict[Case, list[float]] = {case: [] for case in prepare}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr)
        for case in random.sample(list(prepare), len(prepare)):
            epoch = prepare[case]()
            wait(device)
            started = time.perf_counter()
            epoch()
            wait(device)
            seconds = time.perf_counter() - started
            if number:
                rates[case].append(count / seconds)
    return rates


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def utilisation(prepare: Callable[[], Epoch], device: torch.device) -> float:
    """Return the median per cent of utilisation while epochs are repeated; NaN if it is unknown."""
    if device.type != "cuda" or shutil.which("nvidia-smi") is None:
        return math.nan
    epoch = prepare()
    epoch()
    gpu = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
    with subprocess.Popen(["nvidia-smi", gpu, *query], stdout=subprocess.PIPE, text=True) as smi:
        try:
            until = time.perf_counter() + SAMPLED
            while time.perf_counter() < until:
                epoch()
                wait(device)
        finally:
            smi.terminate()
        lines = smi.communicate()[0].splitlines()
    samples = [float(line) for line in lines if line.strip().isdecimal()]
    return statistics.median(samples) if samples else math.nan


def flops(model: Callable[[], nn.Module], shape: tuple[int, ...]) -> int:
    """Return the operations of a training step for one image, two for a multiplication and sum."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model()(torch.empty(1, *shape)).sum().backward()
    return counter.get_total_flops()


def ratio(some: list[float], others: list[float]) -> float:
    """Return the median over rounds of one rate by another."""
    return statistics.median(a / b for a, b in zip(some, others, strict=True))


def reference(rates: Mapping[Case, list[float]], case: Case, kind: str) -> list[float]:
    """Return rates to compare with: of the best usual case of the task, or of the same batch."""
    if kind == SAME:
        return rates[case._replace(detail=SAME)]
    usual = [other for other in rates if (other.task, other.way) == (case.task, USUAL)]
    return max((rates[other] for other in usual), key=statistics.median)


def table(
    rates: Mapping[Case, list[float]],
    sizes: Mapping[str, int],
    operations: Mapping[str, int],
    used: Mapping[Case, float],
) -> pd.DataFrame:
    """Return a row a case.

    Parameters
    ----------
    rates
        Images per second by round.
    sizes
        Number of images of a whole epoch of each task.
    operations
        Of a training step for one image, by network.
    used
        Per cent of utilisation.
    """
    rows = []
    for case, measured in rates.items():
        rate = statistics.median(measured)
        fed = case.way in PRECISIONS
        rows.append(
            {
                **case._asdict(),
                "images/s": rate,
                "most images/s": max(measured),
                "s per epoch": sizes[case.task] / rate,
                "times usual": ratio(measured, reference(rates, case, USUAL)),
                "of one batch": ratio(measured, reference(rates, case, SAME)) if fed else math.nan,
                "TFLOP/s": 1e-12 * rate * operations.get(case.task, math.nan),
                "utilisation [%]": used.get(case, math.nan),
            }
        )
    return pd.DataFrame(rows)


def judged(rates: Mapping[Case, list[float]], goals: Iterable[Goal]) -> pd.DataFrame:
    """Return a row for each goal whose case was measured: the ratio, and whether it is met."""
    rows = []
    for goal in goals:
        if goal.case in rates:
            found = ratio(rates[goal.case], reference(rates, goal.case, goal.reference))
            met = found >= goal.least
            against = {"relative to": goal.reference, "ratio": found, "goal": goal.least}
            rows.append({**goal.case._asdict(), **against, "met": "met" if met else "missed"})
    return pd.DataFrame(rows)


def published() -> pd.DataFrame:
    """Return what others published, with the rates that follow from it."""
    rows = [
        {
            **entry._asdict(),
            "images/s": DATASETS["cifar10"].train * entry.epochs / entry.seconds,
            "TFLOP/s": 1e3 * entry.pflop / entry.seconds,
        }
        for entry in PUBLISHED
    ]
    return pd.DataFrame(rows)


def show(rows: pd.DataFrame) -> None:
    known = rows.dropna(axis=1, how="all")
    print(f"\n{known.to_string(index=False, float_format='{:.4g}'.format, na_rep='')}")


def main() -> None:
    """Measure, print tables, and write them down if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=list(GOALS), default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, help="default: CNN, on a GPU ResNet-18 as well"
    )
    parser.add_argument("--images", type=int, default=80 * BATCH, help="of an epoch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each case (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader (0 and 2)"
    )
    parser.add_argument("--write", type=Path, help="a JSON file for the results")
    options = parser.parse_args()
    if min(options.images, options.rounds, options.threads) < 1 or min(options.workers) < 0:
        parser.error("all numbers must be at least 1, that of workers at least 0")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here")
    device = torch.device(options.device)
    names = options.networks or (list(NETWORKS) if device.type == "cuda" else ["CNN"])
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    hardware = dict(provenance.hardware())
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
    versions = provenance.versions() | {"pillow": PIL.__version__}
    print(f"{hardware.get('gpu', hardware['cpu'])}; torch {torch.__version__}, ", end="")
    print(f"{options.threads} threads; Pillow {PIL.__version__}")
    prepare: dict[Case, Callable[[], Epoch]] = {}
    sizes, operations, sources = {}, {}, {}
    for name in names:
        network = NETWORKS[name]
        data = data_set(network.run.data, options.images)
        if len(data.x_train) < options.images:
            parser.error(f"{data.name} has {len(data.x_train)} images, not {options.images}")
        print(f"{name}: {options.images} images of {network.run.data}", end="")
        print(", random ones in its shape" if data.name == "random" else "")
        prepare |= cases(name, Splits.of(data, 0, device), options.workers, device)
        sizes |= dict.fromkeys([name, input_of(name)], DATASETS[network.run.data].train)
        operations[name] = flops(network.usual, data.x_train.shape[1:])
        sources[name] = data.name
    load_before = os.getloadavg()[0]
    rates = measure(prepare, options.images, options.rounds, device)
    used = {case: utilisation(prepare[case], device) for case in prepare if case.task in names}
    rows = table(rates, sizes, operations, used)
    goals = judged(rates, GOALS[options.device])
    show(rows)
    if not goals.empty:
        show(goals)
    if "ResNet-18" in names:
        print("\nPublished, on an A100 (KellerJordan/cifar10-airbench):")
        show(published())
    print(f"\nload {load_before:.1f} to {os.getloadavg()[0]:.1f}")
    if options.write:
        commit, dirty = provenance.commit()
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit + ("+" if dirty else ""),
            "hardware": hardware,
            "versions": versions,
            "device": options.device,
            "threads": options.threads,
            "rounds": options.rounds,
            "images": options.images,
            "batch": BATCH,
            "data": sources,
            "rows": json.loads(rows.to_json(orient="records")),
            "goals": json.loads(goals.to_json(orient="records")),
            "published": json.loads(published().to_json(orient="records")),
        }
        options.write.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
