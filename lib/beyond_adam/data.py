"""Data sets that need no download."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

DIGITS_SHA256: Final = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"
"""Fingerprint of the digits that the results of the book were computed from."""


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
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'the digits come with scikit-learn: pip install "beyond-adam[book]"'
        ) from error
    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    # NumPy promises the raw stream of a bit generator for ever, that of a shuffle only within a
    # version: the split is the order of raw numbers.
    order = np.argsort(np.random.PCG64(0).random_raw(len(labels)))
    train, test = np.split(order, [len(order) * 4 // 5])
    content = images.tobytes() + labels.astype("<i8").tobytes()
    fingerprint = hashlib.sha256(content).hexdigest()
    if fingerprint != DIGITS_SHA256:
        raise ValueError(
            f"scikit-learn's digits have changed: SHA-256 {fingerprint}, expected {DIGITS_SHA256}"
        )
    return Digits(images, labels, train, test, fingerprint)
