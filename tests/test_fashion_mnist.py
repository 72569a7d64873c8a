import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.optim import Adam, AdamW

from beyond_adam import project
from beyond_adam.data import DATASETS
from beyond_adam.data.augmentation import Rotation, Translation
from beyond_adam.experiments import fashion_mnist, fashion_mnist_variants, sparsity_front
from beyond_adam.experiments.fashion_mnist import BINS, SIZES, published
from beyond_adam.optim import PAdam, StepSchedule
from beyond_adam.training import Penalty, engine, find, probes, put_away, records

EXPERIMENTS = (fashion_mnist, fashion_mnist_variants, sparsity_front)
PROFILES = tuple(project.PROFILES)


@pytest.fixture(scope="module", autouse=True)
def build(tmp_path_factory):
    """Keep records away from the project's; all tests share those that have been trained."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # which small networks are fastest with
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEYOND_ADAM_BUILD", str(tmp_path_factory.mktemp("build")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def archive(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "archive", lambda: tmp_path / "runs")


@pytest.fixture(scope="module")
def tables():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project, "archive", lambda: project.build() / "no archive")
        return fashion_mnist.run("smoke")


def count(model):
    return sum(p.numel() for p in model.parameters())


def flat(content, prefix=""):
    """Return nested mappings as one, with dots in its keys."""
    found = {}
    for key, value in content.items():
        nested = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def apart(run, other):
    """Return what the definition of a run has otherwise than another's; None if it lacks it."""
    one, two = flat(run.as_json()), flat(other.as_json())
    return {key: one.get(key) for key in one.keys() | two.keys() if one.get(key) != two.get(key)}


class TestPublishedSettings:
    @pytest.mark.parametrize(
        ("method", "optimizer", "decay"),
        [
            ("AdamW", AdamW, {"weight_decay": 0.1}),
            ("PAdam", PAdam, {"weight_decay": 0.003, "p": 0.8}),
        ],
    )
    def test_are_those_of_the_authors_scripts(self, method, optimizer, decay):
        run = fashion_mnist.runs("paper")[method, 2349]
        assert (run.data, run.epochs, run.batch, run.seed) == ("fashion-mnist", 400, 256, 2349)
        assert math.ceil(DATASETS[run.data].train / run.batch) == 235
        assert run.augmentation == (Rotation(10), Translation(0.1))
        assert (run.validation, run.label_smoothing, run.penalty, run.pruning) == (0, 0, None, None)
        assert run.moved == "epoch"
        assert run.schedules.keys() == {"lr"}
        for epoch in (0, 1, 123, 399, 400):
            expected = 3e-3 * 10 ** (-0.6 * epoch / 400)
            assert run.schedules["lr"](epoch) == pytest.approx(expected, rel=1e-12)
        model = run.build_model()
        assert count(model) == 421_642
        assert sum(p.numel() for p in model.parameters() if p.ndim == 1) == 234
        built = run.build_optimizer(model, torch.device("cpu"))
        assert type(built) is optimizer
        [group] = built.param_groups
        assert len(group["params"]) == 8, "biases are decayed, too"
        expected = {"lr": 3e-3, "betas": (0.9, 0.999), "eps": 1e-8, **decay}
        assert {name: group[name] for name in expected} == expected
        assert not group.get("amsgrad")

    def test_the_authors_seed_comes_first(self):
        for profile in PROFILES:
            assert next(iter(fashion_mnist.runs(profile))) == ("AdamW", 2349)
        labels = {(m, s) for m in ("AdamW", "PAdam") for s in (2349, 2350, 2351)}
        assert fashion_mnist.runs("paper").keys() == labels

    @pytest.mark.parametrize("profile", PROFILES)
    def test_methods_differ_in_the_optimizer_alone_and_start_from_the_same_weights(self, profile):
        runs = fashion_mnist.runs(profile)
        starts = []
        for seed in fashion_mnist.SEEDS[profile]:
            adamw, padam = runs["AdamW", seed], runs["PAdam", seed]
            different = {"optimizer", "options.weight_decay", "options.p"}
            assert apart(adamw, padam).keys() == different
            first, second = (run.build_model().state_dict() for run in (adamw, padam))
            assert all(torch.equal(first[name], second[name]) for name in first)
            starts.append(first["0.weight"])
        assert len(starts) == 1 or not torch.equal(starts[0], starts[1])

    def test_the_schedule_is_as_long_as_the_run(self):
        run = published(AdamW, {}, "paper", 0, epochs=40)
        assert run.epochs == 40
        assert run.schedules["lr"](20) == pytest.approx(3e-3 * 10**-0.3)
        assert run.schedules["lr"](40) == pytest.approx(3e-3 * 10**-0.6)

    def test_what_is_changed_is_added_to_them(self):
        steps = StepSchedule((0.9, 0.5), (1,))
        plain = published(PAdam, {"p": 0.9}, "smoke", 0)
        changes = {"schedules": {"p": steps}, "model_options": {"dropout": 0.0}, "batch": 7}
        run = published(PAdam, {"p": 0.9}, "smoke", 0, **changes)
        assert run.schedules == {**plain.schedules, "p": steps}
        assert run.model_options == {"side": 8, "dropout": 0.0}
        assert run.batch == 7
        assert apart(run, plain).keys() == {
            "batch",
            "model_options.dropout",
            *(f"schedules.p.{name}" for name in ("kind", "values", "milestones")),
        }


