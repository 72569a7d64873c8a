import json
import math
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from beyond_adam.experiments import deck_statements as deck
from beyond_adam.experiments.deck_convention import EPS, STEPS, libm_matches
from beyond_adam.landscapes import ACKLEY, PARABOLOID, RASTRIGIN, ROSENBROCK
from beyond_adam.numerical import central_difference
from beyond_adam.publishing.claims import Verdict, judge, read_ledger
from beyond_adam.reference import Adam, GradientDescent, descend

REPRODUCED, FALSE = Verdict.REPRODUCED, Verdict.FALSE
VERDICTS = {
    "aab-vector-objective": FALSE,
    "aab-convexity-for-existence": FALSE,
    "aab-taylor-first-order": REPRODUCED,
    "aab-directional-derivative": REPRODUCED,
    "aab-gd-stuck-saddle": FALSE,
    "aab-gd-stuck-ravine": FALSE,
    "aab-gd-stuck-local-minimum": REPRODUCED,
    "aab-all-stuck-local-minimum": REPRODUCED,
    "aab-momentum-remedy": FALSE,
    "aab-momentum-formula": Verdict.MISPRINT,
    "aab-adam-formula": REPRODUCED,
    "aab-adamax-formula": REPRODUCED,
    "aab-moments-beta2": FALSE,
    "aab-standard-functions": FALSE,
    "aab-minimum-paraboloid": REPRODUCED,
    "aab-minimum-rosenbrock": REPRODUCED,
    "aab-minimum-rastrigin": REPRODUCED,
    "aab-minimum-ackley": REPRODUCED,
    "aab-rosenbrock-start-in-ravine": FALSE,
    "aab-rosenbrock-adam-finds-way": REPRODUCED,
    "aab-rosenbrock-gd-unsettled": REPRODUCED,
    "aab-rastrigin-adam-pushed-out": REPRODUCED,
    "aab-rastrigin-gd-jumps": REPRODUCED,
    "aab-rastrigin-good-start": REPRODUCED,
    "aab-rastrigin-gd-does-not-move": FALSE,
    "aab-ackley-adam-very-close": REPRODUCED,
    "aab-ackley-adam-unsettled": REPRODUCED,
    "aab-ackley-settling-infeasible": FALSE,
    "aab-ackley-gd-large-rate": REPRODUCED,
    "aab-ackley-gd-large-rate-expected": REPRODUCED,
    "aab-mlp-adam-agrees": REPRODUCED,
    "aab-mlp-default-rate": REPRODUCED,
}


@pytest.fixture(scope="module")
def claims():
    """The testable statements of the deck on descent that are not results of its tables."""
    (source,) = read_ledger(["adam-and-beyond"]).values()
    return {
        id: claim
        for id, claim in source.claims.items()
        if claim.chapter == "descent-on-landscapes"
        and not claim.untestable
        and not re.match(r"aab-r\d\d-", id)
    }


@pytest.fixture(scope="module")
def smoke():
    return deck.run("smoke")


def test_every_statement_of_the_ledger_is_measured_once(claims, smoke):
    table = smoke["statements"]
    assert table["id"].is_unique
    assert set(table["id"]) == set(claims)
    assert not deck.FACTS.keys() & deck.OBSERVATIONS.keys()
    corrected = set(table.loc[table["corrected"].notna(), "id"])
    assert corrected == {id for id, claim in claims.items() if claim.correction}


def test_the_verdicts_are_those_the_facts_demand(claims):
    table = deck.statements(STEPS)
    verdicts = {
        line.id: judge(
            claims[line.id],
            json.loads(line.measured),
            json.loads(line.corrected) if isinstance(line.corrected, str) else None,
        )
        for line in table.itertuples()
    }
    assert verdicts == VERDICTS


def test_the_tables_can_be_kept_in_a_record(smoke, tmp_path):
    assert set(smoke) == {"statements", "saddle", "cooling", "rates", "network"}
    for name, table in smoke.items():
        table.to_parquet(tmp_path / name)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / name), table)


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="unknown profile 'fast'"):
        deck.run("fast")


