import errno
import itertools
import multiprocessing
import multiprocessing.forkserver
import os
import random
import re
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.optim import SGD, AdamW

from beyond_adam.data import load
from beyond_adam.data.augmentation import Crop, Rotation, Translation, augmented
from beyond_adam.models import fashion_cnn, image_mlp
from beyond_adam.optim import GeometricSchedule, LinearSchedule, PAdam, StepSchedule
from beyond_adam.prox import prox_lp
from beyond_adam.training import Definition, Penalty, Pruning, checkpoints, engine, probes, train
from test_sharded import join

CNN = {"model": fashion_cnn, "model_options": {"side": 8, "widths": (4, 8, 16)}}


def definition(**changes):
    """Return a run whose last batch has 37 images, after 7 of 200."""
    setting = {
        "data": "digits",
        "model": image_mlp,
        "model_options": {"sizes": (64, 16, 10)},
        "optimizer": SGD,
        "options": {"lr": 0.05, "momentum": 0.9},
        "epochs": 2,
        "batch": 200,
        "seed": 3,
    }
    return Definition(**(setting | changes))


@pytest.fixture(autouse=True)
def one_thread():
    """Bits depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def processes():
    """Return what starts processes, as copies of one that has imported all and run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "sklearn.datasets", __name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        multiprocessing.forkserver.ensure_running()
    return context


def timeless(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same(outcome, other):
    """Assert that two runs are the same bit for bit."""
    weights, others = outcome.model.state_dict(), other.model.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert timeless(outcome.epochs) == timeless(other.epochs)
    assert outcome.layers == other.layers
    assert outcome.failure == other.failure


# --- against a plain loop ---


def plain(run):
    """Return model and rows of a run, by a loop that owes nothing to the engine."""
    data = load(run.data)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train).long()
    count = len(x) - run.validation
    held = {"validation": (x[count:], y[count:])} if run.validation else {}
    held["test"] = torch.from_numpy(data.x_test), torch.from_numpy(data.y_test).long()
    mean, deviation = np.float32(data.x_train.mean()), np.float32(data.x_train.std())
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = run.model(**run.model_options)
    wide = [p for p in model.parameters() if p.ndim > 1]
    narrow = [p for p in model.parameters() if p.ndim <= 1]
    options = dict(run.options)
    decay = options.pop("weight_decay", 0.0)
    others = decay if run.decay == "all" else 0.0
    groups = [
        {"params": wide, "weight_decay": decay},
        {"params": narrow, "weight_decay": others},
    ]
    optimizer = run.optimizer(groups, **options, foreach=False)
    masks = [torch.ones_like(w) for w in wide]

    def logits(images):
        with torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "bfloat16"):
            return model((images.float() - mean) / deviation).float()

    def loss(z, classes, smoothing=0.0):
        log = z.log_softmax(1)
        right = -log[torch.arange(len(z)), classes]
        return ((1 - smoothing) * right - smoothing * log.mean(1)).mean()

    rows = []
    for epoch in range(run.epochs):
        seeds = np.random.SeedSequence((run.seed, epoch)).generate_state(2, np.uint64)
        generator = torch.Generator().manual_seed(int(seeds[0]))
        order = torch.randperm(count, generator=generator)
        batches = [order[i : i + run.batch] for i in range(0, count, run.batch)]
        model.train()
        seen = right = 0.0
        with torch.random.fork_rng():
            torch.manual_seed(int(seeds[1]))
            for step, batch in enumerate(batches):
                for name, schedule in run.schedules.items():
                    value = schedule(epoch + (step / len(batches) if run.moved == "step" else 0))
                    for group in optimizer.param_groups:
                        group[name] = value
                images = x[batch]
                if run.augmentation:
                    images = augmented(images, run.augmentation, generator)
                z = logits(images)
                value = loss(z, y[batch], run.label_smoothing)
                optimizer.zero_grad()
                value.backward()
                with torch.no_grad():
                    match run.penalty:
                        case Penalty(strength, 1, "gradient"):
                            value += strength * sum(w.abs().sum() for w in wide)
                            for w in wide:
                                w.grad += strength * w.sign()
                        case Penalty(strength, p, "gradient"):
                            value += strength * sum((w.abs() ** p).sum() for w in wide)
                            for w in wide:
                                w.grad += strength * p * w.abs() ** (p - 1) * w.sign()
                    optimizer.step()
                    for w, mask in zip(wide, masks, strict=True):
                        match run.penalty:
                            case Penalty(strength, p, "prox"):
                                w.copy_(prox_lp(w, optimizer.param_groups[0]["lr"] * strength, p))
                        w *= mask
                seen += value.item() * len(batch)
                right += (z.argmax(1) == y[batch]).sum().item()
        if run.pruning and epoch + 1 >= run.pruning.first:
            first, last = run.pruning.first, run.pruning.last
            time = min((epoch + 1 - first) / (last - first), 1)
            flat = torch.cat([w.detach().abs().flatten() for w in wide])
            gone = round(run.pruning.part * (1 - (1 - time) ** 3) * len(flat))
            flat[flat.argsort()[:gone]] = 0
            pieces = flat.split([w.numel() for w in wide])
            masks = [(piece > 0).view_as(w) for piece, w in zip(pieces, wide, strict=True)]
            with torch.no_grad():
                for w, mask in zip(wide, masks, strict=True):
                    w *= mask
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        row |= {"train_loss": seen / count, "train_accuracy": right / count}
        model.eval()
        with torch.no_grad():
            for name, (images, classes) in held.items():
                z = logits(images)
                row[f"{name}_loss"] = loss(z, classes).item()
                row[f"{name}_accuracy"] = (z.argmax(1) == classes).sum().item() / len(z)
        rows.append(row)
    return model, rows


