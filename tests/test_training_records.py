import contextlib
import errno
import fcntl
import hashlib
import importlib
import json
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from torch.optim import SGD

from beyond_adam import dependencies, project
from beyond_adam.data import load
from beyond_adam.models import image_mlp
from beyond_adam.training import (
    Definition,
    Pruning,
    Record,
    collect,
    confirm,
    engine,
    find,
    perform,
    probes,
    provenance_table,
    put_away,
    records,
    together,
    train,
)

RUN = Definition(
    data="digits",
    model=image_mlp,
    model_options={"sizes": (64, 8, 10)},
    optimizer=SGD,
    options={"lr": 0.05, "momentum": 0.9},
    epochs=2,
    batch=500,
    seed=0,
)

DIVERGING = replace(RUN, options={"lr": 1e30})

ALONE = records._alone


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """Make a project that is empty, and take commit "c0ffee" for its own."""
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "requirements.lock").write_text("numpy==0\n")
    monkeypatch.setenv("BEYOND_ADAM_ROOT", str(tmp_path))
    monkeypatch.setenv("BEYOND_ADAM_BUILD", str(tmp_path / "build"))
    # Not asked of git, which is asked only once for all tests.
    monkeypatch.setattr(records.provenance, "commit", lambda **_: ("c0ffee", False))
    return tmp_path


@pytest.fixture
def trainings(monkeypatch):
    """Return the list of runs that are trained from now on."""
    trained = []

    def watch(run, *args, **options):
        trained.append(run)
        return train(run, *args, **options)

    monkeypatch.setattr(engine, "train", watch)
    return trained


@pytest.fixture
def change(monkeypatch):
    """Return what makes a module look as if its code had changed."""

    def change(name):
        now = records.modules(RUN)
        assert name in now
        monkeypatch.setattr(records, "modules", lambda _: now | {name: "another"})

    return change


def names(folder):
    return sorted(path.name for path in folder.iterdir())


TABLES = ["cuts", "epochs", "layers", "normalisation", "pruned", "units"]
FILES = sorted(["record.json", "weights.safetensors", *(f"{name}.parquet" for name in TABLES)])


def test_a_record_is_a_folder_of_the_build(root):
    assert find(RUN) is None
    record = perform(RUN)
    assert record.folder == root / "build" / "runs" / RUN.name
    assert names(record.folder) == FILES, "checkpoints are removed"
    assert not record.archived
    assert record.run == RUN
    content = json.loads((record.folder / "record.json").read_text())
    assert content == record.content
    epochs = record.table("epochs")
    assert list(epochs["epoch"]) == [1, 2]
    [segment] = content.pop("segments")
    files = content.pop("files")
    assert sorted([*files, "record.json"]) == FILES
    for name, sha in files.items():
        assert hashlib.sha256((record.folder / name).read_bytes()).hexdigest() == sha
    assert content == {
        "name": RUN.name,
        "digest": RUN.digest,
        "definition": RUN.as_json(),
        "failure": "",
        "fingerprint": load("digits").fingerprint,
        "parameters": 64 * 8 + 8 + 8 * 10 + 10,
        "last": epochs.iloc[-1].to_dict(),
        "tables": TABLES,
        "probes": dependencies.closure([probes.__name__])[probes.__name__],
    }
    assert segment.pop("seconds") > 0
    assert segment.pop("modules") == records.modules(RUN)
    assert segment.pop("hardware")["cpu"]
    assert segment.pop("versions")["torch"].startswith(torch.__version__.partition("+")[0])
    assert len(segment.pop("lock")) == 64
    assert segment == {
        "commit": "c0ffee",
        "dirty": False,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "compiled": False,
        "fingerprint": load("digits").fingerprint,
        "first": 1,
        "last": 2,
    }


def test_the_weights_are_those_that_were_measured(tmp_path):
    record = perform(RUN)
    expected = train(RUN, tmp_path / "again").model.state_dict()
    weights = record.weights()
    assert weights.keys() == expected.keys()
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
    uncut = record.table("cuts").iloc[0]
    assert uncut["accuracy"] == record.content["last"]["test_accuracy"]
    assert uncut["loss"] == pytest.approx(record.content["last"]["test_loss"], rel=1e-5)


