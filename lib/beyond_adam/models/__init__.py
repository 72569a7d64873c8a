"""Models: some small enough to look inside, and those of the experiments at paper scale.

`build` makes any of `MODELS` from its name and a seed. `PointwiseCNN` is a loss surface to draw
rather than a torch module.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from beyond_adam.models.cnn import fashion_cnn
from beyond_adam.models.lstm import LSTM, lstm
from beyond_adam.models.mlp import mlp
from beyond_adam.models.pointwise_cnn import PointwiseCNN, Valley, digits_problem
from beyond_adam.models.resnet import resnet18, resnet20, wide_resnet
from beyond_adam.models.vgg import vgg16_bn

__all__ = [
    "LSTM",
    "MODELS",
    "PointwiseCNN",
    "Valley",
    "build",
    "digits_problem",
    "fashion_cnn",
    "lstm",
    "mlp",
    "resnet18",
    "resnet20",
    "vgg16_bn",
    "wide_resnet",
]


def _mlp_of_images(sizes: Sequence[int], activation: str = "relu") -> nn.Sequential:
    """Return a float32 `mlp` of flattened images, seeded by the next draw of the generator."""
    seed = int(torch.randint(2**31, ()).item())
    return nn.Sequential(nn.Flatten(), *mlp(sizes, activation, seed=seed, dtype=torch.float32))


MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "fashion-cnn": fashion_cnn,
        "mlp": _mlp_of_images,
        "vgg16-bn": vgg16_bn,
        "resnet18": resnet18,
        "resnet20": resnet20,
        "wide-resnet": wide_resnet,
        "lstm": lstm,
    }
)
"""By name, functions that draw a float32 model from torch's global generator."""


def build(name: str, seed: int, **options: Any) -> nn.Module:
    """Return a model with seeded weights; torch's global generators stay as they are.

    Parameters
    ----------
    name
        Name in `MODELS`.
    seed
        Seed of the weights.
    **options
        Arguments of the function in `MODELS`. Only "mlp" must have one: ``sizes``, which begins
        with the number of values in an image.

    Returns
    -------
    torch.nn.Module
        The model, in float32, in training mode.

    Raises
    ------
    ValueError
        If the name or an option is unknown, or an option is missing or has a wrong value.
    """
    if name not in MODELS:
        raise ValueError(f"model must be one of {list(MODELS)}, not {name!r}")
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the generators of all GPUs, too.
        torch.default_generator.manual_seed(seed)
        try:
            return MODELS[name](**options)
        except TypeError as error:
            allowed = list(inspect.signature(MODELS[name]).parameters)
            raise ValueError(
                f"model {name!r} takes options {allowed}, not {options}: {error}"
            ) from error
