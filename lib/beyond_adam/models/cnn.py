"""The convolutional network of the post on PAdam."""

from torch import nn


def fashion_cnn(dropout: float = 0.2) -> nn.Sequential:
    """Return the network of "First experiments on Fashion-MNIST", with 421 642 parameters.

    Two convolutions with 32 and 64 channels, each followed by a pooling over 2×2, and two dense
    layers, with dropout after the activation of the first. The post applies ReLU before each
    pooling. Here it comes after: the maximum of positive parts is the positive part of the maximum,
    value and gradient are the same bit for bit, and three quarters of the work are saved.

    Parameters
    ----------
    dropout
        Probability of dropout, in [0, 1].

    Returns
    -------
    torch.nn.Sequential
        Maps images (batch, 1, 28, 28) to logits (batch, 10); drawn from torch's global generator.
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(128, 10),
    )
