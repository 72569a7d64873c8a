"""Command line of the training runs: ``beyond-adam list|run|show|compare|confirm``."""

import argparse
import ctypes
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import torch

from beyond_adam import experiments, project
from beyond_adam.training import Definition, Record, confirm, find, perform, put_away, records

#: What `mallopt` of glibc calls the limits above which freed memory goes back to the system.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


class Entry(NamedTuple):
    """A run that an experiment declares."""

    experiment: str
    method: str
    seed: int
    run: Definition
    keeps_weights: bool = False
    needs_gpu: bool = False
    """Whether it would take days without."""

    @property
    def label(self) -> str:
        """Experiment, method and seed."""
        return f"{self.experiment}: {self.method}, seed {self.seed}"


class CommandError(Exception):
    """The command failed; the message is all there is to say."""


def declared(profile: str) -> list[Entry]:
    """Return all runs that experiments declare at a profile, by a function ``runs``."""
    entries = []
    for module in pkgutil.iter_modules(experiments.__path__, f"{experiments.__name__}."):
        experiment: Any = importlib.import_module(module.name)
        if hasattr(experiment, "runs"):
            constants = ("KEEPS_WEIGHTS", "NEEDS_GPU")
            traits = [getattr(experiment, name, False) for name in constants]
            entries += [
                Entry(experiment.NAME, method, seed, run, *traits)
                for (method, seed), run in experiment.runs(profile).items()
            ]
    return entries


def chosen(options: argparse.Namespace) -> list[Entry]:
    """Return the runs that the options select, at least one."""
    entries = declared(options.profile)
    if options.name:
        entries = [entry for entry in entries if entry.run.name == options.name]
        if not entries:
            raise CommandError(f"no experiment declares a run {options.name!r}")
    known = {name: sorted({str(getattr(e, name)) for e in entries}) for name in _SELECTORS}
    for name, wanted in _SELECTORS.items():
        picked = getattr(options, wanted)
        for value in picked or ():
            if value not in known[name]:
                allowed = ", ".join(known[name])
                raise CommandError(f"no run has {name} {value!r}: choose from {allowed}")
        entries = [e for e in entries if not picked or str(getattr(e, name)) in picked]
    if not entries:
        raise CommandError("no run has this experiment, method and seed together")
    return entries


_SELECTORS: Final = {"experiment": "experiments", "method": "method", "seed": "seed"}


def state(entry: Entry) -> str:
    """Say how far a run is."""
    record = find(entry.run)
    if record is None:
        done = max((int(f.stem.rpartition("-")[2]) for f in _checkpoints(entry.run)), default=0)
        return f"{done} of {entry.run.epochs} epochs" if done else "not there"
    if record.content["failure"]:
        return f"failed: {record.content['failure']}"
    place = "archived" if record.archived else "here"
    changed = record.changes()
    return f"{place}, changed since: {', '.join(changed)}" if changed else place


def _checkpoints(run: Definition) -> Iterator[Any]:
    return records.working(run).glob("checkpoint-*.pt")


def list_runs(options: argparse.Namespace) -> None:
    """List the runs that experiments declare, and how far each is."""
    for entry in chosen(options):
        record = find(entry.run)
        print(f"{entry.label:<60} {_result(record):>8}  {state(entry)}")


def _result(record: Record | None) -> str:
    """Return the test accuracy in per cent or, of a model that predicts numbers, the test loss."""
    if record is None or record.content["failure"]:
        return ""
    last = record.content["last"]
    if "test_accuracy" in last:
        return f"{100 * last['test_accuracy']:.2f} %"
    return f"{last['test_loss']:.4f}"


def run(options: argparse.Namespace) -> None:
    """Train what is missing of the chosen runs; those at paper scale are archived in data/runs."""
    if options.jobs < 1:
        raise CommandError(f"jobs must be at least 1, not {options.jobs}")
    # Experiments may share a run, which must not be trained by two jobs at once.
    entries = list({entry.run.name: entry for entry in chosen(options)}.values())
    if options.jobs == 1 or len(entries) == 1:
        wrong = []
        for entry in entries:
            try:
                _train(entry, options)
            except (CommandError, ValueError, OSError) as error:
                if len(entries) == 1:
                    raise
                wrong.append(entry.label)
                print(f"error: {error}", file=sys.stderr, flush=True)
        _check_none(wrong, entries)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)

    def job(entry: Entry) -> str:
        # Not __name__, which is "__main__" under `python -m`.
        command = [sys.executable, "-m", "beyond_adam.workflow.runs", "run", entry.experiment]
        command += ["--method", entry.method, "--seed", str(entry.seed)]
        command += ["--profile", options.profile, "--device", options.device, "--quiet"]
        command += ["--compile"] if options.compile else []
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen(command, env=environment) as process:
            processes.append(process)
            return entry.label if process.wait() else ""

    processes: list[subprocess.Popen[bytes]] = []
    pool = ThreadPoolExecutor(options.jobs)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _check_none([label for label in pool.map(job, entries) if label], entries)
    finally:  # if this one is interrupted, the others end too
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _check_none(failed: list[str], entries: list[Entry]) -> None:
    """Raise CommandError if any run failed."""
    if failed:
        raise CommandError(f"{len(failed)} of {len(entries)} runs failed: {'; '.join(failed)}")


