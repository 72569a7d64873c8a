import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from beyond_adam.experiments.padam_dynamics import BALANCED
from beyond_adam.publishing import padam_plots
from beyond_adam.publishing.style import COLOURS


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def labelled(axes):
    """Return the lines of axes by their labels."""
    return {line.get_label(): line for line in axes.lines}


def test_the_twin_slope_is_measured_not_drawn():
    lr = np.geomspace(1e-4, 1e-1, 7)
    figure = padam_plots.twin_slope(pd.DataFrame({"lr": lr, "difference": 5 * lr**1.5}))
    axes = figure.axes[0]
    lines = labelled(axes)
    marks = lines["PAdam less AdamW, slope 1.500"]
    np.testing.assert_allclose(marks.get_ydata(), 5 * lr**1.5)
    square = next(line for label, line in lines.items() if "propto" in label)
    np.testing.assert_allclose(square.get_ydata(), 5 * lr[0] ** 1.5 * (lr / lr[0]) ** 2)
    assert axes.get_xscale() == axes.get_yscale() == "log"


@pytest.fixture
def ends():
    """Curves w = 1/(1 + σ + p) that jump to 0 in between, and marks of every method."""
    curvature = np.array([0.5, 1.0, 2.0, 4.0])
    frames = [
        pd.DataFrame({
            "p": p, "noise": noise, "curvature": curvature, "stationary": 0.4 + 0.1 * p,
            "balance": np.where(curvature > 1, 1 / (1 + noise + p), 0),
        })
        for p in BALANCED for noise in (0.0, 0.3, 3.0)
    ]  # fmt: skip
    curves = pd.concat(frames, ignore_index=True)
    found = [
        curves.assign(method=method, end=curves["balance"] + shift)
        for method, shift in (("PAdam", 0.01), ("AdamW", 0.02), ("equation (3)", 0.03))
    ]
    chosen = pd.concat(found, ignore_index=True)
    chosen = chosen[(chosen["method"] != "equation (3)") | (chosen["noise"] == 0)]
    return chosen[(chosen["method"] != "AdamW") | (chosen["p"] == 2)], curves


def test_every_method_has_its_marks(ends):
    found, curves = ends
    figure = padam_plots.fixed_points(found, curves)
    assert [axes.get_title() for axes in figure.axes] == [f"$p={p:g}$" for p in BALANCED]
    for axes, p in zip(figure.axes, BALANCED, strict=True):
        lines = labelled(axes)
        np.testing.assert_allclose(lines["stationary point"].get_ydata(), 0.4 + 0.1 * p)
        np.testing.assert_allclose(lines["equation (3)"].get_ydata()[2:], 1 / (1 + p) + 0.03)
        for number, noise in enumerate((0.0, 0.3, 3.0)):
            marks = lines[rf"PAdam, $\sigma={noise:g}$"]
            np.testing.assert_allclose(marks.get_ydata()[2:], 1 / (1 + noise + p) + 0.01)
            assert marks.get_color() == COLOURS[number]
        assert len(lines["AdamW"].get_xdata()) == (12 if p == 2 else 0)


def test_no_line_is_drawn_across_a_jump(ends):
    figure = padam_plots.fixed_points(*ends)
    balance = next(line for line in figure.axes[0].lines if line.get_ls() == "--")
    np.testing.assert_array_equal(np.isnan(balance.get_ydata()), [False, False, True, False])


def test_the_legend_of_the_fixed_points_names_all(ends):
    (legend,) = padam_plots.fixed_points(*ends).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "stationary point", "equation (3)", r"PAdam, $\sigma=0$", r"PAdam, $\sigma=0.3$",
        r"PAdam, $\sigma=3$", "AdamW",
    ]  # fmt: skip


def test_escapes_are_told_from_collapses():
    start = [0.0, 1e-6, 1e-3, 1.0] * 2
    end = [0.0, 0.0, 0.9, 1.0, 0.9, 0.9, 0.9, 1.0]
    found = pd.DataFrame({"method": ["one"] * 4 + ["two"] * 4, "start": start, "end": end})
    figure = padam_plots.escape(found, 2e-5)
    axes = figure.axes[0]
    lines = labelled(axes)
    lost = lines["ends at 0"].get_xydata()
    np.testing.assert_allclose(lost, [[1e-6 / 30, 0], [1e-6, 0]])
    np.testing.assert_allclose(lines["ends near 1"].get_ydata(), [0, 0, -1, -1, -1, -1])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["one", "two"]
    np.testing.assert_allclose(axes.get_yticks(), [0, -1])
    # Zero stands beside the scale, under a name of its own.
    assert axes.get_xticks()[0] == pytest.approx(1e-6 / 30)
    assert axes.get_xticklabels()[0].get_text() == "0"
    assert axes.lines[-1].get_xdata()[0] == 2e-5


def test_both_factors_are_drawn_on_one_scale():
    step = np.arange(61)
    kick = pd.concat(
        [
            pd.DataFrame({"decay_at": decay_at, "start": start, "step": step, "w": start * scale})
            for decay_at, scale in (("previous", 0.5), ("updated", 2.0))
            for start in (0.01, 0.1)
        ]
    )
    figure = padam_plots.previous_or_updated(kick)
    left, right = figure.axes
    assert left.get_title() == "decay at the previous weight"
    assert left.get_ylim() == right.get_ylim()
    for axes, scale in ((left, 0.5), (right, 2.0)):
        lines = labelled(axes)
        for start in (0.01, 0.1):
            np.testing.assert_allclose(lines[f"$w_0={start:g}$"].get_ydata(), start * scale)
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["no gradient", "$w_0=0.01$", "$w_0=0.1$"]
    assert left.patches[0].get_width() == padam_plots.QUIET