def test_a_record_that_holds_is_not_computed_again(trainings):
    first = perform(RUN)
    second = perform(RUN)
    assert trainings == [RUN]
    assert second.content == first.content
    assert second.changes() == []
    for table in TABLES:
        pd.testing.assert_frame_equal(first.table(table), second.table(table), check_exact=True)


def test_another_seed_is_another_run(trainings):
    runs = [RUN, replace(RUN, seed=1)]
    folders = {perform(run).folder for run in runs}
    assert trainings == runs
    assert len(folders) == 2


def test_runs_depend_on_the_engine_and_on_what_they_name():
    depends = records.modules(RUN)
    assert {"beyond_adam.training.engine", "beyond_adam.models.mlp"} < depends.keys()
    assert {"beyond_adam.data.embedded", "beyond_adam.prox.lp"} < depends.keys()
    assert not {"beyond_adam.models.lstm", "beyond_adam.training.records"} & depends.keys()


def test_code_that_changed_makes_a_record_be_computed_again(trainings, change):
    folder = perform(RUN).folder
    (folder / "old.parquet").touch()
    change("beyond_adam.models.mlp")
    assert find(RUN).changes() == ["beyond_adam.models.mlp"]
    record = perform(RUN)
    assert trainings == [RUN, RUN]
    assert record.changes() == []
    assert names(folder) == FILES
    perform(RUN)
    assert len(trainings) == 2


def test_hashes_are_those_of_the_code_in_memory(monkeypatch):
    then = records.modules(RUN)
    monkeypatch.setattr(dependencies, "closure", lambda _: pytest.fail("read again"))
    assert records.modules(RUN) == then


def test_a_model_of_ones_own_counts(tmp_path, monkeypatch, trainings):
    file = tmp_path / "own_model.py"
    file.write_text(
        "from beyond_adam.models import image_mlp\ndef net(sizes):\n    return image_mlp(sizes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_model", raising=False)
    run = replace(RUN, model=importlib.import_module("own_model").net)
    assert records.modules(run)["own_model"] == dependencies.code_digest(file.read_text())
    perform(run)
    file.write_text(file.read_text() + "x = 1\n")
    assert perform(run).changes() == []  # the code in memory is still the one that ran
    records._others.cache_clear()
    assert find(run).changes() == ["own_model"]
    perform(run)
    assert trainings == [run, run]


def test_a_model_without_a_file_is_another_in_each_process(monkeypatch, trainings):
    def net(sizes):
        return image_mlp(sizes)

    net.__module__, net.__qualname__ = "cell", "net"
    monkeypatch.setitem(sys.modules, "cell", ModuleType("cell"))
    run = replace(RUN, model=net)
    perform(run)
    perform(run)
    assert len(trainings) == 1
    records._others.cache_clear()  # as a new process has it
    perform(run)
    assert len(trainings) == 2


def test_another_lock_makes_a_record_be_computed_again(trainings):
    perform(RUN)
    (project.root() / "requirements.lock").write_text("numpy==0")
    perform(RUN)
    assert trainings == [RUN, RUN]


def test_other_data_make_a_record_be_computed_again(trainings):
    file = perform(RUN).folder / "record.json"
    content = json.loads(file.read_text())
    content["segments"][0]["fingerprint"] = "another"
    file.write_text(json.dumps(content))
    perform(RUN)
    assert trainings == [RUN, RUN]


def test_other_probes_make_a_record_be_computed_again(trainings, monkeypatch):
    perform(RUN)
    monkeypatch.setattr(records, "_probes", lambda: "another")
    assert perform(RUN).content["probes"] == "another"
    assert trainings == [RUN, RUN]


def test_what_measured_a_record_is_what_was_there_when_it_began(monkeypatch):
    now = records._probes()

    def edited(*arguments, **options):
        monkeypatch.setattr(records, "_probes", lambda: "another")
        return train(*arguments, **options)

    monkeypatch.setattr(engine, "train", edited)
    record = perform(RUN)
    assert record.content["probes"] == now
    assert record.changes() == [probes.__name__]


