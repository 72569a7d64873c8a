"""How long the trained networks of the post take if zeros are left out, and what PAdam's step adds.

Products and whole networks, dense, in compressed sparse rows (CSR) and without units that cannot
matter, are timed in turn and in random order, with one thread, so that a busy minute does not hit
one case only. Times are reported with the goals and never judged.
"""

import argparse
import copy
import json
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
import scipy
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.optim import Adam, Optimizer

from beyond_adam import project, provenance
from beyond_adam.experiments import fashion_mnist
from beyond_adam.experiments.sparse_inference import images, network
from beyond_adam.models import fashion_cnn, slim
from beyond_adam.optim import DynamicPAdam, PAdam, _fused
from beyond_adam.training import collect
from beyond_adam.workflow.runs import keep_freed_memory

BATCHES = (1, 256)
BLOCK = 0.01  # seconds, at least, that are timed at once
DENSE = "dense"
TOLERANCE = 1e-4  # of the largest number of a result, by which cases may differ

DECAY = {"weight_decay": fashion_mnist.PADAM_DECAY["paper"], "p": fashion_mnist.P}
OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], dict[str, Any], str]] = {
    "Adam": (Adam, {}, "Adam"),
    "PAdam": (PAdam, DECAY, "Adam"),
    "DynamicPAdam": (DynamicPAdam, DECAY, "PAdam"),
}
"""Classes by name, with options and what each is compared with."""
TRAINED_ON = 256
PRECISIONS = ("float32", "bfloat16")
GOAL = 10.0  # per cent that a step may add to an iteration

Case = Callable[[], Any]
Label = tuple[str, int]  # method and seed


class SparseLinear(nn.Module):
    """A linear layer that keeps its weights in CSR."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = csr(layer.weight)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight @ x.T).T + self.bias


def csr(weight: Tensor) -> Tensor:
    """Return a matrix in torch's CSR, with the short indices that MKL takes as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        long = weight.detach().to_sparse_csr()
    rows, columns = long.crow_indices().int(), long.col_indices().int()
    values = long.values()
    return torch.sparse_csr_tensor(rows, columns, values, long.shape, check_invariants=True)


def first_dense(model: nn.Sequential) -> int:
    """Return the number of the first linear layer."""
    return next(number for number, layer in enumerate(model) if isinstance(layer, nn.Linear))


def with_sparse_layer(model: nn.Sequential) -> nn.Sequential:
    """Return a network whose first linear layer is in CSR."""
    sparse = copy.deepcopy(model)
    number = first_dense(sparse)
    sparse[number] = SparseLinear(sparse[number])
    return sparse


def products(model: nn.Sequential, x: Tensor) -> dict[str, Case]:
    """Return ways to multiply by the first linear layer's weights what goes into it.

    There an image is a row. In CSR it has to be a column, which takes a copy unless it is one.
    """
    number = first_dense(model)
    weight = model[number].weight.detach()
    inputs = model[:number](x)
    columns = inputs.T.contiguous()
    in_torch, in_scipy = csr(weight), scipy.sparse.csr_array(weight.numpy())
    return {
        DENSE: partial(linear, inputs, weight),
        "CSR, torch": lambda: in_torch @ inputs.T,
        "CSR, torch, of columns": lambda: in_torch @ columns,
        "CSR, SciPy": lambda: in_scipy @ inputs.numpy().T,
        "CSR, SciPy, of columns": lambda: in_scipy @ columns.numpy(),
    }


def networks(model: nn.Sequential, x: Tensor) -> dict[str, Case]:
    """Return ways to compute a network."""
    slimmed = slim(model)
    ways = {
        DENSE: model,
        "CSR": with_sparse_layer(model),
        "slim": slimmed,
        "slim, CSR": with_sparse_layer(slimmed),
    }
    return {name: partial(way, x) for name, way in ways.items()}


def check(cases: Mapping[str, Case]) -> None:
    """Exit if a case does not give what the dense one does."""
    wanted = cases[DENSE]()
    for name, case in cases.items():
        found = torch.as_tensor(case())
        if found.shape != wanted.shape:  # products in CSR have units first
            found = found.T
        error = (found - wanted).abs().max() / wanted.abs().max()
        if not error <= TOLERANCE:
            raise SystemExit(f"{name} differs from {DENSE} by {error:.1e} of the largest number")


