import dataclasses
import functools
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from beyond_adam.data.augmentation import Rotation, Translation
from beyond_adam.models import fashion_cnn, image_mlp, resnet20
from beyond_adam.optim import AdamExponent, LinearSchedule, PAdam, Padam, StepSchedule
from beyond_adam.training import Definition, Penalty, Pruning, WarmUp

DEFINITION = Definition(
    data="digits",
    model=image_mlp,
    model_options={"sizes": (64, 16, 10), "activation": "relu"},
    optimizer=PAdam,
    options={"lr": 1e-3, "weight_decay": 0.01, "p": 0.8},
    epochs=10,
    batch=64,
    seed=1,
    decay="all",
    schedules={"lr": LinearSchedule(1e-3, 1e-4, 10), "p": StepSchedule((2, 0.8), (3,))},
    moved="epoch",
    penalty=Penalty(1e-3, 1.0, "gradient"),
    pruning=Pruning(0.5, 2, 8),
    augmentation=(Rotation(10), Translation(0.1)),
    label_smoothing=0.1,
    validation=100,
    precision="bfloat16",
)

PLAIN = Definition(
    data="digits",
    model=image_mlp,
    model_options={"sizes": (64, 10)},
    optimizer=SGD,
    options={"lr": 0.1},
    epochs=1,
    batch=64,
    seed=0,
)

OTHER = {
    "data": "mnist",
    "model": fashion_cnn,
    "model_options": {"sizes": (64, 17, 10), "activation": "relu"},
    "optimizer": Padam,
    "options": {"lr": 1e-3, "weight_decay": 0.01, "p": 0.9},
    "epochs": 11,
    "batch": 65,
    "seed": 2,
    "decay": "matrices",
    "schedules": {"lr": LinearSchedule(1e-3, 1e-4, 11), "p": StepSchedule((2, 0.8), (3,))},
    "moved": "step",
    "penalty": Penalty(1e-3, 1.0, "prox"),
    "pruning": Pruning(0.5, 2, 9),
    "augmentation": (Translation(0.1), Rotation(10)),
    "label_smoothing": 0.0,
    "validation": 0,
    "precision": "float32",
}


def double(epoch):
    return 2 * epoch


@dataclass(frozen=True)
class Mine:
    degrees: float


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Definition)])
def test_the_digest_depends_on_every_field(name):
    other = replace(DEFINITION, **{name: OTHER[name]})
    assert other != DEFINITION
    assert other.digest != DEFINITION.digest
    assert replace(other, **{name: getattr(DEFINITION, name)}).digest == DEFINITION.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"augmentation": (Rotation(10),)},
        {"augmentation": (Rotation(11), Translation(0.1))},
        {"augmentation": (Mine(10), Translation(0.1))},
        {"schedules": {"p": LinearSchedule(1e-3, 1e-4, 10)}},
        {"options": {**DEFINITION.options, "betas": (0.9, 0.99)}},
        {"options": {**DEFINITION.options, "amsgrad": False}},
        {"penalty": None},
        {"penalty": Penalty(1e-3, 1.1, "gradient")},
        {"pruning": Pruning(0.5, 1, 8)},
    ],
    ids=str,
)
def test_the_digest_depends_on_what_fields_hold(changes):
    assert replace(DEFINITION, **changes).digest != DEFINITION.digest


def test_classes_of_one_name_are_told_apart_by_their_modules():
    @dataclass
    class Rotation:
        degrees: float

    mine = Rotation(10)
    mine.__class__.__qualname__ = "Rotation"
    other = replace(DEFINITION, augmentation=(mine, Translation(0.1)))
    assert other.digest != DEFINITION.digest
    assert other.as_json()["augmentation"][0]["kind"] == f"{__name__}.Rotation"


