import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

from beyond_adam import data
from beyond_adam.models import fashion_cnn
from beyond_adam.training.engine import Splits

FILE = Path(__file__).parents[1] / "benchmarks" / "training_throughput.py"
SPEC = importlib.util.spec_from_file_location("training_throughput", FILE)
bench = sys.modules["training_throughput"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)
Case = bench.Case
CPU = torch.device("cpu")

USUAL = [Case("CNN", "usual", "0 workers"), Case("CNN", "usual", "2 workers")]
CHANGED, SAME = Case("CNN", "bfloat16", "augmented"), Case("CNN", "bfloat16", "one batch")


@pytest.fixture
def rates():
    return {
        USUAL[0]: [30.0, 10.0, 20.0],
        USUAL[1]: [25.0, 25.0, 10.0],  # of these, because its median is the greater
        CHANGED: [50.0, 100.0, 40.0],
        SAME: [50.0, 125.0, 80.0],
        Case("CNN", "float32", "one batch"): [1.0, 1.0, 1.0],
        Case("input of CNN", "usual", "0 workers"): [500.0, 500.0, 500.0],
        Case("input of CNN", "engine", "augmented"): [2500.0, 5000.0, 2000.0],
    }


@pytest.fixture
def small(monkeypatch):
    """Return random images of a data set, as if no real ones were there."""

    def absent(name):
        raise data.DatasetError(f"{name} is not there")

    monkeypatch.setattr(bench, "load", absent)
    return lambda name, count: Splits.of(bench.data_set(name, count), 0, CPU)


def test_a_ratio_is_of_rates_in_the_same_round():
    # The ratio of the medians would be 1.
    assert bench.ratio([1.0, 2.0, 9.0], [2.0, 6.0, 1.0]) == 0.5


def test_the_table_compares_with_the_best_usual_case_and_with_one_batch(rates):
    sizes = {"CNN": 1000, "input of CNN": 1000}
    rows = bench.table(rates, sizes, {"CNN": 4 * 10**10}, {CHANGED: 87.0})
    assert [Case(*row) for row in rows[list(Case._fields)].to_numpy()] == list(rates)
    rows = rows.set_index(list(Case._fields))
    changed = rows.loc[CHANGED]
    assert changed["images/s"] == 50
    assert changed["most images/s"] == 100
    assert changed["s per epoch"] == 20
    assert changed["times usual"] == 4  # of 2, 4, 4
    assert changed["of one batch"] == 0.8  # of 1, 0.8, 0.5
    assert changed["TFLOP/s"] == pytest.approx(2)
    assert changed["utilisation [%]"] == 87
    assert rows.loc[USUAL[1], "times usual"] == 1
    assert rows.loc[SAME, "of one batch"] == 1
    fed = rows.loc[Case("input of CNN", "engine", "augmented")]
    assert fed["times usual"] == 5
    assert fed[["of one batch", "TFLOP/s", "utilisation [%]"]].isna().all()


def test_goals_are_met_from_the_goal_on_and_told_only_of_what_was_measured(rates):
    rows = bench.judged(rates, bench.GOALS["cpu"])
    assert rows["relative to"].tolist() == ["usual", "one batch", "usual"]
    assert rows["ratio"].tolist() == [5, 0.8, 4]
    assert rows["goal"].tolist() == [5, 0.9, 3.5]
    assert rows["met"].tolist() == ["met", "missed", "met"]
    rows = bench.judged(rates, bench.GOALS["cuda"])
    assert rows[["task", "ratio", "met"]].to_numpy().tolist() == [["CNN", 4, "missed"]]
    assert bench.judged(rates, ()).empty


@pytest.mark.parametrize(("device", "names"), [("cpu", ["CNN"]), ("cuda", list(bench.NETWORKS))])
def test_every_goal_is_of_cases_that_are_measured(small, device, names):
    rates = {}
    for name in names:
        splits = small(bench.NETWORKS[name].run.data, 2)
        rates |= {case: [1.0] for case in bench.cases(name, splits, [0], CPU)}
    assert len(bench.judged(rates, bench.GOALS[device])) == len(bench.GOALS[device])


