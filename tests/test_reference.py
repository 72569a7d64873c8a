import copy
import dataclasses
import inspect
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from beyond_adam import reference
from beyond_adam.landscapes import LANDSCAPES, PARABOLOID, ROSENBROCK, SPHERE
from beyond_adam.prox import adiabatic_step, lambda_p, optimal_s
from beyond_adam.reference import (
    RULES,
    AdaGrad,
    Adam,
    AdaMax,
    AdamExponent,
    AMSGrad,
    DynamicPAdam,
    GradientDescent,
    Momentum,
    PAdam,
    Padam,
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
    # Where they reduce to one of PyTorch's.
    ("PAdam", {"weight_decay": 0}, lambda p: torch.optim.Adam(p)),
    (
        "PAdam",
        {"lr": 0.1, "weight_decay": 0, "amsgrad": True, "decay_at": "updated"},
        lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    ),
    ("DynamicPAdam", {"lr": 0.1, "weight_decay": 0}, lambda p: torch.optim.Adam(p, lr=0.1)),
    (
        "Padam",
        {"eps": 0, "partial": 0.5, "weight_decay": 0.3},
        lambda p: torch.optim.Adam(p, lr=0.1, eps=0, weight_decay=0.3, amsgrad=True),
    ),
    (
        "Padam",
        {"eps": 0, "partial": 0.5, "amsgrad": False, "betas": (0.8, 0.95)}
        | {"weight_decay": 0.3, "decoupled_weight_decay": True},
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=0, weight_decay=0.3),
    ),
    (
        "AdamExponent",
        {"lr": 0.1, "eps": 1e-2, "weight_decay": 0.3},
        lambda p: torch.optim.Adam(p, lr=0.1, eps=1e-2, weight_decay=0.3),
    ),
    (
        "AdamExponent",
        {"lr": 0.1, "amsgrad": True, "weight_decay": 0.3, "decoupled_weight_decay": True},
        lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True, weight_decay=0.3),
    ),
    (
        "AdamExponent",
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.5, "exponent": 0, "bias_correction": False},
        lambda p: torch.optim.SGD(p, lr=0.1 * (1 - 0.8) / 1.5, momentum=0.8),
    ),
]
NAMES = [f"{name}{'-tuned' if options else ''}" for name, options, _ in TWINS]
ALL_RULES = [*RULES.values(), PAdam, DynamicPAdam, Padam, AdamExponent]
every_rule = pytest.mark.parametrize(
    "rule", [rule() for rule in ALL_RULES], ids=[rule.__name__ for rule in ALL_RULES]
)
both_kinds = pytest.mark.parametrize("array", [np.array, torch.tensor], ids=["numpy", "torch"])
every_p = pytest.mark.parametrize("p", [0.1, 0.5, 1, 1.7, 2])


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
    assert_same_steps(getattr(reference, name)(**options), twin, shape, array)


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
        ("PAdam", "m / (1 - beta1**t)", "m"),
        ("PAdam", "(2 * self.partial)", "self.partial"),
        ("DynamicPAdam", "(2 * self.partial)", "self.partial"),
        ("DynamicPAdam", "v / (1 - beta2**t)", "v"),
        ("Padam", "(1 - beta2**t) ** 0.5", "(1 - beta2**t)"),
        ("Padam", "_square_decay(self, w, gradient)", "w, gradient"),
        ("AdamExponent", "v / (1 - beta2**t)", "v"),
        ("AdamExponent", "v**self.exponent", "v ** (2 * self.exponent)"),
    ],
)
def test_the_comparison_notices_a_slip(name, right, wrong, monkeypatch):
    source = inspect.getsource(reference)
    assert right in inspect.getsource(getattr(reference, name))
    slip = types.ModuleType("slip")
    monkeypatch.setitem(sys.modules, "slip", slip)
    exec(source.replace(right, wrong), slip.__dict__)
    options, twin = next((options, twin) for rule, options, twin in TWINS if rule == name)
    with pytest.raises(AssertionError):
        assert_same_steps(getattr(slip, name)(**options), twin, (2,))


def test_the_seven_rules_that_pytorch_has_are_listed():
    rules = [GradientDescent, Momentum, AdaGrad, RMSProp, Adam, AdaMax, AMSGrad]
    assert dict(RULES) == {rule.__name__: rule for rule in rules}


@every_rule
@both_kinds
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


