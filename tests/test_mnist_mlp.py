import numpy as np
import pandas as pd
import pytest
import torch

from beyond_adam import reference
from beyond_adam.experiments import mnist_mlp
from beyond_adam.experiments.mnist_mlp import DESCENT, OUR_ADAM, TORCH_ADAM
from beyond_adam.optim import RuleOptimizer
from beyond_adam.training import records


@pytest.fixture(scope="module", autouse=True)
def archive(tmp_path_factory):
    """Keep records away from the project's; all tests share those that have been trained."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.project, "build", lambda: folder / "build")
        patch.setattr(records.project, "archive", lambda: folder / "runs")
        yield folder / "runs"


@pytest.fixture(scope="module")
def tables():
    return mnist_mlp.run("smoke")


def last(table, method, column):
    return table[table["method"] == method][column].iloc[-1]


def test_methods_differ_in_the_optimizer_alone():
    for profile, seeds in (("smoke", 1), ("quick", 3), ("paper", 3)):
        runs = mnist_mlp.runs(profile)
        assert len(runs) == 3 * seeds
        assert len({run.digest for run in runs.values()}) == len(runs)
        for seed in range(seeds):
            known = [runs[method, seed].as_json() for method in mnist_mlp.METHODS]
            assert [one.pop("optimizer") for one in known] == ["SGD", "Adam", "rule-adam"]
            assert known[0] == known[1] == known[2]
            assert known[0]["options"] == {"lr": 1e-3}


def test_networks_have_two_hidden_layers_and_fit_their_images():
    for profile, side in (("quick", 8), ("paper", 28)):
        model = mnist_mlp.runs(profile)[DESCENT, 0].build_model()
        assert model(torch.zeros(5, 1, side, side)).shape == (5, 10)
        shapes = [p.shape for p in model.parameters() if p.ndim == 2]
        assert len(shapes) == 3


def test_descent_has_no_momentum_and_both_adams_the_defaults():
    built = {
        method: run.build_optimizer(run.build_model(), torch.device("cpu"))
        for (method, _), run in mnist_mlp.runs("smoke").items()
    }
    assert built[DESCENT].param_groups[0]["momentum"] == 0
    ours = built[OUR_ADAM]
    assert isinstance(ours, RuleOptimizer)
    assert ours.rule == reference.Adam(lr=1e-3)
    for name, value in (("betas", (0.9, 0.999)), ("eps", 1e-8), ("lr", 1e-3)):
        assert built[TORCH_ADAM].param_groups[0][name] == ours.param_groups[0][name] == value
    assert built[TORCH_ADAM].param_groups[0]["weight_decay"] == 0


def test_both_adams_part_by_rounding_only_and_descent_hardly_moves(tables):
    epochs, apart = tables["epochs"], tables["apart"]
    assert list(apart["seed"]) == [0, 0]
    assert list(apart["epoch"]) == [1, 2]
    assert apart["train_loss"].max() < 1e-5
    assert 0 < apart["weight"].iloc[0] < 1e-4
    assert last(epochs, OUR_ADAM, "test_accuracy") > 0.7
    assert last(epochs, DESCENT, "train_loss") > 2.2
    assert set(tables["provenance"]["method"]) == set(mnist_mlp.METHODS)


def test_another_epsilon_is_noticed(monkeypatch):
    def wrong(params, lr, *, fused=False):
        del fused
        return RuleOptimizer(params, reference.Adam(lr=lr, eps=1e-4))

    wrong.__qualname__ = "wrong"
    monkeypatch.setitem(mnist_mlp.METHODS, OUR_ADAM, wrong)
    apart = mnist_mlp.run("smoke")["apart"]
    assert apart["train_loss"].max() > 1e-3
    assert (apart["weight"] > 1e-3).all()


class Left:
    """What `apart` reads of a record."""

    def __init__(self, losses, accuracies, weight):
        columns = {"train_loss": losses, "test_accuracy": accuracies, "lr": 1e-3}
        self._epochs = pd.DataFrame({"epoch": range(1, len(losses) + 1), **columns})
        self._weight = weight

    def table(self, name):
        return {"epochs": self._epochs}[name]

    def weights(self):
        return {"weight": torch.tensor(self._weight), "bias": torch.zeros(2)}


def test_apart_is_the_size_of_the_differences():
    one = Left([2.0, 1.0], [0.5, 0.75], [[1.0, -2.0]])
    other = Left([1.5, 1.25], [0.5, 1.0], [[1.0, -1.0]])
    found = mnist_mlp.apart(one, other)
    assert list(found["epoch"]) == [1, 2]
    np.testing.assert_array_equal(found["train_loss"], [0.5, 0.25])
    np.testing.assert_array_equal(found["test_accuracy"], [0, 0.25])
    np.testing.assert_array_equal(found["weight"], [1, 1])


def test_at_paper_scale_only_what_is_archived_is_returned(tables, archive, monkeypatch):
    assert not archive.exists()
    assert all(table.empty for table in mnist_mlp.run("paper").values())
    small = mnist_mlp.runs("smoke")
    monkeypatch.setattr(mnist_mlp, "runs", lambda _: small)
    for method in (DESCENT, TORCH_ADAM):
        records.put_away(records.perform(small[method, 0]), weights=True)
    found = mnist_mlp.run("paper")
    assert set(found["epochs"]["method"]) == {DESCENT, TORCH_ADAM}
    assert found["provenance"]["archived"].all()
    assert found["apart"].empty
    records.put_away(records.perform(small[OUR_ADAM, 0]), weights=True)
    pd.testing.assert_frame_equal(mnist_mlp.run("paper")["apart"], tables["apart"])
