import copy
import io
import json
import math

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from beyond_adam.optim import PAdam, decay_groups
from beyond_adam.optim.schedulers import (
    CosineSchedule,
    ExponentScheduler,
    GeometricSchedule,
    HyperparameterScheduler,
    LinearSchedule,
    PNormScheduler,
    StepSchedule,
)

LINEAR = LinearSchedule(0.5, 0.0, 7)
LINEAR_P = LinearSchedule(2.0, 1.0, 9)
COSINE = CosineSchedule(0.5, 0.0, 7)
STEPS = StepSchedule([0.5, 0.25, 0.125], [2, 5])
every_schedule = pytest.mark.parametrize("schedule", [LINEAR, COSINE, STEPS], ids=repr)


def sgd(**options):
    """An optimizer of one weight with further options in its group."""
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    return torch.optim.SGD([{"params": [weight], **options}], lr=0.1)


class Power(torch.optim.Optimizer):
    """Descent along sign(g)|g|^exponent: each step shows the exponent it was taken with."""

    def __init__(self, params, lr=0.1, exponent=0.5):
        super().__init__(params, {"lr": lr, "exponent": exponent})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad.sign() * p.grad.abs() ** group["exponent"]


def power(start=3.0):
    return Power([torch.tensor([start, -1.7], dtype=torch.float64, requires_grad=True)])


def train(optimizer, schedulers, steps):
    """Minimise ½|w|², and return the weights after each step."""
    [w] = optimizer.param_groups[0]["params"]
    path = []
    for _ in range(steps):
        w.grad = w.detach().clone()
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        path.append(w.tolist())
    return path


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def run(optimizer, scheduler, key, steps):
    """Return the values of the first group, the initial one first."""
    values = [float(optimizer.param_groups[0][key])]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        values.append(float(optimizer.param_groups[0][key]))
    return values


# --- schedules ---


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.0), (0.1, 0.7), (2.0, 0.3), (0.3, 0.3)])
@pytest.mark.parametrize("steps", [2, 3, 7, 100])
def test_linear_is_linspace_and_then_stays(start, end, steps):
    schedule = LinearSchedule(start, end, steps)
    values = [schedule(epoch) for epoch in range(steps + 3)]
    np.testing.assert_allclose(values[:steps], np.linspace(start, end, steps), 1e-15, 1e-16)
    assert values[0] == start
    assert values[steps - 1 :] == [end] * 4


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.0), (0.1, 0.7), (2.0, 0.3), (0.3, 0.3)])
@pytest.mark.parametrize("steps", [2, 3, 8, 100])
def test_cosine_follows_the_equation_of_sgdr(start, end, steps):
    schedule = CosineSchedule(start, end, steps)
    time = np.arange(steps) / (steps - 1)
    values = [schedule(epoch) for epoch in range(steps + 3)]
    closed = end + 0.5 * (start - end) * (1 + np.cos(np.pi * time))
    np.testing.assert_allclose(values[:steps], closed, rtol=1e-14, atol=1e-16)
    assert values[0] == start
    assert values[steps - 1 :] == [end] * 4
    assert min(start, end) <= min(values) <= max(values) <= max(start, end)


@pytest.mark.parametrize(("start", "end"), [(3e-3, 7.5e-4), (1e-8, 1.0), (-2.0, -5.0), (0.1, 0.1)])
def test_geometric_goes_by_equal_factors_and_stays(start, end):
    schedule = GeometricSchedule(start, end, 7)
    values = [schedule(epoch) for epoch in range(9)]
    np.testing.assert_allclose(values[:7], np.geomspace(start, end, 7), rtol=1e-13)
    assert values[0] == start
    assert values[6:] == [end] * 3
    between = schedule(2.5)
    np.testing.assert_allclose(between**2, values[2] * values[3], rtol=1e-13)


def test_a_ramp_of_one_epoch_starts_with_its_start():
    assert [LinearSchedule(0.5, 0.1, 1)(epoch) for epoch in range(3)] == [0.5, 0.1, 0.1]