@pytest.mark.parametrize("name", ["epochs.parquet", "weights.safetensors"])
def test_a_file_that_is_not_what_the_run_left_is_not_read(name):
    record = put_away(perform(RUN), weights=True)
    other = perform(replace(RUN, seed=1))
    shutil.copy(other.folder / name, record.folder / name)
    with pytest.raises(ValueError, match=rf"{RUN.name}.{name} is not what the run left: restore"):
        record.weights() if name == "weights.safetensors" else record.table("epochs")
    assert not record.table("cuts").empty


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("name", ["epochs.parquet", "weights.safetensors"])
def test_a_damaged_record_of_the_build_is_computed_again(trainings, name, damage):
    damage(perform(RUN).folder / name)
    assert perform(RUN).is_whole
    assert trainings == [RUN, RUN]
    perform(RUN)
    assert len(trainings) == 2


def test_an_archived_record_stays_and_says_what_changed(trainings, change):
    put_away(perform(RUN), weights=True)
    change("beyond_adam.models.mlp")
    record = perform(RUN)
    assert trainings == [RUN]
    assert record.archived
    assert record.changes() == ["beyond_adam.models.mlp"]


def test_a_run_taken_up_by_other_code_says_what_changed(change):
    before = records.origin(RUN, "cpu")
    train(RUN, records.working(RUN), origin=before, until=1)
    change("beyond_adam.models.mlp")
    record = perform(RUN, fresh=False)
    assert [(s["first"], s["last"]) for s in record.content["segments"]] == [(1, 1), (2, 2)]
    assert record.changes() == ["beyond_adam.models.mlp"]


@pytest.mark.parametrize("other", ["modules", "lock", "fingerprint"])
def test_what_was_begun_otherwise_is_begun_again(other):
    for same in (True, False):
        run = replace(RUN, seed=int(same))
        before = records.origin(run, "cpu")
        train(run, records.working(run), origin=before | ({} if same else {other: "?"}), until=1)
        segments = perform(run).content["segments"]
        firsts = [segment["first"] for segment in segments]
        assert firsts == ([1, 2] if same else [1])


def test_nobody_else_is_at_work_on_a_run_meanwhile(capsys, trainings, monkeypatch):
    begun, go, flock = threading.Event(), threading.Event(), fcntl.flock

    def other():
        with records._alone(RUN):
            begun.set()
            go.wait()
            trainings.append("of the other")

    def wait(stream, how):
        if how == fcntl.LOCK_EX:  # and not without waiting
            go.set()
        flock(stream, how)

    monkeypatch.setattr(fcntl, "flock", wait)
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    begun.wait()
    perform(replace(RUN, seed=1))  # other runs are free
    assert capsys.readouterr().out == ""
    perform(RUN)
    go.set()
    thread.join()
    said = f"{RUN.name}: waiting for another process that is at work on it\n"
    assert capsys.readouterr().out == said
    assert trainings == [replace(RUN, seed=1), "of the other", RUN]


def test_nobody_else_archives_a_run_meanwhile(monkeypatch):
    record, held = perform(RUN), []

    @contextlib.contextmanager
    def watched(run):
        held.append(run)
        yield
        held.append("copied" if find(run).archived else "not copied")

    monkeypatch.setattr(records, "_alone", watched)
    put_away(record, weights=False)
    assert held == [RUN, "copied"]


def test_what_another_process_did_meanwhile_is_not_done_again(trainings, monkeypatch):
    @contextlib.contextmanager
    def late(run):
        with ALONE(run):
            pass
        monkeypatch.setattr(records, "_alone", ALONE)
        perform(run)  # as the other process does
        with ALONE(run):
            yield

    monkeypatch.setattr(records, "_alone", late)
    perform(RUN)
    assert trainings == [RUN]


def test_under_torch_distributed_there_are_no_records(monkeypatch):
    monkeypatch.setattr(records.dist, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="a record is written by one process"):
        perform(RUN)


