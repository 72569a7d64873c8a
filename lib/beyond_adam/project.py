"""Where the project lives on disk, and the profiles it can be run at."""

import os
from pathlib import Path
from typing import Final

PROFILES: Final = {
    "smoke": "seconds, for tests: the same code on a fraction of the work",
    "quick": "minutes on two CPU cores, no download, the same on every machine (the default)",
    "paper": "the scale of the source works, on the real data",
}


def check_profile(profile: str) -> str:
    """Return `profile` if it is one of `PROFILES`.

    Raises
    ------
    ValueError
        If it is not; the message names the value and the profiles there are.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    return profile


def root() -> Path:
    """Return the root of the checkout: ``$BEYOND_ADAM_ROOT``, or the folder that holds ``lib/``.

    Raises
    ------
    FileNotFoundError
        If the package was installed without the book around it and the variable is unset.
    """
    chosen = os.environ.get("BEYOND_ADAM_ROOT")
    folder = Path(chosen).resolve() if chosen else Path(__file__).resolve().parents[2]
    if not (folder / "_toc.yml").is_file():
        raise FileNotFoundError(
            f"no book at {folder} (it has no _toc.yml): set BEYOND_ADAM_ROOT to a checkout"
        )
    return folder


def build() -> Path:
    """Return the folder of everything generated: ``$BEYOND_ADAM_BUILD``, or ``_build``."""
    chosen = os.environ.get("BEYOND_ADAM_BUILD")
    return Path(chosen).resolve() if chosen else root() / "_build"


def archive() -> Path:
    """Return the folder of the training runs that are kept with the project."""
    return root() / "data" / "runs"
