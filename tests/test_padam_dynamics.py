import math

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from beyond_adam import prox
from beyond_adam.experiments import padam_dynamics as dynamics
from beyond_adam.experiments.padam_dynamics import LR, STRENGTH, factor, follow, only, seven_lines
from beyond_adam.optim import PAdam
from beyond_adam.optim._adam_family import BLOCK


@pytest.fixture(scope="module")
def tables():
    return dynamics.run("smoke")


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="unknown profile 'huge'"):
        dynamics.run("huge")


class TestUpdate:
    def test_without_decay_it_is_adam_to_the_last_bit(self, tables):
        assert tables["adam"]["p"].tolist() == list(dynamics.EXPONENTS)
        assert (tables["adam"][["difference", "relative"]] == 0).all(axis=None)

    def test_the_program_is_the_algorithm(self, tables):
        found = tables["algorithm"]
        assert found.groupby("implementation").size().to_dict() == {"PAdam": 5, "listing": 5}
        assert (found["difference"] < 1e-12).all()
        # Tiny weights too, as far as errors of rounding let them.
        assert (found["relative"] < 1e-7).all()

    def test_the_comparison_sees_another_weight_in_line_7(self, monkeypatch):
        class Late(dynamics.Listing):
            def __init__(self, params, **options):
                super().__init__(params, **options, saves=False)

        monkeypatch.setattr(dynamics, "Listing", Late)
        _, algorithm = dynamics.compared_runs()
        late = algorithm[algorithm["implementation"] == "listing"].set_index("p")["difference"]
        assert (late[[0.5, 0.8, 1.0, 1.5]] > 1e-4).all()
        assert late[2.0] < 1e-12  # there the factor is the same for all weights

    @pytest.mark.parametrize("p", dynamics.EXPONENTS)
    def test_the_first_step_of_the_seven_lines(self, p):
        w, g = np.array([0.3, -0.02, 1e-5]), np.array([-2.0, 0.1, 3.0])
        _, found = seven_lines(lambda *_: g, w, 1, 0.01, 0.2, p)
        moved = w - 0.01 * g / (np.abs(g) + 1e-8)
        np.testing.assert_allclose(found, moved / (1 + 0.01 * p * 0.2 * np.abs(w) ** (p - 2)))

    def test_the_twin_of_adamw(self, tables):
        # û/(1 + 2ηλ) less w(1 − 2ηλ) − ηd for û = w − ηd is 2η²λ(2λw + d)/(1 + 2ηλ) with d the
        # sign of g, but for ε.
        found = tables["twin"]
        w, g = np.random.default_rng(dynamics.SEED).standard_normal((2, 200))
        worst = np.abs(2 * STRENGTH * w + g / (np.abs(g) + 1e-8)).max()
        lr = found["lr"]
        right = 2 * lr**2 * STRENGTH * worst / (1 + 2 * lr * STRENGTH)
        np.testing.assert_allclose(found["difference"], right, rtol=1e-4)
        assert dynamics.slope(found) == pytest.approx(2, abs=0.01)
        cubic = found.assign(difference=found["lr"] ** 3)
        assert dynamics.slope(cubic) == pytest.approx(3)