class TestSizes:
    @pytest.fixture
    def sizes(self):
        """Zeros, sizes in and beyond the bins, and one exactly 1."""
        logarithms = np.random.default_rng(0).uniform(-13, 1.5, 500)
        return np.concatenate([np.zeros(70), 10**logarithms, [1.0]])

    def test_histogram_counts_what_is_not_zero(self, sizes):
        found = fashion_mnist.histogram(sizes)
        expected = [0] * 130
        for size in sizes:
            if size > 0:
                expected[min(max(math.floor((math.log10(size) + 12) * 10), 0), 129)] += 1
        assert found["count"].tolist() == expected
        assert found["count"].sum() == 501
        assert expected[0] > 30
        assert expected[129] > 10
        np.testing.assert_allclose(found["low"], -12 + np.arange(130) / 10)
        np.testing.assert_allclose(found["high"] - found["low"], 0.1)

    def test_distribution_counts_zeros_as_below_every_size(self, sizes):
        found = fashion_mnist.distribution(sizes)
        assert found["below"].tolist() == [(sizes < size).sum() / len(sizes) for size in SIZES]
        assert found["below"].iloc[0] > 70 / 571
        assert 6.6e-3 in found["size"].tolist()
        [below] = fashion_mnist.distribution(np.array([0.0, 6.6e-3])).query("size == 0.0066")[
            "below"
        ]
        assert below == 0.5, "what has just that size is not below it"