CASES = {
    "plain": {},
    "one-batch": {"batch": 5000},
    "AdamW": {"optimizer": AdamW, "options": {"lr": 1e-2, "weight_decay": 0.1}},
    "decay-of-all": {"decay": "all", "options": {"lr": 0.05, "weight_decay": 0.5}},
    "decay-of-matrices": {"decay": "matrices", "options": {"lr": 0.05, "weight_decay": 0.5}},
    "moved-by-epoch": {"schedules": {"lr": LinearSchedule(0.1, 0.02, 2)}, "moved": "epoch"},
    "moved-by-step": {"schedules": {"lr": LinearSchedule(0.1, 0.02, 2)}, "moved": "step"},
    "momentum-moved": {"schedules": {"momentum": LinearSchedule(0.9, 0, 3)}},
    "label-smoothing": {"label_smoothing": 0.2},
    "validation": {"validation": 300},
    "L1-by-gradient": {"penalty": Penalty(1e-3, 1, "gradient")},
    "p-by-gradient": {"penalty": Penalty(1e-3, 1.5, "gradient")},
    "L1-by-prox": {"penalty": Penalty(1e-2, 1, "prox")},
    "p-by-prox": {
        "penalty": Penalty(1e-2, 0.5, "prox"),
        "schedules": {"lr": GeometricSchedule(0.05, 0.01, 3)},
    },
    "pruning": {"pruning": Pruning(0.8, 1, 3), "epochs": 4},
    "augmentation": {"augmentation": [Rotation(20), Translation(0.2)]},
    "bfloat16": {"precision": "bfloat16"},
    "dropout": CNN,
    "all-together": {
        **CNN,
        "optimizer": PAdam,
        "options": {"lr": 1e-2, "weight_decay": 1e-3, "p": 0.8},
        "schedules": {"p": LinearSchedule(2, 0.8, 3), "lr": StepSchedule((0.01, 0.003), (1,))},
        "penalty": Penalty(1e-3, 1, "gradient"),
        "pruning": Pruning(0.5, 1, 2),
        "augmentation": (Crop(1),),
        "label_smoothing": 0.1,
        "validation": 237,
        "epochs": 3,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_that_of_a_plain_loop(tmp_path, case):
    run = definition(**CASES[case])
    outcome = train(run, tmp_path)
    model, rows = plain(run)
    assert [row.pop("seconds") >= 0 for row in outcome.epochs] == [True] * run.epochs
    for row, other in zip(outcome.epochs, rows, strict=True):
        assert row == pytest.approx(other, rel=2e-6)
    # In bfloat16 a rounding of the gradient can tip a rounding of an activation.
    tolerance = 1e-4 if run.precision == "bfloat16" else 2e-6
    close = partial(torch.testing.assert_close, rtol=0, atol=tolerance)
    close(dict(outcome.model.named_parameters()), dict(model.named_parameters()))
    assert not outcome.failure
    assert outcome.epochs[-1]["train_loss"] < outcome.epochs[0]["train_loss"]


def test_what_is_counted_are_the_small_weights_of_each_layer(tmp_path):
    outcome = train(definition(penalty=Penalty(0.1, 1, "prox")), tmp_path)
    last = [row for row in outcome.layers if row["epoch"] == 2]
    assert len(outcome.layers) == 2 * len(last)
    assert last == [
        {"epoch": 2, "layer": name, "threshold": t, "count": int((p.abs() <= t).sum())}
        for name, p in outcome.model.named_parameters()
        for t in engine.THRESHOLDS
    ]
    assert last[0]["count"] > 100


def test_pruning_reaches_its_part_and_keeps_it(tmp_path):
    pruning = Pruning(0.9, 1, 3)
    outcome = train(definition(pruning=pruning, epochs=6), tmp_path)
    zeros = [
        sum(r["count"] for r in outcome.layers if (r["epoch"], r["threshold"]) == (epoch, 0.0))
        for epoch in range(1, 7)
    ]
    weights = 64 * 16 + 16 * 10
    assert zeros == [round(part * weights) for part in (0, 0.7875, 0.9, 0.9, 0.9, 0.9)]


def test_pruning_at_once_is_pruning(tmp_path):
    outcome = train(definition(pruning=Pruning(0.5, 2, 2)), tmp_path)
    weights = [p for p in outcome.model.parameters() if p.ndim > 1]
    assert sum(int((w == 0).sum()) for w in weights) == sum(w.numel() for w in weights) / 2


# --- numbers to predict ---


def regression(**changes):
    """Return a run that learns the diabetes study; its last batch has 3 patients after 7 of 50."""
    network = {"sizes": (10, 8, 1), "activation": "tanh"}
    return definition(**({"data": "diabetes", "model_options": network, "batch": 50} | changes))


def standardised():
    """Return measurements and progression by the statistics of the patients for training."""
    data = load("diabetes")
    moments = [(a.mean(0, np.float64), a.std(0, np.float64)) for a in (data.x_train, data.y_train)]
    (x, dx), (y, dy) = moments
    train = (data.x_train - x) / dx, (data.y_train - y) / dy
    return train, ((data.x_test - x) / dx, (data.y_test - y) / dy)


def test_a_linear_regression_is_gradient_descent_on_its_mean_square(tmp_path):
    run = regression(
        model_options={"sizes": (10, 1)}, optimizer=SGD, options={"lr": 0.1}, batch=353, epochs=5
    )
    outcome = train(run, tmp_path)
    w, b = (p.detach().double().numpy() for p in run.build_model().parameters())
    (x, y), (x_test, y_test) = standardised()
    for row in outcome.epochs:
        error = x @ w.T + b - y
        assert row["train_loss"] == pytest.approx((error**2).mean(), rel=1e-5)
        w, b = w - 0.2 * error.T @ x / len(x), b - 0.2 * error.mean()
        error = x_test @ w.T + b - y_test
        assert row["test_loss"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert list(row) == ["epoch", "lr", "train_loss", "test_loss", "seconds"]
    for found, expected in zip(outcome.model.parameters(), (w, b), strict=True):
        np.testing.assert_allclose(found.detach(), expected, atol=1e-6)


def test_a_network_learns_to_predict(tmp_path):
    run = regression(optimizer=AdamW, options={"lr": 0.01}, epochs=30, validation=53)
    last = train(run, tmp_path).epochs[-1]
    # The variance of what is predicted is 1, and half of it is what is known to be explainable.
    assert 0.3 < last["train_loss"] < 0.55
    assert 0.3 < last["validation_loss"] < 0.7
    assert 0.3 < last["test_loss"] < 0.7


def test_what_is_measured_of_several_numbers_is_their_mean():
    targets = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found = engine.total_loss(torch.zeros(3, 2, dtype=torch.bfloat16), targets)
    assert found.dtype == torch.float32
    assert found == (1 + 4 + 9 + 16 + 25 + 36) / 2


def test_a_regression_goes_on_where_it_was_broken_off(tmp_path):
    run = regression(epochs=4, precision="bfloat16")
    train(run, tmp_path / "broken off", until=2)
    rest = train(run, tmp_path / "broken off")
    assert_same(rest, train(run, tmp_path / "whole"))


def test_measuring_leaves_the_data_as_they_are():
    splits = engine.Splits.of(load("diabetes"), 0, torch.device("cpu"))
    before = splits.test.inputs.clone()
    splits.batch(splits.test, slice(None))
    assert torch.equal(splits.test.inputs, before)


def test_what_does_not_fit_a_regression_is_refused(tmp_path):
    with pytest.raises(ValueError, match="augmentation changes images; diabetes has none"):
        train(regression(augmentation=[Translation(0.1)]), tmp_path)
    with pytest.raises(ValueError, match="label_smoothing is of classes; diabetes has none"):
        train(regression(label_smoothing=0.1), tmp_path)
    with pytest.raises(
        ValueError, match=r"outputs have shape \(50, 2\), what is to be .* \(50, 1\)"
    ):
        train(regression(model_options={"sizes": (10, 2)}), tmp_path)


# --- data ---


def test_pixels_are_normalised_by_the_statistics_that_are_asked_for():
    data = load("digits")
    cpu = torch.device("cpu")
    for statistics, known in (("training", data.x_train), ("test", data.x_test)):
        splits = engine.Splits.of(data, 100, cpu, statistics)
        x, _ = splits.batch(splits.test, slice(None))
        expected = (data.x_test - known.mean()) / known.std()
        np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
        held, _ = splits.batch(splits.validation, slice(None))
        np.testing.assert_allclose(
            held.numpy(), (data.x_train[-100:] - known.mean()) / known.std(), atol=1e-6
        )


def test_each_colour_is_normalised_by_its_own_statistics():
    grey = load("digits")
    scale, shift = np.array([[[1.0]], [[0.25]], [[0.5]]]), np.array([[[0.0]], [[0.5]], [[0.1]]])
    colours = {name: getattr(grey, name) * scale + shift for name in ("x_train", "x_test")}
    data = replace(grey, **colours)
    splits = engine.Splits.of(data, 0, torch.device("cpu"))
    x, _ = splits.batch(splits.test, slice(None))
    for colour in range(3):
        known = data.x_train[:, colour]
        expected = (data.x_test[:, colour] - known.mean()) / known.std()
        np.testing.assert_allclose(x[:, colour].numpy(), expected, atol=1e-5)


def test_held_out_images_are_the_same_for_every_seed_and_not_trained_on(tmp_path, monkeypatch):
    data = load("digits")
    other = data.y_train.copy()
    other[-200:] = (other[-200:] + 1) % 10
    for seed in (0, 1):
        run = definition(seed=seed, validation=200)
        outcome = train(run, tmp_path / f"{seed}")
        with monkeypatch.context() as patch:
            patch.setattr(engine, "load", lambda _: replace(data, y_train=other))
            changed = train(run, tmp_path / f"{seed}-changed")
        for row, without in zip(outcome.epochs, changed.epochs, strict=True):
            assert row.pop("validation_accuracy") > without.pop("validation_accuracy")
            assert row.pop("validation_loss") < without.pop("validation_loss")
        assert_same(outcome, changed)


def test_what_does_not_fit_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot hold 1437 of the 1437 examples of digits out"):
        train(definition(validation=1437), tmp_path)
    with pytest.raises(
        ValueError, match="no data set 'digit': choose one of digits, diabetes, mnist"
    ):
        train(definition(data="digit"), tmp_path)
    with pytest.raises(ValueError, match="mirrored in a margin of at most 7, not 8"):
        train(definition(augmentation=[Crop(8, reflect=True)]), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- randomness ---


def test_a_run_is_the_same_each_time_and_another_with_another_seed(tmp_path):
    run = definition(**CNN, epochs=1, augmentation=[Translation(0.1)])
    before = torch.get_rng_state()
    first = train(run, tmp_path / "first")
    assert torch.equal(torch.get_rng_state(), before), "the global generator was advanced"
    torch.manual_seed(99)
    assert_same(train(run, tmp_path / "second"), first)
    torch.set_rng_state(before)
    other = train(replace(run, seed=4), tmp_path / "other")
    assert other.epochs[0]["train_loss"] != first.epochs[0]["train_loss"]


@pytest.mark.parametrize("model", [{}, CNN])
def test_torchs_defaults_do_not_matter(tmp_path, other_defaults, model, monkeypatch):
    monkeypatch.setattr(engine, "EVALUATED_AT_ONCE", 100)  # for losses are then sums of several
    run = definition(**model, augmentation=[Rotation(10)])
    usual = train(run, tmp_path / "usual")
    with other_defaults():
        other = train(run, tmp_path / "other")
    assert_same(other, usual)


def test_bfloat16_is_for_activations_alone(tmp_path):
    kinds = set()

    def watch(_module, _inputs, output):
        kinds.add(output.dtype)

    with nn.modules.module.register_module_forward_hook(watch):
        outcome = train(definition(**CNN, precision="bfloat16"), tmp_path / "half")
    assert torch.bfloat16 in kinds
    assert {p.dtype for p in outcome.model.parameters()} == {torch.float32}
    whole = train(definition(**CNN), tmp_path / "whole")
    for row, other in zip(outcome.epochs, whole.epochs, strict=True):
        assert row["test_loss"] == pytest.approx(other["test_loss"], rel=0.02)
        assert row["test_loss"] != other["test_loss"]


def test_convolutions_are_not_rounded_to_tf32(tmp_path, monkeypatch):
    rounded, total_loss = [], engine.total_loss

    def watched(*arguments):
        rounded.append(torch.backends.cudnn.allow_tf32)
        return total_loss(*arguments)

    for module in (engine, probes):
        monkeypatch.setattr(module, "total_loss", watched)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    outcome = train(definition(epochs=1), tmp_path)
    steps = len(rounded)
    probes.measure(definition(epochs=1), outcome.model, "cpu")
    assert 0 < steps < len(rounded)
    assert not any(rounded)
    assert torch.backends.cudnn.allow_tf32, "it is as it was"


def test_a_compiled_model_is_the_same_model(tmp_path, monkeypatch):
    compiled = []

    def compile_(model):  # by the backend that generates no code
        compiled.append(model)
        return original(model, backend="aot_eager")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", compile_)
    run = definition(epochs=1)
    outcome = train(run, tmp_path / "compiled", compiled=True)
    assert len(compiled) == 1
    other = train(run, tmp_path / "not")
    assert len(compiled) == 1
    for p, q in zip(outcome.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
    assert outcome.model.state_dict().keys() == other.model.state_dict().keys()


def test_progress_is_shown_if_asked_for(tmp_path, capsys):
    train(definition(epochs=1), tmp_path / "shown", show=True)
    assert "test=0." in capsys.readouterr().err
    train(definition(epochs=1), tmp_path / "silent")
    assert capsys.readouterr() == ("", "")


# --- divergence ---


def test_a_run_that_diverges_ends_and_says_where(tmp_path):
    run = definition(
        epochs=5,
        options={"lr": 0.05},
        schedules={"lr": StepSchedule((0.05, 1e30), (1,))},
        moved="epoch",
    )
    outcome = train(run, tmp_path, between=0)
    said = (
        r"the loss was (inf|nan) at step [23] of 8 in epoch 2, whose last learning rate was 1e\+30"
    )
    assert re.fullmatch(said, outcome.failure)
    _, rows = plain(replace(run, epochs=1))
    assert len(outcome.epochs) == 2
    assert outcome.epochs[0]["test_loss"] == pytest.approx(rows[0]["test_loss"], rel=1e-6)
    assert not np.isfinite(outcome.epochs[1]["train_loss"])

    again = train(run, tmp_path)
    assert again.failure == outcome.failure
    assert len(again.epochs) == 2
    assert again.segments == outcome.segments


def test_a_last_step_that_breaks_the_model_is_a_failure_too(tmp_path):
    run = definition(epochs=3, batch=5000, options={"lr": 1e30})
    outcome = train(run, tmp_path)
    said = r"the test loss was (inf|nan) after epoch 1, whose last learning rate was 1e\+30"
    assert re.fullmatch(said, outcome.failure)
    assert np.isfinite(outcome.epochs[0]["train_loss"])
    assert len(outcome.epochs) == 1


# --- checkpoints ---


def checkpointed(folder):
    return sorted(file.name for file in folder.iterdir())


def test_checkpoints_are_written_at_times_and_at_the_end(tmp_path):
    run = definition(epochs=3)
    train(run, tmp_path / "seldom", between=1e9)
    assert checkpointed(tmp_path / "seldom") == ["checkpoint-000003.pt"]
    train(run, tmp_path / "always", between=0)
    names = ["checkpoint-000002.pt", "checkpoint-000003.pt"]
    assert checkpointed(tmp_path / "always") == names


def test_a_run_that_is_over_is_not_trained_again(tmp_path, monkeypatch):
    first = train(definition(), tmp_path, origin={"commit": "a"})
    monkeypatch.setattr(engine._Loop, "epoch", None)
    again = train(definition(), tmp_path, origin={"commit": "b"})
    assert_same(again, first)
    assert again.segments == first.segments
    [segment] = again.segments
    assert segment.pop("seconds") > 0
    assert segment == {"commit": "a", "first": 1, "last": 2}


def test_a_run_is_taken_up_in_the_way_of_this_machine(tmp_path, monkeypatch):
    run = definition(optimizer=PAdam, options={"lr": np.float64(0.01)})
    train(run, tmp_path, until=1)
    made, build = [], Definition.build_optimizer

    def elsewhere(*args):
        made.append(build(*args))
        made[0].param_groups[0] |= {"fused": False, "foreach": True}
        return made[0]

    monkeypatch.setattr(Definition, "build_optimizer", elsewhere)
    assert len(train(run, tmp_path).epochs) == 2
    ways = [(group["fused"], group["foreach"]) for group in made[0].param_groups]
    assert ways == [(False, True), (True, None)]


def test_a_folder_with_checkpoints_of_another_run_is_refused(tmp_path):
    train(definition(seed=1), tmp_path, until=1)
    with pytest.raises(ValueError, match=f"has checkpoints of {definition(seed=1).name}, not of "):
        train(definition(seed=2), tmp_path)


def test_a_full_disk_stops_a_run_that_can_be_taken_up_again(tmp_path, monkeypatch):
    run = definition(epochs=4)
    calls = itertools.count(1)
    fsync = os.fsync

    def full(descriptor):
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train(run, tmp_path / "full", between=0)
    names = ["checkpoint-000001.pt", "checkpoint-000002.pt"]
    assert checkpointed(tmp_path / "full") == names
    outcome = train(run, tmp_path / "full", between=0)
    assert_same(outcome, train(run, tmp_path / "undisturbed"))
    assert [(s["first"], s["last"]) for s in outcome.segments] == [(1, 2), (3, 4)]


def test_a_run_that_is_stopped_can_be_taken_up_again(tmp_path):
    run = definition(epochs=4)
    begun = train(run, tmp_path / "stopped", until=3)
    assert [row["epoch"] for row in begun.epochs] == [1, 2, 3]
    assert checkpointed(tmp_path / "stopped") == ["checkpoint-000003.pt"]
    undisturbed = train(run, tmp_path / "undisturbed", until=9)
    assert_same(train(run, tmp_path / "stopped"), undisturbed)


# --- killed ---

TO_BE_KILLED = {
    "AdamW-pruned": definition(
        **CNN,
        optimizer=AdamW,
        options={"lr": 1e-2, "weight_decay": 0.1},
        schedules={"lr": GeometricSchedule(1e-2, 1e-3, 12)},
        pruning=Pruning(0.7, 2, 9),
        augmentation=(Rotation(10), Translation(0.1)),
        epochs=12,
        batch=400,
    ),
    "PAdam-moved": definition(
        **CNN,
        optimizer=PAdam,
        options={"lr": 1e-2, "weight_decay": 1e-3, "p": 2.0},
        schedules={"p": LinearSchedule(2, 0.8, 12)},
        validation=100,
        epochs=12,
        batch=400,
    ),
}


def call_at(moment, function):
    """Call a function at so many calls and returns in the code of training from now on."""
    events = itertools.count(1)

    def watch(frame, _event, _function):
        own = frame.f_globals.get("__name__", "").startswith("beyond_adam.training")
        if own and next(events) == moment:
            function()

    sys.setprofile(watch)
    return events


def live_until(moment, run, folder):
    torch.set_num_threads(1)
    call_at(moment, lambda: os.kill(os.getpid(), signal.SIGKILL))
    train(run, folder, between=0)


@pytest.mark.parametrize("method", TO_BE_KILLED)
def test_a_run_killed_three_times_ends_as_one_that_was_not(tmp_path, processes, method):
    run = TO_BE_KILLED[method]
    events = call_at(0, None)
    undisturbed = train(run, tmp_path / "undisturbed", between=0)
    sys.setprofile(None)
    length = next(events)

    chance = random.Random(method)
    for _ in range(3):
        # Together less than the whole, so that each life ends before the run, but after an epoch.
        moment = chance.randrange(length // 5, length * 3 // 10)
        life = processes.Process(target=live_until, args=(moment, run, tmp_path / "killed"))
        life.start()
        life.join()
        assert life.exitcode == -signal.SIGKILL
    outcome = train(run, tmp_path / "killed", between=0)
    assert_same(outcome, undisturbed)
    assert len(outcome.segments) == 4
    assert [s["first"] for s in outcome.segments[1:]] == [
        s["last"] + 1 for s in outcome.segments[:-1]
    ]
    assert outcome.segments[-1]["last"] == 12


# --- several processes ---


def with_norm():
    layers = nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def together(tmp_path_factory, processes):
    """Return what trains a run on two processes, and returns what is left on each."""
    store = tmp_path_factory.mktemp("processes") / "store"
    pools = [ProcessPoolExecutor(1, processes, join, (rank, str(store))) for rank in range(2)]

    def call(function, *args, **options):
        calls = [pool.submit(function, *args, **options) for pool in pools]
        return [done.result() for done in calls]

    yield partial(call, part_of)
    call(distributed.destroy_process_group)
    for pool in pools:
        pool.shutdown(wait=False)


def part_of(run, folder, **options):
    """Train on this process, one of two; return the outcome and how often it saved."""
    saved = []
    save = checkpoints.save
    checkpoints.save = lambda *args: saved.append(args[1]) or save(*args)
    try:
        return train(run, folder, **options), saved
    finally:
        checkpoints.save = save


#: Of its last batch, one image, one of two processes has nothing.
SHARED = definition(
    batch=359,
    epochs=4,
    augmentation=(Translation(0.1),),
    penalty=Penalty(1e-3, 1, "gradient"),
    pruning=Pruning(0.5, 1, 3),
)


def test_two_processes_train_the_model_that_one_trains(tmp_path, together):
    alone = train(SHARED, tmp_path / "alone")
    results = together(SHARED, tmp_path / "both", between=0)
    (leader, saved), (follower, not_saved) = results
    assert (saved, not_saved) == ([1, 2, 3, 4], [])
    assert_same(leader, follower)
    for row, other in zip(leader.epochs, alone.epochs, strict=True):
        assert row == pytest.approx(other | {"seconds": row["seconds"]}, rel=1e-5)
    weights = alone.model.state_dict()
    torch.testing.assert_close(leader.model.state_dict(), weights, rtol=0, atol=1e-5)


def test_two_processes_share_a_regression(tmp_path, together):
    run = regression(batch=352)  # of the last batch, one patient, one process has nothing
    alone = train(run, tmp_path / "alone")
    (leader, _), (follower, _) = together(run, tmp_path / "both")
    assert_same(leader, follower)
    for row, other in zip(leader.epochs, alone.epochs, strict=True):
        assert row == pytest.approx(other | {"seconds": row["seconds"]}, rel=1e-5)


def test_two_processes_resume_where_the_first_one_saved(tmp_path, together):
    together(SHARED, tmp_path / "both", until=2)
    for outcome, saved in together(SHARED, tmp_path / "both"):
        assert [row["epoch"] for row in outcome.epochs] == [1, 2, 3, 4]
        assert saved in ([4], [])
        resumed = outcome
    [(through, _), _] = together(SHARED, tmp_path / "through")
    assert_same(resumed, through)


def test_what_two_processes_measure_is_the_model_that_they_leave(tmp_path, together):
    run = definition(model=with_norm, model_options={}, epochs=1)
    (leader, _), (follower, _) = together(run, tmp_path)
    assert_same(leader, follower)
    data = load("digits")
    x = (torch.from_numpy(data.x_test).float() - data.x_train.mean()) / data.x_train.std()
    with torch.no_grad():
        logits = leader.model.eval()(x.float())
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(data.y_test).long())
    assert leader.epochs[0]["test_loss"] == pytest.approx(loss.item(), rel=1e-5)
