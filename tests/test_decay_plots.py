import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from beyond_adam.publishing import decay_plots
from beyond_adam.publishing.style import COLOURS


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def sweep():
    """AdamW and two exponents at two strengths, two seeds each."""
    lines = [
        {"method": method, "p": p, "multiple": multiple, "seed": seed, "cut": 0.1 * multiple,
         "validation": 0.9 + 0.01 * seed - loss * multiple,
         "validation_cut": 0.88 + 0.01 * seed - loss * multiple}
        for method, p, loss in (("AdamW", 2.0, 0.0), ("PAdam", 0.5, 0.002), ("PAdam", 2.0, 0.001))
        for multiple in (1.0, 3.0)
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def drawn(axes):
    """Return the points of the first line with intervals."""
    return axes.containers[0][0].get_xydata()


def test_shrinkage_marks_where_half_is_lost():
    size = np.geomspace(1e-5, 1, 301)
    frames = [
        pd.DataFrame({"p": p, "size": size, "lost": 1 / (1 + (size / scale) ** (2 - p))})
        for p, scale in ((0.5, 1e-3), (1.0, 1e-4), (2.0, 1.0))
    ]
    frames[-1]["lost"] = 0.003
    figure, data = decay_plots.shrinkage(pd.concat(frames), 0.06)
    axes = figure.axes[0]
    marks = [line.get_xydata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(marks, [[1e-3, 0.5], [1e-4, 0.5]], rtol=1e-3)
    assert axes.lines[-1].get_xdata()[0] == 0.06
    assert axes.get_legend_handles_labels()[1] == ["$p=0.5$", "$p=1$", "$p=2$"]
    assert len(data) == 903


def test_transfer_shows_differences_in_points(sweep):
    figure, mean = decay_plots.transfer(sweep)
    left, right = figure.axes
    assert left.get_legend_handles_labels()[1] == ["$p=0.5$", "$p=2$", "AdamW"]
    points = mean.set_index(["method", "p", "multiple"])["points"]
    assert points["PAdam", 0.5, 3.0] == pytest.approx(-0.6)
    assert points["AdamW", 2.0, 3.0] == pytest.approx(0)
    np.testing.assert_allclose(drawn(left)[:, 1], [-0.2, -0.6])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [10, 30])


def test_training_without_decay_has_no_place_on_a_logarithmic_axis(sweep):
    free = sweep[:2].assign(multiple=0.0)
    _, mean = decay_plots.transfer(pd.concat([sweep, free], ignore_index=True))
    assert mean["multiple"].min() == 1


def test_adamw_is_black_and_an_exponent_keeps_its_colour(sweep):
    pruned = pd.DataFrame({"part": 0.5, "seed": [0, 1], "validation_cut": [0.89, 0.90]})
    colours = [
        {handle.get_label(): handle[0].get_color() for handle in figure.axes[0].containers}
        for figure, _ in (decay_plots.transfer(sweep), decay_plots.front(sweep, pruned))
    ]
    assert colours[0]["$p=0.5$"] == colours[1]["$p=0.5$"] == COLOURS[0]
    assert colours[0]["AdamW"] == colours[1]["AdamW, pruned"] == COLOURS[-1]


def test_the_front_compares_cut_networks_with_the_whole_one(sweep):
    pruned = pd.DataFrame(
        {"part": [0.5, 0.5, 0.8, 0.8], "seed": [0, 1] * 2, "validation_cut": [0.89, 0.9, 0.5, 0.5]}
    )
    figure, data = decay_plots.front(sweep, pruned)
    theirs = data[data["method"] == "AdamW, pruned"].set_index("cut")
    assert theirs.loc[0.5, "points"] == pytest.approx(-1)
    assert theirs.loc[0.8, "points"] == pytest.approx(-40.5)
    ours = data[data["method"] == "PAdam"].set_index(["p", "multiple"])
    assert ours.loc[(0.5, 1.0), "points"] == pytest.approx(-2.2)
    np.testing.assert_allclose(drawn(figure.axes[0]), [[10, -2.2], [30, -2.6]])