def measure(cases: Mapping[Any, Case], rounds: int) -> dict[Any, list[float]]:
    """Return seconds a call of all cases, by rounds, each the mean of a block of calls."""
    blocks = {}
    for name, case in cases.items():
        case()
        started = time.perf_counter()
        case()
        blocks[name] = max(1, round(BLOCK / (time.perf_counter() - started)))
    times: dict[Any, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name in random.sample(list(cases), len(cases)):
            case = cases[name]
            case()
            started = time.perf_counter()
            for _ in range(blocks[name]):
                case()
            times[name].append((time.perf_counter() - started) / blocks[name])
    return times


def compared(times: list[float], reference: list[float]) -> dict[str, float]:
    """Return median and least time, and both relative to a reference's in the same rounds."""
    return {
        "median [ms]": 1e3 * statistics.median(times),
        "least [ms]": 1e3 * min(times),
        "ratio": statistics.median(a / b for a, b in zip(times, reference, strict=True)),
        "ratio of least": min(times) / min(reference),
    }


@torch.no_grad()
def inference(
    trained: Mapping[Label, nn.Sequential], x: Mapping[Label, Tensor], rounds: int
) -> pd.DataFrame:
    """Time products and networks, all those of a batch size and a run in the same rounds."""
    rows = []
    for (method, seed), model in trained.items():
        for batch in BATCHES:
            given = x[method, seed][:batch]
            tasks = {"product": products(model, given), "network": networks(model, given)}
            for cases in tasks.values():
                check(cases)
            named = {
                (task, name): case for task, cases in tasks.items() for name, case in cases.items()
            }
            times = measure(named, rounds)
            for task, name in named:
                label = {"task": task, "method": method, "seed": seed, "batch": batch, "case": name}
                found = compared(times[task, name], times[task, DENSE])
                rows.append(label | {"reference": DENSE} | found)
    return pd.DataFrame(rows)


def iteration(name: str, precision: str) -> tuple[Case, Optimizer]:
    """Return a training iteration of the post's network, and its optimizer.

    In float32 it is the plain loop; in bfloat16 the forward pass is under autocast and the memory
    format is channels_last, as in the training engine. Images are random and not augmented.
    """
    make, options, _ = OPTIMIZERS[name]
    torch.manual_seed(1)
    model = fashion_cnn()
    x, y = torch.randn(8, TRAINED_ON, 1, 28, 28), torch.randint(10, (8, TRAINED_ON))
    half = precision == "bfloat16"
    if half:
        model = model.to(memory_format=torch.channels_last)
    optimizer = make(model.parameters(), lr=fashion_mnist.LR, fused=True, **options)
    batches = cycle(zip(x, y, strict=True))

    def iterate() -> None:
        x, y = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return iterate, optimizer


def floats_per_weight(optimizer: Optimizer) -> float:
    """Return how many numbers of state the optimizer keeps for each weight, without step counts."""
    states = optimizer.state.items()
    kept = sum(s.numel() for w, state in states for s in state.values() if s.shape == w.shape)
    return kept / sum(w.numel() for w in optimizer.state)


def training(rounds: int) -> pd.DataFrame:
    """Time iterations with all optimizers and precisions in the same rounds."""
    if _fused.library() is None:
        raise SystemExit("there is no C++ compiler")
    made = {(kind, name): iteration(name, kind) for kind in PRECISIONS for name in OPTIMIZERS}
    times = measure({label: case for label, (case, _) in made.items()}, rounds)
    rows = []
    for (precision, name), (_, optimizer) in made.items():
        reference = OPTIMIZERS[name][2]
        found = compared(times[precision, name], times[precision, reference])
        rows.append(
            {
                "precision": precision,
                "case": name,
                "reference": reference,
                **found,
                "extra [%]": 100 * (found["ratio"] - 1),
                "goal [%]": None if name == reference else GOAL,
                "floats per weight": floats_per_weight(optimizer),
            }
        )
    return pd.DataFrame(rows)


def describe(method: str, seed: int, name: str, model: nn.Sequential) -> dict[str, Any]:
    """Return how many zeros the first linear layer has, and how much of it `slim` leaves."""
    layer, slimmed = model[first_dense(model)], slim(model)
    left = slimmed[first_dense(slimmed)]
    return {
        "method": method,
        "seed": seed,
        "run": name,
        "zeros": (layer.weight == 0).float().mean().item(),
        "columns": layer.in_features,
        "rows": layer.out_features,
        "columns left": left.in_features,
        "rows left": left.out_features,
    }


def show(rows: pd.DataFrame) -> None:
    print(f"\n{rows.to_string(index=False, float_format='{:.4g}'.format, na_rep='')}")


def main() -> None:
    """Measure, print tables, and write them down if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--profile", choices=project.PROFILES, default="paper", help="of the runs (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=50, help="of each case (%(default)s)")
    parser.add_argument("--training", action="store_true", help="time training iterations as well")
    parser.add_argument("--write", type=Path, help="a JSON file for the results")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("the number of rounds must be at least 1")
    records = collect(fashion_mnist.runs(options.profile), options.profile)
    if not records:
        parser.error("no run is archived: train them by beyond-adam run fashion-mnist")
    torch.set_num_threads(1)
    keep_freed_memory()  # or page faults take up to a quarter of the time of a network
    versions = provenance.versions() | {"scipy": scipy.__version__}
    print(f"{provenance.hardware()['cpu']}; torch {torch.__version__}", end="")
    print(f", {'with' if torch.backends.mkl.is_available() else 'without'} MKL; 1 thread")
    trained = {label: network(record) for label, record in records.items()}
    runs = [describe(*label, records[label].run.name, model) for label, model in trained.items()]
    show(pd.DataFrame(runs))
    load = os.getloadavg()[0]
    x = {label: images(record, max(BATCHES)) for label, record in records.items()}
    tables = {"rows": inference(trained, x, options.rounds)}
    if options.training:
        tables["training"] = training(options.rounds)
    for table in tables.values():
        show(table)
    print(f"\nload {load:.1f} to {os.getloadavg()[0]:.1f}")
    if options.write:
        commit, dirty = provenance.commit()
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit + ("+" if dirty else ""),
            "hardware": provenance.hardware(),
            "versions": versions,
            "mkl": torch.backends.mkl.is_available(),
            "threads": 1,
            "rounds": options.rounds,
            "profile": options.profile,
            "runs": runs,
            **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
        }
        options.write.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
