"""How long a build takes: from nothing, with no change, after an edit of prose, of code.

Runs `make` on a copy of the tracked files that borrows this checkout's .venv, so the environment
has to be set up (`make`) before. Times are reported and never judged: the exit status is 1 only if
a build fails.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOALS = {"from nothing": 120, "no change": 5}  # wall seconds, on two cores
Times = tuple[float, float]


def copy_checkout(target: Path) -> None:
    """Copy the tracked files as they are now, and link the environment."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / ".venv").symlink_to(ROOT / ".venv")


def build(copy: Path) -> Times:
    """Run `make`; return its wall and CPU seconds, those of all its processes."""
    ours = {name: value for name, value in os.environ.items() if "BEYOND_ADAM" not in name}
    # The copy's own library, and on no account a set-up: it would redirect the borrowed .venv.
    environment = ours | {"BEYOND_ADAM_ROOT": str(copy), "PYTHONPATH": str(copy / "lib")}
    command = ["make", "--old-file=.venv/ready", "PROFILE=quick"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=copy, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(command)} failed with status {done.returncode}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def edit(chapter: Path, kind: str, text: str) -> None:
    """Append `text` to the last cell of a kind."""
    notebook = json.loads(chapter.read_text())
    cell = [cell for cell in notebook["cells"] if cell["cell_type"] == kind][-1]
    cell["source"] = "".join(cell["source"]) + text
    chapter.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def measure(copy: Path, runs: int) -> dict[str, list[Times]]:
    """Time every case `runs` times, in turn, so that a busy minute does not hit one case only."""
    chapter = min(copy.glob("chapters/*.ipynb"), default=None)
    if chapter is None:
        sys.exit("no tracked chapter to build")
    cases: dict[str, Callable[[int], None]] = {
        "from nothing": lambda _: shutil.rmtree(copy / "_build", ignore_errors=True),
        "no change": lambda _: None,
        "prose of one chapter": lambda run: edit(chapter, "markdown", f"\n\nEdit {run}."),
        "code of one chapter": lambda run: edit(chapter, "code", f"\n# edit {run}"),
    }
    times: dict[str, list[Times]] = {name: [] for name in cases}
    for run in range(runs):
        for name, prepare in cases.items():
            prepare(run)
            times[name].append(build(copy))
            print(f"run {run + 1}, {name}: {times[name][-1][0]:.1f} s", file=sys.stderr)
    return times


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each case (3)")
    parser.add_argument("--cores", type=int, default=2, help="to use at most (2)")
    options = parser.parse_args()
    if min(options.runs, options.cores) < 1:
        parser.error("--runs and --cores must be at least 1")
    if not (ROOT / ".venv" / "bin" / "python").is_file():
        sys.exit("there is no .venv: run make")
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    os.sched_setaffinity(0, cores)  # inherited by every build
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="build-times-") as folder:
        copy_checkout(Path(folder))
        times = measure(Path(folder), options.runs)
    print(f"quick profile, {len(cores)} cores, runs: {options.runs}, load before: {load:.1f}\n")
    print("| `make` | wall s: min / median / max | CPU s: min / median / max | goal, wall s |")
    print("| --- | --- | --- | --- |")
    for name, pairs in times.items():
        cells = [
            " / ".join(f"{pick(column):.1f}" for pick in (min, statistics.median, max))
            for column in zip(*pairs, strict=True)
        ]
        goal = f"≤ {GOALS[name]}" if name in GOALS else "–"
        print(f"| {name} | {cells[0]} | {cells[1]} | {goal} |")


if __name__ == "__main__":
    main()
