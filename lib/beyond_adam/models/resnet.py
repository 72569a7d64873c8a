"""Residual networks for images of 32×32.

All are built from two convolutions over 3×3 with batch normalisation and a shortcut around them.
`resnet18`, `resnet20` and `padam_wide_resnet` activate after the sum, `wide_resnet` before each
convolution. Every stage but the first begins by halving height and width; global average pooling
and a dense layer end the network. Convolutions have no bias, as the normalisation that follows
would take it out again.

References
----------
K. He, X. Zhang, S. Ren and J. Sun, Deep residual learning for image recognition, CVPR 2016.
S. Zagoruyko and N. Komodakis, Wide residual networks, BMVC 2016.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Block = Callable[[int, int, int], nn.Module]
"""Maps numbers of input and output channels and a stride to a module."""


def resnet18(classes: int = 10) -> nn.Sequential:
    """Return ResNet-18 with a stem for small images, as Padam and p-norm Adam are tested on.

    Four stages of two blocks with 64, 128, 256 and 512 channels (He et al., table 1), after a
    convolution over 3×3 with stride 1 in place of the one over 7×7 and the max-pooling. Where the
    shape changes, the shortcut is a normalised convolution over 1×1 (option B). There are 62
    parameter tensors with 11 173 962 numbers for 10 classes and 11 220 132 for 100.

    Parameters
    ----------
    classes
        Number of classes, at least 1.

    Returns
    -------
    torch.nn.Sequential
        Maps images (batch, 3, height, width) to logits (batch, classes). Weights are PyTorch's
        defaults, drawn from torch's global generator.

    Raises
    ------
    ValueError
        If `classes` is out of range.
    """
    return _resnet(partial(_BasicBlock, shortcut=_projection), (64, 128, 256, 512), 2, classes)


def resnet20(classes: int = 10) -> nn.Sequential:
    """Return the ResNet-20 of He et al., section 4.2.

    Three stages of three blocks with 16, 32 and 64 channels. Where the shape changes, the shortcut
    keeps every other pixel and adds channels of zeros, which takes no parameters (option A, as the
    section says). There are 269 722 parameters for 10 classes; the paper prints 0.27M.

    Parameters
    ----------
    classes
        Number of classes, at least 1.

    Returns
    -------
    torch.nn.Sequential
        Maps images (batch, 3, height, width) to logits (batch, classes). Weights of convolutions
        are normal with variance 2/fan-in, as in the section; the head has PyTorch's defaults. All
        are drawn from torch's global generator.

    Raises
    ------
    ValueError
        If `classes` is out of range.
    """
    model = _resnet(partial(_BasicBlock, shortcut=_ZeroPadding), (16, 32, 64), 3, classes)
    return _he_normal(model, "fan_in")


def wide_resnet(
    depth: int = 16, width: int = 4, classes: int = 10, dropout: float = 0.0
) -> nn.Sequential:
    """Return the wide residual network WRN-`depth`-`width` of Zagoruyko and Komodakis, table 1.

    After a convolution with 16 channels come three stages of (depth − 4)/6 pre-activated blocks
    with 16, 32 and 64 channels times `width`. WRN-16-4 has 2 748 890 parameters for 10 classes and
    2 772 020 for 100. Padam's network of that name is `padam_wide_resnet`.

    Parameters
    ----------
    depth
        Number of convolutions, the three in shortcuts included: 6n + 4 with n at least 1.
    width
        Widening factor, at least 1.
    classes
        Number of classes, at least 1.
    dropout
        Probability of dropout between the two convolutions of a block, in [0, 1].

    Returns
    -------
    torch.nn.Sequential
        Maps images (batch, 3, height, width) to logits (batch, classes). Weights of convolutions
        are normal with variance 2/fan-out, as in the authors' code (and Padam's); the head has
        PyTorch's defaults. All are drawn from torch's global generator.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        raise ValueError(f"depth must be 6n + 4 with n at least 1 (10, 16, 22, …), not {depth}")
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    widths = (16 * width, 32 * width, 64 * width)
    model = nn.Sequential(
        _convolution(3, 16, 3),
        *_stages(partial(_PreActivatedBlock, dropout=dropout), 16, widths, blocks),
        *_activation(widths[-1]),
        *_head(widths[-1], classes),
    )
    return _he_normal(model, "fan_out")


def padam_wide_resnet(classes: int = 10) -> nn.Sequential:
    """Return what the code of Padam calls WRN-16-4.

    Where `wide_resnet` activates before each convolution and starts with 16 channels, this one
    activates after the sums and starts with 64: stages of two blocks with 64, 128 and 256 channels,
    shortcuts by convolutions of size 1 with normalisation, no dropout. It has 2 777 674 parameters
    for 10 classes and 2 800 804 for 100.

    Parameters
    ----------
    classes
        Number of classes, at least 1.

    Returns
    -------
    torch.nn.Sequential
        As `wide_resnet` does, from the same distributions.

    Raises
    ------
    ValueError
        If `classes` is below 1.
    """
    block = partial(_BasicBlock, shortcut=_projection)
    return _he_normal(_resnet(block, (64, 128, 256), 2, classes), "fan_out")


class _BasicBlock(nn.Module):
    """Figure 2 of He et al.: the activation follows the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Block) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(inputs, outputs, 3, stride),
            *_activation(outputs),
            _convolution(outputs, outputs, 3),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else shortcut(inputs, outputs, stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        # In place, because nothing else needs the normalised residual: its gradient does not.
        residual: Tensor = self.residual(x)
        out: Tensor = self.activation(residual.add_(self.shortcut(x)))
        return out


class _PreActivatedBlock(nn.Module):
    """Figure 1(c) of Zagoruyko and Komodakis, 1(d) with dropout: nothing follows the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activation = nn.Sequential(*_activation(inputs))
        self.residual = nn.Sequential(
            _convolution(inputs, outputs, 3, stride),
            *_activation(outputs),
            nn.Dropout(dropout),
            _convolution(outputs, outputs, 3),
        )
        same = inputs == outputs and stride == 1
        self.projection = None if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(x)
        out: Tensor = self.residual(active)
        # A projection sees the activated input too, an identity the input as it is.
        return out.add_(x if self.projection is None else self.projection(active))


class _ZeroPadding(nn.Module):
    """The shortcut without parameters, option A: subsampling, then channels of zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.missing = outputs - inputs
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        kept = x[..., :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, 0, self.missing))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the shortcut with parameters, option B."""
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _resnet(block: Block, widths: Sequence[int], blocks: int, classes: int) -> nn.Sequential:
    """Return a network that activates after the sum, with `blocks` blocks of each width."""
    return nn.Sequential(
        _convolution(3, widths[0], 3),
        *_activation(widths[0]),
        *_stages(block, widths[0], widths, blocks),
        *_head(widths[-1], classes),
    )


def _stages(block: Block, inputs: int, widths: Sequence[int], blocks: int) -> list[nn.Module]:
    """Return `blocks` blocks of each width; from the second width on, the first has stride 2."""
    layers = []
    for stage, width in enumerate(widths):
        for index in range(blocks):
            layers.append(block(inputs, width, 2 if stage > 0 and index == 0 else 1))
            inputs = width
    return layers


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def _activation(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _head(channels: int, classes: int) -> list[nn.Module]:
    if classes < 1:
        raise ValueError(f"classes must be at least 1, not {classes}")
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def _he_normal(model: nn.Sequential, mode: Literal["fan_in", "fan_out"]) -> nn.Sequential:
    """Draw the weights of all convolutions anew, with the variance that suits ReLU."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
    return model