def test_published_rates_follow_from_published_times():
    rows = bench.published().set_index("what")
    assert rows.loc["airbench94, not compiled", "images/s"] == pytest.approx(129_243, abs=1)
    assert rows.loc["airbench94_muon, compiled", "TFLOP/s"] == pytest.approx(112, abs=0.1)
    assert math.isnan(rows.loc["ResNet-18, standard training", "images/s"])


def test_operations_are_two_for_each_multiplication_forwards_and_backwards():
    first, others = 9 * 32 * 28**2, 9 * 32 * 64 * 14**2 + 3136 * 128 + 1280
    # Backwards there are gradients of weights and inputs, but those of the images.
    assert bench.flops(bench.usual_cnn, (1, 28, 28)) == 2 * (2 * first + 3 * others)


def test_the_usual_network_is_the_same_function():
    usual, ours = bench.usual_cnn().eval(), fashion_cnn().eval()
    usual.load_state_dict(ours.state_dict())
    x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(usual(x), ours(x))


@pytest.mark.parametrize("name", bench.NETWORKS)
def test_the_usual_input_gives_the_images_of_the_engine(small, name):
    network = bench.NETWORKS[name]._replace(changes=())
    splits = small(network.run.data, 5)
    x, y = splits.batch(splits.train, slice(None))
    loader = bench.usual_loader(network, splits, 0)
    assert loader.batch_size == 256
    assert type(loader.sampler) is torch.utils.data.RandomSampler
    (given,) = loader
    order = [(given[0] - image).abs().amax((1, 2, 3)).argmin().item() for image in x]
    assert sorted(order) == list(range(5))
    torch.testing.assert_close(given[0][order], x.contiguous(), rtol=1e-5, atol=1e-5)
    assert given[1][order].tolist() == y.tolist()


def test_the_usual_input_is_changed_as_in_the_engine():
    kinds = {name: [type(x) for x in network.changes] for name, network in bench.NETWORKS.items()}
    assert kinds == {
        "CNN": [transforms.RandomRotation, transforms.RandomAffine],
        "ResNet-18": [transforms.RandomCrop, transforms.RandomHorizontalFlip],
    }
    rotation, shift = bench.NETWORKS["CNN"].changes
    turned, moved = bench.NETWORKS["CNN"].run.augmentation
    assert rotation.degrees == [-turned.degrees, turned.degrees]
    assert (shift.degrees, shift.translate) == ([0, 0], (moved.part, moved.part))


def test_one_batch_is_given_again_and_again(small):
    splits = small("fashion-mnist", 6)
    given = splits.batch(splits.train, slice(4))
    same = bench.OneBatch(**vars(splits), given=given)
    for rows in (torch.tensor([5, 4, 3, 2]), torch.tensor([1])):
        x, y = same.batch(same.train, rows, (), torch.Generator())
        assert x.data_ptr() == given[0].data_ptr()
        assert len(x) == len(y) == len(rows)
        assert x.is_contiguous(memory_format=torch.channels_last)
    x, y = same.batch(same.test, slice(0, 1000))
    assert x.shape == (1, 1, 28, 28)
    torch.testing.assert_close(y, splits.test.targets)


