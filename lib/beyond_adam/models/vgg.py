"""The VGG network of the experiments on Padam and on adaptive exponents."""

from torch import nn

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Configuration D of Simonyan and Zisserman, table 1: convolutions and channels per pooling."""


def vgg16_bn(classes: int = 10, dropout: float = 0.0) -> nn.Sequential:
    """Return VGG-16 with batch normalisation for images of 32×32, as the code of Padam has it.

    The 13 convolutions over 3×3 of configuration D, each with a bias, batch normalisation and ReLU;
    five poolings over 2×2 leave one pixel of 512 channels, and the head is a single dense layer
    where the network for ImageNet has three. That makes 14 728 266 parameters for 10 classes and
    14 774 436 for 100. Neither Padam's code nor its slides use dropout; the post on adaptive
    exponents leaves the place and the rate open, and here it comes before the head.

    Parameters
    ----------
    classes
        Number of classes, at least 1.
    dropout
        Probability of dropout, in [0, 1].

    Returns
    -------
    torch.nn.Sequential
        Maps images (batch, 3, 32, 32) to logits (batch, classes). Weights are PyTorch's defaults,
        drawn from torch's global generator.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    K. Simonyan and A. Zisserman, Very deep convolutional networks for large-scale image
    recognition, ICLR 2015. J. Chen et al., Closing the generalization gap of adaptive gradient
    methods in training deep neural networks, IJCAI 2020.
    """
    if classes < 1:
        raise ValueError(f"classes must be at least 1, not {classes}")
    layers: list[nn.Module] = []
    inputs = 3
    for convolutions, channels in STAGES:
        for _ in range(convolutions):
            layers += [
                nn.Conv2d(inputs, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers, *head)
