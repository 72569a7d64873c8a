"""Command line of the workflow: ``python -m beyond_adam.workflow COMMAND [--profile …]``."""

import argparse
import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from beyond_adam import project
from beyond_adam.publishing.claims import LedgerError
from beyond_adam.workflow import plan

#: What kernels say when they start and end; what goes wrong in a cell is said otherwise.
_KERNEL_NOISE = "[IPKernelApp]"


class CommandError(Exception):
    """The command failed; the message is all there is to say."""


def build(options: argparse.Namespace) -> None:
    """Bring records, chapters and pages up to date."""
    from beyond_adam.workflow import results

    out = project.build()
    out.mkdir(parents=True, exist_ok=True)
    snakefile = str(Path(__file__).with_name("Snakefile"))
    # All parts are named: one that is gone is not missed as long as what was made of it is there.
    command = [sys.executable, "-m", "snakemake", *plan.targets(options.profile)]
    command += ["--snakefile", snakefile]
    command += ["--directory", str(out), "--cores", str(options.jobs), "--quiet", "all"]
    command += ["--config", f"profile={options.profile}"]
    # Nothing has parameters, so that these trigger nothing. One build at a time is seen to by a
    # lock of our own: the engine holds it, too, since it outlives this process if that is killed.
    command += ["--rerun-triggers", "params", "--rerun-incomplete", "--keep-going", "--nolock"]
    with _alone(out) as lock:
        stale = plan.stale(options.profile)
        print("\n".join(stale.values()) or "nothing has changed", flush=True)
        for file in stale:
            file.unlink(missing_ok=True)
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, pass_fds=[lock]
        ) as engine:
            assert engine.stderr is not None
            for line in engine.stderr:
                if _KERNEL_NOISE not in line:
                    print(line, end="", file=sys.stderr, flush=True)
    if engine.returncode:
        raise CommandError(f"the build of profile {options.profile!r} failed")
    if left := plan.stale(options.profile).values():
        raise CommandError("\n".join(["changed meanwhile, run make again:", *left]))
    print(f"\n{results.summary(results.collect(options.profile))}")
    print(f"\nprofile {options.profile}; the book is at {out / 'html' / 'index.html'}")


@contextmanager
def _alone(out: Path) -> Iterator[int]:
    """Yield the descriptor of a lock that only one build at a time can have."""
    with (out / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"another build is at work in {out}") from None
        yield handle.fileno()


def execute(options: argparse.Namespace) -> None:
    """Run one chapter."""
    from beyond_adam.workflow import execute as runner

    try:
        runner.chapter(options.name, options.profile)
    except runner.ChapterError as error:
        raise CommandError(str(error)) from None


def record(options: argparse.Namespace) -> None:
    """Run one experiment."""
    from beyond_adam.workflow import execute as runner

    try:
        runner.record(options.name, options.profile)
    except runner.ChapterError as error:
        raise CommandError(str(error)) from None


def parameterise(options: argparse.Namespace) -> None:
    """Write the chapters with the profile set, for nbval."""
    from beyond_adam.workflow import execute as runner

    runner.parameterise(options.profile)


def pages(options: argparse.Namespace) -> None:
    """Build the pages from executed chapters."""
    from beyond_adam.workflow import pages as builder

    try:
        builder.build(options.profile)
    except builder.BookError as error:
        raise CommandError(str(error)) from None


def data(options: argparse.Namespace) -> None:
    """Check the data sets, and fetch those that are not here; all, or the ones named."""
    from beyond_adam.data import DATASETS, diabetes, digits, download, load

    images, study = digits(), diabetes()
    print(f"digits: {len(images.images)} images, come with scikit-learn, nothing to download")
    print(f"digits: SHA-256 {images.fingerprint}, as expected")
    print(f"diabetes: {len(study.target)} patients, come with scikit-learn, nothing to download")
    print(f"diabetes: SHA-256 {study.fingerprint}, as expected")
    for name in options.names or DATASETS:
        file, expected = download(name), load(name)
        known = "as expected" if DATASETS[name].fingerprint else "which nothing here compares"
        count = len(expected.x_train) + len(expected.x_test)
        print(f"{name}: {count} images in {file}")
        print(f"{name}: SHA-256 {expected.fingerprint}, {known}")


def verify(options: argparse.Namespace) -> None:
    """Compare the last run with the committed record."""
    from beyond_adam.workflow import verify as verifier

    wrong, changed = verifier.verify(options.profile)
    print("\n".join(f"changed: {line}" for line in changed) or "data and verdicts as recorded")
    if wrong:
        accept = "if all of it is meant, accept it by `make record` and commit the record"
        raise CommandError("\n".join([*(f"wrong: {line}" for line in wrong), accept]))


def accept(options: argparse.Namespace) -> None:
    """Write the committed record anew."""
    from beyond_adam.workflow import verify as verifier

    print(f"wrote {verifier.write(options.profile)}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "build": build,
    "execute": execute,
    "record": record,
    "parameterise": parameterise,
    "pages": pages,
    "data": data,
    "verify": verify,
    "accept": accept,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m beyond_adam.workflow", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        command = commands.add_parser(name, help=function.__doc__)
        command.add_argument("--profile", default="quick", help=", ".join(project.PROFILES))
        if name in ("execute", "record"):
            command.add_argument("name", help="chapter or experiment")
        if name == "data":
            command.add_argument("names", nargs="*", help="data sets (default: all)")
        if name == "build":
            command.add_argument("--jobs", type=int, default=2, help="jobs at a time")
    options = parser.parse_args(arguments)
    try:
        project.check_profile(options.profile)
        COMMANDS[options.command](options)
    except (CommandError, LedgerError, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
