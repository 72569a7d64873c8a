"""Where a result comes from: commit, versions, hardware."""

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from beyond_adam import project

#: What a result may depend on beyond our own code.
PACKAGES = ("numpy", "torch", "torchvision", "scikit-learn", "pandas", "matplotlib")


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=project.root(), capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


@functools.cache
def commit(but: str = "") -> tuple[str, bool]:
    """Return the commit that is checked out, and whether the working tree differs from it.

    Outside a git checkout (an unpacked archive) the commit is ``"unknown"`` and counts as dirty.

    Parameters
    ----------
    but
        Path of a folder in the checkout that does not count.
    """
    head = _git("rev-parse", "HEAD")
    counted = ["--", ".", f":(exclude){but}"] if but else []
    return (head, bool(_git("status", "--porcelain", *counted))) if head else ("unknown", True)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def hardware() -> dict[str, str | int]:
    """Return processor, its usable cores, operating system and C library."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        models = [line.partition(":")[2] for line in lines if line.startswith("model name")]
        cpu = models[0].strip() if models else cpu
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
    }
