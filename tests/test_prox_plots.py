import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from beyond_adam import prox
from beyond_adam.experiments.higgs import HIGGS
from beyond_adam.publishing import lambda_plots, prox_plots


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_a_jump_is_not_joined():
    np.testing.assert_array_equal(
        prox_plots.with_gaps(np.array([0, 0, 0, 0.9, 1.0])), [0, 0, 0, np.nan, 1]
    )


def test_the_gallery_shows_the_operators():
    operators = {"soft": lambda z: prox.prox_l1(z, 1.0), "twice": lambda z: 2 * z}
    figure, data = prox_plots.gallery(operators)
    assert [axes.get_title() for axes in figure.axes] == ["soft", "twice"]
    twice = data[data["operator"] == "twice"]
    np.testing.assert_allclose(twice["prox"], 2 * twice["z"])


def test_arrows_lead_from_the_points_to_their_images():
    operator = {name: (lambda z: prox.prox_l1(z, 1.0)) for name in "abcd"}
    _, data = prox_plots.arrows(operator)
    assert len(data) == 4 * 15**2
    np.testing.assert_allclose(data["u1"], prox.prox_l1(data["z1"].to_numpy(), 1.0))


def test_the_two_minima_are_level_at_the_threshold():
    _, data = prox_plots.two_thresholds(0.7, 0.3)
    lowest = data.groupby("case", sort=False)["excess"].min()
    assert lowest["below the fold"] == 0
    assert lowest["between fold and threshold"] == 0
    assert lowest["at the threshold"] == pytest.approx(0, abs=1e-4)
    assert lowest["above the threshold"] < -0.1


def test_parabolas_lie_above_the_power_and_touch_it():
    _, data = lambda_plots.parabolas([0.5, 1.5])
    power = np.abs(data["x"]) ** data["p"]
    assert (data["value"] >= power - 1e-12).all()
    closest = (data["value"] - power).groupby([data["p"], data["s"]]).min()
    assert (closest < 1e-3).all()


def test_valleys_show_the_function():
    figure, data = lambda_plots.valleys([0.5, 1.0])
    assert len(figure.axes) == 2
    line = data[data["p"] == 1.0].iloc[11]
    assert line["value"] == pytest.approx((line["s"] * line["x"] ** 2 + 1 / line["s"]) / 2)


def test_a_valley_reaches_the_edges_of_its_panel():
    figure, _ = lambda_plots.valleys([0.5, 1.5])
    for axes in figure.axes:
        (x0, x1), (_, top) = axes.get_xlim(), axes.get_ylim()
        left, right = (line.get_xydata() for line in axes.lines)
        assert left[:, 1].max() == pytest.approx(top)
        assert right[:, 1].max() == pytest.approx(top)
        assert (left[:, 0].min(), right[:, 0].max()) == pytest.approx((x0, x1))


def test_each_coefficient_has_a_line_in_each_panel():
    paths = pd.DataFrame(
        {
            "p": np.repeat([1.0, 0.5], 4),
            "relative": [1, 0.1, 1, 0.1] * 2,
            "feature": ["a", "a", "b", "b"] * 2,
            "coefficient": np.arange(8.0),
        }
    )
    figure, _ = prox_plots.coefficient_paths(paths, {1.0: "lasso", 0.5: "half"})
    for axes in figure.axes:
        labels = [line.get_label() for line in axes.lines]
        assert labels[:2] == ["a", "b"]


def test_envelopes_touch_the_penalty_at_its_minimum_only():
    _, data = prox_plots.envelopes((0.5, 1.0))
    gap = np.abs(data["z"]) ** data["p"] - data["envelope"]
    assert (gap >= -1e-12).all()
    assert (gap[np.abs(data["z"]) < 1e-9] == 0).all()
    assert (gap[np.abs(data["z"]) > 0.1] > 1e-3).all()