@pytest.mark.parametrize("rule", ALL_RULES)
def test_hyperparameters_out_of_range_are_refused(rule):
    bad = {
        "lr": [-1e-3, np.nan, np.inf],
        "eps": [-1e-8, np.nan],
        "momentum": [-0.1, 1.0],
        "alpha": [1.5, np.nan],
        "betas": [(0.9, 1.0), (-0.1, 0.9), (0.9,)],
        "weight_decay": [-1e-2, np.inf],
        "lambda_2": [-1e-2, np.nan],
        "p": [0, 2.1, np.nan],
        "partial": [0, 0.51],
        "exponent": [-0.1, 1.1],
        "beta_s": [-0.1, 1.0],
        "decay_at": ["late", None],
    }
    switches = {"amsgrad", "bias_correction", "decoupled_weight_decay"}
    for name in rule.__dataclass_fields__.keys() - switches:
        for value in bad[name]:
            with pytest.raises(ValueError, match=f"^{name} must") as caught:
                rule(**{name: value})
            assert str(value) in str(caught.value)
    rule(lr=0.0)


def test_the_ends_of_the_ranges_are_allowed():
    for p in (1e-3, 2):
        PAdam(eps=0, weight_decay=0, p=p, partial=0.5, decay_at="updated")
    DynamicPAdam(beta_s=0)
    for exponent in (0, 1):
        AdamExponent(exponent=exponent)


def test_the_mathematics_needs_no_torch():
    code = "import sys, beyond_adam.landscapes, beyond_adam.numerical, beyond_adam.reference as r\n"
    code += "for rule in (r.Adam, r.PAdam, r.DynamicPAdam, r.Padam, r.AdamExponent):\n"
    code += "    r.descend(rule(), lambda w: w, [1.0, 2.0], 3)\n"
    code += "sys.exit('torch' in sys.modules)"
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


@both_kinds
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


# Rules that PyTorch does not have


def random_walk(rule, array=np.array, steps=30, start=None):
    """Return the points of `rule` under random gradients of many magnitudes, and its last state."""
    rng = np.random.default_rng(5)
    w = array(rng.normal(size=6) if start is None else start)
    state, points = rule.init(w), [w]
    for _ in range(steps):
        g = array(rng.normal(size=6) * 10 ** rng.uniform(-3, 1))
        w, state = rule.step(w, g, state)
        points.append(w)
    return points, state


CONFIGURED = [
    PAdam(lr=0.1, weight_decay=0.3, p=0.5),
    PAdam(lr=0.1, weight_decay=0.3, p=1.5, lambda_2=0.7, partial=0.2, amsgrad=True),
    PAdam(lr=0.1, weight_decay=0.3, p=0.5, decay_at="updated"),
    PAdam(lr=0.1, weight_decay=0.3, p=2),
    DynamicPAdam(lr=0.1, weight_decay=0.3, p=0.5, lambda_2=0.7, beta_s=0.9),
    DynamicPAdam(lr=0.1, weight_decay=0.3, partial=0.2, amsgrad=True, beta_s=0),
    Padam(weight_decay=0.3),
    Padam(amsgrad=False, weight_decay=0.3, decoupled_weight_decay=True),
    AdamExponent(lr=0.1, exponent=0.3, weight_decay=0.3),
    AdamExponent(lr=0.1, exponent=0, amsgrad=True),
    AdamExponent(exponent=1, bias_correction=False, weight_decay=1, decoupled_weight_decay=True),
]


@pytest.mark.parametrize("rule", CONFIGURED)
def test_arrays_and_tensors_go_the_same_way(rule):
    start = np.array([0.0, 1e-3, -1e-3, 1.0, -30.0, 1e5])
    points, state = random_walk(rule, np.array, start=start)
    twins, twin = random_walk(rule, torch.tensor, start=start)
    np.testing.assert_allclose(points, torch.stack(twins), rtol=1e-9, atol=1e-12)
    assert state.keys() == twin.keys()
    assert state["t"] == twin["t"] == 30
    for name in state.keys() - {"t"}:
        np.testing.assert_allclose(state[name], twin[name], rtol=1e-9, atol=1e-12)


def test_the_state_holds_what_the_rule_remembers():
    w = np.ones(2)
    for rule in (PAdam, DynamicPAdam, Padam, AdamExponent):
        for amsgrad in (False, True):
            state = rule(amsgrad=amsgrad).init(w)
            assert state.pop("t") == 0
            if rule is DynamicPAdam:
                assert state.pop("inverse_s").tolist() == [1, 1]
            assert list(state) == ["m", "v", "v_max"][: 3 if amsgrad else 2]
            assert all((value == 0).all() for value in state.values())


@both_kinds
@pytest.mark.parametrize("decay_at", ["previous", "updated"])
@pytest.mark.parametrize("amsgrad", [False, True])
@every_p
def test_padam_without_decay_is_adam(p, amsgrad, decay_at, array):
    rule = PAdam(lr=0.1, weight_decay=0, p=p, amsgrad=amsgrad, decay_at=decay_at)
    twin = (AMSGrad if amsgrad else Adam)(lr=0.1)
    for w, u in zip(random_walk(rule, array)[0], random_walk(twin, array)[0], strict=True):
        np.testing.assert_array_equal(w, u)


