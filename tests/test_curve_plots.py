import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from beyond_adam.experiments.mnist_mlp import METHODS, OUR_ADAM, TORCH_ADAM
from beyond_adam.publishing import curve_plots


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def epochs():
    """Two seeds of each method; both Adams are the same."""
    lines = [
        {"method": method, "seed": seed, "epoch": epoch, "lr": 1e-3,
         "train_loss": (2.0 + seed) / epoch, "test_accuracy": 0.3 * epoch}
        for method in METHODS
        for seed in (0, 1)
        for epoch in (1, 2, 3)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def test_every_run_is_a_line_in_both_panels(epochs):
    figure, data = curve_plots.learning_curves(epochs)
    left, right = figure.axes
    assert len(left.lines) == len(right.lines) == 6
    np.testing.assert_allclose(left.lines[1].get_xydata(), [[1, 3], [2, 1.5], [3, 1]])
    np.testing.assert_allclose(right.lines[1].get_xydata(), [[1, 30], [2, 60], [3, 90]])
    assert list(data.columns) == ["method", "seed", "epoch", "train_loss", "test_accuracy"]
    assert len(data) == len(epochs)


def test_a_method_is_named_once(epochs):
    figure, _ = curve_plots.learning_curves(epochs)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(METHODS)


def test_equal_curves_are_both_seen(epochs):
    figure, _ = curve_plots.learning_curves(epochs)
    lines = figure.axes[0].lines
    theirs, ours = lines[2], lines[4]
    assert [theirs.get_label(), ours.get_label()] == [TORCH_ADAM, OUR_ADAM]
    np.testing.assert_array_equal(theirs.get_xydata(), ours.get_xydata())
    assert ours.is_dashed()
    assert not theirs.is_dashed()
    assert ours.get_linewidth() < theirs.get_linewidth() / 3
    assert lines.index(ours) > lines.index(theirs)
    assert ours.get_color() != theirs.get_color()


def test_a_run_that_is_not_there_is_not_drawn(epochs):
    figure, data = curve_plots.learning_curves(epochs[epochs["method"] != OUR_ADAM])
    assert len(figure.axes[0].lines) == 4
    assert OUR_ADAM not in set(data["method"])
