"""Data sets from the internet, through torchvision and with its checksums."""

import importlib
import io
import os
from contextlib import nullcontext, redirect_stderr, suppress
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from beyond_adam.data.files import DATASETS, Bytes, DatasetError, file_of, read

TORCHVISION: Final = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
"""What the sets are called in `torchvision.datasets`."""


def download(name: str, progress: bool = True) -> Path:
    """Fetch a data set if its file is not there, or is damaged.

    The file appears in one step, when everything in it has been checked. Until then all lies in a
    hidden folder beside it, which is removed whatever happens, short of the process being killed.

    Parameters
    ----------
    name
        One of `beyond_adam.data.DATASETS`.
    progress
        Whether to show how far it is, on standard error.

    Returns
    -------
    Path
        The file that `beyond_adam.data.load` reads.

    Raises
    ------
    DatasetError
        If the name is unknown, torchvision is not installed, there is no network or no space, or
        what came is not the published set.
    """
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        raise DatasetError(f"there is no data set {name!r} to download: choose one of {known}")
    file = file_of(name)
    with suppress(FileNotFoundError, DatasetError):
        read(name, file)
        return file
    source = getattr(_torchvision(), TORCHVISION[name])
    quiet = nullcontext() if progress else redirect_stderr(io.StringIO())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as folder, quiet:
            arrays = _part(source, folder, "train") | _part(source, folder, "test")
            draft = Path(folder) / file.name
            with draft.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
                stream.flush()
                os.fsync(stream.fileno())
            read(name, draft)
            draft.replace(file)
    except DatasetError as error:
        raise DatasetError(f"the {name} that was downloaded is not kept: {error}") from error
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{name} could not be downloaded: {reason}; without a network, put the set into {file} "
            "by hand, as beyond_adam.data.files describes it"
        ) from error
    return file


def imagenet(folder: str | Path, split: str) -> Any:
    """Return a part of ImageNet (ILSVRC 2012), which lies unpacked in a folder.

    It is too large for `load`: its images are read and decoded one by one.

    Parameters
    ----------
    folder
        Holds a folder per part, which holds a folder of images per class.
    split
        Name of the part: "train" or "val".

    Returns
    -------
    torchvision.datasets.ImageFolder
        Pairs of image and class, numbered in the order of the names of the folders; set its
        `transform` to get tensors.

    Raises
    ------
    DatasetError
        If torchvision is not installed, the part is not there, or it does not have 1000 classes
        with at least one image each.
    """
    part = Path(folder) / split
    if not part.is_dir():
        raise DatasetError(
            f"there is no folder {part}: ImageNet's {split!r} has to be unpacked there"
        )
    count = sum(entry.is_dir() for entry in part.iterdir())
    if count != 1000:
        raise DatasetError(
            f"{part} holds {count} folders, not 1000: one for every class of ImageNet"
        )
    try:
        return _torchvision().ImageFolder(part)
    except FileNotFoundError as error:
        raise DatasetError(f"{part} has classes without images: {error}") from error


def _part(source: Any, folder: str, part: str) -> dict[str, Bytes]:
    data = source(folder, train=part == "train", download=True)
    x, y = np.ascontiguousarray(data.data), np.asarray(data.targets).astype(np.uint8)
    return {f"x_{part}": x, f"y_{part}": y}


def _torchvision() -> Any:
    """Return `torchvision.datasets`, which takes long to import."""
    try:
        return importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise DatasetError(
            'data sets are read with torchvision: pip install "beyond-adam[book]"'
        ) from error