class TestFixedPoints:
    @pytest.fixture
    def adams(self, tables):
        """Return the ends of Adam's runs by method, p, noise and curvature."""
        found = tables["fixed_points"]
        found = found[found["method"] != "equation (3)"]
        return found.set_index(["method", "p", "noise"]).sort_index()

    def test_equation_3_ends_at_stationary_points_whatever_the_learning_rate(self, tables):
        found = tables["fixed_points"]
        found = found[found["method"] == "equation (3)"]
        assert len(found) == 4 * 2 * 7
        assert set(found["lr"]) == set(dynamics.PLAIN_RATES)
        w, p = found["end"], found["p"]
        np.testing.assert_allclose(
            found["curvature"] * (1 - w), p * STRENGTH * w ** (p - 1), rtol=1e-9
        )
        np.testing.assert_allclose(w, found["stationary"], rtol=1e-9)

    @pytest.mark.parametrize("p", dynamics.BALANCED)
    def test_stationary_points_scale_with_the_loss(self, p):
        a = dynamics.CURVATURES
        w = dynamics.stationary_point(a, 0.1, p)
        np.testing.assert_allclose(a * (1 - w), p * 0.1 * w ** (p - 1))
        np.testing.assert_allclose(dynamics.stationary_point(10 * a, 1.0, p), w)
        assert dynamics.stationary_point(np.array([0.1]), 10.0, p) < 0.3

    @pytest.mark.parametrize("p", dynamics.BALANCED)
    def test_fixed_points_balance(self, p):
        a, noise = np.geomspace(1, 10, 5), np.geomspace(2, 0.1, 5)
        w = dynamics.fixed_point(a, noise, 0.2, p)
        ratio = a * (1 - w) / np.sqrt(noise**2 + a**2 * (1 - w) ** 2)
        np.testing.assert_allclose(ratio, p * 0.2 * w ** (p - 1))
        assert ((w > 0.4) & (w < 1)).all()
        assert (dynamics.fixed_point(a, 0 * noise, 0.2, p) == 1).all()

    @pytest.mark.parametrize("g", [-0.01, -1.0, -100.0])
    def test_a_constant_gradient_has_one_fixed_point_whatever_its_size(self, g):
        # There |m̂/√v̂| = 1 = pλ|w|^(p−1).
        def end(make):
            return follow(make, lambda w, _: np.full_like(w, g), np.ones(1), 400)[-1, 0]

        at_15 = end(only(PAdam, lr=1.0, p=1.5, weight_decay=STRENGTH))
        assert at_15 == pytest.approx((1.5 * STRENGTH) ** -2, rel=1e-5)
        for make in (
            only(PAdam, lr=0.1, p=2, weight_decay=STRENGTH),
            only(AdamW, lr=0.1, weight_decay=2 * STRENGTH),
        ):
            assert end(make) == pytest.approx(1 / (2 * STRENGTH), rel=1e-5)

    def test_without_noise_the_penalty_is_as_good_as_gone(self, adams):
        free = adams.xs(0.0, level="noise")
        assert len(free) == 5 * 7
        assert (free["end"] > 0.99).all()
        assert (free["stationary"] < 0.99).all()
        assert (free["end"] - free["stationary"]).max() > 0.5

    def test_with_noise_the_end_is_where_the_decay_balances_the_mean_step(self, adams):
        found = adams[adams.index.get_level_values("noise") > 0].reset_index()
        clear = found[found["curvature"] >= 0.99 * found["noise"]]
        np.testing.assert_allclose(clear["end"], clear["balance"], atol=0.02)
        # Above the stationary point if gradients are on the whole less than 1, else below.
        flat = found[(found["curvature"] < 0.6) & (found["p"] > 0.5)]
        off = np.where(flat["noise"] < 1, 1, -1) * (flat["end"] - flat["stationary"])
        assert len(off) == 4 * 2 * 2
        assert (off > 0.1).all()

    def test_scaling_the_loss_changes_nothing_for_adam(self, adams):
        for method, p in [*(("PAdam", p) for p in dynamics.BALANCED), ("AdamW", 2.0)]:
            small, large = adams.loc[(method, p, 0.3)], adams.loc[(method, p, 3.0)]
            np.testing.assert_allclose(small["end"][:3], large["end"][4:], atol=1e-6)
            assert (small["stationary"].to_numpy()[:3] < large["stationary"][4:] - 0.05).all()

    def test_adamw_is_no_different(self, adams):
        np.testing.assert_allclose(adams.loc["AdamW"]["end"], adams.loc["PAdam", 2.0]["end"],
                                   atol=1e-3)  # fmt: skip

    def test_the_curves_go_through_the_marks(self, tables, adams):
        curves = tables["balance"].set_index(["p", "noise"]).sort_index()
        for p, noise in curves.index.unique():
            line, marks = curves.loc[(p, noise)], adams.loc[("PAdam", p, noise)]
            for name in ("balance", "stationary"):
                np.testing.assert_allclose(line[name].iloc[::20], marks[name])