def test_steps_change_at_their_milestones():
    assert [STEPS(epoch) for epoch in range(7)] == [0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    assert StepSchedule([0.4], [])(9) == 0.4


def test_equal_schedules_are_equal():
    assert LinearSchedule(1, 0, 5) == LinearSchedule(np.float64(1), 0.0, np.int64(5))
    assert LinearSchedule(1, 0, 5) != CosineSchedule(1, 0, 5)
    assert StepSchedule([1, 0], [3]) == StepSchedule((1.0, 0.0), (3,))
    assert len({LINEAR, COSINE, STEPS, LinearSchedule(0.5, 0, 7)}) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearSchedule(math.nan, 0, 5), "start must be finite, not nan"),
        (lambda: CosineSchedule(0, math.inf, 5), "end must be finite, not inf"),
        (lambda: GeometricSchedule(1, 0, 5), "one sign, .* unlike 1.0 and 0.0"),
        (lambda: GeometricSchedule(0, 1, 5), "one sign, .* unlike 0.0 and 1.0"),
        (lambda: GeometricSchedule(1, -1, 5), "one sign, .* unlike 1.0 and -1.0"),
        (lambda: GeometricSchedule(1e-200, 1e200, 5), r"a ratio that is a number, unlike 1e-200"),
        (lambda: LinearSchedule(1, 0, 0), "steps must be at least 1, not 0"),
        (lambda: StepSchedule([1, 2], []), "0 milestones need 1 values, not 2"),
        (lambda: StepSchedule([1, math.nan], [2]), "values must be finite"),
        (lambda: StepSchedule([1, 2, 3], [4, 4]), r"unlike \(4, 4\)"),
        (lambda: StepSchedule([1, 2], [0]), r"unlike \(0,\)"),
    ],
)
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_steps_must_be_whole():
    with pytest.raises(TypeError):
        LinearSchedule(1, 0, 2.5)


# --- against PyTorch's own schedulers ---


@pytest.mark.parametrize(
    ("schedule", "twin"),
    [
        (
            LinearSchedule(0.1, 0.02, 9),
            lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.2, total_iters=8),
        ),
        (
            CosineSchedule(0.1, 0.02, 15),
            lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=14, eta_min=0.02),
        ),
        (
            StepSchedule([0.1, 0.05, 0.025], [3, 10]),
            lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [3, 10], gamma=0.5),
        ),
        (
            lambda epoch: 0.1 * 0.9**epoch,
            lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
        ),
    ],
    ids=["linear", "cosine", "step", "function"],
)
def test_the_learning_rate_moves_as_under_the_scheduler_of_torch(schedule, twin):
    ours, theirs = sgd(), sgd()
    one = run(ours, HyperparameterScheduler(ours, "lr", schedule), "lr", 14)
    other = run(theirs, twin(theirs), "lr", 14)
    np.testing.assert_allclose(one, other, rtol=1e-14)
    assert ours.param_groups[0]["initial_lr"] == theirs.param_groups[0]["initial_lr"]


@pytest.mark.parametrize("last_epoch", [0, 3])
def test_last_epoch_means_what_it_means_in_torch(last_epoch):
    def halve(epoch):
        return 0.1 * 0.5**epoch

    ours, theirs = sgd(initial_lr=0.1), sgd(initial_lr=0.1)
    one = HyperparameterScheduler(ours, "lr", halve, last_epoch)
    other = lr_scheduler.LambdaLR(theirs, lambda epoch: 0.5**epoch, last_epoch)
    assert one.last_epoch == other.last_epoch == last_epoch + 1
    assert one.get_last_value() == other.get_last_lr()
    assert run(ours, one, "lr", 3) == run(theirs, other, "lr", 3)


# --- the scheduler ---


def test_the_schedule_reaches_the_steps_of_the_optimizer():
    optimizer = power()
    path = train(optimizer, [ExponentScheduler(optimizer, LINEAR)], 9)
    w = np.array([3.0, -1.7])
    for epoch, got in enumerate(path):
        w = w - 0.1 * np.sign(w) * np.abs(w) ** max(0.5 * (1 - epoch / 6), 0)
        np.testing.assert_allclose(got, w, rtol=1e-14)


def test_the_constructor_takes_the_first_step_and_remembers_the_value():
    optimizer = sgd(p=2)
    scheduler = PNormScheduler(optimizer, LinearSchedule(1.5, 0.5, 3))
    assert optimizer.param_groups[0]["p"] == 1.5
    assert optimizer.param_groups[0]["initial_p"] == 2
    assert (scheduler.last_epoch, scheduler.get_last_value()) == (0, [1.5])
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["initial_p"] == 2
    assert (scheduler.last_epoch, scheduler.get_last_value()) == (1, [1.0])


def test_the_last_values_are_a_copy():
    scheduler = PNormScheduler(sgd(p=2), LinearSchedule(1.5, 0.5, 3))
    scheduler.get_last_value()[0] = 9.0
    assert scheduler.get_last_value() == [1.5]


