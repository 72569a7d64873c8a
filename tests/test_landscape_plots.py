import matplotlib.pyplot as plt
import numpy as np
import pytest

from beyond_adam.landscapes import PARABOLOID, RASTRIGIN, ROSENBROCK
from beyond_adam.publishing import landscape_plots as draw
from beyond_adam.reference import GradientDescent, descend


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def runs():
    rules = {"slow": GradientDescent(0.01), "fast": GradientDescent(0.1)}
    start = (-5.0, -7.5)
    return {n: descend(r, PARABOLOID.gradient, start, 1000).points for n, r in rules.items()}


def test_the_data_of_a_landscape_is_its_value_and_gradient():
    _, data = draw.gallery([PARABOLOID, RASTRIGIN, ROSENBROCK])
    assert list(data["landscape"].unique()) == ["paraboloid", "rastrigin", "rosenbrock"]
    line = data[data["landscape"] == "rosenbrock"].iloc[7]
    point = line[["x", "y"]].to_numpy(float)
    np.testing.assert_allclose(line["f"], ROSENBROCK.value(point))
    np.testing.assert_allclose(line[["df_dx", "df_dy"]].to_numpy(float), ROSENBROCK.gradient(point))


def test_arrows_point_uphill():
    figure, _ = draw.gallery([PARABOLOID])
    (arrows,) = [c for c in figure.axes[0].collections if hasattr(c, "U")]
    towards = np.column_stack([arrows.X - 1, arrows.Y - 2])
    assert (np.einsum("ij,ij->i", towards, np.column_stack([arrows.U, arrows.V])) >= 0).all()


def test_a_narrow_band_covers_as_much_area_as_a_wide_one():
    figure, _ = draw.gallery([ROSENBROCK])
    levels = figure.axes[0].collections[0].levels
    (x0, x1), (y0, y1) = ROSENBROCK.domain
    grid = np.stack(np.meshgrid(np.linspace(x0, x1, 400), np.linspace(y0, y1, 400)), axis=-1)
    counts, _ = np.histogram(ROSENBROCK.value(grid), levels)
    assert counts.max() < 1.2 * counts.min()


def test_paths_keep_start_and_end_and_the_window(runs):
    figure, data = draw.paths(PARABOLOID, runs, vectors=5)
    assert figure.axes[0].get_xlim() == PARABOLOID.domain[0]
    for name, points in runs.items():
        run = data[data["run"] == name]
        assert len(run) == 500
        np.testing.assert_array_equal(run[["x", "y"]].to_numpy()[[0, -1]], points[[0, -1]])


def test_a_run_that_leaves_after_two_steps_can_be_drawn():
    points = np.array([[0.0, 0.0], [1e200, 0.0]])
    draw.paths(PARABOLOID, {"gone": points}, vectors=12)


def test_runs_on_the_diagonal_are_drawn_with_the_minima_in_reach():
    near, far = (np.repeat(x[:, None], 2, axis=1) for x in (np.linspace(0, 1, 9), np.arange(9.0)))
    minima = np.array([-3.0, 0.5, 5.0, 30.0])
    figure, data = draw.along_diagonal({"near": near, "far": far}, minima)
    drawn = [sorted(line.get_ydata()[0] for line in axes.lines[1:]) for axes in figure.axes]
    assert drawn == [[0.5], [0.5, 5.0]]
    np.testing.assert_array_equal(data.loc[data["run"] == "far", "x"], far[:, 0])


def test_a_run_off_the_diagonal_is_refused(runs):
    with pytest.raises(ValueError, match="'slow' leaves the diagonal"):
        draw.along_diagonal(runs, np.zeros(1))


def test_lines_of_a_race_get_thinner(runs):
    figure, _, _ = draw.race(PARABOLOID, {**runs, "again": runs["fast"]})
    width = {line.get_label(): line.get_linewidth() for line in figure.axes[0].lines}
    assert width["slow"] > width["fast"] > width["again"]


def test_the_player_knows_the_axes_and_ends_where_the_run_ends(runs):
    figure, _, player = draw.race(PARABOLOID, runs, frames=50)
    assert player["axes"] == [round(x, 4) for x in figure.axes[0].get_position().bounds]
    assert player["steps"][0] == 0
    assert player["steps"][-1] == 1000
    assert [run["label"] for run in player["runs"]] == list(runs)
    for run, points in zip(player["runs"], runs.values(), strict=True):
        assert len(run["points"]) == len(player["steps"])
        np.testing.assert_allclose(run["points"][-1], points[-1], atol=1e-4)
