import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from beyond_adam.experiments import mixed_precision
from beyond_adam.experiments.mixed_precision import METHODS, PRECISIONS
from beyond_adam.optim import DynamicPAdam, PAdam, Padam, decay_groups


@pytest.fixture(scope="module")
def few():
    """The first two batches of the digits, the second one smaller."""
    pixels, classes = mixed_precision.images()[0]
    return mixed_precision.Images(pixels[:100], classes[:100])


def test_the_rate_rises_from_zero_and_falls_to_zero():
    factors = [mixed_precision.rate(step, 50) for step in range(51)]
    np.testing.assert_allclose(factors[:6], [0, 0.2, 0.4, 0.6, 0.8, 1])
    cosine = 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, 46))
    np.testing.assert_allclose(factors[5:], cosine, atol=1e-15)
    assert mixed_precision.rate(0, 5) == 1  # too short to warm up


def test_images_are_the_split_of_the_data():
    train, test = mixed_precision.images()
    assert train.pixels.shape == (1437, 1, 8, 8)
    assert test.classes.shape == (360,)
    assert (train.pixels.min(), train.pixels.max()) == (0, 1)


class TestMethods:
    @pytest.fixture
    def model(self):
        return mixed_precision.network()

    def test_a_p_norm_decay_is_the_rule_of_the_page_on_choosing(self, model):
        optimizer, _ = mixed_precision.begin("PAdam", model, 10)
        decayed, spared = optimizer.param_groups
        sizes = torch.cat([w.detach().abs().flatten() for w in model.parameters() if w.ndim > 1])
        right = 3 * 0.3 * sizes.median().item() ** 1.2 / 0.8
        assert decayed["weight_decay"] == pytest.approx(right)
        assert spared["weight_decay"] == 0
        assert {w.ndim for w in spared["params"]} == {1}

    def test_torchs_stand_beside_them(self, model):
        plain, _ = mixed_precision.begin("AdamW", model, 10)
        amsgrad, _ = mixed_precision.begin("AdamW, AMSGrad", model, 10)
        for optimizer in (plain, amsgrad):
            assert isinstance(optimizer, torch.optim.AdamW)
            assert optimizer.param_groups[0]["weight_decay"] == 0.3
        assert (plain.defaults["amsgrad"], amsgrad.defaults["amsgrad"]) == (False, True)

    def test_padam_has_the_values_of_its_paper(self, model):
        optimizer, _ = mixed_precision.begin("Padam", model, 10)
        assert isinstance(optimizer, Padam)
        group = optimizer.param_groups[0]
        assert (group["initial_lr"], group["partial"], group["weight_decay"]) == (0.1, 1 / 8, 5e-4)

    @pytest.mark.parametrize(
        ("method", "key", "values"),
        [
            ("PAdam, p from 2", "p", [2, 1.7, 1.4, 1.1, 0.8, 0.8]),
            ("AdamExponent", "exponent", [0.5, 4 / 9, 7 / 18, 1 / 3, 5 / 18, 2 / 9]),
            ("DynamicPAdam", "p", [0.8] * 6),
        ],
    )
    def test_options_follow_their_schedule_and_the_rate_its_own(self, model, method, key, values):
        optimizer, schedulers = mixed_precision.begin(method, model, 10)
        group, moved, rates = optimizer.param_groups[0], [], []
        for _ in values:
            moved.append(group[key])
            rates.append(group["lr"])
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
        np.testing.assert_allclose(moved, values)
        lrs = [mixed_precision.LR * mixed_precision.rate(step, 10) for step in range(6)]
        np.testing.assert_allclose(rates, lrs)

    @pytest.mark.parametrize("method", METHODS)
    def test_all_are_fused_and_so_unscale_for_themselves(self, model, method):
        optimizer, _ = mixed_precision.begin(method, model, 10)
        assert optimizer._step_supports_amp_scaling

    def test_an_unknown_one_is_refused(self, model, few):
        with pytest.raises(ValueError, match=r"one of AdamW, .*, not 'SGD'"):
            mixed_precision.begin("SGD", model, 10)
        with pytest.raises(ValueError, match="one of float32, float16, bfloat16, not 'float8'"):
            mixed_precision.train("AdamW", "float8", 0, few, 1)


