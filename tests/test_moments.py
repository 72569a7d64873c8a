"""Adam's moments on Rosenbrock's function, and the sweep over β₁ and β₂."""

import numpy as np
import pandas as pd
import pytest

from beyond_adam.experiments import moments
from beyond_adam.experiments.moments import HISTORY_BETA1, LR, START, history, sweep
from beyond_adam.landscapes import ROSENBROCK
from beyond_adam.reference import Adam, descend


@pytest.fixture(scope="module")
def histories() -> dict[float, pd.DataFrame]:
    return {beta1: history(beta1).set_index("step") for beta1 in HISTORY_BETA1}


def test_first_moments_are_those_of_the_first_gradient(histories):
    for beta1, run in histories.items():
        first = run.loc[1]
        assert (first.m_x, first.m_y) == pytest.approx(((1 - beta1) * 10804, (1 - beta1) * -1800))
        assert (first.v_x, first.v_y) == pytest.approx((116726.416, 3240))
        assert (first.x, first.y) == pytest.approx((2.9, 0.1))


@pytest.mark.parametrize(("beta1", "step"), [(0.7, 5), (0.9, 8), (0.99, 16), (0.999, 417)])
def test_the_first_moment_peaks_later_for_longer_memory(histories, beta1, step):
    assert histories[beta1].m_x.abs().idxmax() == step


def test_the_second_moment_outlives_the_gradients(histories):
    assert histories[0.9].v_x[10_000] == pytest.approx(23.287, rel=1e-4)
    assert histories[0.99].v_x[10_000] == pytest.approx(29.24, rel=1e-3)
    assert histories[0.999].v_x[10_000] == pytest.approx(447, rel=1e-2)
    # At β₁ = 0.9 it only decays after step 1000; at 0.7 bursts of gradients feed it.
    assert histories[0.9].v_x[10_000] / histories[0.9].v_x[1000] == pytest.approx(
        0.999**9000, rel=1e-4
    )
    assert histories[0.7].v_x[10_000] > 50
    assert histories[0.7].v_x[10_000] > 2 * histories[0.7].v_x[1000] * 0.999**9000


def test_the_longest_memory_still_swings_at_the_end(histories):
    late = histories[0.999].loc[9000:]
    assert late.x.iloc[-1] == pytest.approx(0.8908, abs=1e-4)
    assert np.ptp(late.x) > 0.05
    assert histories[0.9].x[10_000] == pytest.approx(1, abs=1e-8)


def test_a_sweep_is_a_run_of_adam_for_every_pair():
    beta1, beta2 = np.array([0.0, 0.9]), np.array([0.5, 0.99, 0.999])
    table = sweep(beta1, beta2, steps=200)
    assert list(zip(table.beta1, table.beta2, strict=True)) == [
        (b1, b2) for b1 in beta1 for b2 in beta2
    ]
    for line in table.itertuples():
        rule = Adam(LR, (line.beta1, line.beta2), 1e-7)
        points = descend(rule, ROSENBROCK.gradient, START, 200).points
        assert (line.x, line.y) == pytest.approx(tuple(points[-1]), rel=1e-6)
        assert line.distance == pytest.approx(np.hypot(line.x - 1, line.y - 1))
        assert line.value == pytest.approx(ROSENBROCK.value(points[-1]), rel=1e-5)
        median = np.median(ROSENBROCK.value(points[-20:]))
        assert line.median_value == pytest.approx(median, rel=1e-5)


def test_the_usual_betas_settle_and_short_memory_does_not():
    table = sweep(np.array([0.9]), np.array([0.5, 0.999])).set_index("beta2")
    assert table.distance[0.999] < 1e-8
    # The deck's row with β₂ = 0.5 ends at (0.86305156, 0.80067135).
    assert (table.x[0.5], table.y[0.5]) == pytest.approx((0.86305156, 0.80067135), abs=2e-8)


def test_betas_outside_their_range_are_named():
    with pytest.raises(ValueError, match=r"betas must lie in \[0, 1\), not \[0.9 1. \]"):
        sweep(np.array([0.9, 1.0]), np.array([0.9]), steps=1)
    with pytest.raises(ValueError, match="unknown profile 'fast'"):
        moments.run("fast")


def test_record(tmp_path):
    tables = moments.run("smoke")
    assert set(tables["moments"].beta1) == set(HISTORY_BETA1)
    steps = tables["moments"].groupby("beta1").step
    assert (steps.min() == 1).all()
    assert (steps.max() == 1000).all()
    assert len(tables["sweep"]) == 9
    for name, table in tables.items():
        assert not any(map(pd.api.types.is_object_dtype, table.dtypes))
        table.to_parquet(tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), table)
        pd.testing.assert_frame_equal(moments.run("smoke")[name], table)