def test_every_group_follows_also_one_added_later():
    w = [torch.ones(1, requires_grad=True) for _ in range(3)]
    optimizer = Power([{"params": [w[0]]}, {"params": [w[1]], "exponent": 0.3}])
    scheduler = ExponentScheduler(optimizer, LINEAR)
    assert [group["exponent"] for group in optimizer.param_groups] == [0.5, 0.5]
    optimizer.add_param_group({"params": [w[2]], "exponent": 0.4})
    scheduler.step()
    assert [group["exponent"] for group in optimizer.param_groups] == [LINEAR(1)] * 3
    assert [group["initial_exponent"] for group in optimizer.param_groups] == [0.5, 0.3, 0.4]
    assert scheduler.get_last_value() == [LINEAR(1)] * 3


def test_groups_that_are_not_named_keep_their_value():
    optimizer = PAdam(decay_groups(torch.nn.Linear(2, 2), 0.3), weight_decay=0.1)
    scheduler = HyperparameterScheduler(
        optimizer, "weight_decay", LinearSchedule(0.3, 0.1, 3), groups=(i for i in [0])
    )
    optimizer.add_param_group({"params": [("late", torch.ones(2))], "weight_decay": 0.7})
    for strength in (0.3, 0.2, 0.1):
        assert scheduler.get_last_value() == [pytest.approx(strength)]
        found = [group["weight_decay"] for group in optimizer.param_groups]
        assert found == [pytest.approx(strength), 0, 0.7]
        scheduler.step()
    state = scheduler.state_dict() | {"last_value": [0.25]}
    scheduler.load_state_dict(state)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0, 0.7]
    assert ["initial_weight_decay" in group for group in optimizer.param_groups] == [
        True,
        False,
        False,
    ]


def test_tensors_in_a_group_are_filled_in_place():
    value = torch.tensor(0.5)
    optimizer = sgd(exponent=value)
    scheduler = ExponentScheduler(optimizer, LINEAR)
    scheduler.step()
    group = optimizer.param_groups[0]
    assert group["exponent"] is value
    assert value.item() == torch.tensor(LINEAR(1)).item()
    assert group["initial_exponent"].item() == 0.5


def test_it_runs_beside_a_scheduler_of_the_learning_rate():
    both, alone = power(), power()
    exponent = ExponentScheduler(both, LINEAR)
    rate = lr_scheduler.ExponentialLR(both, 0.5)
    only = lr_scheduler.ExponentialLR(alone, 0.5)
    for epoch in range(5):
        assert both.param_groups[0]["exponent"] == LINEAR(epoch)
        assert both.param_groups[0]["lr"] == alone.param_groups[0]["lr"]
        train(both, [exponent, rate], 1)
        train(alone, [only], 1)


@pytest.mark.parametrize(
    ("options", "key", "moved"),
    [
        ({"exponent": 0.5}, None, "exponent"),
        ({"partial": 0.125}, None, "partial"),
        ({"partial": 0.125, "exponent": 0.5}, "partial", "partial"),
        ({"partial": 0.125, "exponent": 0.5}, "exponent", "exponent"),
    ],
)
def test_the_exponent_is_found_under_the_name_that_the_groups_have(options, key, moved):
    optimizer = sgd(**options)
    scheduler = ExponentScheduler(optimizer, LinearSchedule(0.25, 0.2, 3), key=key)
    assert scheduler.key == moved
    assert optimizer.param_groups[0] | options | {moved: 0.25} == optimizer.param_groups[0]


# --- saving ---


@every_schedule
@pytest.mark.parametrize("way", ["state", "saved", "json"])
def test_a_run_resumed_in_mid_schedule_has_the_same_bits(schedule, way):
    optimizer = power()
    schedulers = [ExponentScheduler(optimizer, schedule), lr_scheduler.StepLR(optimizer, 3)]
    train(optimizer, schedulers, 4)
    weights = optimizer.param_groups[0]["params"][0].detach().clone()
    state = [copy.deepcopy(each.state_dict()) for each in (optimizer, *schedulers)]
    state = {"state": copy.deepcopy, "saved": saved, "json": lambda s: json.loads(json.dumps(s))}[
        way
    ](state)
    path = train(optimizer, schedulers, 6)

    again = power(9.0)
    others = [
        ExponentScheduler(again, LinearSchedule(1.0, 0.9, 3)),
        lr_scheduler.StepLR(again, 3),
    ]
    for each, its in zip((again, *others), state, strict=True):
        each.load_state_dict(its)
    with torch.no_grad():
        again.param_groups[0]["params"][0].copy_(weights)
    assert others[0].schedule == schedule
    assert others[0].get_last_value() == [schedule(4)] == [again.param_groups[0]["exponent"]]
    assert train(again, others, 6) == path
    assert others[0].state_dict() == schedulers[0].state_dict()


