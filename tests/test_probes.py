import copy

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from beyond_adam.data import load
from beyond_adam.models import fashion_cnn, image_mlp
from beyond_adam.training import Definition, Penalty, probes, train

RUN = Definition(
    data="digits",
    model=fashion_cnn,
    model_options={"side": 8, "widths": (4, 8, 16)},
    optimizer=AdamW,
    options={"lr": 0.01},
    penalty=Penalty(0.02, 1, "prox"),
    epochs=2,
    batch=200,
    seed=0,
    validation=300,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a trained model, some of whose weights are 0, with its dropout on."""
    return train(RUN, tmp_path_factory.mktemp("run")).model.train()


@pytest.fixture(scope="module")
def tables(model):
    return probes.measure(RUN, model, "cpu")


@torch.no_grad()
def worth(model, split="test", statistics="training"):
    """Return loss and accuracy, by the arrays of the data set."""
    data = load("digits")
    known = data.x_train if statistics == "training" else data.x_test
    held = {
        "validation": (data.x_train[-300:], data.y_train[-300:]),
        "test": (data.x_test, data.y_test),
    }
    pixels, classes = held[split]
    x = torch.from_numpy((pixels - known.mean()) / known.std()).float()
    y = torch.from_numpy(classes).long()
    logits = copy.deepcopy(model).eval()(x)
    return {
        "loss": cross_entropy(logits, y).item(),
        "accuracy": (logits.argmax(1) == y).double().mean().item(),
    }


def without(model, size, *, only_matrices):
    cut = copy.deepcopy(model)
    for p in cut.parameters():
        if p.ndim > 1 or not only_matrices:
            p.data = torch.where(p.abs() > size, p, 0)
    return cut


def assert_rows(rows, model):
    assert list(rows["split"]) == ["test", "validation"]
    for row in rows.to_dict("records"):
        expected = worth(model, row["split"])
        assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-5)


def test_the_tables_are_these(tables):
    columns = {name: list(table) for name, table in tables.items()}
    assert columns == {
        "cuts": ["size", "part", "split", "loss", "accuracy"],
        "pruned": ["part", "split", "loss", "accuracy"],
        "normalisation": ["statistics", "loss", "accuracy"],
        "units": ["layer", "units", "dead"],
    }


@pytest.mark.parametrize("size", probes.CUTS)
def test_cuts_set_small_entries_to_zero(model, tables, size):
    rows = tables["cuts"][tables["cuts"]["size"] == size]
    assert_rows(rows, without(model, size, only_matrices=False))
    small = torch.cat([(p.abs() <= size).flatten() for p in model.parameters()])
    assert set(rows["part"]) == {small.double().mean().item()}


def test_more_is_cut_at_greater_sizes(tables):
    parts = tables["cuts"]["part"]
    assert parts.is_monotonic_increasing
    assert 0 < parts.iloc[0] < 0.3 < parts.iloc[-1] < 1
    assert tables["cuts"]["loss"].nunique() > 8


@pytest.mark.parametrize("part", probes.PARTS)
def test_the_smallest_weights_are_pruned(model, tables, part):
    weights = torch.cat([p.detach().abs().flatten() for p in model.parameters() if p.ndim > 1])
    gone = round(part * len(weights))
    size = weights.sort().values[gone - 1].item() if gone else -1.0
    cut = without(model, size, only_matrices=True)
    zeros = sum(int((p == 0).sum()) for p in cut.parameters() if p.ndim > 1)
    assert zeros >= gone
    assert_rows(tables["pruned"][tables["pruned"]["part"] == part], cut)
    for p, q in zip(cut.parameters(), model.parameters(), strict=True):
        assert p.ndim > 1 or torch.equal(p, q)


@torch.no_grad()
def test_as_many_entries_may_be_others():
    run = Definition(**{**vars(RUN), "model": image_mlp, "model_options": {"sizes": (64, 10)}})
    model = run.build_model()
    weight, bias = model[1].parameters()
    weight += 0.01 * weight.sign()
    weight.view(-1)[:310] = bias[:] = 1e-5
    tables = probes.measure(run, model, "cpu")
    cut = tables["cuts"][tables["cuts"]["size"] == 1e-4]
    assert set(cut["part"]) == {320 / 650}
    assert_rows(cut, without(model, 1e-4, only_matrices=False))
    size = weight.abs().flatten().sort().values[319].item()
    half = tables["pruned"][tables["pruned"]["part"] == 0.5]
    assert_rows(half, without(model, size, only_matrices=True))
    assert set(half["loss"]).isdisjoint(cut["loss"])


def test_where_numbers_are_predicted_there_is_a_loss_alone(tmp_path):
    run = Definition(
        data="diabetes",
        model=image_mlp,
        model_options={"sizes": (10, 6, 1)},
        optimizer=AdamW,
        options={"lr": 0.01},
        epochs=2,
        batch=50,
        seed=0,
    )
    outcome = train(run, tmp_path)
    found = probes.measure(run, outcome.model, "cpu")
    assert list(found["cuts"]) == ["size", "part", "split", "loss"]
    assert list(found["normalisation"]) == ["statistics", "loss"]
    whole = found["pruned"].query("part == 0")["loss"].item()
    assert whole == pytest.approx(outcome.epochs[-1]["test_loss"], rel=1e-6)
    assert found["units"][["layer", "units"]].to_numpy().tolist() == [["2", 6]]


def test_without_a_relu_there_are_no_units():
    run = Definition(**{**vars(RUN), "model": image_mlp, "model_options": {"sizes": (64, 10)}})
    units = probes.measure(run, run.build_model(), "cpu")["units"]
    assert units.empty
    assert list(units) == ["layer", "units", "dead"]


def test_without_validation_images_there_are_none_to_measure(model):
    run = Definition(**{**vars(RUN), "validation": 0})
    for name in ("cuts", "pruned"):
        assert set(probes.measure(run, model, "cpu")[name]["split"]) == {"test"}


def test_normalisations_differ_by_their_statistics(model, tables):
    rows = tables["normalisation"].set_index("statistics")
    assert list(rows.index) == ["training", "test"]
    for statistics in rows.index:
        expected = worth(model, statistics=statistics)
        assert dict(rows.loc[statistics]) == pytest.approx(expected, rel=1e-5)
    assert rows["loss"].nunique() == 2


@torch.no_grad()
def test_units_that_no_image_makes_positive_are_dead(model):
    lame = copy.deepcopy(model)
    for layer, channels in ((0, [1]), (3, [0, 5]), (7, [2, 3, 4])):
        lame[layer].weight[channels] = 0
        lame[layer].bias[channels] = 0
    data = load("digits")
    x = torch.from_numpy((data.x_test - data.x_train.mean()) / data.x_train.std()).float()
    expected = []
    for place in (2, 5, 8):
        found = lame.eval()[: place + 1](x).transpose(0, 1).flatten(1)
        dead = int((found == 0).all(1).sum())
        expected.append({"layer": f"{place}", "units": len(found), "dead": dead})
    assert [row["units"] for row in expected] == [4, 8, 16]
    assert all(row["dead"] >= least for row, least in zip(expected, (1, 2, 3), strict=True))
    assert probes.measure(RUN, lame, "cpu")["units"].to_dict("records") == expected
    lame[3].bias[5] = 1.0
    revived = probes.measure(RUN, lame, "cpu")["units"]["dead"]
    assert revived[1] == expected[1]["dead"] - 1


def test_images_are_measured_in_parts(model, tables, monkeypatch):
    monkeypatch.setattr(probes, "EVALUATED_AT_ONCE", 100)  # of 360, so that the last are 60
    parts = probes.measure(RUN, model, "cpu")
    for name, table in tables.items():
        pd.testing.assert_frame_equal(parts[name], table, rtol=1e-5)


def test_the_model_is_left_as_it_was(model):
    before = copy.deepcopy(model.state_dict())
    probes.measure(RUN, model, "cpu")
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