# Each measurement can come out the other way ------------------------------------------------------


AS_PRINTED = partial(deck.power_weights, deck.STEP)


def at_origin(steps):
    return np.zeros((steps, 2))


def away(steps):
    return np.ones((steps, 2))


class Jump(GradientDescent):
    """A rule that goes to (1, 1), whatever the function."""

    def __init__(self, lr, **_):
        super().__init__(lr)

    def step(self, w, _, state):
        return np.ones_like(w), state


@pytest.mark.parametrize(
    ("name", "replacement", "statement", "measured"),
    [
        ("ROSENBROCK", PARABOLOID, deck.convexity_is_needed, True),
        ("momentum_weights", AS_PRINTED, deck.printed_sum_is_momentum, True),
        ("momentum_weights", AS_PRINTED, deck.corrected_sum_is_momentum, False),
        ("ROWS", deck.ROWS[:7], deck.beta2_is_fixed, True),
        ("ravine_point", lambda x, y: (x - 0.4, y), deck.start_is_in_ravine, True),
        ("saddle_ends", at_origin, lambda: deck.stuck_at_saddle(100), True),
        ("rosenbrock_descent", lambda *_: (1.1, 1.2), lambda: deck.stuck_in_ravine(10), True),
        ("cooled_run", away, lambda: deck.cooling_does_not_settle(9), True),
        ("Momentum", Jump, lambda: deck.momentum_is_a_remedy(9), True),
        ("Momentum", Jump, lambda: deck.all_stuck_in_local_minimum(STEPS), False),
    ],
)
def test_a_statement_turns_with_what_it_rests_on(
    monkeypatch, name, replacement, statement, measured
):
    monkeypatch.setattr(deck, name, replacement)
    assert statement() is measured


@pytest.mark.parametrize("wrong", [{"eps": 1e-3}, {"betas": (0.9, 0.99)}, {"lr": 0.11}])
def test_adam_with_another_setting_takes_another_path(wrong):
    task = (ROSENBROCK.gradient, (3, 0))
    printed = deck.printed_adam(*task, lr=0.1, steps=100)
    options = {"lr": 0.1, "eps": EPS}
    same, other = (
        deck.torch_path(lambda w, chosen=chosen: torch.optim.Adam(w, **chosen), *task, 100)
        for chosen in (options, options | wrong)
    )
    assert np.abs(printed - same).max() < 1e-12
    assert np.abs(printed - other).max() > 1e-6


def test_the_standard_constant_is_told_from_the_right_one():
    assert not deck.rastrigin_digits(20)
    assert deck.rastrigin_digits(100) or not libm_matches()


# Against independent truth ------------------------------------------------------------------------


def test_the_saddle_has_the_derivatives_of_its_formula():
    w = torch.tensor([[0.2, -0.3], [0.0, 0.0], [-1.0, 0.0], [1.4, 2.0]], dtype=torch.float64)
    w.requires_grad_(True)
    f = (w[:, 0] ** 2 - 1) ** 2 / 4 + w[:, 1] ** 2 / 2
    (gradient,) = torch.autograd.grad(f.sum(), w)
    points = w.detach().numpy()
    np.testing.assert_allclose(deck.SADDLE.value(points), f.detach(), rtol=1e-14)
    np.testing.assert_allclose(deck.SADDLE.gradient(points), gradient, rtol=1e-14, atol=1e-14)
    difference = [
        central_difference(lambda p, i=i: deck.SADDLE.gradient(p)[..., i], points) for i in (0, 1)
    ]
    np.testing.assert_allclose(deck.SADDLE.hessian(points), np.stack(difference, -1), atol=1e-8)
    assert np.linalg.eigvalsh(deck.SADDLE.hessian((0, 0))).tolist() == [-1, 1]
    assert not deck.SADDLE.gradient(deck.SADDLE.minimisers).any()


def test_the_gradient_in_plain_floats_is_rosenbrocks():
    for w in ((5.0, 0.0), (-1.3, 2.7), (0.0, 0.0), (1.0, 1.0)):
        np.testing.assert_allclose(deck.rosenbrock_gradient(*w), ROSENBROCK.gradient(w), rtol=1e-15)