class TestNearZero:
    @pytest.fixture
    def ends(self, tables):
        return tables["absorbing"].set_index(["method", "p", "case"])

    def test_zero_is_for_ever_unless_the_updated_weight_decides(self, ends):
        for p in (0.8, 1.5):
            for method in ("equation (3)", "previous"):
                assert ends.loc[(method, p, "at 0"), "zeros"] == 1500
                assert ends.loc[(method, p, "hits 0"), "zeros"] == 1500
            assert ends.loc[("updated", p, "at 0"), "zeros"] == 0
            # It lands on 0 once, and the next step takes it away.
            assert ends.loc[("updated", p, "hits 0"), "zeros"] == 1
        assert (ends.loc["updated"]["end"] > 0.9).all()

    def test_above_one_only_zero_itself_absorbs(self, ends):
        minimiser = prox.lp_minimiser_near(np.ones(1), STRENGTH, 1.5)[0]
        for case in ("at 10⁻⁶", "crosses 0", "misses 0"):
            assert ends.loc[("equation (3)", 1.5, case), "end"] == pytest.approx(
                minimiser, abs=1e-6
            )
            assert minimiser + 0.1 < ends.loc[("previous", 1.5, case), "end"] < 1
            assert ends.loc[("previous", 1.5, case), "zeros"] == 0

    def test_below_one_a_neighbourhood_of_zero_absorbs(self, ends):
        for method in ("equation (3)", "previous"):
            for case in ("at 10⁻⁶", "misses 0"):
                assert ends.loc[(method, 0.8, case), "end"] == 0
            assert ends.loc[(method, 0.8, "crosses 0"), "end"] > 0.8

    def test_the_miss_is_a_miss(self, ends):
        hit, miss = (ends.loc[("previous", 1.5, case), "start"] for case in ("hits 0", "misses 0"))
        assert 0 < miss - hit < 1e-8 * LR

    def test_basins(self, tables):
        basin = prox.collapse_basin(np.array(-1.0), STRENGTH, dynamics.ESCAPING)
        for method, run in tables["escape"].groupby("method"):
            trapped = run["start"] < basin if method in ("previous", "elastic net") else False
            assert ((run["end"] == 0) == trapped).all()
            assert ((run["end"] > 0.8) != trapped).all()
            assert (run["steps"].notna() == trapped).all()

    def test_smaller_weights_collapse_sooner(self, tables):
        found = tables["escape"]
        steps = found[found["method"] == "previous"].dropna()["steps"].to_numpy()
        assert steps[0] == 0
        assert (np.diff(steps) >= 0).all()
        # Each step of ηwX/ηpλ, by hand, from the second of the starts; m̂/√v̂ is −1 all the while.
        w, count = dynamics.STARTS[1], 0
        while w >= dynamics.GONE:
            w, count = (w + LR) * factor(w, LR, STRENGTH, dynamics.ESCAPING), count + 1
        assert steps[1] == count

    def test_p_falls_from_two_in_half_of_the_steps(self):
        w = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer, scheduler = dynamics.escapes(10)["p from 2"]([w])
        seen = []
        for _ in range(6):
            seen.append(optimizer.param_groups[0]["p"])
            optimizer.step()
            scheduler.step()
        np.testing.assert_allclose(seen, [2, 1.7, 1.4, 1.1, 0.8, 0.8])

    def test_weights_without_gradient_decay_alike(self, tables):
        quiet = tables["kick"]
        quiet = quiet[quiet["step"] <= dynamics.QUIET]
        for start in dynamics.KICK_STARTS:
            w = [start]
            for _ in range(dynamics.QUIET):
                w.append(w[-1] * factor(w[-1], LR, STRENGTH, dynamics.ESCAPING))
            for _, run in quiet[quiet["start"] == start].groupby("decay_at"):
                np.testing.assert_allclose(run["w"], w, rtol=1e-9)

    def test_the_push_helps_the_updated_weight_only(self, tables):
        found = tables["kick"].set_index(["decay_at", "start", "step"])["w"]
        t = dynamics.QUIET + 1
        length = LR * 0.1 / (1 - 0.9**t) / math.sqrt(0.001 / (1 - 0.999**t))
        for start in dynamics.KICK_STARTS:
            before = found["previous", start, t - 1]
            moved = before + length
            kept = moved * factor(before, LR, STRENGTH, dynamics.ESCAPING)
            late = moved * factor(moved, LR, STRENGTH, dynamics.ESCAPING)
            assert found["previous", start, t] == pytest.approx(kept, rel=1e-6, abs=0)
            assert found["updated", start, t] == pytest.approx(late, rel=1e-6)
        end = found.xs(dynamics.QUIET + dynamics.PUSHED, level="step")
        assert (end["previous"] == 0).sum() == 2
        assert (end > 0.3).sum() == 4


