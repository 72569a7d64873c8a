"""The command beyond-adam, and what the book does with the runs that it archives."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch.optim import SGD

from beyond_adam import project, provenance
from beyond_adam.experiments import fashion_mnist, race, store
from beyond_adam.models import image_mlp
from beyond_adam.publishing.chapter import Chapter
from beyond_adam.training import Definition, checkpoints, engine, find, provenance_table, records
from beyond_adam.workflow import plan, runs
from beyond_adam.workflow.report import pages as report_pages
from beyond_adam.workflow.results import Results
from beyond_adam.workflow.runs import Entry

ENGINE = "beyond_adam.training.engine"
EPOCHS = {"smoke": 2, "quick": 3, "paper": 4}


def definition(profile, seed=0, lr=0.05):
    return Definition(
        data="digits",
        model=image_mlp,
        model_options={"sizes": (64, 8, 10)},
        optimizer=SGD,
        options={"lr": lr},
        epochs=EPOCHS[profile],
        batch=200,
        seed=seed,
    )


def declared(profile):
    """Return what two experiments declare that share a run; one run of the second diverges."""
    return [
        Entry("toy", "slow", 0, definition(profile)),
        Entry("toy", "slow", 1, definition(profile, seed=1)),
        Entry("toy", "fast, by far", 0, definition(profile, lr=0.2), True),
        Entry("wild", "slow", 0, definition(profile)),
        Entry("wild", "too fast", 0, definition(profile, lr=1e30)),
    ]


SLOW, FAST, WILD = (declared("smoke")[number].run for number in (0, 2, 4))


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """Make a project whose experiments are small."""
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (tmp_path / "requirements.lock").write_text("numpy==0\n")
    monkeypatch.setenv("BEYOND_ADAM_ROOT", str(tmp_path))
    monkeypatch.delenv("BEYOND_ADAM_BUILD", raising=False)
    monkeypatch.setattr(provenance, "commit", lambda **_: ("c0ffee" * 6, True))
    monkeypatch.setattr(runs, "declared", declared)
    monkeypatch.setattr(runs, "keep_freed_memory", lambda: None)  # for the rest of the process
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def command(capsys):
    """Return what runs the command, and returns exit status and what was said."""

    def call(*arguments, profile="smoke"):
        capsys.readouterr()
        status = runs.main([*arguments, "--profile", profile])
        return (status, *capsys.readouterr())

    return call


@pytest.fixture
def trained(monkeypatch):
    """Return a list that the names of runs are added to when they are trained."""
    names = []
    train = engine.train

    def watched(run, *args, **options):
        names.append(run.name)
        return train(run, *args, **options)

    monkeypatch.setattr(engine, "train", watched)
    return names


@pytest.fixture
def states(command):
    """Return what tells the states that are listed, by label."""

    def call(*arguments, **options):
        status, out, _ = command("list", *arguments, **options)
        assert status == 0
        lines = [re.split(" {2,}", line) for line in out.splitlines()]
        return {line[0]: line[1:] for line in lines}

    return call


def damage(run, change):
    """Change what the record of a run holds."""
    file = find(run).folder / "record.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def by_other_code(content):
    """Let a record be that of another engine."""
    for segment in content["segments"]:
        segment["modules"][ENGINE] = "another"


class TestRun:
    def test_what_is_there_is_not_trained_again(self, command, trained):
        status, out, err = command("run", "toy", "--method", "slow", "--quiet")
        assert (status, err) == (0, "")
        first, second = (declared("smoke")[number].run for number in (0, 1))
        assert trained == [first.name, second.name]
        assert f"toy: slow, seed 0: {first.name}\n" in out
        accuracy = find(second).content["last"]["test_accuracy"]
        assert f"toy: slow, seed 1: {100 * accuracy:.2f} %\n" in out
        again = command("run", "toy", "--method", "slow", "--quiet")
        assert again == (status, out, err)
        assert len(trained) == 2

    def test_a_run_that_experiments_share_is_trained_once(self, command, trained):
        arguments = ("--method", "slow", "--seed", "0", "--quiet")
        assert command("run", *arguments)[0] == 0
        assert trained == [SLOW.name]

    def test_progress_is_shown_unless_it_is_not_wanted(self, command):
        assert "2/2" in command("run", "--name", SLOW.name)[2]

    def test_a_device_that_is_not_there_is_named(self, command):
        status, _, error = command("run", "--name", FAST.name, "--device", "nonsense")
        assert status == 1
        assert "cannot compute on 'nonsense'" in error

    def test_device_and_compilation_are_passed_on(self, command, monkeypatch):
        passed = []

        def perform(_run, **options):
            passed.append(options)
            return SimpleNamespace(content={"last": {"test_accuracy": 0.5}, "failure": ""})

        monkeypatch.setattr(runs, "perform", perform)
        command("run", "--name", FAST.name, "--device", "meta", "--compile", "--quiet")
        command("run", "--name", FAST.name, "--device", "cpu")
        assert passed == [
            {"device": "meta", "show": False, "fresh": True, "compiled": True},
            {"device": "cpu", "show": True, "fresh": True, "compiled": False},
        ]

    def test_what_has_been_begun_is_taken_up(self, command, states, trained):
        run = definition("quick")
        folder = records.working(run)
        engine.train(run, folder, origin=records.origin(run, "cpu"), until=1)
        assert states("--name", run.name, profile="quick")["toy: slow, seed 0"] == ["1 of 3 epochs"]
        assert command("run", "--name", run.name, "--quiet", profile="quick")[0] == 0
        segments = find(run).content["segments"]
        assert [(s["first"], s["last"]) for s in segments] == [(1, 1), (2, 3)]
        assert len(trained) == 2

    def test_what_was_trained_by_code_that_has_changed_is_trained_again(
        self, command, states, trained
    ):
        command("run", "--name", FAST.name, "--quiet")
        damage(FAST, by_other_code)
        label = "toy: fast, by far, seed 0"
        assert states("toy")[label][-1] == f"here, changed since: {ENGINE}"
        command("run", "--name", FAST.name, "--quiet")
        assert trained == [FAST.name] * 2
        assert states("toy")[label][-1] == "here"

    def test_a_run_that_diverges_fails_each_time_it_is_asked_for(self, command, states, trained):
        for profile, name in (("smoke", WILD.name), ("paper", declared("paper")[4].run.name)):
            trained.clear()
            for _ in range(2):
                status, _, err = command("run", "wild", "--name", name, "--quiet", profile=profile)
                assert status == 1
                assert re.match(r"error: wild: too fast, seed 0: the loss was (inf|nan) at", err)
                assert len(err.splitlines()) == 1
            assert trained == [name]
            [state] = states("--name", name, profile=profile)["wild: too fast, seed 0"]
            assert state.startswith("failed: the loss was ")
        assert not project.archive().exists()


class TestArchive:
    def test_runs_at_paper_scale_are_archived_and_only_they(self, command, states, root, capsys):
        command("run", "--name", FAST.name, "--quiet")
        assert not project.archive().exists()
        # Without --profile: that is what the command is for.
        assert runs.main(["run", "toy", "--seed", "0", "--quiet"]) == 0
        out = capsys.readouterr().out
        slow, _, fast, *_ = (entry.run for entry in declared("paper"))
        for run, weights in ((slow, False), (fast, True)):
            folder = root / "data" / "runs" / run.name
            assert f"archived in {folder}\n" in out
            kept = {file.name for file in folder.iterdir()}
            assert {"record.json", "epochs.parquet", "pruned.parquet"} <= kept
            assert ("weights.safetensors" in kept) == weights
            assert not [name for name in kept if "checkpoint" in name or name.endswith(".part")]
        found = states("toy", profile="paper")
        accuracy = f"{100 * find(fast).content['last']['test_accuracy']:.2f} %"
        assert found["toy: fast, by far, seed 0"] == [accuracy, "archived"]
        assert found["toy: slow, seed 1"] == ["not there"]

    def test_what_was_trained_before_is_archived_without_training(self, command, trained):
        run = declared("paper")[1].run
        records.perform(run)
        assert len(trained) == 1
        status, out, _ = command("run", "--name", run.name, "--quiet", profile="paper")
        assert (status, "archived in" in out, len(trained)) == (0, True, 1)
        status, out, _ = command("run", "--name", run.name, "--quiet", profile="paper")
        assert (status, "archived in" in out, len(trained)) == (0, False, 1)

    def test_what_took_hours_is_not_done_again_because_code_changed(self, command, trained):
        done, begun = (declared("paper")[number].run for number in (1, 2))
        records.perform(done)
        damage(done, by_other_code)
        other = records.origin(begun, "cpu")
        other["modules"] = {**other["modules"], ENGINE: "another"}
        engine.train(begun, records.working(begun), origin=other, until=1)
        trained.clear()
        for run in (done, begun):
            assert command("run", "--name", run.name, "--quiet", profile="paper")[0] == 0
            found = find(run)
            assert (found.archived, found.changes()) == (True, [ENGINE])
        assert trained == [begun.name]
        assert [segment["first"] for segment in find(begun).content["segments"]] == [1, 2]

    def test_archived_runs_stay_when_code_changes(self, command, states, trained):
        run = declared("paper")[1].run
        command("run", "--name", run.name, "--quiet", profile="paper")
        damage(run, by_other_code)
        command("run", "--name", run.name, "--quiet", profile="paper")
        assert len(trained) == 1
        [_, state] = states("--name", run.name, profile="paper")["toy: slow, seed 1"]
        assert state == f"archived, changed since: {ENGINE}"

    def test_the_workflow_trains_what_is_not_archived(self, command):
        everything = [entry.run.name for entry in declared("paper")]
        assert plan.untrained() == everything
        command("run", "--name", everything[1], "--quiet", profile="paper")
        records.perform(declared("paper")[2].run)  # which is only here
        assert plan.untrained() == [everything[number] for number in (0, 2, 3, 4)]

    @pytest.mark.parametrize("gpu", [True, False])
    def test_the_workflow_leaves_out_what_needs_a_gpu_where_there_is_none(self, monkeypatch, gpu):
        first, second, *_ = declared("paper")
        both = [first, second._replace(needs_gpu=True)]
        monkeypatch.setattr(runs, "declared", lambda _: both)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        assert plan.untrained() == [entry.run.name for entry in both][: 2 if gpu else 1]


class TestJobs:
    @pytest.fixture
    def started(self, monkeypatch):
        """Run in this process what would be run in others; return their commands."""
        lock, commands = threading.Lock(), []

        @contextlib.contextmanager
        def start(command, env):
            interpreter, option, module, *arguments = command
            assert (interpreter, option, module) == (sys.executable, "-m", runs_module)
            with lock:
                commands.append((arguments, env["OMP_NUM_THREADS"]))
                status = runs.main(arguments)
            yield SimpleNamespace(wait=lambda: status, terminate=lambda: None)

        runs_module = runs.__name__
        # As it is under `python -m`.
        monkeypatch.setattr(runs, "__name__", "__main__")
        monkeypatch.setattr(runs.subprocess, "Popen", start)
        return commands

    def test_every_run_is_a_process_with_its_part_of_the_cores(
        self, command, started, trained, monkeypatch
    ):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
        status, _, err = command("run", "toy", "--jobs", "2", "--device", "cpu")
        assert (status, err) == (0, "")
        assert sorted(trained) == sorted(entry.run.name for entry in declared("smoke")[:3])
        assert [threads for _, threads in started] == ["3"] * 3
        assert all("--quiet" in arguments for arguments, _ in started)
        assert not any("--compile" in arguments for arguments, _ in started)
        command("run", "toy", "--jobs", "9", "--compile", "--device", "cpu")
        assert started[-1][1] == "1"
        assert "--compile" in started[-1][0]
        assert len(trained) == 3

    def test_two_processes_never_train_the_same_run(self, command, started, trained):
        assert command("run", "--method", "slow", "--jobs", "2")[0] == 0
        assert len(started) == len(trained) == 2

    def test_the_profile_is_passed_on(self, command, started):
        assert command("run", "toy", "--seed", "0", "--jobs", "2", profile="paper")[0] == 0
        assert len(started) == 2
        assert len(list(project.archive().iterdir())) == 2

    def test_what_fails_is_named_and_does_not_stop_the_others(self, command, started, trained):
        status, _, err = command("run", "wild", "toy", "--seed", "0", "--jobs", "2")
        assert status == 1
        assert len(started) == len(trained) == 3
        assert err.splitlines()[-1] == "error: 1 of 3 runs failed: wild: too fast, seed 0"

    def test_nor_does_it_without_processes(self, command, trained):
        status, out, err = command("run", "wild", "toy", "--seed", "0", "--quiet")
        assert status == 1
        assert len(trained) == 3
        assert "%" not in next(line for line in out.splitlines() if line.startswith("wild: too"))
        first, last = err.splitlines()
        assert first.startswith("error: wild: too fast, seed 0: the loss was ")
        assert last == "error: 1 of 3 runs failed: wild: too fast, seed 0"

    def test_a_single_run_needs_no_process(self, command, started):
        assert command("run", "--name", FAST.name, "--jobs", "4", "--quiet")[0] == 0
        assert started == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
    def test_what_is_interrupted_ends_its_processes_and_begins_no_more(
        self, command, monkeypatch, number
    ):
        begun, sleep, popen = [], [sys.executable, "-c", "input()"], subprocess.Popen

        def start(*_, **__):
            begun.append(popen(sleep, stdin=subprocess.PIPE))
            if len(begun) == 2:
                os.kill(os.getpid(), number)
            return begun[-1]

        monkeypatch.setattr(runs.subprocess, "Popen", start)
        before = signal.getsignal(number)
        status, _, err = command("run", "toy", "wild", "--jobs", "2")
        assert (status, err) == (130, "interrupted: what has been trained is kept\n")
        assert signal.getsignal(number) is before
        assert [process.wait(60) for process in begun] == [-signal.SIGTERM] * 2

    @pytest.mark.parametrize("jobs", ["0", "-1"])
    def test_jobs_are_positive(self, command, jobs):
        status, _, err = command("run", "--jobs", jobs)
        assert (status, err) == (1, f"error: jobs must be at least 1, not {jobs}\n")


class TestList:
    def test_states_are_told_apart(self, states):
        labels = [entry.label for entry in declared("smoke")]
        assert states() == {label: ["not there"] for label in labels}
        assert list(states("wild")) == labels[3:]
        assert list(states("--seed", "1")) == [labels[1]]
        assert list(states("--method", "slow", "--method", "too fast", "wild")) == labels[3:]
        folder = records.working(SLOW)
        folder.mkdir(parents=True)
        for epoch in (1, 2):
            checkpoints.save(folder, epoch, {})
        assert states("toy")[labels[0]] == ["2 of 2 epochs"]

    def test_listing_needs_no_data_and_changes_nothing(self, states, root):
        before = sorted(root.rglob("*"))
        states()
        assert sorted(root.rglob("*")) == before

    def test_a_damaged_record_is_named(self, command):
        records.perform(SLOW)
        file = find(SLOW).folder / "record.json"
        file.write_text("{")
        status, _, err = command("list")
        assert status == 1
        assert err.startswith(f"error: {file} is damaged")


@pytest.mark.parametrize("name", ["list", "run", "show", "compare", "confirm"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toi"], "no run has experiment 'toi': choose from toy, wild"),
        (
            ["toy", "--method", "quick"],
            "no run has method 'quick': choose from fast, by far, slow, too fast",
        ),
        (["--seed", "7"], "no run has seed '7': choose from 0, 1"),
        (["--name", "digits-x"], "no experiment declares a run 'digits-x'"),
        (["wild", "--seed", "1"], "no run has this experiment, method and seed together"),
        (["--profile", "huge"], "unknown profile 'huge': choose one of smoke, quick, paper"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ",
)
def test_what_is_unknown_is_refused_with_what_there_is(capsys, name, arguments, message):
    assert runs.main([name, "--profile", "smoke", *arguments]) == 1
    assert capsys.readouterr() == ("", f"error: {message}\n")


class TestShow:
    def test_a_run_is_shown_as_it_is_defined(self, command):
        status, out, _ = command("show", "--name", FAST.name)
        assert status == 0
        head, *lines = out.splitlines()
        assert head == "toy: fast, by far, seed 0: not there"
        assert [line.strip() for line in lines] == [
            f"name: {FAST.name}",
            "data: digits",
            "model: image-mlp",
            "optimizer: SGD",
            "options:",
            "lr: 0.2",
            "epochs: 2",
            "batch: 200",
            "seed: 0",
            "model_options:",
            "sizes: [64, 8, 10]",
        ]

    def test_a_record_is_shown_with_its_origin(self, command):
        content = records.perform(FAST).content
        lines = command("show", "--name", FAST.name)[1].splitlines()
        assert lines[0] == "toy: fast, by far, seed 0: here"
        shown = {line.strip() for line in lines}
        assert shown >= {
            f"fingerprint: {content['fingerprint']}",
            f"parameters: {65 * 8 + 9 * 10}",
            f"test_accuracy: {content['last']['test_accuracy']}",
            "segment 1:",
            "first: 1",
            "last: 2",
            f"commit: {'c0ffee' * 6}",
            "dirty: True",
            f"cpu: {provenance.hardware()['cpu']}",
            f"torch: {torch.__version__.partition('+')[0]}",
        }
        assert not any(ENGINE in line for line in lines)


class TestCompare:
    def test_only_what_differs_is_said(self, command):
        status, out, _ = command("compare", "toy")
        assert status == 0
        assert [" ".join(line.split()) for line in out.splitlines()] == [
            "[1] toy: slow, seed 0: not there",
            "[2] toy: slow, seed 1: not there",
            "[3] toy: fast, by far, seed 0: not there",
            "options.lr [1] 0.05 [2] 0.05 [3] 0.2",
            "seed [1] 0 [2] 1 [3] 0",
        ]

    def test_what_one_leaves_out_has_its_default(self, command, monkeypatch):
        run = definition("smoke")
        smooth = Definition(**{**vars(run), "label_smoothing": 0.1})
        both = [Entry("toy", "plain", 0, run), Entry("toy", "smooth", 0, smooth)]
        monkeypatch.setattr(runs, "declared", lambda _: both)
        lines = command("compare")[1].splitlines()
        assert [line.split() for line in lines[2:]] == [
            ["label_smoothing", "[1]", "default", "[2]", "0.1"]
        ]

    def test_what_was_measured_is_shown_of_those_that_are_there(self, command):
        last = records.perform(FAST).content["last"]
        out = command("compare", "toy", "--seed", "0")[1]
        assert "[2] toy: fast, by far, seed 0: here" in out
        lines = [line.split() for line in out.splitlines()]
        for name in ("train_loss", "test_loss", "test_accuracy"):
            assert [name, "[2]", f"{last[name]:.6g}"] in lines


class TestConfirm:
    @pytest.fixture
    def archived(self, command):
        run = declared("paper")[1].run
        command("run", "--name", run.name, "--quiet", profile="paper")
        return run

    def test_what_comes_out_the_same_counts_as_unchanged(self, command, states, archived, trained):
        assert command("confirm", "toy", profile="paper") == (0, "", "")
        assert trained == [], "nothing has changed"
        damage(archived, by_other_code)
        status, out, _ = command("confirm", "toy", profile="paper")
        assert (status, out) == (0, "toy: slow, seed 1: the same, bit for bit\n")
        assert trained == [archived.name]
        assert states("toy", profile="paper")["toy: slow, seed 1"][-1] == "archived"
        assert find(archived).content["confirmed"]["commit"] == "c0ffee" * 6

    def test_what_comes_out_otherwise_is_an_error(self, command, states, archived):
        damage(archived, by_other_code)
        file = find(archived).folder / "epochs.parquet"
        table = pd.read_parquet(file)
        table.loc[1, "test_loss"] *= 1 + 1e-15
        table.to_parquet(file)
        damage(
            archived, lambda content: content["files"].update({file.name: records._sha256(file)})
        )
        status, _, err = command("confirm", "toy", profile="paper")
        assert status == 1
        said = f"toy: slow, seed 1: {archived.name}: epoch 2 does not come out the same"
        assert err == f"error: not confirmed (1):\n{said}\n"
        assert "changed since" in states("toy", profile="paper")["toy: slow, seed 1"][-1]

    def test_what_cannot_be_confirmed_does_not_keep_others_from_it(self, command, archived):
        slow, _, fast, *_ = declared("paper")
        for entry in (fast, slow):
            command("run", "--name", entry.run.name, "--quiet", profile="paper")
        for run in (archived, fast.run, slow.run):
            damage(run, by_other_code)
        for run in (archived, slow.run):
            damage(run, lambda content: content["segments"][0].update(device="a GPU"))
        status, out, err = command("confirm", "toy", profile="paper")
        assert status == 1
        assert out == f"{fast.label}: the same, bit for bit\n"
        title, *lines = err.splitlines()
        assert title == "error: not confirmed (2):"
        assert set(lines) == {
            f"toy: slow, seed 1: {archived.name}: was trained on a GPU, not on a CPU",
            f"{slow.label}: {slow.run.name}: was trained on a GPU, not on a CPU",
        }


class TestCommandLine:
    def test_help_lists_the_commands(self, capsys):
        with pytest.raises(SystemExit) as end:
            runs.main(["--help"])
        assert end.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        for name, function in runs.COMMANDS.items():
            assert f"{name} {' '.join(function.__doc__.split())}" in shown

    def test_a_command_is_needed(self, capsys):
        with pytest.raises(SystemExit) as end:
            runs.main([])
        assert end.value.code == 2
        assert "list,run,show,compare" in capsys.readouterr().err

    def test_the_console_script_is_declared(self):
        project_file = Path(__file__).parents[1] / "pyproject.toml"
        scripts = tomllib.loads(project_file.read_text())["project"]["scripts"]
        assert scripts == {"beyond-adam": "beyond_adam.workflow.runs:main"}


def test_experiments_declare_their_runs(monkeypatch):
    monkeypatch.undo()
    entries = runs.declared("smoke")
    labels = [(e.experiment, e.method, e.seed) for e in entries]
    assert len(set(labels)) == len(labels)
    of = {e.experiment: [] for e in entries}
    for e in entries:
        of[e.experiment].append(e)
    assert {"fashion-mnist", "fashion-mnist-variants", "sparsity-front"} <= of.keys()
    found = {(e.method, e.seed): e.run for e in of["fashion-mnist"]}
    assert found == fashion_mnist.runs("smoke")
    assert all(e.keeps_weights for e in of["fashion-mnist"])
    assert not any(e.keeps_weights for e in of["sparsity-front"])
    large = {e.experiment for e in runs.declared("paper") if e.needs_gpu}
    assert large == {"resnet18-cifar10"}


# --- what the book does with them ---


@pytest.fixture
def origin(command):
    """Return where archived runs of two seeds come from: one in two segments, by other code."""
    found = {}
    for number, hours in ((1, [0.5, 1.0]), (0, [2.0])):
        entry = declared("paper")[number]
        command("run", "--name", entry.run.name, "--quiet", profile="paper")

        def spread(content, hours=hours):
            [segment] = content["segments"]
            content["segments"] = [{**segment, "seconds": 3600 * h} for h in hours]
            if len(hours) > 1:
                by_other_code(content)
                content["segments"][1] |= {"commit": "decaf" * 8, "dirty": False}

        damage(entry.run, spread)
        found[entry.method, entry.seed] = find(entry.run)
    return provenance_table(found)


@pytest.fixture
def published(root, monkeypatch, origin):
    """Publish a figure and a table of archived runs; return their passports and pages."""
    pages = []
    display = "beyond_adam.publishing.chapter.display"
    monkeypatch.setattr(display, lambda output, **_: pages.append(output))
    monkeypatch.setenv("BEYOND_ADAM_PRODUCTS", str(root / "products"))
    chapter = Chapter("toy", profile="quick", dataset="something else")
    data = pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0]})

    def publish(origin=origin):
        figure, axes = plt.subplots(figsize=(2, 2))
        axes.plot(data["x"], data["y"])
        alt = "A line that rises from the origin to one and ends there."
        words = {"caption": "A line.", "seeds": [9], "origin": origin}
        chapter.figure(figure, "fig-toy-line", alt=alt, data=data, **words)
        chapter.table(data, "tab-toy-line", **words)
        files = [root / "products" / kind for kind in ("figures/fig", "tables/tab")]
        passports = [json.loads(Path(f"{file}-toy-line.json").read_text()) for file in files]
        return passports, [output["application/vnd.beyond-adam.myst"] for output in pages[-2:]]

    return publish


def test_the_passport_of_archived_results_tells_where_they_come_from(published, origin):
    for passport in published()[0]:
        assert passport["profile"] == passport["parameters"]["profile"] == "paper"
        assert passport["seeds"] == [0, 1]
        assert passport["dataset"] == "digits"
        lines = passport["origin"]
        assert [line["seed"] for line in lines] == [1, 1, 0]
        assert [line["hours"] for line in lines] == [0.5, 1, 2]
        assert [line["commit"][:5] for line in lines] == ["c0ffe", "decaf", "c0ffe"]
        assert [line["changed"] for line in lines] == [ENGINE, ENGINE, ""]
        assert lines == origin.to_dict("records")


def test_the_caption_of_archived_results_tells_where_they_come_from(published):
    for page in published()[1]:
        for part in (
            "paper profile, archived · digits · seeds 0, 1 · ",
            f"{provenance.hardware()['cpu']}, 1 thread",
            " · 3.5 h in all · commit c0ffeec0ff with changes, decafdecaf · ",
            f" · changed since: {ENGINE}<br>",
        ):
            assert part in page
        assert "repeated" not in page
        assert "something else" not in page


def test_a_caption_tells_what_has_been_confirmed(command, published):
    command("confirm", "toy", "--seed", "1", profile="paper")
    found = {(e.method, e.seed): find(e.run) for e in declared("paper")[:2]}
    origin = provenance_table(found)
    for dirty, then in ((True, "c0ffeec0ff with changes"), (False, "c0ffeec0ff")):
        origin["confirmed_dirty"], origin["hours"] = dirty, 0.01
        for page in published(origin)[1]:
            again = f"repeated bit for bit at {then} (1 of 2 runs) · changed since: nothing<"
            assert again in page
            assert " · 2 min in all · " in page
    origin["confirmed"] = "c0ffeec0ff"
    for page in published(origin)[1]:
        assert "repeated bit for bit at c0ffeec0ff · changed since: nothing<" in page


def test_what_is_too_much_for_a_caption_stands_in_the_report(published, origin):
    origin["changed"] = ["a b", "b c", ""]
    passports, pages = published(origin)
    results = Results("quick", {}, {"fig-toy-line": passports[0]}, {"fig-toy-line": Path()})
    report = report_pages(results)["reproduction-report"]
    for page in pages:
        assert "changed since: 3 modules, which the reproduction report names<" in page
    assert "changed since: a, b, c" in report
    origin["changed"] = ["a b", "b", ""]
    passports, pages = published(origin)
    results.artefacts["fig-toy-line"] = passports[0]
    report = report_pages(results)["reproduction-report"]
    assert all("changed since: a, b" in text for text in (*pages, report))


def test_results_of_this_build_have_no_origin(published):
    passports, pages = published(None)
    assert [passport["origin"] for passport in passports] == [[], []]
    assert all("quick profile · something else · seed 9" in page for page in pages)


def test_only_what_reads_records_depends_on_the_archived_runs(root):
    def key(experiment):
        return store.key(experiment.__name__, "paper")

    before, other = key(fashion_mnist), key(race)
    assert "archived runs" in before
    assert "archived runs" not in other
    for content in ("1", "2"):
        file = root / "data" / "runs" / "a-run" / "record.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        after = key(fashion_mnist)
        assert {name for name in after if before[name] != after[name]} == {"archived runs"}
        before = after
    (file.parent / "epochs.parquet").write_text("what the record does not vouch for")
    assert key(fashion_mnist) == before
    assert key(race) == other
