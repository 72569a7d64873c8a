"""How fast `prox_lp` is, beside one pass over memory and beside SciPy's scalar minimisers.

All is measured on the same inputs in one run, in turn, so that a busy minute does not hit one case
only. Times are reported with the goals and never judged.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import torch
from scipy.optimize import elementwise, minimize_scalar

from beyond_adam.prox.lp import prox_lp

EXPONENTS = (0.5, 0.8, 0.9, 1.0, 1.2, 1.5, 1.9)
GOALS = {"passes": 10, "speed-up": 20}
STRENGTH = 0.3


def processor() -> str:
    """Return the name of the CPU, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def seconds(cases: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Time every case `runs` times, in turn, after two calls that compile and warm up."""
    for call in cases.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, call in cases.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return times


def objective(u: np.ndarray, z: np.ndarray, p: float) -> np.ndarray:
    return 0.5 * (u - z) ** 2 + STRENGTH * np.abs(u) ** p


def scalar(z: np.ndarray, p: float) -> np.ndarray:
    """Minimise element by element with SciPy's Brent, and compare with 0."""
    u = [
        minimize_scalar(
            lambda u, x=x: 0.5 * (u - x) ** 2 + STRENGTH * abs(u) ** p,
            bounds=(min(x, 0), max(x, 0)),
            method="bounded",
        ).x
        for x in z.tolist()
    ]
    return np.where(objective(np.array(u), z, p) < objective(0 * z, z, p), u, 0)


def vectorised(z: np.ndarray, p: float) -> np.ndarray:
    """Minimise all elements at once with SciPy's elementwise Chandrupatla, and compare with 0.

    It wants brackets: neighbours of the least of a few values where a local minimum may be.
    """
    low = max(0.0, (1 - p) / (2 - p))
    points = z * (low + (1.05 - low) * np.linspace(0, 1, 17)[:, None] ** 3)
    least = 1 + objective(points[1:-1], z, p).argmin(0)[None]
    bracket = [np.take_along_axis(points, least + i, 0)[0] for i in (-1, 0, 1)]
    found = elementwise.find_minimum(lambda u, x: objective(u, x, p), bracket, args=(z,))
    return np.where(found.success & (found.f_x < objective(0 * z, z, p)), found.x, 0)


def cell(times: list[float], per: int = 1) -> str:
    """Return minimum / median in ms."""
    return " / ".join(f"{1e3 * pick(times) / per:.1f}" for pick in (min, statistics.median))


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--elements", type=int, default=10**7, help="of z, float32 (10⁷)")
    parser.add_argument("--sample", type=int, default=2000, help="of them for SciPy (2000)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (2)")
    parser.add_argument("--runs", type=int, default=7, help="of each case (7)")
    options = parser.parse_args()
    if min(options.elements, options.sample, options.threads, options.runs) < 1:
        parser.error("all options must be at least 1")
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    z = torch.randn(options.elements, generator=torch.Generator().manual_seed(1))
    out = torch.empty_like(z)
    sample = z[: options.sample].numpy().astype(np.float64)

    passes, speed_ups = [], []
    for p in EXPONENTS:
        print(f"p = {p}", file=sys.stderr)
        fresh = torch.compile(
            partial(prox_lp, strength=STRENGTH, p=p), fullgraph=True, dynamic=False
        )
        reused = torch.compile(
            lambda z, out, p=p: out.copy_(prox_lp(z, STRENGTH, p)), fullgraph=True, dynamic=False
        )
        times = seconds(
            {
                "pass, fresh": lambda: torch.mul(z, 0.5),
                "fresh": lambda fresh=fresh: fresh(z),
                "pass, reused": lambda: torch.mul(z, 0.5, out=out),
                "reused": lambda reused=reused: reused(z, out),
            },
            options.runs,
        )
        times |= seconds(
            {
                "eager": lambda p=p: prox_lp(z, STRENGTH, p),
                "NumPy": lambda p=p: prox_lp(z.numpy(), STRENGTH, p),
                "scalar": lambda p=p: scalar(sample, p),
                "vectorised": lambda p=p: vectorised(sample, p),
            },
            3,
        )
        median = {name: statistics.median(values) for name, values in times.items()}
        ratios = [median[kind] / median[f"pass, {kind}"] for kind in ("fresh", "reused")]
        names = ("pass, fresh", "fresh", "pass, reused", "reused", "eager", "NumPy")
        cells = [f"{p}", *(cell(times[name]) for name in names), *(f"{x:.1f}" for x in ratios)]
        passes.append(cells)

        each = median["fresh"] / options.elements
        exact = prox_lp(sample, STRENGTH, p)
        row = [f"{p}", f"{1e9 * each:.1f}"]
        for name, solve in (("scalar", scalar), ("vectorised", vectorised)):
            per = median[name] / options.sample
            error = np.abs(solve(sample, p) - exact).max()
            row += [f"{1e9 * per:.0f}", f"{per / each:.0f}", f"{error:.0e}"]
        speed_ups.append(row)

    print(f"{processor()}; torch {torch.__version__}, {torch.get_num_threads()} threads; ", end="")
    print(f"NumPy {np.__version__}, SciPy {scipy.__version__}; load before: {load:.1f}")
    print(f"\n{options.elements} float32, ms: min / median of {options.runs}; ", end="")
    print(f"goal: at most {GOALS['passes']} passes\n")
    print(
        "| p | pass, fresh | compiled, fresh | pass, reused | compiled, reused | eager | NumPy ",
        end="",
    )
    print("| passes, fresh | passes, reused |")
    print("| --- " * 9 + "|")
    for row in passes:
        print("| " + " | ".join(row) + " |")
    print(f"\nns per element, SciPy on {options.sample} of them; ", end="")
    print(f"goal: at least {GOALS['speed-up']} times as fast\n")
    print(
        "| p | compiled | minimize_scalar | times | its error | find_minimum | times | its error |"
    )
    print("| --- " * 8 + "|")
    for row in speed_ups:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
