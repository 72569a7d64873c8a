"""Real data sets, each one file ``<name>.npz`` of uint8 arrays in one folder.

The folder is ``$BEYOND_ADAM_DATA`` or, by default, ``beyond-adam`` in the user's cache. A file may
come from `beyond_adam.data.download` or be put there by hand, its images in any order: `load` sorts
them, so that results do not depend on where a file came from.
"""

import hashlib
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from beyond_adam.data.embedded import digits

Bytes = npt.NDArray[np.uint8]


class DatasetError(ValueError):
    """A data set is missing or not what it should be; the message says what to do."""


class Description(NamedTuple):
    """What a file has to hold.

    Attributes
    ----------
    train, test
        Numbers of images.
    shape
        Of one image: (height, width), or (height, width, 3) for colours.
    classes
        Names of the classes; a label is an index into them.
    fingerprint
        `Dataset.fingerprint` of the published set; empty if it is not known to us.
    """

    train: int
    test: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    fingerprint: str = ""


DATASETS: Final = {
    "mnist": Description(60_000, 10_000, (28, 28), tuple("0123456789"), "f771933d03a86cc5f6899b91d168d95717c342a985562a4a2b5d8d2517a4cb24"),
    "fashion-mnist": Description(
        60_000,
        10_000,
        (28, 28),
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        "4de292442a22996b5d72c79883ebd803d1eb19709f86b3eb7c24b5f4c7be93a1",
    ),
    "cifar10": Description(
        50_000,
        10_000,
        (32, 32, 3),
        (
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        "f08f3fc8e9e44e051211a4e932c7b19cc739dedc35a38a2b568cc33faeffb522",
    ),
}
"""The sets that are files, by name."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their classes, in an order that depends on nothing but themselves.

    Attributes
    ----------
    name
        As in `DATASETS`, or "digits".
    x_train, x_test
        Grey values or colours, shape (images, channels, height, width), uint8.
    y_train, y_test
        Classes, shape (images,), uint8.
    classes
        Their names.
    depth
        The greatest value a pixel can have: 255, or 16 for the digits.
    fingerprint
        SHA-256 of the digests of all training and then all test images, each taken of the image's
        bytes as in its file, (height, width) or (height, width, 3), and its label.
    """

    name: str
    x_train: Bytes = field(repr=False)
    y_train: Bytes = field(repr=False)
    x_test: Bytes = field(repr=False)
    y_test: Bytes = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    depth: int
    fingerprint: str


def folder() -> Path:
    """Return where the files lie."""
    chosen = os.environ.get("BEYOND_ADAM_DATA")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "beyond-adam"


def file_of(name: str) -> Path:
    """Return the file of a data set, whether it is there or not."""
    return folder() / f"{name.replace('-', '_')}.npz"


def load(name: str) -> Dataset:
    """Return a data set, with its images in the order of their digests.

    Parameters
    ----------
    name
        One of `DATASETS`, or "digits", which needs no file.

    Raises
    ------
    DatasetError
        If the name is unknown, or the file is missing, damaged, or not the published set.
    """
    if name == "digits":
        return _digits()
    if name not in DATASETS:
        known = ", ".join(["digits", *DATASETS])
        raise DatasetError(f"there is no data set {name!r}: choose one of {known}")
    file, wanted = file_of(name), DATASETS[name]
    if not file.is_file():
        raise DatasetError(f"{name} is not there: run `make data`, or put the set into {file}")
    arrays = _read(file)
    fingerprint = hashlib.sha256()
    parts: dict[str, tuple[Bytes, Bytes]] = {}
    for part, count in (("train", wanted.train), ("test", wanted.test)):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        _check(file, f"x_{part}", x, (count, *wanted.shape))
        _check(file, f"y_{part}", y, (count,))
        if y.max() >= len(wanted.classes):
            raise DatasetError(f"{file}: y_{part} has a class {y.max()}; put the set there again")
        parts[part] = _in_order(x, y, fingerprint)
    found = fingerprint.hexdigest()
    if wanted.fingerprint and found != wanted.fingerprint:
        raise DatasetError(
            f"{file} is not the published {name}: fingerprint {found}, not {wanted.fingerprint}"
        )
    return Dataset(name, *parts["train"], *parts["test"], wanted.classes, 255, found)


def _digits() -> Dataset:
    data = digits()
    fingerprint = hashlib.sha256()
    train, test = (
        _in_order(data.images[rows], data.labels[rows].astype(np.uint8), fingerprint)
        for rows in (data.train, data.test)
    )
    names = tuple("0123456789")
    return Dataset("digits", *train, *test, names, 16, fingerprint.hexdigest())


def _read(file: Path) -> dict[str, Bytes]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{file} is damaged ({error}): remove it and put the set there again"
        ) from error


def _check(file: Path, name: str, array: Bytes, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.uint8:
        raise DatasetError(
            f"{file}: {name} is {array.dtype} of shape {array.shape}, not uint8 of shape {shape}"
        )


def _in_order(x: Bytes, y: Bytes, fingerprint: "hashlib._Hash") -> tuple[Bytes, Bytes]:
    """Sort by the digest of image and label; return images with an axis of channels."""
    rows = np.concatenate([x.reshape(len(x), -1), y[:, None]], axis=1)
    digests = np.array([hashlib.sha256(row).digest() for row in rows], dtype="S32")
    order = np.argsort(digests, kind="stable")
    fingerprint.update(b"".join(d.ljust(32, b"\0") for d in digests[order].tolist()))
    x = x[order]
    return (x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)), y[order]
