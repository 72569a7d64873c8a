"""The convolutional network of the post on PAdam."""

from torch import nn


def fashion_cnn(
    side: int = 28,
    widths: tuple[int, int, int] = (32, 64, 128),
    dropout: float = 0.2,
) -> nn.Sequential:
    """Return the network of "First experiments on Fashion-MNIST", with 421 642 parameters.

    Two convolutions with 32 and 64 channels, each followed by a pooling over 2×2, and two dense
    layers, with dropout after the activation of the first. The post applies ReLU before each
    pooling. Here it comes after: the maximum of positive parts is the positive part of the maximum,
    value and gradient are the same bit for bit, and three quarters of the work are saved.

    Parameters
    ----------
    side
        Height and width of the images, a multiple of 4.
    widths
        Numbers of channels of the convolutions, and of units of the first dense layer.
    dropout
        Probability of dropout, in [0, 1].

    Returns
    -------
    torch.nn.Sequential
        Maps images (batch, 1, side, side) to logits (batch, 10). It is drawn from torch's global
        generator.

    Raises
    ------
    ValueError
        If `side` is not a multiple of 4.
    """
    if side < 4 or side % 4:
        raise ValueError(f"side must be a multiple of 4, not {side}")
    first, second, hidden = widths
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * (side // 4) ** 2, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, 10),
    )