class TestCounting:
    def test_parts_are_of_all_entries_and_not_means_of_layers(self):
        table = pd.DataFrame(
            {
                "method": "PAdam",
                "seed": 1,
                "epoch": [1, 1, 2, 2],
                "layer": ["0.weight", "0.bias"] * 2,
                "threshold": 0.0,
                "count": [30, 5, 60, 10],
                "of": [90, 10] * 2,
            }
        )
        found = fashion_mnist.small(table)
        assert found.columns.tolist() == ["method", "seed", "epoch", "threshold", "part"]
        assert found["part"].tolist() == [0.35, 0.7]
        assert fashion_mnist.small(table, "bias")["part"].tolist() == [0.5, 1.0]

    def test_the_end_is_the_last_epoch_of_each_run(self):
        runs = {"method": list("aaabba"), "seed": [1, 1, 1, 1, 1, 2]}
        table = pd.DataFrame({**runs, "epoch": [1, 2, 2, 5, 4, 3], "layer": list("xxyxxx")})
        found = fashion_mnist.at_end(table)
        assert found["epoch"].tolist() == [2, 2, 5, 3]
        assert found["layer"].tolist() == list("xyxx")

    def test_differences_are_taken_seed_by_seed(self):
        table = pd.DataFrame(
            {
                "method": ["PAdam"] * 4 + ["AdamW"] * 3,
                "seed": [0, 1, 2, 9, 2, 1, 0],
                "accuracy": [11.0, 22.0, 33.0, 99.0, 30.0, 20.0, 10.0],
            }
        )
        found = fashion_mnist.difference(table, "accuracy", ("PAdam", "AdamW"))
        # Differences 1, 2 and 3: t = 4.3027 at two degrees of freedom.
        half = 4.302653 / math.sqrt(3)
        assert found == pytest.approx((2, half, 3))
        assert found.interval == pytest.approx((2 - half, 2 + half))
        single = table[table["seed"] == 0]
        assert fashion_mnist.difference(single, "accuracy", ("AdamW", "PAdam")) == (-1, math.inf, 1)
        same = table.assign(accuracy=[5] * 4 + [4] * 3)
        assert fashion_mnist.difference(same, "accuracy", ("PAdam", "AdamW")) == (1, math.inf, 3)


KEYS = {
    "epochs": ["epoch"],
    "layers": ["epoch", "layer", "threshold"],
    "cuts": ["size", "split"],
    "pruned": ["part", "split"],
    "normalisation": ["statistics"],
    "units": ["layer"],
    "histogram": ["low"],
    "distribution": ["size"],
    "provenance": ["first"],
}
"""What tells the rows of one run apart, by table."""

VALUES = {
    "epochs": "lr train_loss train_accuracy test_loss test_accuracy seconds",
    "layers": "count of",
    "cuts": "part loss accuracy",
    "pruned": "loss accuracy",
    "normalisation": "loss accuracy",
    "units": "units dead",
    "histogram": "high count",
    "distribution": "below",
    "provenance": "name archived data fingerprint last hours commit dirty device threads torch "
    "changed confirmed confirmed_dirty",
}
ROWS = {
    "epochs": 2,
    "layers": 2 * 8 * len(engine.THRESHOLDS),
    "cuts": len(probes.CUTS),
    "pruned": len(probes.PARTS),
    "normalisation": 2,
    "units": 3,
    "histogram": len(BINS) - 1,
    "distribution": len(SIZES),
    "provenance": 1,
}
"""Number of rows of a smoke run, by table."""


class TestTables:
    def test_are_those_that_are_documented(self, tables):
        assert tables.keys() == KEYS.keys()

    @pytest.mark.parametrize("name", KEYS)
    def test_have_one_row_for_what_they_tell_apart(self, tables, name):
        table = tables[name]
        columns = {"method", "seed", *KEYS[name], *VALUES[name].split()}
        assert set(table.columns) == columns
        assert not table.duplicated(["method", "seed", *KEYS[name]]).any()
        assert table.groupby(["method", "seed"]).size().to_dict() == {
            ("AdamW", 2349): ROWS[name],
            ("PAdam", 2349): ROWS[name],
        }
        assert not table.isna().any(axis=None)

    def test_agree_on_the_trained_network(self, tables):
        trained = fashion_mnist.at_end(tables["epochs"]).set_index("method")
        whole = tables["pruned"].query("part == 0").set_index("method")
        right = tables["normalisation"].query("statistics == 'training'").set_index("method")
        for column in ("loss", "accuracy"):
            for other in (whole, right):
                pd.testing.assert_series_equal(
                    trained[f"test_{column}"], other[column], check_names=False, rtol=1e-5
                )
        assert trained["test_accuracy"].min() > 0.7

    def test_agree_on_how_many_weights_are_small(self, tables):
        parts = fashion_mnist.small(tables["layers"]).query("epoch == 2")
        cuts = tables["cuts"].set_index(["method", "size"])["part"]
        for line in parts.itertuples():
            assert cuts[line.method, line.threshold] == pytest.approx(line.part, rel=1e-12)
        total = 320 + 18_496 + 256 * 128 + 128 + 1290
        counted = tables["histogram"].groupby("method")["count"].sum()
        for method in ("AdamW", "PAdam"):
            assert counted[method] == pytest.approx((1 - cuts[method, 0.0]) * total)
        assert cuts["AdamW", 0.0] == 0
        assert cuts["PAdam", 1e-6] > 0.01

    def test_the_distribution_goes_up_to_one(self, tables):
        for _, line in tables["distribution"].groupby("method"):
            assert line["size"].is_monotonic_increasing
            assert line["below"].is_monotonic_increasing
            assert line["below"].iloc[-1] == 1

    def test_units_are_channels_and_neurons(self, tables):
        for _, table in tables["units"].groupby("method"):
            assert table["units"].tolist() == [32, 64, 128]
            assert table["dead"].between(0, table["units"]).all()


