"""Random geometric changes of whole batches of images.

A change does not touch pixels: for every place of the new image it says from which place of the old
one the pixel comes. Changes that follow one another are traced back from the last to the first, and
the pixels are fetched once. Resampling takes the nearest pixel and what comes from outside is 0, as
in `torchvision.transforms` by default. A batch and its generator give the same on every device and
machine, but for pixels rarer than one in a million where the cosine of an angle is rounded
otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

FAR: Final = 2.0**20
"""How far places outside of an image are moved away, so that no change brings them back."""


class Places(NamedTuple):
    """Where the pixels of a batch come from.

    Attributes
    ----------
    row, column
        Whole numbers as float32, of shapes that broadcast to (images, height, width). What is
        outside of the image is 0 there.
    """

    row: Tensor
    column: Tensor


class Change(Protocol):
    """A random change, drawn anew for every image."""

    def trace(self, places: Places, size: tuple[int, int, int], generator: Generator) -> Places:
        """Return where the pixels at `places` of the new images come from in the old ones.

        Parameters
        ----------
        places
            In the new images, or `FAR` away from them.
        size
            Numbers of images, rows and columns.
        generator
            Of the random numbers, on the CPU.
        """
        ...


@dataclass(frozen=True)
class Rotation:
    """Rotate about the centre, by an angle that is uniform in ± `degrees`."""

    degrees: float

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise ValueError(f"degrees must be in [0, 180], not {self.degrees}")

    def trace(self, places: Places, size: tuple[int, int, int], generator: Generator) -> Places:
        """Return where the pixels come from; see `Change`."""
        count, height, width = size
        angle = _uniform(count, math.radians(self.degrees), generator)
        # On the CPU, as a device may round them otherwise.
        cos, sin = angle.cos().to(places.row.device), angle.sin().to(places.row.device)
        y, x = places.row - (height - 1) / 2, places.column - (width - 1) / 2
        row = cos * y + (sin * x + height / 2)
        column = cos * x - (sin * y - width / 2)
        return Places(row.floor_(), column.floor_())


@dataclass(frozen=True)
class Translation:
    """Shift by whole pixels, along each axis uniform in ± `part` of its length and then rounded."""

    part: float

    def __post_init__(self) -> None:
        if not 0 <= self.part <= 1:
            raise ValueError(f"part must be in [0, 1], not {self.part}")

    def trace(self, places: Places, size: tuple[int, int, int], generator: Generator) -> Places:
        """Return where the pixels come from; see `Change`."""
        count, height, width = size
        down = _uniform(count, self.part * height, generator).round_()
        right = _uniform(count, self.part * width, generator).round_()
        device = places.row.device
        return Places(places.row - down.to(device), places.column - right.to(device))


@dataclass(frozen=True)
class Crop:
    """Add a margin around the image and cut out a random part of the size that it had.

    Parameters
    ----------
    margin
        Width of the margin in pixels.
    reflect
        Whether the margin mirrors the image, whose outermost pixels are not repeated, or is 0.
    """

    margin: int
    reflect: bool = False

    def __post_init__(self) -> None:
        if type(self.margin) is not int or self.margin < 0:
            raise ValueError(f"margin must be a whole number of at least 0, not {self.margin!r}")

    def trace(self, places: Places, size: tuple[int, int, int], generator: Generator) -> Places:
        """Return where the pixels come from; see `Change`."""
        count, height, width = size
        if self.reflect and self.margin >= min(height, width):
            raise ValueError(
                f"images of {height} × {width} pixels can be mirrored in a margin of at most "
                f"{min(height, width) - 1}, not {self.margin}"
            )
        shape = (2, count, 1, 1)
        shift = torch.randint(2 * self.margin + 1, shape, generator=generator, device="cpu")
        down, right = (shift - self.margin).to(places.row)
        row, column = places.row + down, places.column + right
        if self.reflect:
            row, column = _mirrored(row, height), _mirrored(column, width)
        return Places(row, column)


@dataclass(frozen=True)
class Flip:
    """Swap left and right, with a probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be in [0, 1], not {self.probability}")

    def trace(self, places: Places, size: tuple[int, int, int], generator: Generator) -> Places:
        """Return where the pixels come from; see `Change`."""
        count, _, width = size
        draw = _drawn(count, generator).to(places.row.device)
        flipped = torch.where(draw < self.probability, width - 1 - places.column, places.column)
        return places._replace(column=flipped)


def augmented(images: Tensor, changes: Sequence[Change], generator: Generator) -> Tensor:
    """Return the images, each changed in its own random way.

    Parameters
    ----------
    images
        Shape (images, channels, height, width), any type, any device.
    changes
        What is done to them, in this order.
    generator
        Of the random numbers, on the CPU, so that every device sees the same ones.

    Returns
    -------
    Tensor
        New tensor of the same shape, type and device, contiguous.

    Raises
    ------
    ValueError
        If `images` does not have four dimensions, or is too small to be mirrored in the margin of a
        `Crop`.
    """
    if images.ndim != 4:
        raise ValueError(
            f"images must have shape (images, channels, height, width), not {tuple(images.shape)}"
        )
    count, channels, height, width = images.shape
    device = images.device
    places = Places(
        torch.arange(height, dtype=torch.float32, device=device)[None, :, None],
        torch.arange(width, dtype=torch.float32, device=device)[None, None, :],
    )
    for change in reversed(changes):
        held = Places(_held(places.row, height), _held(places.column, width))
        places = change.trace(held, (count, height, width), generator)
    # A rim of zeros around the images is where all that is outside is fetched from.
    row, column = places.row.clamp(-1, height).int(), places.column.clamp(-1, width).int()
    source = torch.add(column + (width + 3), row, alpha=width + 2).expand(count, height, width)
    source = source.flatten(1).long()[:, None].expand(-1, channels, -1)
    return pad(images, (1, 1, 1, 1)).flatten(2).gather(2, source).view(images.shape)


def _drawn(count: int, generator: Generator) -> Tensor:
    """Return random numbers in [0, 1), shape (count, 1, 1), whatever torch's defaults are."""
    return torch.rand((count, 1, 1), generator=generator, dtype=torch.float32, device="cpu")


def _uniform(count: int, reach: float, generator: Generator) -> Tensor:
    """Return random numbers in ± `reach`, shape (count, 1, 1), on the CPU."""
    return (2 * _drawn(count, generator) - 1) * reach


def _held(place: Tensor, length: int) -> Tensor:
    """Move what is outside of 0 … length − 1, by a pixel or more, far away."""
    nearest = place.clamp(0, length - 1)
    return nearest.add_((place - nearest).clamp_(-1, 1), alpha=FAR)


def _mirrored(place: Tensor, length: int) -> Tensor:
    """Mirror what lies outside of 0 … length − 1, at most once, back into it."""
    place = place.abs()
    return torch.minimum(place, 2 * (length - 1) - place)