class TestCost:
    def test_peak_memory_counts_what_is_alive_at_once(self):
        x = torch.ones(100, dtype=torch.float64)
        with dynamics.PeakMemory() as peak:
            x.add_(1)
            x[:50].mul_(2)
            assert peak.bytes == 0
            y = x + 1
            assert peak.bytes == 800
            del y
            y = x + 2
            assert peak.bytes == 800
            _ = y * 2
            assert peak.bytes == 1600

    def test_what_a_step_holds(self, tables):
        found = tables["memory"].set_index(["implementation", "decay_at"])["bytes"]
        parameters, largest = 421_642, 128 * 3136
        assert 4 * largest <= found["Adam", ""] < found["listing", "updated"]
        # X, X + ηpλ and their ratio of the largest tensor.
        assert found["listing", "updated"] == 4 * 3 * largest
        assert found["listing", "previous"] == found["listing", "updated"] + 4 * parameters
        # Blocks of the largest tensor: the factor and √v, or one after the other.
        assert found["PAdam", "previous"] == pytest.approx(4 * 2 * BLOCK, abs=100)
        assert found["PAdam", "updated"] == pytest.approx(4 * BLOCK, abs=100)
        floats = tables["memory"]["floats"]
        np.testing.assert_allclose(floats, found.to_numpy() / 4 / parameters)

    def test_a_closure_that_makes_the_gradients(self, tables):
        raised = tables["closure"].set_index("implementation")["raised"].to_dict()
        assert raised == {"listing": "KeyError", "PAdam": ""}

    def test_the_listing_is_well_once_there_are_gradients(self):
        w = torch.tensor([0.5], requires_grad=True)
        optimizer = dynamics.Listing([w], LR, STRENGTH, 0.8)
        w.grad = torch.ones(1)
        assert optimizer.step(lambda: 3.0) == 3.0
        assert w.item() == pytest.approx(float(0.49 * factor(0.5, LR, STRENGTH, 0.8)))


class TestScale:
    @pytest.mark.parametrize(
        ("lr", "p", "strength"), [(3e-3, 0.8, 3e-3), (1, 0.1, 5), (0.1, 1.9, 0.9)]
    )
    def test_half_is_where_the_closed_form_has_it(self, lr, p, strength):
        half = dynamics.half_weight(lr, p, strength)
        assert half == pytest.approx(prox.decay_scale(lr, strength, p), rel=1e-10)
        assert factor(half, lr, strength, p) == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0.1, 2, 0.1), r"p must lie in \(0, 2\), not 2"),
            ((0.0, 1, 0.1), r"lr must be positive and finite, not 0\.0"),
            ((0.1, 1, math.inf), "strength must be positive and finite, not inf"),
            ((1e-3, 1.99, 1e-3), "no size from 1e-100"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            dynamics.half_weight(*arguments)

    def test_the_posts_scale_is_not_that_of_its_equation(self, tables):
        found = tables["scale"]
        np.testing.assert_allclose(found["lr"], [3e-3, 7.54e-4], rtol=1e-3)
        np.testing.assert_allclose(found["half"], [5.2e-5, 1.6e-5], rtol=0.03)
        np.testing.assert_allclose(found["named"], 6.6e-3, atol=5e-5)
        # They differ by η^(1/(2−p)).
        np.testing.assert_allclose(found["half"] / found["named"], found["lr"] ** (1 / 1.2))