def test_what_was_killed_before_its_record_was_written_is_not_trained_again(monkeypatch):
    outcome = train(RUN, records.working(RUN), origin=records.origin(RUN, "cpu"))
    assert find(RUN) is None
    monkeypatch.setattr(engine._Loop, "epoch", None)
    record = perform(RUN)
    assert record.content["last"] == outcome.epochs[-1]
    assert names(record.folder) == FILES


def test_a_record_half_written_is_none(trainings):
    folder = perform(RUN).folder
    (folder / "record.json").rename(folder / "record.json.part")
    assert find(RUN) is None
    perform(RUN)
    assert trainings == [RUN, RUN]
    assert find(RUN) is not None


def test_a_damaged_record_is_said_to_be_so():
    file = perform(RUN).folder / "record.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ValueError, match=r"record\.json is damaged .*: remove its folder"):
        find(RUN)


def test_a_model_without_relus_has_no_units():
    run = replace(RUN, model_options={"sizes": (64, 8, 10), "activation": "tanh"})
    assert perform(run).table("units").empty


# --- confirmed ---


def test_results_that_code_that_changed_repeats_are_confirmed(root, change, trainings):
    record = put_away(perform(replace(RUN, epochs=3)), weights=False)
    tables = {name: record.table(name) for name in TABLES}
    change("beyond_adam.models.mlp")
    (root / "requirements.lock").write_text("numpy==1\n")
    assert record.changes() == ["beyond_adam.models.mlp", "requirements.lock"]
    confirmed = confirm(record)
    assert confirmed.changes() == []
    assert find(confirmed.run).content == confirmed.content
    note = confirmed.content["confirmed"]
    assert (note["epochs"], note["commit"], note["dirty"]) == (2, "c0ffee", False)
    assert {**record.content, "confirmed": note} == confirmed.content
    assert confirmed.archived
    assert set(provenance_table({("SGD", 0): confirmed})["confirmed"]) == {"c0ffee"}
    for name, table in tables.items():
        pd.testing.assert_frame_equal(confirmed.table(name), table)
    change("beyond_adam.prox.lp")
    assert confirmed.changes() == ["beyond_adam.prox.lp"]
    assert len(trainings) == 2


def test_a_run_that_prunes_is_repeated_until_it_has_pruned():
    record = perform(replace(RUN, epochs=4, pruning=Pruning(0.5, 2, 3)))
    assert confirm(record).content["confirmed"]["epochs"] == 3
    assert confirm(record, epochs=4).content["confirmed"]["epochs"] == 4


def test_what_was_measured_can_be_confirmed_if_the_weights_are_there(monkeypatch):
    whole = put_away(perform(replace(RUN, epochs=3)), weights=True)
    monkeypatch.setattr(records, "_probes", lambda: "another")
    assert whole.changes() == [probes.__name__]
    assert confirm(whole).changes() == []
    without = put_away(whole, weights=False)
    monkeypatch.setattr(records, "_probes", lambda: "yet another")
    assert confirm(without).changes() == [probes.__name__]


@pytest.mark.parametrize("table", ["cuts", "units"])
def test_what_is_not_measured_again_is_not_confirmed(table):
    record = perform(RUN)
    rows = record.table(table)
    column = "loss" if table == "cuts" else "dead"
    rows.loc[3 if table == "cuts" else 0, column] += 1
    tampered(record, table, rows)
    with pytest.raises(ValueError, match=f"{RUN.name}: table {table} does not come out the same"):
        confirm(find(RUN))
    assert "confirmed" not in find(RUN).content


def tampered(record, table, rows):
    """Write a table into a record that vouches for it."""
    file = record.folder / f"{table}.parquet"
    rows.to_parquet(file)
    content = json.loads((record.folder / "record.json").read_text())
    content["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (record.folder / "record.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("table", "column"),
    [("epochs", "train_loss"), ("epochs", "test_accuracy"), ("layers", "count")],
)
def test_results_that_do_not_come_out_again_are_not_confirmed(table, column):
    record = perform(RUN)
    rows = record.table(table)
    second = (rows["epoch"] == 2).to_numpy().argmax()
    value = rows.loc[second, column]
    rows.loc[second, column] = value + 1 if column == "count" else np.nextafter(value, 9)
    tampered(record, table, rows)
    record = find(RUN)
    with pytest.raises(ValueError, match=f"{RUN.name}: epoch 2 does not come out the same"):
        confirm(record)
    assert find(RUN).content == record.content
    assert confirm(record, epochs=1).content["confirmed"]["epochs"] == 1


