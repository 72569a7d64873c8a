"""Data sets that need no download."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

DIGITS_SHA256: Final = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"
"""Fingerprint of the digits that the results of the book were computed from."""

DIABETES_SHA256: Final = "e9c1f7559552854a24dc45b41c446ce5f79f96e5da081bcce24b57492720b3f7"
"""Fingerprint of the diabetes study that the results of the book were computed from."""


@dataclass(frozen=True, eq=False)
class Digits:
    """The handwritten digits that come with scikit-learn.

    They are the test part of the optical recognition set of the UCI repository (Alpaydin & Kaynak,
    1998), by 13 writers.

    Attributes
    ----------
    images
        Grey values from 0 to 16, shape (1797, 8, 8), uint8.
    labels
        The digits 0 to 9, shape (1797,), int64.
    train, test
        Indices of a fixed random split, shapes (1437,) and (360,), int64.
    fingerprint
        SHA-256 of the bytes of `images` and then `labels` (little-endian), in hexadecimal.
    """

    images: npt.NDArray[np.uint8] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    train: npt.NDArray[np.int64] = field(repr=False)
    test: npt.NDArray[np.int64] = field(repr=False)
    fingerprint: str


def digits() -> Digits:
    """Return the digits with their split.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If its digits are not those the book was computed from.
    """
    bunch = _scikit_learn("load_digits")
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    content = images.tobytes() + labels.astype("<i8").tobytes()
    fingerprint = _checked("digits", content, DIGITS_SHA256)
    return Digits(images, labels, *_split(len(labels)), fingerprint)


@dataclass(frozen=True, eq=False)
class Diabetes:
    """The diabetes study that comes with scikit-learn.

    Ten measurements of 442 patients, and how far the disease had progressed a year later (Efron,
    Hastie, Johnstone & Tibshirani, 2004).

    Attributes
    ----------
    features
        The measurements, each column with mean 0 and mean square 1, shape (442, 10), float64.
    target
        The progression less its mean, shape (442,), float64.
    names
        What the columns are called: age, sex, bmi (body mass index), bp (blood pressure), and six
        blood values s1 to s6.
    train, test
        Indices of a fixed random split, shapes (353,) and (89,), int64. Mean and mean square are
        those of all patients: standardise by those for training before you compare models.
    fingerprint
        SHA-256 of the bytes of measurements and then progression as published (float64,
        little-endian), in hexadecimal.
    """

    features: npt.NDArray[np.float64] = field(repr=False)
    target: npt.NDArray[np.float64] = field(repr=False)
    names: tuple[str, ...]
    train: npt.NDArray[np.int64] = field(repr=False)
    test: npt.NDArray[np.int64] = field(repr=False)
    fingerprint: str


def diabetes() -> Diabetes:
    """Return the diabetes study, standardised.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If its study is not the one the book was computed from.
    """
    bunch = _scikit_learn("load_diabetes", scaled=False)
    content = bunch.data.astype("<f8").tobytes() + bunch.target.astype("<f8").tobytes()
    fingerprint = _checked("diabetes study", content, DIABETES_SHA256)
    centred = bunch.data - bunch.data.mean(axis=0)
    features = centred / np.sqrt(np.mean(centred**2, axis=0))
    target = bunch.target - bunch.target.mean()
    names = tuple(bunch.feature_names)
    return Diabetes(features, target, names, *_split(len(target)), fingerprint)


def _split(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return four fifths of the indices up to a count, at random, and the others.

    NumPy promises the raw stream of a bit generator for ever, that of a shuffle only within a
    version: the split is the order of raw numbers.
    """
    order = np.argsort(np.random.PCG64(0).random_raw(count))
    return order[: count * 4 // 5], order[count * 4 // 5 :]


def _scikit_learn(loader: str, **options: bool) -> Any:
    """Return what a loader of `sklearn.datasets` returns."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            'the data sets come with scikit-learn: pip install "beyond-adam[book]"'
        ) from error
    return getattr(datasets, loader)(**options)


def _checked(name: str, content: bytes, expected: str) -> str:
    """Return the SHA-256 of `content` if it is the expected one."""
    fingerprint = hashlib.sha256(content).hexdigest()
    if fingerprint != expected:
        raise ValueError(
            f"scikit-learn's {name} is not the book's: SHA-256 {fingerprint}, expected {expected}"
        )
    return fingerprint