def test_digest_and_name_are_those_of_every_process_and_version(monkeypatch):
    # Records that are archived have this name.
    assert DEFINITION.name == "digits-image-mlp-padam-686443003fcabf4c"
    code = f"from {__name__} import DEFINITION; print(DEFINITION.name)"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == DEFINITION.name


def test_the_digest_does_not_depend_on_the_order_of_mappings():
    def turned(mapping):
        return dict(reversed(mapping.items()))

    names = ("options", "model_options", "schedules")
    changes = {name: turned(getattr(DEFINITION, name)) for name in names}
    other = replace(DEFINITION, **changes)
    assert [list(getattr(other, name)) for name in names] != [
        list(getattr(DEFINITION, name)) for name in names
    ]
    assert other.digest == DEFINITION.digest
    assert other == DEFINITION


def test_what_is_default_is_left_out():
    required = ["data", "model", "optimizer", "options", "epochs", "batch", "seed"]
    assert list(PLAIN.as_json()) == [*required, "model_options"]
    spelt = replace(
        PLAIN,
        decay="matrices",
        schedules={},
        moved="step",
        penalty=None,
        pruning=None,
        augmentation=[],
        label_smoothing=0.0,
        validation=0,
        precision="float32",
    )
    assert spelt.digest == PLAIN.digest
    assert spelt == PLAIN


def test_a_list_of_changes_is_as_good_as_a_tuple():
    other = replace(DEFINITION, augmentation=list(DEFINITION.augmentation))
    assert other == DEFINITION
    assert other.digest == DEFINITION.digest


def test_it_is_written_down_as_json():
    content = DEFINITION.as_json()
    assert json.loads(json.dumps(content)) == content
    assert content["model"] == "image-mlp"
    assert content["optimizer"] == "PAdam"
    assert content["schedules"]["lr"] == {
        "kind": "LinearSchedule",
        "start": 1e-3,
        "end": 1e-4,
        "steps": 10,
    }
    assert content["schedules"]["p"]["values"] == [2.0, 0.8]
    assert content["penalty"] == {"kind": "Penalty", "strength": 1e-3, "p": 1.0, "by": "gradient"}
    assert content["augmentation"][1] == {"kind": "Translation", "part": 0.1}
    named = replace(PLAIN, options={"lr": np.float64(0.1)}, schedules={"lr": double})
    assert named.as_json()["schedules"] == {"lr": f"{__name__}.double"}
    assert json.loads(json.dumps(named.as_json()))["options"] == {"lr": 0.1}


@dataclass(eq=False)
class Net(nn.Module):
    """A model whose class is a dataclass."""

    width: int


def test_the_modules_are_those_of_what_is_named():
    assert DEFINITION.modules == {
        "beyond_adam.models.mlp",
        "beyond_adam.optim.pnorm_adam",
        "beyond_adam.optim.schedulers",
        "beyond_adam.data.augmentation",
    }
    assert PLAIN.modules == {"beyond_adam.models.mlp", "torch.optim.sgd"}
    assert replace(PLAIN, model=nn.Linear).modules == {"torch.nn.modules.linear", "torch.optim.sgd"}
    assert __name__ in replace(PLAIN, schedules={"lr": double}).modules
    warm = WarmUp(0.001, 2, LinearSchedule(0.1, 0.01, 8))
    schedulers = "beyond_adam.optim.schedulers"
    assert schedulers in replace(PLAIN, schedules={"lr": warm}).modules
    assert __name__ in replace(PLAIN, model=Net).modules


# --- what is refused ---


def local():
    def inner():
        return nn.Linear(1, 1)

    return inner


NAMELESS = {
    "lambda": lambda *_: 0.1,
    "local": local(),
    "method": DEFINITION.as_json,
    "partial": functools.partial(double, 1),
}