# --- divergence ---


def test_a_run_that_diverged_leaves_a_record_that_is_not_archived(trainings):
    record = perform(DIVERGING)
    assert record.content["failure"].startswith("the loss was ")
    assert "in epoch 1, whose last learning rate was 1e+30" in record.content["failure"]
    assert list(record.table("epochs")["epoch"]) == [1]
    assert record.content["tables"] == ["epochs", "layers"]
    assert record.weights().keys() == DIVERGING.build_model().state_dict().keys()
    again = perform(DIVERGING)
    assert trainings == [DIVERGING]
    assert again.content["failure"] == record.content["failure"]
    with pytest.raises(ValueError, match=f"{DIVERGING.name} failed: the loss was"):
        put_away(record, weights=True)
    assert not records.project.archive().exists()


def test_a_run_that_diverged_is_no_result():
    runs = {("SGD", 0): RUN, ("wild", 3): DIVERGING}
    with pytest.raises(ValueError, match=r"^wild, seed 3: the loss was (inf|nan) at step"):
        collect(runs, "quick")


def test_a_full_disk_is_said_to_be_so(monkeypatch):
    def full(*_arguments):
        raise SafetensorError("No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(records, "save_file", full)
        with pytest.raises(OSError, match=r"cannot write .*weights\.safetensors.*No space left"):
            perform(RUN)
    assert find(RUN) is None
    assert perform(RUN).folder == find(RUN).folder


def test_what_was_trained_on_a_gpu_cannot_be_confirmed_on_a_cpu(trainings):
    record = perform(RUN)
    record.content["segments"][0]["device"] = "NVIDIA H200"
    with pytest.raises(ValueError, match=f"{RUN.name}: was trained on NVIDIA H200, not on a CPU"):
        confirm(record)
    assert trainings == [RUN]


def test_what_was_trained_on_another_processor_cannot_be_confirmed_here(trainings):
    record = perform(RUN)
    record.content["segments"][0]["hardware"] = {"cpu": "Z80"}
    with pytest.raises(ValueError, match=f"{RUN.name}: was trained on a processor 'Z80', whose"):
        confirm(record)
    assert trainings == [RUN]


# --- the archive ---


def test_a_record_is_archived_with_or_without_its_weights(root):
    record = perform(RUN)
    (record.folder / "checkpoint-000002.pt").touch()  # of a process killed at the last moment
    (record.folder / "checkpoint.part").touch()
    for weights in (True, False, True):
        archived = put_away(record, weights=weights)
        assert archived.folder == root / "data" / "runs" / RUN.name
        assert archived.archived
        expected = [name for name in FILES if weights or name != "weights.safetensors"]
        assert names(archived.folder) == expected
        assert names(archived.folder.parent) == [RUN.name]
        assert archived.content == record.content
        pd.testing.assert_frame_equal(archived.table("epochs"), record.table("epochs"))
    assert archived.folder.stat().st_mode == record.folder.stat().st_mode
    torch.testing.assert_close(archived.weights(), record.weights(), rtol=0, atol=0)
    without = put_away(find(RUN), weights=False)
    with pytest.raises(FileNotFoundError, match="this run was archived without its weights"):
        without.weights()


def test_a_damaged_record_is_not_archived():
    record = perform(RUN)
    (record.folder / "units.parquet").unlink()
    with pytest.raises(ValueError, match=f"{RUN.name} is damaged: remove it and train again"):
        put_away(record, weights=False)
    assert not project.archive().exists()


def test_an_archive_that_is_full_is_left_as_it_was(monkeypatch):
    archived = put_away(perform(RUN), weights=False)

    def full(_source, target, **_options):
        (target / "epochs.parquet").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.shutil, "copytree", full)
    with pytest.raises(OSError, match="No space left"):
        put_away(Record(RUN, records.working(RUN), False, archived.content), weights=True)
    assert names(archived.folder.parent) == [RUN.name]
    assert len(names(archived.folder)) == len(FILES) - 1