def test_a_long_run_in_plain_floats_is_that_of_the_reference():
    expected = descend(GradientDescent(1e-3), ROSENBROCK.gradient, (0, 0), 300).points[-1]
    np.testing.assert_allclose(deck.rosenbrock_descent((0.0, 0.0), 1e-3, 300), expected, rtol=1e-12)


def test_the_ravine_point_is_the_nearest():
    t = np.linspace(-3, 6, 900_001)
    for x, y in ((5, 0), (0, 3), (-1, 0.5), (2, 4)):
        brute = np.hypot(t - x, t**2 - y).min()
        assert deck.distance((x, y), deck.ravine_point(x, y)) == pytest.approx(brute, abs=1e-6)


def test_the_grid_finds_the_minimisers():
    for landscape in (PARABOLOID, ROSENBROCK, RASTRIGIN, ACKLEY):
        place, lowest = deck.lowest_on_grid(landscape)
        assert place == tuple(landscape.minimisers[0])
        assert lowest == landscape.minimum


def test_momentum_weights_are_a_geometric_sequence():
    weights = deck.momentum_weights()
    np.testing.assert_allclose(weights[1:] / weights[:-1], 1 / 0.9)
    assert weights.sum() == pytest.approx(1 - 0.9**50)


def test_the_printed_adamax_has_no_guard():
    path = deck.printed_adamax(PARABOLOID.gradient, (1, 0), lr=0.1, steps=1)
    assert math.isnan(path[1, 0])
    assert path[1, 1] == pytest.approx(0.1)


def test_the_cooled_run_starts_like_the_constant_one_and_comes_to_rest(smoke):
    runs = {name: run["distance"].to_numpy() for name, run in smoke["cooling"].groupby("schedule")}
    constant, linear = runs["constant"], runs["linear decay"]
    assert len(constant) == len(linear) == 1001
    assert constant[0] == linear[0] == pytest.approx(math.sqrt(32))
    assert constant[1] == pytest.approx(linear[1], rel=1e-12)
    moves = np.abs(np.diff(deck.cooled_run(1_000), axis=0)).max(axis=-1)
    assert moves[-1] < 0.5 / 1_000 < constant[-100:].min()


def test_runs_leave_the_saddle_unless_they_start_on_its_axis(smoke):
    last = smoke["saddle"].groupby("run").last()
    assert np.abs(np.abs(last["x"][:-1]) - 1).max() < 1e-6
    assert last["x"].iloc[-1] == 0
    assert np.abs(last["y"]).max() < 1e-6


def test_both_methods_have_the_same_rates_and_steps(smoke):
    table = smoke["rates"].set_index(["method", "lr"])
    assert set(table.loc["GD"].index) == set(table.loc["Adam"].index) == set(deck.RATES)
    lr = deck.RATES[6]
    for method, rule in (("GD", GradientDescent(lr)), ("Adam", Adam(lr, eps=EPS))):
        end = deck.end(rule, ROSENBROCK, (5, 0), 1_000)
        np.testing.assert_allclose(
            table.loc[(method, lr), ["x", "y"]].astype(float), end, rtol=1e-9
        )
        assert table.loc[(method, lr), "f"] == pytest.approx(float(ROSENBROCK.value(end)))
    assert np.isinf(table.loc[("GD", 10.0), "f"])


def test_the_networks_learn_from_the_same_start(smoke):
    losses = smoke["network"].pivot(index="step", columns="method", values="loss")
    assert losses.shape == (math.ceil(1437 / deck.BATCH) * deck.EPOCHS, 3)
    assert losses.loc[1].nunique() == 1
    assert losses.loc[1].iloc[0] == pytest.approx(math.log(10), abs=0.1)
    fall = losses.head(10).mean() - losses.tail(10).mean()
    assert fall["our Adam"] > 1
    assert 0 < fall["gradient descent"] < 0.1  # at Adam's rate it hardly moves
    np.testing.assert_allclose(losses["our Adam"], losses["torch.optim.Adam"], rtol=1e-9)