@pytest.mark.parametrize(
    ("name", "shape"), [("fashion-mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))]
)
def test_random_images_stand_in_for_real_ones(small, name, shape):
    splits = small(name, 3)
    assert splits.train.inputs.shape == (3, *shape)
    assert splits.test.inputs.shape == (1, *shape)
    assert splits.train.inputs.dtype == torch.uint8
    assert bench.data_set(name, 3).name == "random"


def test_real_images_are_taken_if_they_are_there(monkeypatch):
    x, y = np.arange(20, dtype=np.uint8).reshape(5, 1, 2, 2), np.arange(5, dtype=np.uint8)
    real = data.Dataset("fashion-mnist", x, y, x[::-1], y[::-1], tuple("01234"), 255, "")
    monkeypatch.setattr(bench, "load", {"fashion-mnist": real}.__getitem__)
    found = bench.data_set("fashion-mnist", 3)
    assert found.name == "fashion-mnist"
    np.testing.assert_array_equal(found.x_train, x[:3])
    assert (found.y_train.tolist(), found.y_test.tolist()) == ([0, 1, 2], [4])
    np.testing.assert_array_equal(found.x_test, x[4:])


def test_each_round_measures_each_case_once_from_its_start(monkeypatch):
    now, told = [0.0], []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    def prepared(case, seconds):
        def prepare():
            now[0] += 100  # which is not counted
            taken = next(seconds)

            def epoch():
                told.append(case)
                now[0] += taken

            return epoch

        return prepare

    prepare = {
        USUAL[0]: prepared(USUAL[0], iter([50.0, 2.0, 4.0])),
        CHANGED: prepared(CHANGED, iter([50.0, 1.0, 0.5])),
    }
    assert bench.measure(prepare, 8, 2, CPU) == {USUAL[0]: [4.0, 2.0], CHANGED: [8.0, 16.0]}
    assert [set(told[i : i + 2]) for i in (0, 2, 4)] == [set(prepare)] * 3


def test_the_usual_loop_learns():
    torch.manual_seed(0)
    x, y = torch.randn(16, 4), torch.arange(16) % 2
    run = SimpleNamespace(optimizer=torch.optim.AdamW, options={"lr": 0.05})
    network = SimpleNamespace(run=run, usual=lambda: nn.Linear(4, 2))
    epoch = bench.usual_training(network, [[x, y]] * 20, CPU)
    first = epoch()
    assert epoch() < 0.95 * first


def test_utilisation_is_the_median_of_what_is_sampled(tmp_path, monkeypatch):
    sampled = tmp_path / "sampled"
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\nprintf '7\\n[N/A]\\n 91\\n 90\\n'; echo $1 > {sampled}; exec sleep 60\n"
    )
    program.chmod(0o755)
    epochs = []

    def epoch():
        epochs.append(len(epochs))
        while epochs[-1] and not sampled.exists():  # the first one is before
            time.sleep(0.01)

    gpu = SimpleNamespace(uuid="1-2")
    monkeypatch.setattr(bench.torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(bench.torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(bench, "SAMPLED", 0.05)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert bench.utilisation(lambda: epoch, torch.device("cuda")) == 90
    assert sampled.read_text() == "--id=GPU-1-2\n"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert math.isnan(bench.utilisation(lambda: epoch, torch.device("cuda")))


def test_what_cannot_be_measured_is_refused(monkeypatch, capsys):
    for arguments, message in [
        (["--images", "0"], "at least 1"),
        (["--workers", "-1"], "at least 0"),
        (["--networks", "VGG"], "invalid choice"),
    ]:
        monkeypatch.setattr(sys, "argv", ["training_throughput.py", *arguments])
        with pytest.raises(SystemExit):
            bench.main()
        assert message in capsys.readouterr().err


def test_it_runs_from_beginning_to_end(tmp_path):
    file = tmp_path / "written.json"
    few = ["--images", "24", "--rounds", "1", "--threads", "1", "--write", file]
    environment = os.environ | {"BEYOND_ADAM_DATA": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, FILE, *few], env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert "24 images of fashion-mnist, random ones in its shape" in answer.stdout
    assert "input of CNN" in answer.stdout
    record = json.loads(file.read_text())
    assert record["data"] == {"CNN": "random"}
    assert (record["images"], record["rounds"], record["threads"]) == (24, 1, 1)
    assert {"torch", "torchvision", "pillow"} < set(record["versions"])
    found = {(row["task"], row["way"], row["detail"]): row for row in record["rows"]}
    usual = {("usual", "0 workers"), ("usual", "2 workers")}
    details = ("augmented", "not augmented", "one batch")
    loops = {(precision, detail) for precision in ("float32", "bfloat16") for detail in details}
    batches = {("engine", "augmented"), ("engine", "not augmented")}
    assert set(found) == {("input of CNN", *case) for case in usual | batches} | {
        ("CNN", *case) for case in usual | loops
    }
    assert all(row["images/s"] > 0 for row in record["rows"])
    for goal in record["goals"]:
        row = found[goal["task"], goal["way"], goal["detail"]]
        column = "times usual" if goal["relative to"] == "usual" else "of one batch"
        assert goal["ratio"] == row[column]
        assert goal["met"] == ("met" if goal["ratio"] >= goal["goal"] else "missed")
    assert len(record["goals"]) == 3