def test_it_does_not_matter_whether_the_optimizer_is_loaded_before_its_scheduler_is_made():
    schedule = LinearSchedule(2.0, 1.0, 4)
    optimizer = sgd(p=2.0)
    scheduler = PNormScheduler(optimizer, schedule)
    scheduler.step()
    again = sgd(p=2.0)
    again.load_state_dict(optimizer.state_dict())
    other = PNormScheduler(again, schedule)  # which sets p to its first value
    other.load_state_dict(scheduler.state_dict())
    assert again.param_groups[0]["p"] == optimizer.param_groups[0]["p"] == schedule(1)


def test_a_state_with_a_value_out_of_range_changes_nothing():
    optimizer = sgd(p=2.0)
    scheduler = PNormScheduler(optimizer, LinearSchedule(2.0, 1.0, 4))
    before = scheduler.state_dict()
    for change in ({"last_value": [-5.0]}, {"schedule": {"kind": "Spline"}}):
        with pytest.raises(ValueError, match=r"p must lie in|schedule must be one of"):
            scheduler.load_state_dict(before | {"last_epoch": 3} | change)
        assert scheduler.state_dict() == before
        assert optimizer.param_groups[0]["p"] == 2.0


def test_the_value_of_a_state_is_for_all_groups():
    state = PNormScheduler(sgd(p=2.0), StepSchedule([1.5], [])).state_dict()
    optimizer = sgd(p=2.0)
    optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)], "p": 2.0})
    scheduler = PNormScheduler(optimizer, LinearSchedule(2.0, 1.0, 4))
    scheduler.load_state_dict(state)
    assert [group["p"] for group in optimizer.param_groups] == [1.5, 1.5]
    assert scheduler.get_last_value() == [1.5, 1.5]


def test_the_state_is_plain_data_and_loading_leaves_it_alone():
    scheduler = PNormScheduler(sgd(p=2.0), StepSchedule([1.5, 1.0], [4]))
    scheduler.step()
    state = scheduler.state_dict()
    assert state == {
        "key": "p",
        "last_epoch": 1,
        "last_value": [1.5],
        "schedule": {"kind": "StepSchedule", "values": [1.5, 1.0], "milestones": [4]},
    }
    before = copy.deepcopy(state)
    other = PNormScheduler(sgd(p=2.0), StepSchedule([0.5], []))
    other.load_state_dict(state)
    other.step()
    assert state == before


@pytest.mark.parametrize(
    "schedule",
    [
        LinearSchedule(np.float64(0.5), np.float64(0), np.int64(7)),
        StepSchedule(np.array([0.5, 0.25]), np.array([4])),
        lambda _: np.float64(0.5),
    ],
    ids=["linear", "step", "function"],
)
def test_numbers_of_numpy_are_saved_as_plain_ones(schedule):
    optimizer = sgd(exponent=0.5)
    state = ExponentScheduler(optimizer, schedule).state_dict()
    assert saved(state) == state
    assert type(optimizer.param_groups[0]["exponent"]) is float


def test_a_function_is_not_saved_and_stays():
    def fall(epoch):
        return 0.5**epoch

    scheduler = ExponentScheduler(sgd(exponent=0.5), fall)
    scheduler.step()
    state = saved(scheduler.state_dict())
    assert state["schedule"] is None
    other = ExponentScheduler(sgd(exponent=0.5), fall)
    other.load_state_dict(state)
    other.step()
    assert other.get_last_value() == [0.25]


# --- errors ---