@pytest.mark.parametrize("kind", NAMELESS)
@pytest.mark.parametrize("field", ["model", "optimizer", "schedules", "options", "model_options"])
def test_what_has_no_name_of_its_module_is_refused(field, kind):
    value = NAMELESS[kind]
    if field not in ("model", "optimizer"):
        value = {"lr": value}
    with pytest.raises(ValueError, match="need a name in their module, unlike"):
        replace(PLAIN, **{field: value})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decay": "matrix"}, "decay must be one of all, matrices, not 'matrix'"),
        ({"moved": "steps"}, "moved must be one of epoch, step, not 'steps'"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16, not 'float16'"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"validation": -1}, "validation must be at least 0, not -1"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), not 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\), not -0.1"),
        ({"label_smoothing": math.nan}, r"label_smoothing must be in \[0, 1\), not nan"),
        ({"schedules": {"eps": double}}, "options that are not set: eps"),
        ({"schedules": {"lr": 0.1}}, "the schedule of lr must be callable, unlike 0.1"),
        (
            {"options": {"lr": 0.1, "weight_decay": 1.0}, "schedules": {"weight_decay": double}},
            "schedules move weight_decay of all parameters: decay must be 'all'",
        ),
        ({"options": {"lr": torch.tensor(0.1)}}, r"tensor\(0.1000\) cannot be written down"),
        ({"batch": 2.5}, "batch must be a whole number, not 2.5"),
        ({"epochs": "3"}, "epochs must be a whole number, not '3'"),
        ({"model_options": {"sizes": {3}}}, r"\{3\} cannot be written down, being of .*set"),
    ],
    # Without addresses of functions: all processes that run the tests have to call them the same.
    ids=lambda item: re.sub(" at 0x.*?>", ">", str(item)) if isinstance(item, dict) else "",
)
def test_bad_values_are_refused_by_name(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(PLAIN, **changes)


@pytest.mark.parametrize(
    ("strength", "p", "by"),
    [
        (-1.0, 1, "prox"),
        (math.inf, 1, "prox"),
        (math.nan, 1, "prox"),
        (1.0, 0, "prox"),
        (1.0, 2, "prox"),
        (1.0, math.nan, "prox"),
        (1.0, 0.9, "gradient"),
        (1.0, 2, "gradient"),
    ],
)
def test_a_penalty_out_of_range_is_refused(strength, p, by):
    with pytest.raises(
        ValueError, match=rf"strength or p out of range: Penalty\(strength={strength}"
    ):
        Penalty(strength, p, by)
    assert Penalty(0, 1, by).by == by


def test_an_unknown_kind_of_penalty_is_refused():
    with pytest.raises(ValueError, match="by must be 'gradient' or 'prox', not 'loss'"):
        Penalty(1.0, 1.0, "loss")


@pytest.mark.parametrize(
    ("part", "first", "last"),
    [(1.0, 0, 1), (-0.1, 0, 1), (math.nan, 0, 1), (0.5, 3, 2), (0.5, -1, 2)],
)
def test_a_pruning_out_of_range_is_refused(part, first, last):
    with pytest.raises(ValueError, match="need 0 ≤ part < 1 and 0 ≤ first ≤ last, not Pruning"):
        Pruning(part, first, last)


def test_pruning_follows_the_cubic_schedule():
    # Zhu & Gupta (2017), equation (1): s_f + (s_i − s_f)(1 − (t − t0)/(nΔt))³, with s_i = 0.
    pruning = Pruning(0.9, 2, 6)
    expected = [0, 0, 0, *(0.9 - 0.9 * (1 - (t - 2) / 4) ** 3 for t in (3, 4, 5)), 0.9, 0.9]
    assert [pruning.at(t) for t in range(8)] == pytest.approx(expected)
    assert pruning.at(6) == 0.9
    assert [Pruning(0.9, 3, 3).at(t) for t in (2, 3, 4)] == [0, 0.9, 0.9]


# --- model and optimizer ---


def test_the_model_is_drawn_by_the_seed_and_nothing_else():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = PLAIN.build_model()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = PLAIN.build_model(), replace(PLAIN, seed=1).build_model()
    assert torch.equal(model[1].weight, again[1].weight)
    assert not torch.equal(model[1].weight, other[1].weight)
    torch.manual_seed(PLAIN.seed)
    assert torch.equal(model[1].weight, image_mlp((64, 10))[1].weight)


def built(**changes):
    run = replace(PLAIN, model=resnet20, model_options={}, **changes)
    model = run.build_model()
    return model, run.build_optimizer(model, torch.device("cpu"))


@pytest.mark.parametrize("optimizer", [Adam, AdamW, SGD, RMSprop, PAdam, AdamExponent])
def test_all_parameters_are_decayed_or_those_of_matrices(optimizer):
    options = {"lr": 0.1, "weight_decay": 0.3}
    model, made = built(optimizer=optimizer, options=options, decay="matrices")
    decays = {p: group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert decays == {p: 0.3 if p.ndim > 1 else 0.0 for p in model.parameters()}
    model, made = built(optimizer=optimizer, options=options, decay="all")
    [group] = made.param_groups
    assert (group["weight_decay"], group["params"]) == (0.3, list(model.parameters()))


@pytest.mark.parametrize(("optimizer", "default"), [(AdamW, 0.01), (SGD, 0), (PAdam, 0.01)])
@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_a_decay_that_is_not_given_is_the_optimizers_own(optimizer, default, decay):
    _, made = built(optimizer=optimizer, options={"lr": 0.1}, decay=decay)
    assert made.param_groups[0]["weight_decay"] == default


def test_steps_are_not_fused_where_another_way_is_asked_for():
    _, made = built(optimizer=PAdam, options={"foreach": True})
    assert (made.defaults["foreach"], made.defaults["fused"]) == (True, None)


def test_numbers_of_numpy_become_plain_ones():
    options = {"lr": np.float32(0.25), "betas": (np.float64(0.5), 0.75), "eps": 1e-8}
    run = replace(PLAIN, options=options, epochs=np.int64(3))
    plain = replace(PLAIN, options={"lr": 0.25, "betas": (0.5, 0.75), "eps": 1e-8}, epochs=3)
    assert (run, run.digest) == (plain, plain.digest)
    numbers = (run.options["lr"], run.options["betas"][0], run.epochs)
    assert [type(number) for number in numbers] == [float, float, int]
    sizes = replace(PLAIN, model_options={"sizes": [np.int64(3), 4]}).model_options["sizes"]
    assert [type(size) for size in sizes] == [int, int]


@pytest.mark.parametrize(
    ("optimizer", "device", "fused"),
    [(AdamW, "cpu", True), (PAdam, "cpu", True), (AdamW, "cuda", True), (PAdam, "cuda", False)],
)
def test_steps_are_fused_where_that_has_been_tested(optimizer, device, fused):
    run = replace(PLAIN, model=resnet20, model_options={}, optimizer=optimizer, options={})
    made = run.build_optimizer(run.build_model(), torch.device(device))
    assert made.defaults["fused"] is fused


def test_the_square_norm_too_is_for_matrices_alone():
    options = {"lr": 0.1, "weight_decay": 0.3, "lambda_2": 0.2}
    model, made = built(optimizer=PAdam, options=options, decay="matrices")
    for group in made.param_groups:
        wide = {p.ndim > 1 for p in group["params"]}
        expected = (0.3, 0.2) if wide == {True} else (0.0, 0.0)
        assert (group["weight_decay"], group["lambda_2"]) == expected
    assert len(made.param_groups) == 2
    assert sum(len(group["params"]) for group in made.param_groups) == len(list(model.parameters()))


def test_options_are_passed_on_and_fused_may_be_one():
    options = {"lr": 0.5, "betas": (0.5, 0.6), "fused": False}
    _, made = built(optimizer=PAdam, options=options)
    assert {name: made.defaults[name] for name in options} == options
    assert options == {"lr": 0.5, "betas": (0.5, 0.6), "fused": False}