class TestAtPaperScale:
    @pytest.fixture(autouse=True)
    def never(self, tables, monkeypatch):
        """Let nothing be trained from here on."""
        del tables  # which are trained before
        for module, name in ((records, "perform"), (engine, "train")):
            monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("training"))

    @pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda module: module.NAME)
    def test_without_archived_runs_tables_are_empty(self, experiment):
        found = experiment.run("paper")
        assert "provenance" in found
        assert all(table.empty for table in found.values())

    def test_only_runs_that_are_archived_are_returned(self, tables, monkeypatch):
        small = fashion_mnist.runs("smoke")
        monkeypatch.setattr(fashion_mnist, "runs", lambda _: small)
        assert fashion_mnist.run("paper")["epochs"].empty, "what is only here does not count"
        put_away(find(small["AdamW", 2349]), weights=True)
        found = fashion_mnist.run("paper")
        assert found["provenance"].pop("archived").all()
        for name, table in found.items():
            expected = tables[name].query("method == 'AdamW'").reset_index(drop=True)
            pd.testing.assert_frame_equal(table, expected[table.columns])


DIFFERENCES = {
    "PAdam": {},
    "AdamW": {"optimizer": "AdamW", "options.weight_decay": 0.1, "options.p": None},
    "Adam": {"optimizer": "AdamW", "options.weight_decay": 0.0, "options.p": None},
    "PAdam, updated weight": {"options.decay_at": "updated"},
    "PAdam, elastic net": {"options.lambda_2": 0.1},
    "PAdam, p from 2": {
        "schedules.p.kind": "LinearSchedule",
        "schedules.p.start": 2.0,
        "schedules.p.end": 0.8,
        "schedules.p.steps": 21,
    },
    "DynamicPAdam": {"optimizer": "DynamicPAdam", "options.beta_s": 0.999},
    "AdamW, narrow": {
        "optimizer": "AdamW",
        "options.weight_decay": 0.1,
        "options.p": None,
        "model_options.widths": {2349: [20, 39, 76], 2350: [21, 43, 85], 2351: [22, 44, 88]},
    },
    "PAdam, float32": {"precision": None},
    "AdamW, float32": {
        "precision": None,
        "optimizer": "AdamW",
        "options.weight_decay": 0.1,
        "options.p": None,
    },
}
"""What each method has otherwise than PAdam, at the paper profile; if seeds differ, for each."""


def methods(profile):
    """Return those that the profile has: only at paper scale is there a precision to compare."""
    return [m for m in fashion_mnist_variants.METHODS if profile == "paper" or "float32" not in m]


