"""The small experiments of chapter 1, at the profile for tests."""

import numpy as np
import pytest
import torch

from beyond_adam import project
from beyond_adam.experiments import agreement, race
from beyond_adam.landscapes import ROSENBROCK
from beyond_adam.optim import twin
from beyond_adam.reference import RULES, Adam
from beyond_adam.workflow import runs


def test_rules_and_their_twins_part_by_rounding_only():
    table = agreement.run("smoke")["agreement"].set_index("rule")
    assert list(table.index) == list(RULES)
    assert (table["difference"] < 1e-12).all()
    assert (table["last_loss"] < table["first_loss"]).all()


def test_a_wrong_twin_is_noticed(monkeypatch):
    def other(rule, params):
        right = twin(rule, params)
        if isinstance(rule, Adam):
            right.param_groups[0]["eps"] = 1e-4
        return right

    monkeypatch.setattr(agreement, "twin", other)
    table = agreement.run("smoke")["agreement"].set_index("rule")
    assert table["difference"]["Adam"] > 1e-6
    assert table["difference"]["AdaMax"] < 1e-12


def test_every_rule_races_at_the_rate_with_the_lowest_median_at_the_end():
    tables = race.run("smoke")
    tuning, paths = tables["tuning"], tables["paths"]
    assert set(tuning["rule"]) == set(RULES)
    assert (tuning.groupby("rule").size() == len(race.RATES)).all()
    for rule, path in paths.groupby("rule"):
        trials = tuning[tuning["rule"] == rule]
        assert path["lr"].iloc[0] == trials.loc[trials["f"].idxmin(), "lr"]
        end = path[["x", "y"]].to_numpy()[-5:]
        np.testing.assert_allclose(np.median(ROSENBROCK.value(end)), trials["f"].min())
        assert tuple(path[["x", "y"]].to_numpy()[0]) == race.START


def test_a_run_that_diverges_has_the_median_infinity():
    tuning = race.run("smoke")["tuning"].set_index(["rule", "lr"])["f"]
    assert tuning["GradientDescent"].iloc[-1] == np.inf
    assert not tuning.isna().any()


def test_twins_exist_for_the_rules_only():
    class Unheard:
        pass

    with pytest.raises(ValueError, match="Unheard"):
        twin(Unheard(), [torch.zeros(1, requires_grad=True)])


def test_every_archived_run_is_one_that_an_experiment_declares():
    declared = {entry.run.name for entry in runs.declared("paper")}
    assert {folder.name for folder in project.archive().iterdir()} <= declared
