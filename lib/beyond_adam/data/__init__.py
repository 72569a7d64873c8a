"""Data sets and batched augmentation.

- `digits`, `diabetes`: small sets that come with scikit-learn.
- `load`: the real ones, from files on this machine; `download` fetches them.
- `imagenet`: too large for one file, read image by image from a folder.
- `augmentation`: rotations, translations, crops and flips of whole batches.
"""

from beyond_adam.data.downloads import download, imagenet
from beyond_adam.data.embedded import (
    DIABETES_SHA256,
    DIGITS_SHA256,
    Diabetes,
    Digits,
    diabetes,
    digits,
)
from beyond_adam.data.files import DATASETS, Dataset, DatasetError, load

__all__ = [
    "DATASETS",
    "DIABETES_SHA256",
    "DIGITS_SHA256",
    "Dataset",
    "DatasetError",
    "Diabetes",
    "Digits",
    "diabetes",
    "digits",
    "download",
    "imagenet",
    "load",
]