class TestTraining:
    def test_float32_is_training_as_usual(self, few):
        found, skipped = mixed_precision.train("PAdam", "float32", 3, few, 2)
        torch.manual_seed(3)
        model = mixed_precision.network()
        sizes = torch.cat([w.detach().abs().flatten() for w in model.parameters() if w.ndim > 1])
        strength = 3 * 0.3 * sizes.median().item() ** 1.2 / 0.8
        optimizer = PAdam(decay_groups(model, strength), p=0.8, fused=True)
        orders = [torch.randperm(100), torch.randperm(100)]
        batches = [part for order in orders for part in (order[:64], order[64:])]
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * mixed_precision.rate(step, 4)
            optimizer.zero_grad()
            cross_entropy(model(few.pixels[batch]), few.classes[batch]).backward()
            optimizer.step()
        assert skipped == 0
        assert not found.training
        states = found.state_dict().values(), model.state_dict().values()
        assert all(map(torch.equal, *states))

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_the_network_computes_in_the_precision_and_its_weights_stay(
        self, few, precision, monkeypatch
    ):
        seen = []

        def watched():
            model = network()
            for layer in (model[0], model[4]):
                layer.register_forward_hook(lambda *arguments: seen.append(arguments[-1].dtype))
            return model

        network = mixed_precision.network
        monkeypatch.setattr(mixed_precision, "network", watched)
        model, _ = mixed_precision.train("DynamicPAdam", precision, 0, few, 1)
        assert set(seen) == {getattr(torch, precision)}
        assert {w.dtype for w in model.parameters()} == {torch.float32}

    def test_what_the_scaler_skipped_the_optimizer_did_not_step(self, few, monkeypatch):
        begun = []

        def watched(*arguments):
            begun.append(begin(*arguments))
            return begun[-1]

        begin = mixed_precision.begin
        monkeypatch.setattr(mixed_precision, "begin", watched)
        monkeypatch.setattr(mixed_precision, "GROWTH_INTERVAL", 1)
        _, skipped = mixed_precision.train("PAdam", "float16", 0, few, 10)
        optimizer, (rate,) = begun[0]
        taken = {int(state["step"]) for state in optimizer.state.values()}
        assert taken == {20 - skipped}
        assert 0 < skipped < 20
        assert rate.last_epoch == 20

    def test_a_seed_fixes_start_and_batches_and_leaves_the_generator(self, few):
        before = torch.get_rng_state()
        ends = [
            mixed_precision.train("AdamW", "float32", seed, few, 1)[0][0].weight
            for seed in (0, 0, 1)
        ]
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], ends[2])

    def test_accuracy_is_the_part_that_is_right(self):
        pixels = torch.eye(4)
        data = mixed_precision.Images(pixels, torch.tensor([0, 1, 2, 0]))
        assert mixed_precision.accuracy(torch.nn.Identity(), data) == 0.75


def test_precisions_are_compared_seed_by_seed():
    runs = pd.DataFrame(
        {
            "method": "A",
            "precision": ["float32"] * 3 + ["float16"] * 3,
            "seed": [0, 1, 2, 2, 1, 0],
            "test": [0.90, 0.92, 0.97, 0.98, 0.94, 0.93],
            "skipped": [0, 0, 0, 1, 0, 2],
            "zero": [0.0, 0.0, 0.3, 0.2, 0.2, 0.2],
        }
    )
    full, half = mixed_precision.compared(runs).itertuples()
    assert (full.precision, half.precision) == ("float32", "float16")
    assert (full.points, full.points_interval, full.skipped) == (0, 0, 0)
    assert half.test == pytest.approx(0.95)
    # 93, 94 and 98 % and differences of 3, 2 and 1 points: t = 4.3027 at two degrees of freedom.
    assert half.test_interval == pytest.approx(4.302653 * math.sqrt(7e-4) / math.sqrt(3))
    assert half.points == pytest.approx(2)
    assert half.points_interval == pytest.approx(4.302653 / math.sqrt(3))
    assert half.skipped == 3
    assert full.zero == pytest.approx(0.1)


def test_every_run_is_there_and_only_padam_makes_zeros():
    runs = mixed_precision.run("smoke")["runs"]
    counts = runs.groupby(["method", "precision"])["seed"].agg(list)
    assert counts.tolist() == [[0, 1]] * len(METHODS) * len(PRECISIONS)
    assert not runs.isna().any(axis=None)
    assert set(runs["steps"]) == {23}
    assert (runs.loc[runs["precision"] != "float16", "skipped"] == 0).all()
    # Far better than by chance, after 23 batches.
    assert (runs["test"] > 0.3).all()
    zeros = runs.groupby("method")["zero"].max()
    assert set(zeros.index[zeros > 0]) == {"PAdam", "PAdam, p from 2"}


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="fast"):
        mixed_precision.run("fast")


def test_a_delay_of_the_default_would_outlast_the_training():
    seeds, epochs = mixed_precision.SCALES["quick"]
    steps = epochs * math.ceil(1437 / mixed_precision.BATCH)
    default = DynamicPAdam([torch.ones(1)]).defaults["beta_s"]
    assert seeds >= 5
    assert 1 / (1 - mixed_precision.BETA_S) < steps < 1 / (1 - default)