class TestVariants:
    def test_every_method_is_there_for_every_seed(self):
        assert DIFFERENCES.keys() == set(fashion_mnist_variants.METHODS)
        for profile in PROFILES:
            runs = fashion_mnist_variants.runs(profile)
            seeds = fashion_mnist_variants.SEEDS[profile]
            labels = [(m, s) for m in methods(profile) for s in seeds]
            assert list(runs) == labels
            assert all(run.seed == seed for (_, seed), run in runs.items())
            assert len({run.digest for run in runs.values()}) == len(runs)

    @pytest.mark.parametrize("method", DIFFERENCES)
    def test_a_method_differs_from_padam_in_one_thing(self, method):
        for profile in PROFILES:
            if method not in methods(profile):
                continue
            for seed in fashion_mnist_variants.SEEDS[profile]:
                runs = fashion_mnist_variants.runs(profile)
                found = apart(runs[method, seed], runs["PAdam", seed])
                expected = DIFFERENCES[method]
                assert found.keys() == expected.keys()
                if profile == "paper":
                    assert found == {
                        name: value[seed] if isinstance(value, dict) else value
                        for name, value in expected.items()
                    }

    def test_padam_is_that_of_the_post_but_for_the_length(self):
        short = fashion_mnist_variants.runs("paper")["PAdam", 2349]
        long = fashion_mnist.runs("paper")["PAdam", 2349]
        assert apart(short, long) == {"epochs": 40, "schedules.lr.steps": 41}

    @pytest.mark.parametrize("profile", PROFILES)
    def test_p_has_come_down_after_half_of_the_epochs(self, profile):
        run = fashion_mnist_variants.runs(profile)["PAdam, p from 2", 2349]
        p, half = run.schedules["p"], run.epochs // 2
        assert p(0) == 2
        assert p(half - 1) > p(half) == p(run.epochs) == 0.8

    @pytest.mark.parametrize(("profile", "images"), [("quick", 1437), ("paper", 60_000)])
    def test_the_delay_of_the_dynamic_decay_is_a_tenth_of_the_steps(self, profile, images):
        run = fashion_mnist_variants.runs(profile)["DynamicPAdam", 2349]
        steps = run.epochs * math.ceil(images / run.batch)
        assert 1 / (1 - run.options["beta_s"]) == pytest.approx(steps / 10, rel=0.1)

    @pytest.mark.parametrize("seed", fashion_mnist_variants.SEEDS["paper"])
    def test_the_narrow_network_has_as_many_parameters_as_padam_leaves(self, seed, monkeypatch):
        monkeypatch.setattr(project, "archive", lambda: project.root() / "data" / "runs")
        runs = fashion_mnist_variants.runs("paper")
        layers = fashion_mnist.layers(find(runs["PAdam", seed])).query("threshold == 0")
        last = layers[layers["epoch"] == layers["epoch"].max()]
        left = (last["of"] - last["count"]).sum()
        assert left <= count(runs["AdamW, narrow", seed].build_model()) < 1.003 * left

    def test_a_summary_has_what_the_tables_say(self):
        numbers = pd.DataFrame({"seed": 7, "epoch": range(1, 8)})
        accuracy = [0.5, 0.89, 0.91, 0.8, 0.9, 0.95, 0.895]
        loss = [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
        epochs = numbers.assign(method="PAdam", test_accuracy=accuracy, test_loss=loss)
        counts = [0, 0, 9, 10, 4, 15, 20]
        zeros = numbers.assign(method="PAdam", threshold=0.0, layer="a", of=40, count=counts)
        others = zeros.assign(threshold=1e-3, count=[*counts[:-1], 30])
        units = pd.DataFrame({"dead": [1, 2], "units": [4, 8]}).assign(method="PAdam", seed=7)
        tables = {"epochs": epochs, "layers": pd.concat([zeros, others]), "units": units}
        dense = {name: table.assign(method="AdamW") for name, table in tables.items()}
        dense["layers"] = dense["layers"].assign(count=0)
        both = {name: pd.concat([tables[name], dense[name]]) for name in tables}
        found = fashion_mnist_variants.summary(both).set_index("method")
        assert found.loc["PAdam"].to_dict() == {
            "seed": 7,
            "accuracy": 0.895,
            "loss": 0.1,
            "sparsity": 0.5,
            "small": 0.75,
            "dead": 0.25,
            "early_loss": 0.3,
            "settled": 2,
            "half_sparse": 4,
        }
        assert found.loc["AdamW", "sparsity"] == 0
        assert math.isnan(found.loc["AdamW", "half_sparse"])

    def test_an_unknown_method_is_refused(self):
        with pytest.raises(ValueError, match=r"one of PAdam, AdamW, Adam, .*, not 'SGD'"):
            fashion_mnist_variants.definition("SGD", "smoke", 0)

    def test_tables_are_those_of_the_runs(self, tables, monkeypatch):
        both = fashion_mnist.runs("smoke")
        runs = fashion_mnist_variants.runs("smoke")
        few = {label: runs[label] for label in both}
        assert few == both
        monkeypatch.setattr(fashion_mnist_variants, "runs", lambda _: few)
        found = fashion_mnist_variants.run("smoke")
        assert found.keys() == {"epochs", "layers", "pruned", "units", "provenance"}
        for name, table in found.items():
            pd.testing.assert_frame_equal(table, tables[name])


RIVALS = (
    "PAdam, p = 0.5",
    "PAdam, p = 0.8",
    "PAdam, p = 1",
    "proximal Adam, p = 0.8",
    "proximal Adam, p = 1",
    "Adam with L1 gradient",
    "AdamW",
    "AdamW, pruned in steps",
)


def trials(profile):
    """Return methods, strengths and runs of the front at a profile."""
    runs = sparsity_front.runs(profile)
    names = pd.DataFrame(list(runs), columns=["method", "seed"])
    return sparsity_front._split(names).assign(run=list(runs.values()))


class TestFront:
    @pytest.mark.parametrize(("profile", "number"), [("smoke", 2), ("quick", 2), ("paper", 4)])
    def test_every_method_has_the_same_number_of_trials(self, profile, number):
        found = trials(profile)
        assert found.groupby("method")["strength"].nunique().to_dict() == dict.fromkeys(
            RIVALS, number
        )
        assert len(found) == number * len(RIVALS)
        assert len({run.digest for run in found["run"]}) == len(found)

    @pytest.mark.parametrize("profile", PROFILES)
    def test_trials_differ_in_decay_penalty_and_pruning_alone(self, profile):
        runs = list(sparsity_front.runs(profile).values())
        known = [run.as_json() for run in runs]
        for one in known:
            for name in ("optimizer", "options", "penalty", "pruning"):
                one.pop(name, None)
        assert all(one == known[0] for one in known)
        [run, *_] = runs
        held = sparsity_front.VALIDATION[profile]
        assert (run.decay, run.validation, run.seed) == ("matrices", held, 1)
        assert held >= 200
        assert all(run.options["lr"] == 3e-3 for run in runs)

    def test_each_strength_is_the_one_that_is_trained(self):
        found = trials("paper")
        for method, strength, run in found[["method", "strength", "run"]].itertuples(index=False):
            value = float(strength)
            close = pytest.approx(value, rel=5e-3)  # names have three digits
            match method.split(", p = "):
                case ["PAdam", p]:
                    assert run.optimizer is PAdam
                    assert run.options == {"lr": 3e-3, "weight_decay": close, "p": float(p)}
                case ["proximal Adam", p]:
                    assert run.optimizer is Adam
                    assert run.options == {"lr": 3e-3}
                    assert run.penalty.strength == close
                    assert (run.penalty.p, run.penalty.by) == (float(p), "prox")
                case ["Adam with L1 gradient"]:
                    assert run.optimizer is Adam
                    assert run.options == {"lr": 3e-3}
                    assert run.penalty == Penalty(value, 1.0, "gradient")
                case ["AdamW"]:
                    assert run.options == {"lr": 3e-3, "weight_decay": value}
                case ["AdamW, pruned in steps"]:
                    assert run.options == {"lr": 3e-3, "weight_decay": 0.1}
                    assert (run.pruning.part, run.pruning.first) == (value, 5)
                    assert run.pruning.last == 15 < run.epochs
                case _:
                    pytest.fail(method)

    def test_a_strength_of_one_shrinks_weights_of_the_chosen_size_as_the_post_does(self):
        assert sparsity_front.strength(0.8) == pytest.approx(0.003, rel=1e-15)
        size = sparsity_front.SIZE
        for p in (0.5, 0.8, 1.0, 1.7):
            rate = p * sparsity_front.strength(p) * size ** (p - 2)
            assert rate == pytest.approx(0.8 * 0.003 * size**-1.2)
        found = trials("paper").query("method == 'PAdam, p = 0.8'")["strength"]
        assert found.tolist() == ["0.0009", "0.003", "0.009", "0.03"]

    def test_the_best_is_chosen_by_validation_unless_asked_otherwise(self):
        lines = [
            # method, strength, part, validation, test
            ("AdamW", "0.1", 0.5, 0.90, 0.10),
            ("AdamW", "0.5", 0.5, 0.89, 0.99),
            ("AdamW", "0.1", 0.9, 0.30, 0.80),
            ("AdamW", "0.5", 0.9, 0.40, 0.20),
            ("PAdam", "0.003", 0.5, 0.70, 0.60),
            ("PAdam", "0.03", 0.5, 0.60, 0.70),
        ]
        names = ["method", "strength", "part", "validation", "test"]
        wide = pd.DataFrame(lines, columns=names)
        pruned = wide.melt(names[:3], var_name="split", value_name="accuracy")
        found = sparsity_front.front(pruned.sample(frac=1, random_state=0))
        assert found.columns.tolist() == ["method", "part", "strength", "validation", "test"]
        assert found.to_numpy().tolist() == [
            ["AdamW", 0.5, "0.1", 0.90, 0.10],
            ["AdamW", 0.9, "0.5", 0.40, 0.20],
            ["PAdam", 0.5, "0.003", 0.70, 0.60],
        ]
        by_test = sparsity_front.front(pruned, by="test")
        assert by_test.index.tolist() == found.index.tolist()
        assert by_test.to_numpy().tolist() == [
            ["AdamW", 0.5, "0.5", 0.89, 0.99],
            ["AdamW", 0.9, "0.1", 0.30, 0.80],
            ["PAdam", 0.5, "0.03", 0.60, 0.70],
        ]

    def test_tables_have_both_splits_and_the_strength(self, monkeypatch):
        runs = sparsity_front.runs("smoke")
        names = ("proximal Adam, p = 0.8, λ = 0.003", "AdamW, pruned in steps, 0.8")
        few = {(name, 1): runs[name, 1] for name in names}
        monkeypatch.setattr(sparsity_front, "runs", lambda _: few)
        found = sparsity_front.run("smoke")
        assert found.keys() == {"pruned", "provenance"}
        columns = ["method", "seed", "part", "split", "loss", "accuracy", "strength"]
        assert found["pruned"].columns.tolist() == columns
        methods = {"proximal Adam, p = 0.8": "0.003", "AdamW, pruned in steps": "0.8"}
        shown = found["pruned"].groupby(["method", "strength", "split"]).size()
        assert shown.to_dict() == {
            (method, strength, split): len(probes.PARTS)
            for method, strength in methods.items()
            for split in ("test", "validation")
        }
        provenance = found["provenance"].set_index("method")["strength"]
        assert provenance.to_dict() == methods
        best = sparsity_front.front(found["pruned"])
        shown = best[["method", "part"]].itertuples(index=False, name=None)
        assert list(shown) == [(m, part) for m in sorted(methods) for part in probes.PARTS]
        # What was pruned before is not worth less for being cut again.
        pruned = best.query("method == 'AdamW, pruned in steps' and part <= 0.8")
        assert pruned["test"].nunique() == 1