def adams(w, g, lr, eps=1e-8, partial=0.5):
    """Return û after Adam's first step, whose moments are g and g²."""
    return w - lr * g / (abs(g) + eps) ** (2 * partial)


W = np.array([0.0, 1e-3, -0.2, 1.0, -30.0])
G = np.array([2.0, -1e-3, 0.5, 30.0, -1.0])


@both_kinds
@pytest.mark.parametrize("rule", [PAdam, DynamicPAdam])
def test_for_p_2_the_decay_is_that_of_a_square_norm(rule, array):
    rule = rule(lr=0.1, weight_decay=0.3, p=2, lambda_2=0.7)
    w, _ = rule.step(array(W), array(G), rule.init(array(W)))
    right = adams(W, G, 0.1) / (1 + 2 * 0.1 * 0.3 + 0.1 * 0.7)
    np.testing.assert_allclose(w, right, rtol=1e-14)
    assert w[0] != 0


@both_kinds
@pytest.mark.parametrize("partial", [0.5, 0.2])
@pytest.mark.parametrize("p", [0.1, 0.5, 1, 1.7])
def test_padam_is_the_step_of_equation_3_with_adams_update_for_the_gradient(p, partial, array):
    options = {"lr": 0.1, "weight_decay": 0.3, "p": p, "lambda_2": 0.7, "partial": partial}
    rule = PAdam(**options, eps=1e-2)
    w, _ = rule.step(array(W), array(G), rule.init(array(W)))
    update = (W - adams(W, G, 0.1, 1e-2, partial)) / 0.1
    np.testing.assert_allclose(w, adiabatic_step(W, update, 0.1, 0.3, p, l2=0.7), rtol=1e-12)


@both_kinds
@pytest.mark.parametrize("p", [0.1, 0.5, 1, 1.7])
def test_decay_at_the_updated_weight_divides_by_its_power(p, array):
    rule = PAdam(lr=0.1, weight_decay=0.3, p=p, lambda_2=0.7, decay_at="updated")
    w, _ = rule.step(array(W), array(G), rule.init(array(W)))
    u = adams(W, G, 0.1)
    right = u / (1 + 0.1 * 0.7 + p * 0.1 * 0.3 * abs(u) ** (p - 2))
    np.testing.assert_allclose(w, right, rtol=1e-12)
    assert w[0] != 0


@both_kinds
@pytest.mark.parametrize("lr", [0.0, 0.1])
@pytest.mark.parametrize("rule", [PAdam, DynamicPAdam])
@every_p
def test_a_weight_of_zero_without_decay_gets_the_limit_of_the_factor(p, rule, lr, array):
    # The gradient of the last is 0 as well, so that |û| is.
    w, g = np.array([0.0, 1.0, 0.0]), np.array([2.0, -3.0, 0.0])
    hyperparameters = {"weight_decay": 0.3 if lr == 0 else 0, "lambda_2": 0.7}
    if rule is PAdam:
        rules = [PAdam(lr, p=p, decay_at=at, **hyperparameters) for at in ("previous", "updated")]
    else:
        rules = [DynamicPAdam(lr, p=p, beta_s=beta, **hyperparameters) for beta in (0, 0.9)]
    for each in rules:
        new, _ = each.step(array(w), array(g), each.init(array(w)))
        np.testing.assert_allclose(new, adams(w, g, lr) / (1 + lr * 0.7), rtol=1e-14)


def test_a_division_of_zero_by_zero_in_the_step_itself_is_not_hidden():
    for rule in (PAdam(eps=0), DynamicPAdam(eps=0), Padam(eps=0), AdamExponent(eps=0)):
        with pytest.warns(RuntimeWarning, match="invalid value"):
            w, _ = rule.step(np.ones(1), np.zeros(1), rule.init(np.ones(1)))
        assert np.isnan(w)


@both_kinds
def test_zero_absorbs_padam_but_not_dynamic_padam(array):
    zeros, options = np.zeros(6), {"lr": 0.1, "weight_decay": 0.3, "p": 0.5}
    for rule in (PAdam(**options), DynamicPAdam(**options, beta_s=0)):
        assert all((w == 0).all() for w in random_walk(rule, array, start=zeros)[0])
    for rule in (PAdam(**options, decay_at="updated"), DynamicPAdam(**options, beta_s=0.9)):
        assert all((w != 0).all() for w in random_walk(rule, array, start=zeros)[0][1:])
    rule = DynamicPAdam(**options, beta_s=0.9)
    w, _ = rule.step(array(zeros), array(zeros + 2), rule.init(array(zeros)))
    np.testing.assert_allclose(w, -0.1 * 0.9 / (0.9 + 0.5 * 0.1 * 0.3) * np.ones(6), rtol=1e-8)


