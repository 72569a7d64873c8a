"""How long a step of every optimizer takes, beside torch's AdamW and beside the memory's limit.

All cases of a set of tensors share weights, gradients and moments and are measured in one run, in
turn, so that a busy minute does not hit one case only. Times are reported with the goals and never
judged.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
import torchvision
from torch.optim.optimizer import Optimizer

from beyond_adam import provenance
from beyond_adam.optim import AdamExponent, DynamicPAdam, PAdam, Padam, _fused

Shapes = list[tuple[int, ...]]
BYTES = {False: 28, True: 36}  # per float32 weight; with one more tensor of state
LR, DECAY = 1e-3, 1e-3
GPU_GOAL = 1.1  # of every fused step
AMSGRAD, DEFAULT, FOREACH = "AdamW fused, AMSGrad", "AdamW", "AdamW foreach"


class Case(NamedTuple):
    """A step to measure."""

    make: Callable[..., Optimizer]
    options: dict[str, object]
    reference: str = "AdamW fused"
    goal: float | None = None
    weights: str = "dense"
    """Or "zeros" or "denormal": 84 % of the weights are 0, or 1e-40."""


def padam(p: float, **options: object) -> tuple[Callable[..., Optimizer], dict[str, object]]:
    return PAdam, {"p": p, "weight_decay": DECAY, **options}


FUSED = {"fused": True}
CASES = {
    "AdamW fused": Case(torch.optim.AdamW, FUSED),
    AMSGRAD: Case(torch.optim.AdamW, {**FUSED, "amsgrad": True}, AMSGRAD),
    DEFAULT: Case(torch.optim.AdamW, {}, DEFAULT),
    FOREACH: Case(torch.optim.AdamW, {"foreach": True}, FOREACH),
    "PAdam fused, p = 0.5": Case(*padam(0.5, **FUSED), goal=1.15),
    "PAdam fused, p = 1": Case(*padam(1.0, **FUSED), goal=1.15),
    "PAdam fused, p = 1.5": Case(*padam(1.5, **FUSED), goal=1.15),
    "PAdam fused, p = 2": Case(*padam(2.0, **FUSED), goal=1.15),
    "PAdam fused, p = 0.8": Case(*padam(0.8, **FUSED), goal=1.6),
    "PAdam fused, p = 0.8, updated": Case(*padam(0.8, decay_at="updated", **FUSED), goal=1.6),
    "PAdam fused, p = 1.3": Case(*padam(1.3, **FUSED), goal=1.6),
    "DynamicPAdam fused, p = 0.8": Case(
        DynamicPAdam, {"p": 0.8, "weight_decay": DECAY, **FUSED}, AMSGRAD
    ),
    "Padam fused, 1/2": Case(Padam, {"partial": 0.5, **FUSED}, AMSGRAD, 1.15),
    "Padam fused, 1/4": Case(Padam, {"partial": 0.25, **FUSED}, AMSGRAD, 1.15),
    "Padam fused, 1/8": Case(Padam, {"partial": 0.125, **FUSED}, AMSGRAD, 1.15),
    "Padam fused, 0.3": Case(Padam, {"partial": 0.3, **FUSED}, AMSGRAD, 1.6),
    "AdamExponent fused, 0.3": Case(AdamExponent, {"exponent": 0.3, **FUSED}, goal=1.6),
    "PAdam fused, p = 0.8, 84 % zeros": Case(
        *padam(0.8, **FUSED), "PAdam fused, p = 0.8", 1.1, "zeros"
    ),
    "PAdam fused, p = 0.8, 84 % denormal": Case(
        *padam(0.8, **FUSED), "PAdam fused, p = 0.8", 1.1, "denormal"
    ),
    "PAdam fused, p = 1.5, 84 % zeros": Case(
        *padam(1.5, **FUSED), "PAdam fused, p = 1.5", 1.1, "zeros"
    ),
    "PAdam fused, p = 1.5, 84 % denormal": Case(
        *padam(1.5, **FUSED), "PAdam fused, p = 1.5", 1.1, "denormal"
    ),
    "PAdam, p = 0.8": Case(*padam(0.8), DEFAULT, 1.6),
    "PAdam, p = 1": Case(*padam(1.0), DEFAULT, 1.6),
    "Padam, 1/8": Case(Padam, {}, DEFAULT, 1.6),
    "PAdam foreach, p = 0.8": Case(*padam(0.8, foreach=True), FOREACH),
}
CNN = [(32, 1, 3, 3), (32,), (64, 32, 3, 3), (64,), (128, 3136), (128,), (10, 128), (10,)]


def resnet18() -> Shapes:
    """Return the shapes of ResNet-18 for images of 32 × 32 and 10 classes."""
    with torch.device("meta"):
        model = torchvision.models.resnet18(num_classes=10)
        model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return [tuple(weight.shape) for weight in model.parameters()]


def compile_seconds(device: str) -> dict[str, float]:
    """Return how long the kernel takes to be ready, compiled and from the cache on disk.

    On a GPU it is compiled in many versions, each at its first step, which is not timed.
    """
    seconds = {}
    if device == "cuda":
        if _fused.gpu_kernel() is None:
            raise SystemExit("Triton does not work")
        return seconds
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = folder
        for name in ("compiled", "cached"):
            _fused.library.cache_clear()
            started = time.perf_counter()
            if _fused.library() is None:
                raise SystemExit("there is no C++ compiler")
            seconds[name] = time.perf_counter() - started
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before
    _fused.library.cache_clear()
    return seconds


class Tensors:
    """Weights, gradients and state that all cases share."""

    def __init__(self, shapes: Shapes, device: str) -> None:
        generator = torch.Generator().manual_seed(1)
        self.params, self.state = [], []
        self.starts: dict[str, list[torch.Tensor]] = {"dense": [], "zeros": [], "denormal": []}
        for shape in shapes:
            start = 0.05 * torch.randn(shape, generator=generator)
            small = torch.rand(shape, generator=generator) < 0.84
            for name, value in (("dense", None), ("zeros", 0), ("denormal", 1e-40)):
                some = start if value is None else start.masked_fill(small, value)
                self.starts[name].append(some.to(device))
            weight = start.clone().to(device).requires_grad_()
            weight.grad = 0.01 * torch.randn(shape, generator=generator).to(device)
            self.params.append(weight)
            begin = {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0, "inverse_s": 1.0}
            self.state.append({n: torch.full_like(weight, x).detach() for n, x in begin.items()})
        self.size = sum(weight.numel() for weight in self.params)

    def optimizer(self, case: Case) -> Optimizer:
        """Return an optimizer of a case, with the shared state after one step."""
        optimizer = case.make(self.params, lr=LR, **case.options)
        theirs = case.make is torch.optim.AdamW and case.options.get("fused")
        for weight, state in zip(self.params, self.state, strict=True):
            step = torch.tensor(1.0, device=weight.device if theirs else "cpu")
            optimizer.state[weight] = {"step": step, **state}
        return optimizer

    def restart(self, weights: str) -> None:
        with torch.no_grad():
            for weight, start in zip(self.params, self.starts[weights], strict=True):
                weight.copy_(start)


def measure(title: str, shapes: Shapes, names: list[str], runs: int, device: str) -> pd.DataFrame:
    """Time blocks of steps of every case, and passes over memory, in turn and in random order."""
    tensors = Tensors(shapes, device)
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
    optimizers = {name: tensors.optimizer(CASES[name]) for name in names}
    block = max(1, min(100, 10**7 // tensors.size))
    # A pass in place reads and writes. For a set that fits the caches it may too, as the steps do.
    memory = torch.ones(4 * tensors.size, device=device)
    times: dict[str, list[float]] = {name: [] for name in [*names, "pass"]}
    for _ in range(runs):
        for name in random.sample(list(times), len(times)):
            if name == "pass":
                step: Callable[[], object] = partial(memory.mul_, -1)
            else:
                tensors.restart(CASES[name].weights)
                step = optimizers[name].step
            step()
            wait()
            started = time.perf_counter()
            for _ in range(block):
                step()
            wait()
            times[name].append((time.perf_counter() - started) / block)
    bytes_per_pass = 8 * memory.numel()
    rows = []
    for name in names:
        case = CASES[name]
        more = bool(optimizers[name].defaults["amsgrad"]) or case.make is DynamicPAdam
        limit = [x * BYTES[more] * tensors.size / bytes_per_pass for x in times["pass"]]
        goal = 3.0 if case.goal and case.reference == DEFAULT and title == "CNN" else case.goal
        if device == "cuda":
            ours = case.make is not torch.optim.AdamW
            goal = GPU_GOAL if ours and case.options.get("fused") else None
        rows.append(
            {
                "tensors": title,
                "case": name,
                "median [ms]": 1e3 * statistics.median(times[name]),
                "least [ms]": 1e3 * min(times[name]),
                "reference": case.reference,
                "ratio": ratio(times[name], times[case.reference]),
                "ratio of least": min(times[name]) / min(times[case.reference]),
                "goal": goal,
                "times fused AdamW": ratio(times[name], times[AMSGRAD if more else "AdamW fused"]),
                "times the limit": ratio(times[name], limit),
            }
        )
    rate = bytes_per_pass / statistics.median(times["pass"])
    print(f"{title}: {len(shapes)} tensors, {tensors.size} weights, {rate / 1e9:.0f} GB/s")
    return pd.DataFrame(rows)


def ratio(some: list[float], others: list[float]) -> float:
    """Return the median over rounds of one time by another."""
    return statistics.median(a / b for a, b in zip(some, others, strict=True))


def main() -> None:
    """Measure, print Markdown tables, and write them down if asked to."""
    sets = {
        "ResNet-18": resnet18,
        "CNN": lambda: CNN,
        "flat": lambda: [(options.elements,)],
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=sets, default=list(sets), help="of tensors")
    parser.add_argument("--elements", type=int, default=5 * 10**7, help="of the flat set (5·10⁷)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (2)")
    parser.add_argument("--runs", type=int, default=9, help="blocks of steps of each case (9)")
    parser.add_argument("--write", type=Path, help="a JSON file for the results")
    options = parser.parse_args()
    if min(options.elements, options.threads, options.runs) < 1:
        parser.error("all numbers must be at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here")
    torch.set_num_threads(options.threads)
    seconds = compile_seconds(options.device)
    hardware = provenance.hardware()
    if options.device == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name()
    print(f"{hardware}; torch {torch.__version__}, {options.threads} threads")
    if seconds:
        ready, cached = seconds["compiled"], seconds["cached"]
        print(f"kernel: {ready:.1f} s compiled, {cached:.2f} s from the cache")
    tables = []
    load = os.getloadavg()[0]
    for title in options.sets:
        print(title, file=sys.stderr)
        # The default path is for ordinary models; one huge tensor says nothing more of it.
        table = measure(title, sets[title](), list(CASES), options.runs, options.device)
        print(f"\n{table.drop(columns='tensors').round(3).to_string(index=False)}\n")
        tables.append(table)
    print(f"load {load:.1f} to {os.getloadavg()[0]:.1f}")
    if options.write:
        commit, dirty = provenance.commit()
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit + ("+" if dirty else ""),
            "hardware": hardware,
            "versions": provenance.versions(),
            "device": options.device,
            "threads": options.threads,
            "runs": options.runs,
            "kernel": seconds,
            "rows": json.loads(pd.concat(tables).to_json(orient="records")),
        }
        options.write.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
