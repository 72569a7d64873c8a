import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from beyond_adam.experiments.fashion_mnist import BINS, SIZES, distribution, histogram
from beyond_adam.publishing import training_plots
from beyond_adam.publishing.style import COLOURS

BLUE, BLACK = COLOURS[0], COLOURS[-1]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def named(figure):
    """Return what the legend below a figure says."""
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def visible(figure):
    """Return how many colours a figure has when it is saved as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    file.seek(0)
    return len(np.unique(plt.imread(file).reshape(-1, 4), axis=0))


def test_a_blank_figure_is_seen_to_be_blank():
    assert visible(plt.figure()) == 1


class TestCurves:
    @pytest.fixture
    def epochs(self):
        """Two seeds of each method over 40 epochs; the first two epochs are far off."""
        lines = [
            {"method": method, "seed": seed, "epoch": epoch, "lr": 1e-3,
             "train_loss": loss + seed, "test_loss": loss + seed + 0.5,
             "train_accuracy": 0.8 + 0.001 * epoch, "test_accuracy": 0.7 + 0.001 * epoch}
            for method, height in (("AdamW", 3.0), ("PAdam", 2.0))
            for seed in (0, 1)
            for epoch in range(1, 41)
            for loss in [height - 0.01 * epoch + 100 * (epoch <= 2)]
        ]  # fmt: skip
        return pd.DataFrame(lines)

    def test_every_run_is_two_lines_in_both_panels(self, epochs):
        figure, data = training_plots.curves(epochs)
        loss, accuracy = figure.axes
        assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
        for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
            assert axes.get_xlabel() == "epoch"
            expected = [
                (line[["epoch", f"{part}_{quantity}"]].to_numpy(), method, part)
                for (method, _), line in epochs.groupby(["method", "seed"])
                for part in ("train", "test")
            ]
            assert len(axes.lines) == len(expected) == 8
            for line, (points, method, part) in zip(axes.lines, expected, strict=True):
                np.testing.assert_array_equal(line.get_xydata(), points)
                assert line.get_color() == {"PAdam": BLUE, "AdamW": BLACK}[method]
                assert line.get_linestyle() == {"train": ":", "test": "-"}[part]
        columns = ["train_loss", "test_loss", "train_accuracy", "test_accuracy"]
        pd.testing.assert_frame_equal(data, epochs[["method", "seed", "epoch", *columns]])
        assert visible(figure) > 20

    def test_a_method_is_named_once_a_part(self, epochs):
        figure, _ = training_plots.curves(epochs)
        assert named(figure) == ["AdamW, train", "AdamW, test", "PAdam, train", "PAdam, test"]

    def test_the_first_twentieth_does_not_set_the_scale(self, epochs):
        figure, _ = training_plots.curves(epochs)
        # From 1.6 to 4.47 with a margin, and not up to 104.
        assert figure.axes[0].get_ylim() == pytest.approx((1.6 - 0.1435, 4.47 + 0.1435))
        assert figure.axes[1].get_ylim() == pytest.approx((0.703 - 0.00685, 0.84 + 0.00685))

    def test_short_runs_are_shown_whole(self, epochs):
        short = epochs[epochs["epoch"] <= 3]
        figure, _ = training_plots.curves(short)
        assert figure.axes[0].get_ylim()[1] > 104


class TestSizes:
    @pytest.fixture
    def tables(self):
        """Return histogram and distribution of three networks, a quarter zeros or none."""
        generator = np.random.default_rng(0)
        frames = {"histogram": [], "distribution": []}
        self.sizes = {}
        for method, seed, zeros in (("AdamW", 1, 0), ("PAdam", 1, 100), ("PAdam", 2, 100)):
            sizes = np.concatenate([np.zeros(zeros), 10 ** generator.uniform(-6, 0, 300)])
            self.sizes[method, seed] = sizes
            for function in (histogram, distribution):
                frame = function(sizes).assign(method=method, seed=seed)
                frames[function.__name__].append(frame)
        return [pd.concat(frame, ignore_index=True) for frame in frames.values()]

    def test_density_is_that_of_all_entries(self, tables):
        _, data = training_plots.sizes(*tables, {})
        density = data.dropna(subset="density").set_index(["method", "size"])["density"]
        for method, part in (("AdamW", 1.0), ("PAdam", 0.75)):
            assert (density[method] * 0.1).sum() == pytest.approx(part)
        # Of the bin from 10^-3.1 to 10^-3, a mean over seeds.
        expected = [
            np.mean((sizes > 10**-3.1) & (sizes < 10**-3)) / 0.1
            for (method, _), sizes in self.sizes.items()
            if method == "PAdam"
        ]
        close = density["PAdam"][np.isclose(density["PAdam"].index, 1e-3)]
        assert close.tolist() == [pytest.approx(np.mean(expected))]

    def test_both_functions_are_drawn_for_each_method(self, tables):
        figure, data = training_plots.sizes(*tables, {})
        left, right = figure.axes
        assert named(figure) == ["AdamW", "PAdam"]
        below = data.dropna(subset="below").set_index("method")
        density = data.dropna(subset="density").set_index("method")
        assert len(data) == 2 * (len(SIZES) + len(BINS) - 1)
        for method, one, two in zip(("AdamW", "PAdam"), left.lines, right.lines, strict=True):
            assert one.get_color() == two.get_color() == {"PAdam": BLUE, "AdamW": BLACK}[method]
            shown = density.loc[method, ["size", "density"]].to_numpy()
            np.testing.assert_array_equal(one.get_xydata(), shown)
            shown = below.loc[method, ["size", "below"]].to_numpy()
            np.testing.assert_array_equal(two.get_xydata(), shown)
            sizes = np.concatenate([s for (m, _), s in self.sizes.items() if m == method])
            np.testing.assert_allclose(shown[:, 1], [np.mean(sizes < x) for x in SIZES])
        assert [axes.get_xscale() for axes in figure.axes] == ["log", "log"]
        assert (left.get_yscale(), right.get_ylim()) == ("log", (0, 1))
        for axes in figure.axes:
            assert axes.get_xlim() == (1e-12, 3)
        assert visible(figure) > 20

    def test_a_step_ends_where_its_bin_does(self, tables):
        figure, _ = training_plots.sizes(*tables, {})
        assert {line.get_drawstyle() for line in figure.axes[0].lines} == {"steps-pre"}

    def test_scales_are_marked_in_both_panels_and_named_once(self, tables):
        figure, _ = training_plots.sizes(*tables, {"step": 3e-3, "decay": 1e-4})
        assert named(figure) == ["AdamW", "PAdam", "step", "decay"]
        for axes in figure.axes:
            one, two = axes.lines[-2:]
            assert (list(one.get_xdata()), list(two.get_xdata())) == ([3e-3] * 2, [1e-4] * 2)
            assert one.get_color() != two.get_color()
            assert one.get_linestyle() != two.get_linestyle()


class TestSparsityByLayer:
    @pytest.fixture
    def layers(self):
        lines = [
            {"method": "PAdam", "seed": seed, "epoch": epoch, "layer": layer, "of": of,
             "threshold": threshold, "count": of * epoch * (seed + 1) / 20 if not threshold else of}
            for seed in (0, 1)
            for epoch in (1, 2, 4)
            for layer, of in (("0.weight", 100), ("0.bias", 10), ("3.weight", 1000))
            for threshold in (0.0, 1e-8)
        ]  # fmt: skip
        return pd.DataFrame(lines)

    def test_lines_are_means_over_seeds_of_what_is_exactly_zero(self, layers):
        names = {"3.weight": "second", "0.weight": "first"}
        figure, data = training_plots.sparsity_by_layer(layers, names)
        [axes] = figure.axes
        assert named(figure) == ["second", "first"], "in the order of the names"
        assert len(axes.lines) == 2
        for line in axes.lines:
            np.testing.assert_allclose(line.get_xydata(), [[1, 0.075], [2, 0.15], [4, 0.3]])
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 2
        assert axes.get_ylim() == (0, 1)
        assert axes.get_xscale() == "log"
        assert data.columns.tolist() == ["layer", "epoch", "part"]
        assert sorted(set(data["layer"])) == ["0.weight", "3.weight"]
        assert len(data) == 6
        assert visible(figure) > 20


def test_pruned_shows_every_seed_on_the_test_images():
    table = pd.DataFrame(
        [
            {"method": method, "seed": seed, "part": part, "split": split, "loss": 9.0,
             "accuracy": height - part / 4 + seed / 100 - (split == "validation")}
            for method, height in (("AdamW", 0.9), ("PAdam", 0.95))
            for seed in (0, 1, 2)
            for part in (0.0, 0.5, 0.9)
            for split in ("test", "validation")
        ]
    )  # fmt: skip
    figure, data = training_plots.pruned(table)
    [axes] = figure.axes
    assert named(figure) == ["AdamW", "PAdam"]
    assert [line.get_color() for line in axes.lines] == [BLACK] * 3 + [BLUE] * 3
    np.testing.assert_allclose(axes.lines[4].get_xydata(), [[0, 0.96], [0.5, 0.835], [0.9, 0.735]])
    assert data.columns.tolist() == ["method", "seed", "part", "accuracy"]
    assert len(data) == 18
    assert data["accuracy"].min() > 0.6
    assert visible(figure) > 20


class TestFront:
    @pytest.fixture
    def best(self):
        """As many methods as the experiment has."""
        lines = [
            {"method": f"method {number}", "part": part, "strength": "1", "validation": 0.1,
             "test": 0.9 - number / 50 - part / 10}
            for number in range(8)
            for part in (0.5, 0.8, 0.9)
        ]  # fmt: skip
        return pd.DataFrame(lines)

    def test_every_method_is_a_line_of_its_own_look(self, best):
        figure, data = training_plots.front(best, 0.6)
        [axes] = figure.axes
        assert named(figure) == [f"method {number}" for number in range(8)]
        assert len(axes.lines) == 8
        for number, line in enumerate(axes.lines):
            heights = 0.9 - number / 50 - np.array([0.05, 0.08, 0.09])
            np.testing.assert_allclose(line.get_xydata().T, [[0.5, 0.2, 0.1], heights])
        for look in ("color", "marker"):
            assert len({plt.getp(line, look) for line in axes.lines}) == 8
        pd.testing.assert_frame_equal(data, best)
        assert visible(figure) > 20

    def test_the_axis_counts_zeros_and_spreads_what_is_left(self, best):
        figure, _ = training_plots.front(best, 0.6)
        [axes] = figure.axes
        assert axes.get_xscale() == "log"
        left, right = axes.get_xlim()
        assert left > 1 > 0.1 > right  # no zeros on the left, most on the right
        for tick in axes.get_xaxis().get_major_ticks():
            assert float(tick.label1.get_text()) == pytest.approx(1 - tick.get_loc())

    def test_what_is_lower_is_not_shown(self, best):
        figure, _ = training_plots.front(best, 0.6)
        assert figure.axes[0].get_ylim() == pytest.approx((0.6, 0.85 + 0.012))


class TestVariants:
    @pytest.fixture
    def table(self):
        return pd.DataFrame(
            {
                "method": ["AdamW", "PAdam", "AdamW", "PAdam", "other"],
                "seed": [0, 0, 1, 1, 0],
                "accuracy": [0.9, 0.92, 0.94, 0.96, 0.5],
                "sparsity": [0.0, 0.7, 0.1, 0.8, 0.5],
            }
        )

    def test_dots_are_seeds_and_a_bar_is_their_mean(self, table):
        figure, data = training_plots.variants(table, ["PAdam", "AdamW"])
        left, right = figure.axes
        expected = (
            (left, [[0.92, 0.96], [0.94], [0.9, 0.94], [0.92]]),
            (right, [[0.7, 0.8], [0.75], [0.0, 0.1], [0.05]]),
        )
        for axes, values in expected:
            assert [list(line.get_xdata()) for line in axes.lines] == [
                pytest.approx(value) for value in values
            ]
            assert [line.get_marker() for line in axes.lines] == ["o", "|"] * 2
            assert [set(line.get_ydata()) for line in axes.lines] == [{0}, {0}, {1}, {1}]
        assert left.get_xlabel() == "test accuracy"
        assert right.get_xlabel() == "part of the weights that is 0"
        pd.testing.assert_frame_equal(data, table)
        assert visible(figure) > 20

    def test_methods_are_named_from_top_to_bottom(self, table):
        figure, _ = training_plots.variants(table, ["PAdam", "AdamW", "other"])
        axes = figure.axes[0]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["PAdam", "AdamW", "other"]
        low, high = axes.get_ylim()
        assert low > 2 > 0 > high