@both_kinds
@pytest.mark.parametrize("amsgrad", [False, True])
@every_p
def test_dynamic_padam_whose_s_follows_at_once_is_padam(p, amsgrad, array):
    options = {"lr": 0.1, "weight_decay": 0.3, "p": p, "lambda_2": 0.7}
    options |= {"partial": 0.3, "amsgrad": amsgrad}
    dynamic, state = random_walk(DynamicPAdam(**options, beta_s=0), array)
    padam, _ = random_walk(PAdam(**options), array)
    for w, right in zip(dynamic, padam, strict=True):
        np.testing.assert_array_equal(w, right)
    np.testing.assert_array_equal(state["inverse_s"], abs(padam[-2]) ** (2 - p))


@every_p
def test_the_inverse_of_s_goes_geometrically_to_the_power_of_a_weight_at_rest(p):
    run = descend(DynamicPAdam(lr=0, p=p, beta_s=0.9), lambda w: w, W, 50)
    end, t = abs(W) ** (2 - p), np.arange(1, 51)[:, None]
    np.testing.assert_array_equal(run.points, np.tile(W, (51, 1)))
    np.testing.assert_allclose(run.history["inverse_s"], end + (1 - end) * 0.9**t, rtol=1e-12)


@pytest.mark.parametrize("beta_s", [0.1, 0.9, 0.999])
@pytest.mark.parametrize("p", [0.1, 0.5, 1, 1.7])
def test_the_auxiliary_function_never_increases_by_the_move_of_s(p, beta_s):
    rng = np.random.default_rng(11)
    w = np.append(np.exp(rng.uniform(-6, 3, 199)) * rng.choice([-1, 1], 199), 0.0)
    s = np.exp(rng.uniform(-6, 6, 200))
    rule = DynamicPAdam(weight_decay=0.3, p=p, beta_s=beta_s)
    _, state = rule.step(w, rng.normal(size=200), {**rule.init(w), "inverse_s": 1 / s})
    moved = 1 / state["inverse_s"]
    before, after = lambda_p(w, s, p), lambda_p(w, moved, p)
    assert (after <= before * (1 + 1e-13)).all()
    assert (after < before).mean() > 0.9
    assert ((moved - s) * (optimal_s(w, p) - moved) >= -1e-12 * s**2).all()  # not past the least


def test_padam_of_chen_at_one_half_is_amsgrad():
    for amsgrad, twin in ((True, AMSGrad(lr=0.1, eps=0)), (False, Adam(lr=0.1, eps=0))):
        ours = random_walk(Padam(eps=0, partial=0.5, amsgrad=amsgrad))[0]
        np.testing.assert_allclose(ours, random_walk(twin)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("partial", [0.5, 0.25, 0.125, 1e-3])
def test_the_first_step_of_padam_of_chen(partial):
    # √v = √(1 − β₂)|g|: the correction for it, outside the power, undoes it at c = 1/2 only.
    rule, root = Padam(lr=0.1, betas=(0.9, 0.99), eps=1e-2, partial=partial), 0.1
    w, _ = rule.step(W, G, rule.init(W))
    right = W - 0.1 * root * G / (root * abs(G) + 1e-2) ** (2 * partial)
    np.testing.assert_allclose(w, right, rtol=1e-12)


@both_kinds
def test_adam_with_exponent_one_half_is_adam(array):
    for amsgrad, twin in ((False, Adam(lr=0.1, eps=1e-3)), (True, AMSGrad(lr=0.1, eps=1e-3))):
        ours = random_walk(AdamExponent(lr=0.1, eps=1e-3, amsgrad=amsgrad), array)[0]
        for w, right in zip(ours, random_walk(twin, array)[0], strict=True):
            np.testing.assert_allclose(w, right, rtol=1e-12, atol=1e-12)


def test_adam_with_exponent_zero_and_no_correction_is_momentum():
    rule = AdamExponent(lr=0.1, betas=(0.8, 0.95), eps=0.5, exponent=0, bias_correction=False)
    ours, twin = random_walk(rule)[0], random_walk(Momentum(0.1 / 1.5, momentum=0.8))[0]
    np.testing.assert_allclose(ours, twin, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("exponent", [0, 0.3, 0.5, 1])
def test_the_first_step_of_adam_with_an_exponent(exponent):
    rule = AdamExponent(lr=0.1, betas=(0.9, 0.99), eps=1e-2, exponent=exponent)
    w, _ = rule.step(W, G, rule.init(W))
    right = W - 0.1 * G / ((G**2) ** exponent + 1e-2)
    np.testing.assert_allclose(w, right, rtol=1e-12)
    rule = dataclasses.replace(rule, bias_correction=False)
    w, _ = rule.step(W, G, rule.init(W))
    right = W - 0.1 * 0.1 * G / ((0.01 * G**2) ** exponent + 1e-2)
    np.testing.assert_allclose(w, right, rtol=1e-12)


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