@pytest.mark.parametrize(
    ("key", "schedule", "message"),
    [
        ("exponent", LinearSchedule(0.5, -0.1, 9), r"in \[0, 1\]; .* gives -0.1 at step 8"),
        ("exponent", CosineSchedule(1.5, 0, 9), "exponent .* gives 1.5 at step 0"),
        ("partial", LinearSchedule(0.5, 0, 9), r"in \(0, 1/2\]; .* gives 0.0 at step 8"),
        ("partial", StepSchedule([0.5, 0.6, 0.5], [3, 4]), "partial .* gives 0.6 at step 3"),
        ("p", StepSchedule([2, 1, 0], [3, 6]), r"in \(0, 2\]; .* gives 0.0 at step 6"),
        ("p", lambda _: 2.1, "gives 2.1 at step 0"),
        ("p", lambda _: math.nan, "gives nan at step 0"),
        ("lr", LinearSchedule(1, -1, 5), "gives -1.0 at step 4"),
        ("weight_decay", lambda _: math.inf, "gives inf at step 0"),
        ("lambda_2", lambda _: -1e-9, "gives -1e-09 at step 0"),
        ("other", lambda _: math.nan, r"other must lie in .*; .* gives nan at step 0"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_changes(key, schedule, message):
    optimizer = sgd(**{key: 0.25})
    before = dict(optimizer.param_groups[0])
    with pytest.raises(ValueError, match=message):
        HyperparameterScheduler(optimizer, key, schedule)
    assert optimizer.param_groups[0] == before


@pytest.mark.parametrize(
    ("key", "values"), [("exponent", (0, 1)), ("partial", (5e-324, 0.5)), ("p", (5e-324, 2))]
)
def test_the_ends_of_the_range_are_allowed(key, values):
    for value in values:
        scheduler = HyperparameterScheduler(sgd(**{key: 0.25}), key, lambda _, v=value: v)
        assert scheduler.get_last_value() == [value]


def test_a_function_out_of_range_stops_at_its_step_and_changes_nothing():
    optimizer = sgd(exponent=0.5)
    scheduler = ExponentScheduler(optimizer, lambda epoch: 0.5 - 0.2 * epoch)
    scheduler.step()
    scheduler.step()
    before, state = dict(optimizer.param_groups[0]), scheduler.state_dict()
    with pytest.raises(ValueError, match=r"exponent must lie in .* at step 3"):
        scheduler.step()
    assert optimizer.param_groups[0] == before
    assert scheduler.state_dict() == state


def test_a_group_without_the_option_stops_before_another_changes():
    optimizer = sgd(p=2.0)
    scheduler = PNormScheduler(optimizer, LinearSchedule(2, 1, 5))
    optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)]})
    with pytest.raises(KeyError, match=r"param_groups\[1\] has no 'p'"):
        scheduler.step()
    assert optimizer.param_groups[0]["p"] == 2.0
    assert scheduler.last_epoch == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PNormScheduler(sgd(), LINEAR_P), KeyError, r"param_groups\[0\] has no 'p'"),
        (
            lambda: PNormScheduler(sgd(p=1.0), LINEAR_P, last_epoch=0),
            KeyError,
            r"param_groups\[0\] has no 'initial_p'.* last_epoch=0",
        ),
        (lambda: PNormScheduler(sgd(p=1.0), LINEAR_P, -2), ValueError, "at least -1, not -2"),
        (lambda: PNormScheduler(sgd(p=1.0), 0.5), TypeError, "callable, unlike 0.5"),
        (lambda: PNormScheduler("sgd", LINEAR_P), TypeError, "str is not an Optimizer"),
        (
            lambda: HyperparameterScheduler(sgd(betas=(0.9, 0.99)), "betas", LINEAR),
            TypeError,
            r"betas must be a number to be scheduled, not \(0.9, 0.99\)",
        ),
        (
            lambda: HyperparameterScheduler(sgd(), "nesterov", LINEAR),
            TypeError,
            "nesterov must be a number",
        ),
        (lambda: ExponentScheduler(sgd(), LINEAR), ValueError, "the groups have none"),
        (
            lambda: ExponentScheduler(sgd(exponent=0.5, partial=0.5), LINEAR),
            ValueError,
            "the groups have both",
        ),
        (lambda: ExponentScheduler(sgd(), LINEAR, key="lr"), ValueError, "not 'lr'"),
        (lambda: ExponentScheduler("sgd", LINEAR), TypeError, "str is not an Optimizer"),
        *(
            (
                lambda groups=groups: HyperparameterScheduler(sgd(), "lr", LINEAR, groups=groups),
                ValueError,
                message,
            )
            for groups, message in [
                ([1], r"groups must be some of \[0\], not \[1\]"),
                ([0, -1], r"some of \[0\], not \[0, -1\]"),
                ([], r"some of \[0\], not \[\]"),
            ]
        ),
    ],
)
def test_schedulers_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "p"}, "of 'p', not of 'exponent'"),
        ({"schedule": {"kind": "Magic"}}, "not 'Magic'"),
        (
            {"schedule": {"kind": "LinearSchedule", "start": 2, "end": 0, "steps": 3}},
            "gives 2.0 at step 0",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    scheduler = ExponentScheduler(sgd(exponent=0.5), LINEAR)
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict(before | {"last_epoch": 4} | change)
    assert scheduler.state_dict() == before