def _train(entry: Entry, options: argparse.Namespace) -> None:
    keep_freed_memory()
    print(f"{entry.label}: {entry.run.name}", flush=True)
    show = not options.quiet
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"cannot compute on {options.device!r}: {error}") from None
    paper = options.profile == "paper"
    # What took hours is not trained again, nor begun again, because the code has changed since.
    record = perform(
        entry.run, device=options.device, show=show, fresh=not paper, compiled=options.compile
    )
    print(f"{entry.label}: {_result(record)}", flush=True)
    if record.content["failure"]:
        raise CommandError(f"{entry.label}: {record.content['failure']}; see {record.folder}")
    if paper and not record.archived:
        print(f"archived in {put_away(record, weights=entry.keeps_weights).folder}", flush=True)


def keep_freed_memory() -> None:
    """Let the C library keep memory that is freed instead of giving it back to the system.

    The tensors of a batch are freed and allocated again all the time. With the thresholds that
    glibc begins with, every allocation is mapped anew, and zeroed page by page.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_THRESHOLD, 2**30)


def show(options: argparse.Namespace) -> None:
    """Show definition, provenance and last measurements of the chosen runs."""
    for entry in chosen(options):
        print(f"{entry.label}: {state(entry)}")
        _print({"name": entry.run.name, **entry.run.as_json()})
        record = find(entry.run)
        if record:
            _print({key: record.content[key] for key in ("fingerprint", "parameters", "last")})
            for number, segment in enumerate(record.content["segments"], 1):
                _print({f"segment {number}": _without_hashes(segment)})
            if confirmed := record.content.get("confirmed"):
                _print({"confirmed": _without_hashes(confirmed)})


def confirm_runs(options: argparse.Namespace) -> None:
    """Repeat the first epochs of the chosen runs whose code has changed, and compare them."""
    keep_freed_memory()
    failed = []
    for entry in chosen(options):
        record = find(entry.run)
        if record and record.changes():
            try:
                confirm(record)
            except ValueError as error:
                failed.append(f"{entry.label}: {error}")
            else:
                print(f"{entry.label}: the same, bit for bit", flush=True)
    if failed:
        raise CommandError("\n".join([f"not confirmed ({len(failed)}):", *failed]))


def _without_hashes(segment: Mapping[str, Any]) -> dict[str, Any]:
    hashes = ("modules", "lock", "hashes")
    return {key: value for key, value in segment.items() if key not in hashes}


def _print(content: Mapping[str, Any], indent: int = 2) -> None:
    for key, value in content.items():
        if isinstance(value, Mapping):
            print(f"{' ' * indent}{key}:")
            _print(value, indent + 2)
        else:
            print(f"{' ' * indent}{key}: {value}")


def compare(options: argparse.Namespace) -> None:
    """Say in what the definitions of the chosen runs differ, and what each measured last."""
    entries = chosen(options)
    flat = [_flat(entry.run.as_json()) for entry in entries]
    keys = sorted({key for one in flat for key in one if any(o.get(key) != one[key] for o in flat)})
    lasts = [_last(find(entry.run)) for entry in entries]
    keys_of_last = list(dict.fromkeys(key for last in lasts for key in last))
    width = max(map(len, [*keys, *keys_of_last]), default=0)
    for number, entry in enumerate(entries):
        print(f"[{number + 1}] {entry.label}: {state(entry)}")
    for key in keys:
        absent = "–" if "." in key else "default"  # of the fields of a definition all have one
        values = "  ".join(f"[{n + 1}] {one.get(key, absent)}" for n, one in enumerate(flat))
        print(f"{key:<{width}}  {values}")
    for key in keys_of_last:
        values = "  ".join(
            f"[{n + 1}] {last[key]:.6g}" for n, last in enumerate(lasts) if key in last
        )
        print(f"{key:<{width}}  {values}")


def _last(record: Record | None) -> dict[str, float]:
    return dict(record.content["last"]) if record else {}


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


COMMANDS: Final = {
    "list": list_runs,
    "run": run,
    "show": show,
    "compare": compare,
    "confirm": confirm_runs,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="beyond-adam", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.add_argument("experiments", nargs="*", help="names of experiments (default: all)")
        command.add_argument("--method", action="append", help="only this method; repeatable")
        command.add_argument("--seed", action="append", help="only this seed; repeatable")
        command.add_argument("--name", help="only the run of this name")
        command.add_argument("--profile", default="paper", help=", ".join(project.PROFILES))
        if name == "run":
            command.add_argument("--device", default=_device(), help="default: %(default)s")
            command.add_argument("--jobs", type=int, default=1, help="runs at a time")
            command.add_argument("--compile", action="store_true", help="use torch.compile")
            command.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    try:
        project.check_profile(options.profile)
        COMMANDS[options.command](options)
    except (CommandError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what has been trained is kept", file=sys.stderr, flush=True)
        return 130
    return 0


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