def test_the_archived_record_is_preferred():
    perform(RUN)
    assert not find(RUN).archived
    put_away(find(RUN), weights=False)
    assert find(RUN).archived
    assert perform(RUN).archived


# --- many ---

RUNS = {("SGD", 0): RUN, ("SGD", 1): replace(RUN, seed=1), ("none", 0): replace(RUN, epochs=1)}


def test_records_of_many_runs_are_trained_but_at_paper_scale_only_found(trainings):
    assert collect(RUNS, "paper") == {}
    put_away(perform(RUN), weights=False)
    perform(RUNS["SGD", 1])
    assert list(collect(RUNS, "paper")) == [("SGD", 0)]
    assert len(trainings) == 2
    found = collect(RUNS, "quick")
    assert {label: record.run for label, record in found.items()} == RUNS
    assert len(trainings) == 3
    with pytest.raises(ValueError, match="unknown profile 'Paper'"):
        collect(RUNS, "Paper")


def test_tables_of_many_runs_are_one():
    found = collect(RUNS, "smoke")
    table = together(found, "epochs")
    pd.testing.assert_frame_equal(together(found, lambda record: record.table("epochs")), table)
    assert list(table)[:3] == ["method", "seed", "epoch"]
    labels = table[["method", "seed", "epoch"]].itertuples(index=False, name=None)
    assert list(labels) == [
        ("SGD", 0, 1),
        ("SGD", 0, 2),
        ("SGD", 1, 1),
        ("SGD", 1, 2),
        ("none", 0, 1),
    ]
    assert list(table.index) == [0, 1, 2, 3, 4]
    last = [record.content["last"]["test_loss"] for record in found.values()]
    assert list(table["test_loss"][[1, 3, 4]]) == last
    assert together({}, "epochs").empty


def test_provenance_is_a_line_for_each_segment(change, monkeypatch):
    train(RUN, records.working(RUN), origin=records.origin(RUN, "cpu"), until=1)
    monkeypatch.setattr(records.provenance, "commit", lambda **_: ("decade", True))
    found = {("SGD", 0): put_away(perform(RUN), weights=False)}
    found["SGD", 1] = perform(RUNS["SGD", 1])
    change("beyond_adam.models.mlp")
    table = provenance_table(found)
    assert list(table) == [
        "method",
        "seed",
        "name",
        "archived",
        "data",
        "fingerprint",
        "first",
        "last",
        "hours",
        "commit",
        "dirty",
        "device",
        "threads",
        "torch",
        "changed",
        "confirmed",
        "confirmed_dirty",
    ]
    columns = ["seed", "archived", "first", "last", "commit", "dirty"]
    assert list(table[columns].itertuples(index=False, name=None)) == [
        (0, True, 1, 1, "c0ffee", False),
        (0, True, 2, 2, "decade", True),
        (1, False, 1, 2, "decade", True),
    ]
    assert set(table["changed"]) == {"beyond_adam.models.mlp"}
    assert set(table["confirmed"]) == {""}
    assert not table["confirmed_dirty"].any()
    seconds = [s["seconds"] for record in found.values() for s in record.content["segments"]]
    assert list(table["hours"] * 3600) == pytest.approx(seconds)
    assert set(table["name"]) == {run.name for run in (RUN, RUNS["SGD", 1])}


def test_a_line_of_provenance_names_the_processor_or_the_device():
    content = perform(RUN).content
    [segment] = content["segments"]
    devices = {"cpu": segment["hardware"]["cpu"], "Some GPU": "Some GPU"}
    for device, shown in devices.items():
        other = {**content, "segments": [{**segment, "device": device}]}
        record = Record(RUN, records.working(RUN), archived=False, content=other)
        assert list(provenance_table({("SGD", 0): record})["device"]) == [shown]
