import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from beyond_adam import prox
from beyond_adam.experiments import choosing_p
from beyond_adam.experiments.choosing_p import Setting, translated
from beyond_adam.models import mlp
from beyond_adam.optim import PAdam, decay_groups

STEPS = 12


@pytest.fixture(scope="module")
def tables():
    return choosing_p.run("smoke")


def test_half_the_strength_is_that_of_adamw_at_two():
    assert translated(0.3, 2.0, 0.05) == pytest.approx(0.15)
    assert translated(0.3, 1.0, 0.05) == pytest.approx(0.3 * 0.05)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5])
def test_the_decays_are_equal_at_the_chosen_size(p):
    sizes = np.array([0.01, 0.05, 0.2])
    adamw = choosing_p.shrinkage(Setting(None, 0.3), sizes)
    np.testing.assert_allclose(adamw, choosing_p.LR * 0.3)
    strength = translated(0.3, p, 0.05)
    ours = choosing_p.shrinkage(Setting(p, strength), sizes)
    kept = prox.adiabatic_step(sizes, np.zeros(3), choosing_p.LR, strength, p) / sizes
    np.testing.assert_allclose(1 - ours, kept)
    # PAdam divides by 1 + ηω where AdamW multiplies by 1 − ηω.
    assert ours[1] == pytest.approx(adamw[1] / (1 + adamw[1]))
    assert ours[0] > adamw[0]
    assert ours[2] < adamw[2]


def test_a_split_belongs_to_its_seed_and_leaves_nothing_out():
    both, alone = choosing_p.split([3, 4]), choosing_p.split([4])
    for two, one in zip(both, alone, strict=True):
        assert torch.equal(two.pixels[1], one.pixels[0])
        assert torch.equal(two.classes[1], one.classes[0])
    parts = (both.train, both.validation, both.test)
    assert [part.classes.shape[1] for part in parts] == [400, 1037, 360]
    assert both.train.pixels.max() == 1
    whole = [torch.cat([part.classes[i] for part in parts[:2]]).sort().values for i in (0, 1)]
    assert torch.equal(*whole)
    assert not torch.equal(both.train.classes[0], both.train.classes[1])