def test_limits_stand_in_the_panel_of_their_strength():
    fixed = pd.DataFrame({"strength": [0.2, 0.6], "eta": [0.1, 0.3], "w": [0.9, 0.0]})
    figure, _ = prox_plots.limits(fixed, {0.2: 0.89, 0.6: 0.01})
    for axes, w, best in zip(figure.axes, (0.9, 0.0), (0.89, 0.01), strict=True):
        minimiser, points = axes.lines
        assert points.get_ydata()[0] == w
        assert minimiser.get_ydata()[0] == best


def test_thresholds_meet_at_one():
    _, data = prox_plots.thresholds()
    last = data.iloc[-1]
    assert (last["p"], last["threshold"], last["fold"], last["jump"]) == (1, 1, 1, 0)
    assert (data["fold"] <= data["threshold"] + 1e-12).all()
    assert data["threshold"].iloc[0] == pytest.approx(np.sqrt(2), rel=0.02)


def test_inexact_operators_are_drawn_beside_the_exact_one():
    z = np.linspace(0.5, 2.5, 50)
    frames = [
        pd.DataFrame({"kind": kind, "k": k, "z": z, "u": z - 0.1 * k})
        for kind in ("tangent", "parabola")
        for k in (1, 2, 5, 100)
    ]
    figure, _ = prox_plots.inexact(pd.concat(frames), 1.0, 0.5)
    exact = figure.axes[1].lines[-1]
    kept = ~np.isnan(exact.get_ydata())
    np.testing.assert_allclose(exact.get_ydata()[kept], prox.prox_lp(z, 1.0, 0.5)[kept])
    assert figure.axes[0].get_legend_handles_labels()[1][0] == "1 iteration"


def test_the_front_is_the_mean_over_folds():
    folds = pd.DataFrame(
        {"p": 1.0, "strength": [1.0, 1.0], "fold": [0, 1], "nonzero": [2, 4], "error": [0.4, 0.6]}
    )
    _, mean = prox_plots.front(folds)
    assert mean.loc[0, ["nonzero", "error"]].tolist() == [3, 0.5]
    assert mean.loc[0, "sem"] == pytest.approx(0.1)


def test_rates_keep_the_gap_as_a_logarithm_above_the_floor():
    gaps = pd.DataFrame(
        {"method": ["A", "A", "B"], "k": [1, 2, 1], "gap": [1e-2, 1e-14, 1.0]}
    ).assign(bound=[1.0, 1.0, np.nan])
    figure, shown = prox_plots.rates(gaps)
    assert shown["log10_gap"].tolist() == [-2, -10, 0]
    assert figure.axes[0].get_legend_handles_labels()[1] == ["A", "bound: A", "B"]


def test_steps_are_drawn_by_exponent():
    z = np.array([0.5, 1.0])
    far = pd.DataFrame({"p": [0.5, 0.5, 1, 1], "k": 1, "z": [*z, *z], "log10_error": -3.0})
    figure, _ = lambda_plots.distances(far)
    assert [axes.get_title() for axes in figure.axes] == ["$p=0.5$", "$p=1$"]
    ratio = pd.DataFrame({"p": [0.5, 1], "g": -1.0, "w": 0.1, "ratio": 2.0})
    figure, _ = lambda_plots.growth(ratio, 0.1, 0.1)
    scale = figure.axes[0].lines[-1].get_xdata()[0]
    assert scale == pytest.approx(prox.decay_scale(0.1, 0.1, 0.5))


def test_half_of_a_weight_is_lost_at_the_scale():
    w = np.geomspace(1e-6, 1, 20)
    lost = pd.DataFrame({"eta": 0.1, "w": w, "lost": 0.01 / (w + 0.01)})
    figure, _ = lambda_plots.losses(lost, 0.1, 1.0)
    dot = figure.axes[0].lines[1]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == pytest.approx((0.01, 0.5))


def test_the_toy_example_shows_loss_and_path():
    runs = pd.DataFrame({"run": "a", "step": [0, 1], "w1": [0.2, 0.3], "w2": 0.1, "loss": [1, 0.5]})
    figure, _ = lambda_plots.toy_example(HIGGS, runs)
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == [1, 0.5]
    assert right.lines[-1].get_xdata().tolist() == [0.2, 0.3]
