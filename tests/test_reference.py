import copy
import inspect
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from beyond_adam import reference
from beyond_adam.landscapes import LANDSCAPES, PARABOLOID, ROSENBROCK, SPHERE
from beyond_adam.reference import (
    RULES,
    AdaGrad,
    Adam,
    AdaMax,
    AMSGrad,
    GradientDescent,
    Momentum,
    RMSProp,
    descend,
)

# Each rule by name and hyperparameters, and PyTorch's own optimizer with the same steps.
TWINS = [
    ("GradientDescent", {"lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
    (
        "Momentum",
        {"lr": 0.1, "momentum": 0.8},
        lambda p: torch.optim.SGD(p, lr=0.1 * (1 - 0.8), momentum=0.8),
    ),
    ("AdaGrad", {"lr": 0.1, "eps": 1e-2}, lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-2)),
    (
        "RMSProp",
        {"lr": 0.1, "alpha": 0.9, "eps": 1e-2},
        lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.9, eps=1e-2),
    ),
    (
        "Adam",
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-2},
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-2),
    ),
    (
        "AdaMax",
        {"lr": 0.1, "betas": (0.8, 0.95)},
        lambda p: torch.optim.Adamax(p, lr=0.1, betas=(0.8, 0.95), eps=0),
    ),
    (
        "AMSGrad",
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-2},
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-2, amsgrad=True),
    ),
    # At their defaults.
    ("GradientDescent", {}, lambda p: torch.optim.SGD(p, lr=1e-3)),
    ("Momentum", {}, lambda p: torch.optim.SGD(p, lr=1e-3 * (1 - 0.9), momentum=0.9)),
    ("AdaGrad", {}, lambda p: torch.optim.Adagrad(p)),
    ("RMSProp", {}, lambda p: torch.optim.RMSprop(p)),
    ("Adam", {}, lambda p: torch.optim.Adam(p)),
    ("AdaMax", {}, lambda p: torch.optim.Adamax(p, eps=0)),
    ("AMSGrad", {}, lambda p: torch.optim.Adam(p, amsgrad=True)),
]
NAMES = [f"{name}{'-tuned' if options else ''}" for name, options, _ in TWINS]
every_rule = pytest.mark.parametrize("rule", [rule() for rule in RULES.values()], ids=RULES.keys())


