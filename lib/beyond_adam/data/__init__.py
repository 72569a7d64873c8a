"""Data sets and batched augmentation.

- `digits`, `diabetes`: small sets that come with scikit-learn.
- `load`: the real ones, from files on this machine; `download` fetches them.
- `Images`: a set on a device, from which batches are drawn, augmented and normalised.
- `augmentation`: rotations, translations, crops and flips of whole batches.
"""

from beyond_adam.data.embedded import Diabetes, Digits, diabetes, digits
from beyond_adam.data.files import DATASETS, Dataset, DatasetError, load

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetError",
    "Diabetes",
    "Digits",
    "diabetes",
    "digits",
    "load",
]
