import itertools
import math

import pytest
import torch
from torchvision.transforms import functional

from beyond_adam.data.augmentation import Crop, Flip, Rotation, Translation, augmented

SHAPES = [(6, 1, 12, 12), (6, 3, 15, 10)]
CHANGES = [
    Rotation(25),
    Rotation(180),
    Translation(0.3),
    Translation(0.9),
    Crop(3),
    Crop(4, reflect=True),
    Flip(),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(shape, seed=0):
    # Without zeros, which are what comes from outside.
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def coordinates(count, height, width):
    """Return images whose channels say which row and column a pixel is from, counted from 1."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([row, column]).add(1).short().expand(count, 2, height, width).clone()


def draws(change, shape, generator):
    """Return what `change` draws for every image, by its definition."""
    count, _, height, width = shape

    def uniform():
        return 2 * torch.rand((count, 1, 1), generator=generator).flatten() - 1

    match change:
        case Rotation(degrees):
            return (uniform() * math.radians(degrees)).tolist()
        case Translation(part):
            down = (uniform() * part * height).round().int().tolist()
            return list(zip(down, (uniform() * part * width).round().int().tolist(), strict=True))
        case Crop(margin):
            return torch.randint(2 * margin + 1, (2, count), generator=generator).T.tolist()
        case Flip(probability):
            return (torch.rand(count, generator=generator) < probability).tolist()


def by_torchvision(image, change, draw):
    height, width = image.shape[-2:]
    match change:
        case Rotation():
            return functional.rotate(image, math.degrees(draw))
        case Translation():
            down, right = draw
            return functional.affine(
                image, angle=0.0, translate=[right, down], scale=1.0, shear=[0.0]
            )
        case Crop(margin, reflect):
            wide = functional.pad(image, margin, padding_mode="reflect" if reflect else "constant")
            return functional.crop(wide, *draw, height, width)
        case Flip():
            return functional.hflip(image) if draw else image


def between_pixels(angle, height, width):
    """Return where a rotated image takes a pixel so near to the next that rounding decides."""
    y = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    row = math.cos(angle) * y + math.sin(angle) * x + height / 2
    column = math.cos(angle) * x - math.sin(angle) * y + width / 2
    return ((row - row.round()).abs() < 1e-4) | ((column - column.round()).abs() < 1e-4)


def expected(images, changes, seed):
    """Return what torchvision makes of the images one by one, and which pixels are in doubt."""
    generator = seeded(seed)
    drawn = [draws(change, images.shape, generator) for change in reversed(changes)][::-1]
    results = []
    for number, image in enumerate(images):
        doubt = torch.zeros_like(image, dtype=torch.uint8)
        for change, draw in zip(changes, drawn, strict=True):
            image = by_torchvision(image, change, draw[number])
            doubt = by_torchvision(doubt, change, draw[number])
            if isinstance(change, Rotation):
                doubt |= between_pixels(draw[number], *image.shape[1:])
        results.append((image, doubt.bool()))
    return tuple(map(torch.stack, zip(*results, strict=True)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "changes",
    [*itertools.product(CHANGES, repeat=1), *itertools.product(CHANGES, repeat=2)],
    ids=lambda changes: "-".join(type(change).__name__ for change in changes),
)
def test_it_is_what_torchvision_does_image_by_image(changes, shape):
    images = noise(shape)
    found = augmented(images, changes, seeded(5))
    wanted, doubt = expected(images, changes, 5)
    assert doubt.float().mean() < 0.02
    assert torch.equal(found.masked_fill(doubt, 0), wanted.masked_fill(doubt, 0))


@pytest.mark.parametrize("seed", range(3))
def test_a_long_sequence_is_what_torchvision_does(seed):
    changes = [Crop(2, reflect=True), Rotation(15), Flip(), Translation(0.2), Rotation(60), Crop(1)]
    images = noise((5, 3, 14, 14), seed)
    found = augmented(images, changes, seeded(seed))
    wanted, doubt = expected(images, changes, seed)
    assert doubt.float().mean() < 0.02
    assert torch.equal(found.masked_fill(doubt, 0), wanted.masked_fill(doubt, 0))


def test_what_left_the_image_does_not_come_back():
    # All of it is shifted out somewhere; then turned, mirrored, cropped and shifted about.
    images = torch.ones((40, 1, 9, 9))
    changes = [Translation(1), Crop(8, reflect=True), Rotation(180), Crop(5), Translation(1)]
    shifts = augmented(images, [Translation(1), Translation(1)], seeded())
    assert (shifts.sum((1, 2, 3)) == 0).any()
    for first in range(len(changes)):
        order = changes[first:] + changes[:first]
        wanted, doubt = expected(images, order, 1)
        found = augmented(images, order, seeded(1))
        assert torch.equal(found[~doubt], wanted[~doubt])


def test_a_translation_is_uniform_and_rounded():
    count = 20_000
    images = coordinates(count, 20, 10)
    # The pixel in the middle is always inside; where it comes from tells the shift.
    middle = augmented(images, [Translation(0.2)], seeded())[:, :, 10, 5]
    for axis, reach in ((0, 4), (1, 2)):
        shift = (10, 5)[axis] + 1 - middle[:, axis]
        share = torch.stack([(shift == k).float().mean() for k in range(-reach, reach + 1)])
        # Half an interval is rounded to each of the ends, a whole one to the others.
        wanted = torch.full((2 * reach + 1,), 1 / (2 * reach))
        wanted[[0, -1]] /= 2
        assert torch.allclose(share, wanted, atol=0.01)
        assert shift.abs().max() == reach
    assert torch.corrcoef(middle.T.double())[0, 1].abs() < 0.03


@pytest.mark.parametrize("reflect", [False, True])
def test_a_crop_is_uniform(reflect):
    middle = augmented(coordinates(20_000, 9, 9), [Crop(2, reflect)], seeded())[:, :, 4, 4]
    shift = middle - 5
    pairs, counts = shift.unique(dim=0, return_counts=True)
    assert pairs.tolist() == [[row, column] for row in range(-2, 3) for column in range(-2, 3)]
    assert (counts / 20_000 - 1 / 25).abs().max() < 0.006


def test_a_rotation_is_uniform():
    # A pixel at the right edge comes from a row that tells the sine of the angle.
    images = coordinates(1_000, 101, 101)[:, :1]
    row = augmented(images, [Rotation(30)], seeded())[:, 0, 50, 100] - 51
    angle = torch.rad2deg(torch.asin(row / 50))
    assert angle.abs().max() < 30.7
    # Halfway between two rows.
    grid = torch.rad2deg(torch.asin(torch.tensor([-24.5, -12.5, 0.5, 12.5, 24.5]) / 50))
    below = (angle[:, None] < grid).float().mean(0)
    assert torch.allclose(below, (grid + 30) / 60, atol=0.04)


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_a_flip_has_its_probability(probability):
    images = coordinates(10_000, 1, 2)
    flipped = augmented(images, [Flip(probability)], seeded())[:, 1, 0, 0] == 2
    assert flipped.float().mean() == pytest.approx(probability, abs=0.015 * (0 < probability < 1))


@pytest.mark.parametrize(
    "change", [Rotation(0), Translation(0), Crop(0), Crop(0, reflect=True), Flip(0)], ids=repr
)
def test_a_change_by_nothing_changes_nothing(change):
    images = noise((4, 3, 7, 8))
    assert torch.equal(augmented(images, [change], seeded()), images)


@pytest.mark.parametrize("change", CHANGES, ids=repr)
def test_the_generator_decides_everything(change):
    images = noise((16, 1, 12, 12))
    first = augmented(images, [change], seeded(3))
    torch.manual_seed(99)
    assert torch.equal(first, augmented(images, [change], seeded(3)))
    assert not torch.equal(first, augmented(images, [change], seeded(4)))
    generator = seeded(3)
    assert torch.equal(first, augmented(images, [change], generator))
    assert not torch.equal(first, augmented(images, [change], generator))


@pytest.mark.parametrize("changes", [[], [Flip(0)], CHANGES], ids=len)
def test_the_input_stays_and_the_output_is_its_own(changes):
    images = noise((4, 3, 12, 9))
    kept = images.clone()
    found = augmented(images, changes, seeded())
    found += 1
    assert torch.equal(images, kept)
    assert found.is_contiguous()
    assert (found.shape, found.dtype) == (images.shape, images.dtype)


def test_no_change_returns_the_images_and_draws_nothing():
    images, generator = noise((4, 3, 12, 9)), seeded()
    before = generator.get_state()
    assert torch.equal(augmented(images, [], generator), images)
    assert torch.equal(generator.get_state(), before)


def test_all_channels_move_together():
    grey = noise((8, 1, 12, 12))
    found = augmented(grey.expand(-1, 3, -1, -1), CHANGES, seeded())
    assert torch.equal(found, augmented(grey, CHANGES, seeded()).expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.stack([x, x + 1])[0],
        lambda x: x.repeat_interleave(2, 0)[::2],
        lambda x: x.repeat_interleave(2, 3)[..., ::2],
    ],
    ids=["channels_last", "transposed", "part", "every other image", "every other column"],
)
@pytest.mark.parametrize("changes", [[], [Crop(2), Flip()], CHANGES], ids=len)
def test_the_layout_in_memory_does_not_matter(arrange, changes):
    images = noise((6, 3, 12, 9))
    other = arrange(images)
    assert torch.equal(other, images)
    found = augmented(other, changes, seeded())
    assert found.is_contiguous()
    assert torch.equal(found, augmented(images, changes, seeded()))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float64])
def test_every_type_of_pixel_moves_alike(dtype):
    images = noise((6, 1, 12, 12)) % 2
    wanted = augmented(images, CHANGES, seeded())
    found = augmented(images.to(dtype), CHANGES, seeded())
    assert found.dtype == dtype
    assert torch.equal(found.to(torch.uint8), wanted)


def test_pixels_from_outside_are_zero_whatever_is_at_the_rim():
    images = torch.full((20, 1, 5, 5), math.nan)
    found = augmented(images, [Translation(1)], seeded())
    assert (found.nan_to_num(1) == 0).any()


def test_torchs_defaults_do_not_matter(other_defaults):
    images = noise((6, 3, 15, 10))
    changed = augmented(images, CHANGES, seeded())
    with other_defaults():
        assert torch.equal(augmented(images, CHANGES, seeded()), changed)


def test_a_batch_may_be_empty():
    assert augmented(noise((0, 3, 8, 8)), CHANGES, seeded()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rotation(-1), r"degrees must be in \[0, 180\], not -1"),
        (lambda: Rotation(180.5), r"not 180.5"),
        (lambda: Rotation(math.nan), r"not nan"),
        (lambda: Translation(-0.1), r"part must be in \[0, 1\], not -0.1"),
        (lambda: Translation(1.5), r"not 1.5"),
        (lambda: Crop(-1), r"margin must be a whole number of at least 0, not -1"),
        (lambda: Crop(1.5), r"not 1.5"),
        (lambda: Crop(True), r"not True"),
        (lambda: Flip(-0.1), r"probability must be in \[0, 1\], not -0.1"),
        (lambda: Flip(1.1), r"not 1.1"),
    ],
)
def test_impossible_changes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_mirror_is_not_wider_than_the_image():
    images = noise((2, 1, 5, 8))
    augmented(images, [Crop(4, reflect=True)], seeded())
    with pytest.raises(ValueError, match=r"5 × 8 pixels .* at most 4, not 5"):
        augmented(images, [Crop(5, reflect=True)], seeded())


def test_images_without_an_axis_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"\(images, channels, height, width\), not \(2, 8, 8\)"):
        augmented(noise((2, 8, 8)), [Flip()], seeded())