def assert_same_steps(rule, torch_optimizer, shape, array=np.asarray, steps=60):
    """Both take the same steps on the same random gradients, of many magnitudes."""
    rng = np.random.default_rng(7)
    start = rng.normal(size=shape)
    twin = torch.tensor(start, requires_grad=True)
    optimizer = torch_optimizer([twin])
    w = array(start)
    state = rule.init(w)
    for _ in range(steps):
        g = rng.normal(size=shape) * 10 ** rng.uniform(-3, 1)
        twin.grad = torch.tensor(g)
        optimizer.step()
        w, state = rule.step(w, array(g), state)
        np.testing.assert_allclose(w, twin.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("array", [np.asarray, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("shape", [(2,), (3, 4), (2, 1, 5)])
@pytest.mark.parametrize(("name", "options", "twin"), TWINS, ids=NAMES)
def test_a_rule_takes_the_steps_of_the_torch_optimizer(name, options, twin, shape, array):
    assert_same_steps(RULES[name](**options), twin, shape, array)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("Momentum", "(1 - self.momentum) * gradient", "gradient"),
        ("AdaGrad", 'state["s"] + gradient**2', 'state["s"] + abs(gradient)'),
        ("RMSProp", "xp.sqrt(v) + self.eps", "xp.sqrt(v + self.eps)"),
        ("Adam", "xp.sqrt(v_hat) + self.eps", "xp.sqrt(v_hat + self.eps)"),
        ("Adam", "xp.sqrt(v_hat) + self.eps", "xp.sqrt(v) + self.eps"),
        ("Adam", 't = state["t"] + 1', 't = max(state["t"], 1)'),
        ("Adam", "m / (1 - beta1**t)", "m"),
        ("AdaMax", 'beta2 * state["u"]', 'state["u"]'),
        ("AMSGrad", 'xp.maximum(state["v_max"], v)', "v"),
        ("AMSGrad", "v_max / (1 - beta2**t)", "v_max"),
    ],
)
def test_the_comparison_notices_a_slip(name, right, wrong, monkeypatch):
    source = inspect.getsource(reference)
    assert right in inspect.getsource(RULES[name])
    slip = types.ModuleType("slip")
    monkeypatch.setitem(sys.modules, "slip", slip)
    exec(source.replace(right, wrong), slip.__dict__)
    options, twin = next((options, twin) for rule, options, twin in TWINS if rule == name)
    with pytest.raises(AssertionError):
        assert_same_steps(slip.RULES[name](**options), twin, (2,))


def test_all_seven_rules_are_listed():
    rules = [GradientDescent, Momentum, AdaGrad, RMSProp, Adam, AdaMax, AMSGrad]
    assert dict(RULES) == {rule.__name__: rule for rule in rules}


@every_rule
@pytest.mark.parametrize("array", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_a_step_leaves_its_arguments_as_they_are(rule, array):
    w, g = array([1.0, -2.0]), array([0.5, 3.0])
    _, state = rule.step(w, g, rule.init(w))
    before = copy.deepcopy(state)
    new, _ = rule.step(w, g, state)
    assert new.tolist() != w.tolist()
    assert w.tolist() == [1.0, -2.0]
    assert g.tolist() == [0.5, 3.0]
    assert state.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


@every_rule
@pytest.mark.parametrize(
    "w", [np.ones(3, np.float32), torch.ones(3), torch.ones(3, dtype=torch.bfloat16)]
)
def test_a_rule_keeps_the_precision_of_its_parameters(rule, w):
    new, state = rule.step(w, w, rule.init(w))
    assert new.dtype == w.dtype
    assert all(value.dtype == w.dtype for name, value in state.items() if name != "t")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_hyperparameters_out_of_range_are_refused(rule):
    bad = {
        "lr": [-1e-3, np.nan, np.inf],
        "eps": [-1e-8, np.nan],
        "momentum": [-0.1, 1.0],
        "alpha": [1.5, np.nan],
        "betas": [(0.9, 1.0), (-0.1, 0.9), (0.9,)],
    }
    for name in rule.__dataclass_fields__:
        for value in bad[name]:
            with pytest.raises(ValueError, match=name) as caught:
                rule(**{name: value})
            assert str(value) in str(caught.value)
    rule(lr=0.0)


def test_the_mathematics_needs_no_torch():
    code = "import sys, beyond_adam.landscapes, beyond_adam.numerical, beyond_adam.reference as r\n"
    code += "r.descend(r.Adam(), lambda w: w, [1.0, 2.0], 3); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Closed forms


def test_gradient_descent_on_a_paraboloid_shrinks_the_error_geometrically():
    run = descend(GradientDescent(lr=1e-3), PARABOLOID.gradient, [-5, -7.5], 10_000)
    factor = 0.998 ** np.arange(10_001)[:, None]
    np.testing.assert_allclose(run.points, [1, 2] - np.array([6, 9.5]) * factor, atol=1e-12)


@pytest.mark.parametrize(("lr", "settles"), [(0.999 * 2 / 1001.6, True), (2.01 / 1001.6, False)])
def test_gradient_descent_is_stable_up_to_two_over_the_curvature(lr, settles):
    start = ROSENBROCK.minimisers[0] + [1e-9, 0]
    end = descend(GradientDescent(lr), ROSENBROCK.gradient, start, 2000).points[-1]
    assert bool(np.abs(end - 1).max() < 2e-9) is settles


def test_momentum_weighs_the_latest_gradient_most():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(30, 2))
    feed = iter(gradients)
    run = descend(Momentum(lr=0.1, momentum=0.7), lambda _: next(feed), [0, 0], 30)
    weights = 0.3 * 0.7 ** np.arange(29, -1, -1)
    np.testing.assert_allclose(run.history["v"][-1], weights @ gradients, rtol=1e-13)


@pytest.mark.parametrize("rule", [Adam(lr=0.1, eps=1e-3), AMSGrad(lr=0.1, eps=1e-3)])
def test_the_first_step_of_adam_is_the_sign_of_the_gradient_up_to_eps(rule):
    g = np.array([1e-2, -3.0, 40.0, 0.0])
    w, _ = rule.step(np.zeros(4), g, rule.init(np.zeros(4)))
    np.testing.assert_allclose(w, -0.1 * g / (np.abs(g) + 1e-3), rtol=1e-13)


def test_under_a_constant_gradient_corrected_moments_are_the_gradient_and_its_square():
    g = np.array([0.3, -20.0])
    run = descend(Adam(lr=0.1, betas=(0.9, 0.99)), lambda _: g, [0, 0], 200)
    t = np.arange(1, 201)[:, None]
    np.testing.assert_allclose(run.history["m"] / (1 - 0.9**t), g * np.ones((200, 1)), rtol=1e-12)
    np.testing.assert_allclose(
        run.history["v"] / (1 - 0.99**t), g**2 * np.ones((200, 1)), rtol=1e-12
    )
    np.testing.assert_allclose(run.points[1:], -0.1 * t * np.sign(g), rtol=1e-6)


def test_steps_of_adagrad_and_rmsprop_under_a_constant_gradient():
    g = np.array([4.0, -0.5])
    t = np.arange(1, 51)[:, None]
    steps = np.diff(descend(AdaGrad(lr=0.1), lambda _: g, [0, 0], 50).points, axis=0)
    np.testing.assert_allclose(steps, -0.1 * np.sign(g) / np.sqrt(t), rtol=1e-9)
    steps = np.diff(descend(RMSProp(lr=0.1, alpha=0.9), lambda _: g, [0, 0], 50).points, axis=0)
    np.testing.assert_allclose(steps, -0.1 * np.sign(g) / np.sqrt(1 - 0.9**t), rtol=1e-6)


@pytest.mark.parametrize("array", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_adamax_leaves_a_coordinate_without_gradient_where_it_is(array):
    rule, w = AdaMax(lr=0.1), array([1.0, 2.0, 3.0])
    state = rule.init(w)
    for _ in range(3):
        w, state = rule.step(w, array([0.0, 5.0, float("nan")]), state)
    assert w[0] == 1.0
    assert w[1] == pytest.approx(2.0 - 0.3, rel=1e-6)
    assert w[2] != w[2]


def test_amsgrad_never_forgets_a_large_gradient():
    gradients = iter([1.0, 100.0, *[1.0] * 48])
    history = descend(AMSGrad(betas=(0.9, 0.9)), lambda w: next(gradients) + 0 * w, [0], 50).history
    np.testing.assert_array_equal(history["v_max"], np.maximum.accumulate(history["v"]))
    assert history["v"][-1, 0] < 0.1 * history["v_max"][-1, 0]


@pytest.mark.parametrize(
    ("rule", "printed"),
    [
        (Adam(lr=1e-1, eps=1e-7), [1.0001373, 1.00027483]),
        (Adam(lr=1e-2, eps=1e-7), [1.86150594, 3.46665981]),
    ],
)
def test_adam_ends_where_the_deck_says_it_does(rule, printed):
    end = descend(rule, ROSENBROCK.gradient, [5, 0], 10_000).points[-1]
    np.testing.assert_allclose(end, printed, rtol=0, atol=2e-8)


# Trajectories


@pytest.mark.parametrize("steps", [0, 1, 57])
def test_descend_takes_exactly_the_steps_asked_for(steps):
    seen = []

    def gradient(w):
        seen.append(w)
        return SPHERE.gradient(w)

    rule = Adam(lr=0.1)
    run = descend(rule, gradient, [3, -4], steps)
    assert len(seen) == steps
    assert run.points.shape == (steps + 1, 2)
    assert {name: record.shape for name, record in run.history.items()} == {
        "m": (steps, 2),
        "v": (steps, 2),
    }
    w = np.array([3.0, -4.0])
    state = rule.init(w)
    for t in range(steps):
        np.testing.assert_array_equal(run.points[t], w)
        w, state = rule.step(w, SPHERE.gradient(w), state)
        np.testing.assert_array_equal(run.history["m"][t], state["m"])
        np.testing.assert_array_equal(run.history["v"][t], state["v"])
    np.testing.assert_array_equal(run.points[-1], w)


@every_rule
@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES.keys())
def test_a_batch_of_starts_runs_as_each_start_alone(rule, landscape):
    starts = np.random.default_rng(3).uniform(-2, 2, size=(2, 3, 2))
    batch = descend(rule, landscape.gradient, starts, 40)
    assert batch.points.shape == (41, 2, 3, 2)
    for index in np.ndindex(2, 3):
        single = descend(rule, landscape.gradient, starts[index], 40)
        np.testing.assert_array_equal(batch.points[:, *index], single.points)
        for name, record in single.history.items():
            np.testing.assert_array_equal(batch.history[name][:, *index], record)


def test_divergence_runs_to_the_end_without_a_warning():
    run = descend(GradientDescent(lr=1e-3), ROSENBROCK.gradient, [5, 0], 30)
    assert np.isfinite(run.points[:6]).all()
    assert np.isinf(run.points[6, 0])
    assert np.isnan(run.points[8:]).all()


def test_descend_does_not_touch_its_start():
    start = np.array([3.0, 4.0])
    run = descend(GradientDescent(lr=0.5), SPHERE.gradient, start, 1)
    assert start.tolist() == [3.0, 4.0]
    assert run.points.tolist() == [[3.0, 4.0], [0.0, 0.0]]


def test_descend_refuses_what_it_cannot_run():
    with pytest.raises(ValueError, match="not -1"):
        descend(Adam(), SPHERE.gradient, [1, 1], -1)
    with pytest.raises(ValueError, match=r"shape \(\) at points of shape \(2,\)"):
        descend(Adam(), SPHERE.value, [1, 1], 1)
