"""Real data sets, each one file such as ``fashion_mnist.npz`` of uint8 arrays in one folder.

The folder is ``$BEYOND_ADAM_DATA`` or, by default, ``beyond-adam`` in the user's cache. A file may
come from `beyond_adam.data.download` or be put there by hand, its images in any order: `load` sorts
them, so that results do not depend on where a file came from.

A file holds ``x_train`` and ``x_test`` of shape (images, height, width), or (images, height, width,
3) for colours, and ``y_train`` and ``y_test`` of shape (images,), as `numpy.savez` writes them;
whatever else is in it is ignored.
"""

import hashlib
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from beyond_adam.data.embedded import diabetes, digits

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

ARRAYS: Final = ("x_train", "y_train", "x_test", "y_test")
"""What a file has to hold."""


class DatasetError(ValueError):
    """A data set is missing or not what it should be; the message says what to do."""


class Description(NamedTuple):
    """What the arrays of a file have to be.

    Attributes
    ----------
    train, test
        Numbers of images.
    shape
        Of one image: (height, width), or (height, width, 3) for colours.
    classes
        Names of the classes; a label is an index into them.
    fingerprint
        `Dataset.fingerprint` of the published set; empty if it is not known.
    """

    train: int
    test: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    fingerprint: str = ""


FASHION: Final = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
CIFAR10: Final = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100: Final = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

DATASETS: Final = {
    "mnist": Description(
        60_000,
        10_000,
        (28, 28),
        tuple("0123456789"),
        "f771933d03a86cc5f6899b91d168d95717c342a985562a4a2b5d8d2517a4cb24",
    ),
    "fashion-mnist": Description(
        60_000,
        10_000,
        (28, 28),
        tuple(FASHION.split(",")),
        "4de292442a22996b5d72c79883ebd803d1eb19709f86b3eb7c24b5f4c7be93a1",
    ),
    "cifar10": Description(
        50_000,
        10_000,
        (32, 32, 3),
        tuple(CIFAR10.split()),
        "f08f3fc8e9e44e051211a4e932c7b19cc739dedc35a38a2b568cc33faeffb522",
    ),
    "cifar100": Description(50_000, 10_000, (32, 32, 3), tuple(CIFAR100.split())),
}
"""The sets that are files, by name; of CIFAR-100 the fine classes.

The fingerprint of CIFAR-100 is not known to us: a file of it is checked for shape, classes and
damage, but that it holds the published images only the checksums of a download tell.
"""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples and what is to be told of them, in an order that depends on nothing but the set.

    Attributes
    ----------
    name
        As in `DATASETS`, or "digits" or "diabetes".
    x_train, x_test
        Images: grey values or colours, shape (images, channels, height, width), uint8. Or
        measurements, shape (examples, features), float32.
    y_train, y_test
        Classes, shape (images,), uint8; or numbers to predict, shape (examples, numbers), float32.
    classes
        Their names; none where numbers are to be predicted.
    depth
        The greatest value a pixel can have: 255, or 16 for the digits; 0 if there are no images.
    fingerprint
        SHA-256 of the digests of all training and then all test images, each taken of the image's
        bytes as in its file, (height, width) or (height, width, 3), and its label; of "diabetes"
        that of `Diabetes`.
    """

    name: str
    x_train: Array = field(repr=False)
    y_train: Array = field(repr=False)
    x_test: Array = field(repr=False)
    y_test: Array = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    depth: int
    fingerprint: str


def folder() -> Path:
    """Return where the files lie."""
    chosen = os.environ.get("BEYOND_ADAM_DATA")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).expanduser() / "beyond-adam"


def file_of(name: str) -> Path:
    """Return the file of a data set, whether it is there or not."""
    return folder() / f"{name.replace('-', '_')}.npz"


def load(name: str) -> Dataset:
    """Return a data set, with its images in the order of their digests.

    Parameters
    ----------
    name
        One of `DATASETS`, or "digits" or "diabetes", which need no file.

    Raises
    ------
    DatasetError
        If the name is unknown, or the file is missing, damaged, or not the published set; of
        "digits" and "diabetes", which come with scikit-learn, if that is missing or has others.
    """
    if name in EMBEDDED:
        try:
            return EMBEDDED[name]()
        except (ImportError, ValueError) as error:
            raise DatasetError(f"{name} cannot be had: {error}") from error
    if name not in DATASETS:
        known = ", ".join([*EMBEDDED, *DATASETS])
        raise DatasetError(f"there is no data set {name!r}: choose one of {known}")
    file = file_of(name)
    try:
        return read(name, file)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{name} is not there: run `make data`, or put the set into {file}"
        ) from error
    except DatasetError as error:
        raise DatasetError(
            f"{error}; remove it and run `make data`, or put the set there by hand"
        ) from error


def read(name: str, file: Path) -> Dataset:
    """Return one of `DATASETS` from a file.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    DatasetError
        If it cannot be read, is damaged, or does not hold the published set.
    """
    wanted = DATASETS[name]
    arrays = _arrays(file)
    fingerprint = hashlib.sha256()
    parts: dict[str, tuple[Bytes, Bytes]] = {}
    for part, count in (("train", wanted.train), ("test", wanted.test)):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        _check(file, f"x_{part}", x, (count, *wanted.shape))
        _check(file, f"y_{part}", y, (count,))
        labels = np.unique(y)
        if not np.array_equal(labels, np.arange(len(wanted.classes))):
            raise DatasetError(
                f"{file}: y_{part} has {len(labels)} classes from {labels[0]} to {labels[-1]}, not "
                f"{len(wanted.classes)} from 0 to {len(wanted.classes) - 1}"
            )
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


def _diabetes() -> Dataset:
    data = diabetes()
    x, y = data.features.astype(np.float32), data.target[:, None].astype(np.float32)
    train, test = ((x[rows], y[rows]) for rows in (data.train, data.test))
    return Dataset("diabetes", *train, *test, (), 0, data.fingerprint)


EMBEDDED: Final = {"digits": _digits, "diabetes": _diabetes}
"""The sets that need no file, by name."""


def _arrays(file: Path) -> dict[str, Bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {name: _array(archive, name) for name in ARRAYS}
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error.strerror or error})") from error
    # What a damaged archive raises has no base in common: BadZipFile, zlib.error, KeyError, …
    except Exception as error:
        raise DatasetError(f"{file} is damaged ({error})") from error


def _array(archive: zipfile.ZipFile, name: str) -> Bytes:
    with archive.open(f"{name}.npy") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    # Sums depend on the order in memory, which a file may have either way.
    return np.ascontiguousarray(array)


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
    fingerprint.update(digests[order].tobytes())
    x = x[order]
    return (x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)), y[order]
