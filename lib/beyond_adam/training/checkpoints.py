"""Checkpoints that are whole or not there.

A checkpoint is the SHA-256 of its content and then the content, as `torch.save` writes it. It is
written under another name and then renamed; two are kept, so that the one before is there when the
newest is damaged.
"""

import hashlib
import io
import os
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

KEPT: Final = 2
"""Number of checkpoints of a run that are kept."""


def save(folder: Path, epoch: int, state: dict[str, Any]) -> None:
    """Write the state after so many epochs, and remove older checkpoints and damaged ones.

    Parameters
    ----------
    folder
        Of the run; it is there.
    epoch
        Number of epochs done.
    state
        Tensors and plain data.

    Raises
    ------
    OSError
        If it cannot be written; older checkpoints are as they were.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    draft, place = folder / "checkpoint.part", folder / f"checkpoint-{epoch:06}.pt"
    try:
        with draft.open("wb") as stream:
            stream.write(hashlib.sha256(content).digest())
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(place)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    # Later ones are damaged: a run that found one whole would not be here.
    earlier = [file for file in reversed(_all(folder)) if file.name < place.name]
    kept = {place, *islice((file for file in earlier if _content(file)), KEPT - 1)}
    for file in set(_all(folder)) - kept:
        file.unlink()


def newest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Return the newest checkpoint that is whole: epochs done, and state; None if there is none.

    Tensors are on the CPU. A damaged one is said to be so and passed over.
    """
    for file in reversed(_all(folder)):
        content = _content(file)
        if content:
            # Tensors of a GPU may go on where there is none; the model puts them where it is.
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return int(file.stem.rpartition("-")[2]), state
        print(f"{file}: damaged, going back to the one before", flush=True)
    return None


def remove(folder: Path) -> None:
    """Remove all checkpoints."""
    for file in [*_all(folder), folder / "checkpoint.part"]:
        file.unlink(missing_ok=True)


def _content(file: Path) -> bytes:
    """Return what was saved, or nothing if the file is damaged."""
    found = file.read_bytes()
    return found[32:] if hashlib.sha256(found[32:]).digest() == found[:32] else b""


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"))
