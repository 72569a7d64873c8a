import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from beyond_adam.experiments import fashion_mnist, sparse_inference
from beyond_adam.models import fashion_cnn
from beyond_adam.models.slim import FORMATS, sizes
from beyond_adam.optim import _fused
from beyond_adam.training import records

FILE = Path(__file__).parents[1] / "benchmarks" / "sparse_inference.py"
SPEC = importlib.util.spec_from_file_location("sparse_inference_benchmark", FILE)
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)

SEED = fashion_mnist.SEEDS["smoke"][0]
PRODUCTS = ["CSR, torch", "CSR, torch, of columns", "CSR, SciPy", "CSR, SciPy, of columns"]


@pytest.fixture(scope="module", autouse=True)
def archive(tmp_path_factory):
    """Keep records away from the project's; all tests share those that have been trained."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.project, "build", lambda: folder / "build")
        patch.setattr(records.project, "archive", lambda: folder / "runs")
        yield folder / "runs"


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pruned(monkeypatch):
    """Take three quarters of the weights, channels and units from all trained networks."""
    weights = records.Record.weights

    def fewer(record):
        state = weights(record)
        state["0.weight"][8:], state["0.bias"][8:] = 0, -1
        state["3.weight"][16:], state["3.bias"][16:] = 0, 1
        state["7.weight"].view(-1)[1::4] = 0
        state["10.weight"][:, 32:] = 0
        return state

    monkeypatch.setattr(records.Record, "weights", fewer)


def test_what_is_counted_is_what_the_records_hold():
    tables = sparse_inference.run("smoke")
    found = tables["sizes"].query("network == 'trained'").groupby(["method", "seed"])
    counted = {
        label: dict(zip(rows["format"], rows["bytes"], strict=True)) for label, rows in found
    }
    collected = records.collect(fashion_mnist.runs("smoke"), "smoke")
    assert counted.keys() == collected.keys()
    for label, record in collected.items():
        assert counted[label] == sizes(record.weights())
        assert counted[label]["dense"] == 4 * record.content["parameters"]
    assert counted["PAdam", SEED]["bitmap"] < counted["AdamW", SEED]["bitmap"]


@pytest.mark.usefixtures("pruned")
def test_units_that_cannot_matter_are_counted_and_left_out():
    tables = sparse_inference.run("smoke")
    assert set(tables["units"]["method"]) == {"AdamW", "PAdam"}
    slims = {"slim", "cut, slim"}
    assert set(tables["units"]["network"]) == set(tables["difference"]["network"]) == slims
    for _, rows in tables["units"].groupby(["method", "network"]):
        assert rows["layer"].tolist() == ["0", "3", "7"]
        assert rows["units"].tolist() == [32, 64, 128]
        assert rows["left"].tolist() == [8, 16, 32]
    left = (9 + 1) * 8 + (8 * 9 + 1) * 16 + (16 * 4 + 1) * 32 + (32 + 1) * 10
    slimmed = tables["sizes"].query("network != 'trained' and format == 'dense'")
    assert slimmed["bytes"].tolist() == [4 * left] * 4
    apart = tables["difference"]
    assert (apart["largest"] > 0.1).all()
    assert (apart["difference"] < 1e-6 * apart["largest"]).all()


def test_units_that_hardly_matter_are_cut(monkeypatch):
    weights = records.Record.weights

    def faint(record):
        state = weights(record)
        for name, rows in (("0", 8), ("3", 16), ("7", 32)):
            state[f"{name}.weight"][rows:] *= sparse_inference.CUT / 9
            state[f"{name}.bias"][rows:] = 0
        return state

    monkeypatch.setattr(records.Record, "weights", faint)
    tables = sparse_inference.run("smoke")
    of_adamw = tables["units"].query("method == 'AdamW'").groupby("network")["left"]
    assert of_adamw.apply(list).to_dict() == {"slim": [32, 64, 128], "cut, slim": [8, 16, 32]}
    apart = tables["difference"]
    assert (apart["difference"] < 1e-4 * apart["largest"]).all()


@pytest.mark.usefixtures("pruned")
def test_a_wrong_removal_is_noticed(monkeypatch):
    right = sparse_inference.slim

    def wrong(model):
        slimmed = right(model)
        nn.init.zeros_(slimmed[7].bias)  # which took up what the constants contribute
        return slimmed

    monkeypatch.setattr(sparse_inference, "slim", wrong)
    apart = sparse_inference.run("smoke")["difference"]
    assert (apart["difference"] > 1e-3 * apart["largest"]).all()


def test_at_paper_scale_only_what_is_archived_is_counted(archive, monkeypatch):
    assert not archive.exists()
    empty = sparse_inference.run("paper")
    small = fashion_mnist.runs("smoke")
    monkeypatch.setattr(fashion_mnist, "runs", lambda _: small)
    records.put_away(records.perform(small["PAdam", SEED]), weights=True)
    found = sparse_inference.run("paper")
    assert set(found) == set(empty) == {"sizes", "units", "difference"}
    for name, table in found.items():
        assert empty[name].empty
        assert list(empty[name]) == list(table)
        assert set(table["method"]) == {"PAdam"}
    assert found["sizes"]["format"].tolist() == [*FORMATS] * 3


def test_images_fit_the_network_of_either_profile():
    for profile in ("smoke", "paper"):
        record = records.Record(fashion_mnist.runs(profile)["PAdam", SEED], None, False, {})
        x = sparse_inference.images(record, 3)
        assert record.run.build_model().eval()(x).shape == (3, 10)
        assert torch.equal(x, sparse_inference.images(record, 3))


def small_network(side=8):
    torch.manual_seed(0)
    model = fashion_cnn(side).eval()
    with torch.no_grad():
        model[7].weight[torch.rand(model[7].weight.shape) < 0.9] = 0
        model[7].weight[::2] = 0
    return model, torch.randn(3, 1, side, side)


def test_every_way_gives_the_same_numbers():
    model, x = small_network()
    with torch.no_grad():
        inputs = model[:7](x)
        ways = bench.products(model, x)
        wanted = inputs @ model[7].weight.T
        torch.testing.assert_close(ways.pop("dense")(), wanted)
        assert list(ways) == PRODUCTS
        for way in ways.values():
            torch.testing.assert_close(torch.as_tensor(way()).T, wanted, rtol=1e-5, atol=1e-5)
        ways = bench.networks(model, x)
        assert list(ways) == ["dense", "CSR", "slim", "slim, CSR"]
        for way in ways.values():
            torch.testing.assert_close(way(), model(x), rtol=1e-5, atol=1e-5)


def test_what_is_called_sparse_or_slim_is():
    model, x = small_network()
    ways = bench.networks(model, x)
    for name, units in (("CSR", 128), ("slim, CSR", 64)):
        weight = ways[name].func[7].weight
        assert weight.layout == torch.sparse_csr
        assert weight.col_indices().dtype == torch.int32
        assert len(weight) == units
        assert len(weight.values()) == int(model[7].weight.count_nonzero())
    assert ways["slim"].func[7].out_features == 64
    assert ways["dense"].func is model
    assert model[7].weight.layout == torch.strided


def test_no_wrong_result_is_timed():
    x = torch.randn(3, 4)
    bench.check({"dense": lambda: x, "turned": lambda: x.T, "NumPy": lambda: x.numpy()})
    for other in (x + 0.01, x * torch.nan):
        with pytest.raises(SystemExit, match="other differs from dense"):
            bench.check({"dense": lambda: x, "other": lambda other=other: other})


def test_each_round_times_a_block_of_every_case(monkeypatch):
    now, called = [0.0], []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    def case(name, seconds):
        def call():
            called.append(name)
            now[0] += seconds

        return call

    # A block of the short case has four calls, of the long one a single one; each is warmed up.
    times = bench.measure({"short": case("short", 0.0025), "long": case("long", 1.0)}, rounds=3)
    assert times == {
        "short": [pytest.approx(0.0025)] * 3,
        "long": [pytest.approx(1.0)] * 3,
    }
    assert called.count("short") == 2 + 3 * 5
    assert called.count("long") == 2 + 3 * 2


def test_ratios_are_of_times_in_the_same_round():
    found = bench.compared([1.0, 2.0, 9.0], [2.0, 6.0, 1.0])
    assert found == {"median [ms]": 2000, "least [ms]": 1000, "ratio": 0.5, "ratio of least": 1}


@pytest.mark.parametrize("precision", bench.PRECISIONS)
@pytest.mark.parametrize(
    ("name", "options", "floats"),
    [
        ("Adam", {"weight_decay": 0}, 2),
        ("PAdam", {"weight_decay": 0.003, "p": 0.8}, 2),
        ("DynamicPAdam", {"weight_decay": 0.003, "p": 0.8}, 3),
    ],
)
def test_an_iteration_is_a_step_of_the_network_of_the_post(
    monkeypatch, precision, name, options, floats
):
    monkeypatch.setattr(bench, "TRAINED_ON", 2)
    iterate, optimizer = bench.iteration(name, precision)
    assert type(optimizer).__name__ == name
    (group,) = optimizer.param_groups
    assert {key: group[key] for key in options} == options
    before = [p.clone() for p in group["params"]]
    assert sum(p.numel() for p in before) == 421_642
    channels_last = group["params"][2].is_contiguous(memory_format=torch.channels_last)
    assert channels_last == (precision == "bfloat16")
    iterate()
    for p, old in zip(group["params"], before, strict=True):
        assert not torch.equal(p, old)
    assert bench.floats_per_weight(optimizer) == floats


def test_the_script_writes_what_it_measures(tmp_path, monkeypatch, capsys):
    file = tmp_path / "times.json"
    monkeypatch.setattr(bench, "BATCHES", (1, 2))
    monkeypatch.setattr(bench, "BLOCK", 0.0)
    monkeypatch.setattr(bench, "TRAINED_ON", 2)
    arguments = ["--profile", "smoke", "--rounds", "1", "--write", str(file)]
    if _fused.library() is not None:
        arguments.append("--training")
    monkeypatch.setattr(sys, "argv", [FILE.name, *arguments])
    bench.main()
    written = json.loads(file.read_text())
    assert (written["threads"], written["rounds"], written["profile"]) == (1, 1, "smoke")
    assert {"scipy", "torch"} <= set(written["versions"])
    assert [run["method"] for run in written["runs"]] == ["AdamW", "PAdam"]
    zeros = {run["method"]: run["zeros"] for run in written["runs"]}
    weight = records.find(fashion_mnist.runs("smoke")["PAdam", SEED]).weights()["7.weight"]
    assert zeros == {"AdamW": 0, "PAdam": pytest.approx(np.mean(weight.numpy() == 0))}
    rows = written["rows"]
    assert len(rows) == 2 * 2 * (5 + 4)
    assert len({tuple(list(row.values())[:5]) for row in rows}) == len(rows)
    for row in rows:
        assert row["median [ms]"] >= row["least [ms]"] > 0
        assert row["case"] != "dense" or row["ratio"] == 1
    if "training" in written:
        compared = [(row["case"], row["reference"]) for row in written["training"]]
        assert compared[:3] == compared[3:]
        assert compared[:3] == [("Adam", "Adam"), ("PAdam", "Adam"), ("DynamicPAdam", "PAdam")]
        for row in written["training"]:
            assert row["extra [%]"] == pytest.approx(100 * (row["ratio"] - 1))
            assert row["goal [%]"] == (None if row["case"] == "Adam" else 10)
    assert "CSR, SciPy" in capsys.readouterr().out


def test_without_a_compiler_no_training_is_timed(monkeypatch):
    monkeypatch.setattr(bench._fused, "library", lambda: None)
    with pytest.raises(SystemExit, match=r"no C\+\+ compiler"):
        bench.training(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--rounds", "0"], "at least 1"), (["--profile", "huge"], "invalid choice")],
)
def test_what_cannot_be_measured_is_refused(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", [FILE.name, *arguments])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert message in capsys.readouterr().err


def test_without_archived_runs_it_is_said_how_to_get_them(monkeypatch, capsys):
    monkeypatch.setattr(bench, "collect", lambda *_: {})
    monkeypatch.setattr(sys, "argv", [FILE.name])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert "beyond-adam run fashion-mnist" in capsys.readouterr().err