def plainly(seed, optimizer, data):
    """Train one network as one usually does."""
    network = mlp(choosing_p.SIZES, seed=seed, dtype=torch.float32)
    optimizer = optimizer(network)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    (x, y), *_ = data
    for _ in range(STEPS):
        batch = torch.randint(choosing_p.TRAINED_ON, (choosing_p.BATCH,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(network(x[0, batch]), y[0, batch]).backward()
        optimizer.step()
        rate.step()
    return network


@pytest.mark.parametrize(
    ("setting", "optimizer"),
    [
        (Setting(None, 3.0), lambda net: torch.optim.AdamW(decay_groups(net, 3.0), lr=0.01)),
        (Setting(0.5, 0.03), lambda net: PAdam(decay_groups(net, 0.03), lr=0.01, p=0.5)),
    ],
)
def test_side_by_side_is_one_after_the_other(setting, optimizer):
    seeds = [0, 5]
    together = choosing_p.train(setting, seeds, choosing_p.split(seeds), STEPS)
    for seed, network in zip(seeds, together, strict=True):
        alone = plainly(seed, optimizer, choosing_p.split([seed]))
        for ours, theirs in zip(network.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_variations_differ_in_one_thing(monkeypatch):
    variations = choosing_p.variations(Setting(0.5, 0.02))
    assert variations["η/3, 3λ"] == Setting(0.5, pytest.approx(0.06), lr=choosing_p.LR / 3)
    assert variations["η/3, 3 times as long"].longer == 3
    exponents, rates = [], []

    def watched(groups, **options):
        optimizer = PAdam(groups, **options)
        optimizer.register_step_post_hook(
            lambda *_: (
                exponents.append(optimizer.param_groups[0]["p"]),
                rates.append(optimizer.param_groups[0]["lr"]),
            )
        )
        return optimizer

    monkeypatch.setattr(choosing_p, "PAdam", watched)
    data = choosing_p.split([0])
    choosing_p.train(variations["p falls from 2"], [0], data, 8)
    np.testing.assert_allclose(exponents, [2, 1.5, 1, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert rates[0] == choosing_p.LR
    rates.clear()
    choosing_p.train(variations["η/3, 3 times as long"], [0], data, 8)
    assert len(rates) == 24
    assert rates[0] == pytest.approx(choosing_p.LR / 3)
    # Half of a cosine: the mean rate is half of the first one.
    assert np.mean(rates) == pytest.approx(choosing_p.LR / 6, rel=0.05)


class TestMeasuring:
    @pytest.fixture
    def network(self):
        network = mlp((64, 2, 2), seed=0, dtype=torch.float32)
        with torch.no_grad():
            network[0].weight.fill_(0.5)
            network[0].weight[0] = torch.tensor([0.0] * 4 + [-1e-9] * 8 + [5e-4] * 20 + [0.5] * 32)
            network[0].bias.zero_()
        return network

    def test_biases_are_not_counted(self, network):
        assert choosing_p.weights(network).shape == (132,)
        assert choosing_p.small(network, 0) == 4 / 132
        assert choosing_p.small(network, 1e-8) == 12 / 132
        assert choosing_p.small(network, 1e-3) == 32 / 132

    def test_networks_are_measured_before_and_after_the_cut(self, network):
        right = network(torch.ones(5, 64)).argmax(dim=-1)
        images = choosing_p.Images(torch.ones(1, 5, 64), right[None])
        wrong = choosing_p.Images(images.pixels, 1 - images.classes)
        found = choosing_p.measured([network], choosing_p.Split(images, images, wrong)).iloc[0]
        assert (found["validation"], found["test"]) == (1, 0)
        assert found["zero"] * 132 == pytest.approx(4)
        assert found["cut"] * 132 == pytest.approx(32)
        assert choosing_p.small(network, 0) == 32 / 132

    def test_pruning_takes_the_smallest_and_spares_the_original(self, network):
        images = choosing_p.Images(torch.ones(1, 5, 64), torch.ones(1, 5, dtype=torch.int64))
        with torch.no_grad():
            network[2].bias.copy_(torch.tensor([0.0, 1e-6]))
        before = choosing_p.weights(network).clone()
        # Without weights the larger bias of the output decides, however small: biases stay.
        assert choosing_p.pruned([network], images, 1.0) == [1]
        assert torch.equal(choosing_p.weights(network), before)


def test_comparison_is_seed_by_seed():
    sweep = pd.DataFrame(
        {
            "method": ["AdamW"] * 3 + ["PAdam"] * 3,
            "multiple": 1.0,
            "seed": [0, 1, 2, 2, 1, 0],
            "validation": [0.90, 0.92, 0.97, 0.98, 0.94, 0.93],
        }
    )
    ours = choosing_p.compared(sweep, sweep, ["method"]).set_index("method")
    assert ours.loc["AdamW", "points"] == 0
    assert ours.loc["PAdam", "validation"] == pytest.approx(0.95)
    # Differences 1, 2 and 3 points: t = 4.3027 at two degrees of freedom.
    assert ours.loc["PAdam", "points"] == pytest.approx(2)
    assert ours.loc["PAdam", "interval"] == pytest.approx(4.302653 / math.sqrt(3))


def test_cut_networks_are_compared_with_whole_ones():
    sweep = pd.DataFrame(
        {"method": "AdamW", "multiple": 1.0, "seed": [0, 1], "test": 0.9, "test_cut": [0.7, 0.8]}
    )
    found = choosing_p.compared(sweep, sweep, ["method"], "test_cut")
    assert found["points"].item() == pytest.approx(-15)


class TestTables:
    def test_every_setting_is_there_for_every_seed(self, tables):
        sweep = tables["sweep"]
        settings = sweep.groupby(["method", "p", "multiple"])["seed"].agg(list)
        assert settings.tolist() == [[0, 1]] * (6 + 5 * 5)
        assert not sweep.isna().any(axis=None)
        assert (tables["pruned"].groupby("part").size() == 2).all()
        assert tables["variations"]["variation"].nunique() == 6

    def test_strengths_follow_the_rule(self, tables):
        size = tables["sizes"].query("moment == 'start'")["median"].mean()
        for line in tables["sweep"].itertuples():
            wd = line.multiple * choosing_p.WEIGHT_DECAY
            right = wd if line.method == "AdamW" else translated(wd, line.p, size)
            assert line.strength == pytest.approx(right)

    def test_start_has_the_median_of_a_uniform_distribution(self, tables):
        # Nearly all weights are in the first layer, uniform within ±1/√64.
        start = tables["sizes"].query("moment == 'start'")
        np.testing.assert_allclose(start["median"], 0.5 / 8, rtol=0.1)
        np.testing.assert_allclose(start["rms"], 1 / 8 / math.sqrt(3), rtol=0.1)

    def test_two_is_adamw_but_for_second_order(self, tables):
        # Of the order of a step of Adam over a weight, 0.01 over 0.06, times a few.
        assert (tables["twins"]["distance"] < 0.6 * tables["twins"]["without"]).all()

    def test_small_exponents_leave_zeros_and_two_does_not(self, tables):
        strongest = tables["sweep"].query("multiple == 30").groupby(["method", "p"])["zero"].mean()
        assert strongest["PAdam", 0.5] > 0.3
        assert strongest["PAdam", 2.0] == strongest["AdamW", 2.0] == 0

    def test_an_unknown_profile_is_refused(self):
        with pytest.raises(ValueError, match="fast"):
            choosing_p.run("fast")
