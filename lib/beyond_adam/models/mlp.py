"""A plain multilayer perceptron, of vectors or of images."""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import nn

ACTIVATIONS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "gelu": nn.GELU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "elu": nn.ELU,
    }
)
"""What `mlp` may put between its layers, by name."""


def mlp(
    sizes: Sequence[int],
    activation: str = "relu",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> nn.Sequential:
    """Return a multilayer perceptron with seeded weights: affine maps, activations between them.

    Weights and biases are uniform in ±1/√fan-in, as PyTorch draws them for ``nn.Linear``, but from
    a generator of their own: the global one is neither read nor advanced. They are drawn in
    float64, so every `dtype` starts from the same network but for rounding.

    Parameters
    ----------
    sizes
        Numbers of inputs, of units in each hidden layer, and of outputs.
    activation
        Name in `ACTIVATIONS`.
    seed
        Seed of the weights.
    dtype
        Floating type of the parameters.

    Returns
    -------
    torch.nn.Sequential
        Maps (..., sizes[0]) to (..., sizes[-1]), on the CPU.

    Raises
    ------
    ValueError
        If there are fewer than two sizes, one is not positive, or the activation is unknown.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must be two or more positive numbers, not {list(sizes)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {list(ACTIVATIONS)}, not {activation!r}")
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        # On the meta device nn.Linear draws no numbers that would be thrown away here.
        layer = nn.Linear(inputs, outputs, device="meta", dtype=dtype).to_empty(device="cpu")
        with torch.no_grad():
            for parameter in layer.parameters():
                uniform = torch.rand(
                    parameter.shape, generator=generator, dtype=torch.float64, device="cpu"
                )
                parameter.copy_((2 * uniform - 1) / inputs**0.5)
        layers += [layer, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def image_mlp(sizes: Sequence[int], activation: str = "relu") -> nn.Sequential:
    """Return a float32 `mlp` of flattened images, seeded by torch's global generator.

    That generator gives one number, the seed, whatever the sizes. HyperAdam's network of 15 910
    parameters has sizes 784, 20 and 10.

    Parameters
    ----------
    sizes
        Numbers of values in an image, of units in each hidden layer, and of outputs.
    activation
        Name in `ACTIVATIONS`.

    Returns
    -------
    torch.nn.Sequential
        Maps images (batch, ...) of sizes[0] values each to (batch, sizes[-1]), on the CPU.

    Raises
    ------
    ValueError
        If there are fewer than two sizes, one is not positive, or the activation is unknown.
    """
    seed = int(torch.randint(2**31, (), device="cpu").item())
    return nn.Sequential(nn.Flatten(), *mlp(sizes, activation, seed, torch.float32))
