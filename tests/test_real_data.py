"""The real data sets, against what their publishers say of them.

This file is left out where they are not, see conftest.py.
"""

import numpy as np
import pytest

from beyond_adam.data import load
from conftest import REAL

SHAPES = {
    "mnist": ((60_000, 1, 28, 28), (10_000, 1, 28, 28)),
    "fashion-mnist": ((60_000, 1, 28, 28), (10_000, 1, 28, 28)),
    "cifar10": ((50_000, 3, 32, 32), (10_000, 3, 32, 32)),
}
COUNTS = {
    "mnist": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "fashion-mnist": [6000] * 10,
    "cifar10": [5000] * 10,
}
"""How many training images each class has."""

MOMENTS = {
    "mnist": ([0.130660], [0.308108]),
    "fashion-mnist": ([0.286041], [0.353024]),
    "cifar10": ([0.491400, 0.482158, 0.446531], [0.247032, 0.243485, 0.261588]),
}
"""Means and standard deviations of the training pixels by channel, of values in [0, 1]."""


@pytest.fixture(scope="module", params=REAL)
def data(request):
    return load(request.param)


def test_images_are_bytes_of_the_published_shapes(data):
    assert (data.x_train.shape, data.x_test.shape) == SHAPES[data.name]
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    assert data.depth == 255 == data.x_train.max() == data.x_test.max()


def test_classes_have_the_published_numbers_of_images(data):
    assert np.bincount(data.y_train).tolist() == COUNTS[data.name]
    assert data.y_test.shape == (10_000,)
    assert set(data.y_test.tolist()) == set(range(10))
    assert len(data.classes) == 10


def test_pixels_have_the_published_means_and_deviations(data):
    # From histograms, which are exact.
    values = np.arange(256) / 255
    for channel, moments in enumerate(zip(*MOMENTS[data.name], strict=True)):
        part = np.bincount(data.x_train[:, channel].ravel(), minlength=256)
        part = part / part.sum()
        mean = part @ values
        deviation = np.sqrt(part @ (values - mean) ** 2)
        assert (mean, deviation) == pytest.approx(moments, rel=0, abs=5.1e-7)
