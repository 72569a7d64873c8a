"""PAdam, Padam and AdamExponent: one table of cases, and every behaviour for every class and path.

A case is a class with hyperparameters, a path a way to take the same step. References are in
NumPy and float64, written as the sources write the formulas.
"""

import copy
import dataclasses
import io
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

from beyond_adam import reference
from beyond_adam.optim import AdamExponent, DynamicPAdam, PAdam, Padam, _adam_family, _fused
from beyond_adam.optim.functional import adam_exponent, dynamic_padam, padam, partial_adam
from beyond_adam.prox import adiabatic_step

CLASSES = [PAdam, DynamicPAdam, Padam, AdamExponent]
P_NORMS = [PAdam, DynamicPAdam]
PATHS = {
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "capturable": {"foreach": False, "capturable": True},
    "capturable-foreach": {"foreach": True, "capturable": True},
    "differentiable": {"differentiable": True},
}
CASES = [
    (PAdam, {}),
    (PAdam, {"weight_decay": 0}),
    (PAdam, {"weight_decay": 0, "lambda_2": 1}),
    (PAdam, {"weight_decay": 1, "p": 0.5}),
    (PAdam, {"weight_decay": 0.3, "p": 1.5}),
    (PAdam, {"weight_decay": 0.3, "p": 2, "lambda_2": 0.5}),
    (PAdam, {"weight_decay": 0.3, "p": 1.2, "lambda_2": 0.5}),
    (PAdam, {"weight_decay": 0.3, "p": 0.5, "decay_at": "updated"}),
    (PAdam, {"weight_decay": 0.3, "p": 1.5, "lambda_2": 0.5, "decay_at": "updated"}),
    (PAdam, {"weight_decay": 0.3, "p": 1, "amsgrad": True}),
    (PAdam, {"partial": 0.125, "eps": 1e-2}),
    (PAdam, {"partial": 0.3, "amsgrad": True, "maximize": True, "betas": (0.5, 0.6)}),
    (PAdam, {"betas": (0.0, 0.0)}),
    (DynamicPAdam, {}),
    (DynamicPAdam, {"weight_decay": 1, "p": 0.5, "beta_s": 0.9}),
    (DynamicPAdam, {"weight_decay": 0.3, "p": 1.3, "beta_s": 0.5, "lambda_2": 0.5}),
    (DynamicPAdam, {"weight_decay": 0.3, "p": 2, "amsgrad": True}),
    (DynamicPAdam, {"weight_decay": 0.3, "p": 1.5, "beta_s": 0, "maximize": True}),
    (DynamicPAdam, {"weight_decay": 0, "lambda_2": 1, "partial": 0.3, "eps": 1e-2}),
    (Padam, {}),
    (Padam, {"amsgrad": False}),
    (Padam, {"partial": 0.5, "eps": 1e-2}),
    (Padam, {"partial": 0.25, "eps": 1e-2, "betas": (0.5, 0.6)}),
    (Padam, {"weight_decay": 1}),
    (Padam, {"weight_decay": 0.3, "maximize": True}),
    (Padam, {"weight_decay": 1, "decoupled_weight_decay": True}),
    (AdamExponent, {}),
    (AdamExponent, {"exponent": 0}),
    (AdamExponent, {"exponent": 0.3, "eps": 1e-2}),
    (AdamExponent, {"exponent": 0.7, "eps": 1e-2}),
    (AdamExponent, {"exponent": 1.0, "eps": 1e-2}),
    (AdamExponent, {"exponent": 0.2, "bias_correction": False, "betas": (0.5, 0.6)}),
    (AdamExponent, {"exponent": 0.4, "amsgrad": True, "maximize": True}),
    (AdamExponent, {"exponent": 0.4, "weight_decay": 0.3}),
    (AdamExponent, {"exponent": 0.4, "weight_decay": 0.3, "decoupled_weight_decay": True}),
]


def name(value):
    """Return an id for a parameter of a test."""
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items()) or "defaults"
    return None


every_class = pytest.mark.parametrize("cls", CLASSES, ids=name)
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
both_paths = pytest.mark.parametrize("foreach", [False, True], ids=["for-loop", "foreach"])


class Reference:
    """The rule of `beyond_adam.reference` for one weight array, in float64."""

    def __init__(self, cls, w, group):
        rule = getattr(reference, cls.__name__)
        self.sign = -1 if group["maximize"] else 1
        self.rule = rule(**{name: group[name] for name in rule.__dataclass_fields__})
        self.w, self.state = w, self.rule.init(w)

    def step(self, gradient, lr):
        rule = dataclasses.replace(self.rule, lr=lr)
        self.w, self.state = rule.step(self.w, self.sign * gradient, self.state)


def some_weights(dtype=torch.float64, zero=False):
    """A matrix, a transposed one, every other element of a vector, and a scalar."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    weights = [draw(3, 4), draw(2, 3).T, draw(8)[::2], draw(())]
    weights = [w.to(dtype) for w in weights]
    weights[1] = weights[1].T.contiguous().T
    weights[2] = weights[2].repeat_interleave(2)[::2]
    if zero:
        weights[0][0, 0] = 0.0
    return weights


def some_gradients(weights, step):
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(w.shape, generator=generator).to(w.dtype) for w in weights]


def train(optimizer, weights, steps, first=0):
    for step in range(first, first + steps):
        for w, g in zip(weights, some_gradients(weights, step), strict=True):
            w.grad = g
        optimizer.step()
    return weights


def clones(weights):
    return [w.clone() for w in weights]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@every_path
@pytest.mark.parametrize(("cls", "options"), CASES, ids=name)
def test_every_path_is_the_formula(cls, options, path):
    # Autograd has no derivative at 0 for 1 < p < 2; the step there says so.
    zero = not (path.get("differentiable") and 1 < options.get("p", 1) < 2)
    weights = some_weights(zero=zero)
    rates = [0.1, 0.1, 0.05, 0.0, *np.linspace(0.1, 0.02, 16)]
    other = {"weight_decay": 0.7, "betas": (0.8, 0.9), "eps": 1e-3}
    other |= {"p": 0.8} if cls in P_NORMS else {"exponent": 0.35} if cls is AdamExponent else {}
    groups = [{"params": weights[:2]}, {"params": weights[2:], **other}]
    optimizer = cls(groups, **(options | path))
    references = [
        Reference(cls, w.numpy().copy(), group)
        for group in optimizer.param_groups
        for w in group["params"]
    ]
    for step, lr in enumerate(rates):
        grads = some_gradients(weights, step)
        if step == 7:
            grads = [None] * 4
        elif step == 11:
            grads[0] = grads[3] = None
        for group, factor in zip(optimizer.param_groups, (1, 0.5), strict=True):
            group["lr"] = lr * factor
        before = [None if g is None else g.clone() for g in grads]
        versions = [w._version for w in weights]
        for w, g in zip(weights, grads, strict=True):
            w.grad = g
        optimizer.step()
        for i, rule in enumerate(references):
            if grads[i] is not None:
                rule.step(grads[i].numpy(), lr * (1, 1, 0.5, 0.5)[i])
                assert torch.equal(weights[i].grad, before[i])
                assert weights[i].grad is grads[i]
            assert (weights[i]._version > versions[i]) == (grads[i] is not None)
    for w, rule in zip(weights, references, strict=True):
        np.testing.assert_allclose(w.numpy(), rule.w, rtol=1e-10, atol=1e-12)


@both_paths
@pytest.mark.parametrize("amsgrad", [False, True], ids=["adam", "amsgrad"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (partial(PAdam, weight_decay=0), torch.optim.Adam),
        (partial(PAdam, weight_decay=0, maximize=True), partial(torch.optim.Adam, maximize=True)),
        (AdamExponent, torch.optim.Adam),
        (partial(AdamExponent, weight_decay=0.3), partial(torch.optim.Adam, weight_decay=0.3)),
        (
            partial(AdamExponent, weight_decay=0.3, decoupled_weight_decay=True),
            partial(torch.optim.AdamW, weight_decay=0.3),
        ),
    ],
    ids=["PAdam", "PAdam-maximize", "AdamExponent", "coupled", "decoupled"],
)
def test_degenerate_cases_are_torchs_adam_to_the_bit(ours, theirs, dtype, amsgrad, foreach):
    a, b = some_weights(dtype, zero=True), some_weights(dtype, zero=True)
    train(ours(a, lr=0.01, amsgrad=amsgrad, foreach=foreach), a, 20)
    train(theirs(b, lr=0.01, amsgrad=amsgrad, foreach=foreach), b, 20)
    assert equal(a, b)


@both_paths
def test_padam_at_one_half_is_torchs_amsgrad(foreach):
    a, b = some_weights(), some_weights()
    train(Padam(a, lr=0.01, eps=0, partial=0.5, foreach=foreach), a, 20)
    train(torch.optim.Adam(b, lr=0.01, eps=0, amsgrad=True), b, 20)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@both_paths
def test_p_2_divides_by_1_plus_2_lr_lambda(foreach):
    a, b = some_weights(zero=True), some_weights(zero=True)
    lr, decay, square = 0.01, 0.3, 0.7
    ours = PAdam(a, lr=lr, p=2, weight_decay=decay, lambda_2=square, foreach=foreach)
    train(ours, a, 1)
    train(torch.optim.Adam(b, lr=lr), b, 1)
    assert equal(a, [u / (1 + 2 * lr * decay + lr * square) for u in b])
    assert a[0][0, 0] != 0


@both_paths
def test_exponent_0_is_sgd(foreach):
    a, b = some_weights(), some_weights()
    options = {"exponent": 0.0, "bias_correction": False, "eps": 0.5, "betas": (0.8, 0.999)}
    train(AdamExponent(a, lr=0.1, foreach=foreach, **options), a, 20)
    train(torch.optim.SGD(b, lr=0.1 * (1 - 0.8) / 1.5, momentum=0.8), b, 20)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("lr", [1e-3, torch.tensor(1e-3)], ids=["number", "tensor"])
def test_a_decay_that_float32_cannot_hold_is_none(path, lr):
    w = torch.tensor([0.0, 1.0])
    w.grad = torch.ones(2)
    PAdam([w], lr=lr, weight_decay=1e-36, **PATHS[path]).step()
    torch.testing.assert_close(w, torch.tensor([-1e-3, 1 - 1e-3]))


@every_path
@pytest.mark.parametrize("decay_at", ["previous", "updated"])
@pytest.mark.parametrize("p", [0.1, 0.5, 1, 1.5, 2])
def test_the_factor_is_finite_everywhere(p, decay_at, path):
    extremes = [1e38, -1e38, 1e-38, 1e-45, -1.0]
    start = extremes if path.get("differentiable") and 1 < p < 2 else [0.0, *extremes]
    for lr in (0.0, torch.tensor(0.0), 1e-44, 1e-3, torch.tensor(1e-3)):
        for decay, square in ((0.0, 0.1), (0.1, 0.0), (1e30, 1e3)):
            w = torch.tensor(start)
            options = {"p": p, "weight_decay": decay, "lambda_2": square, "decay_at": decay_at}
            optimizer = PAdam([w], lr=lr, **options, **path)
            w.grad = torch.ones_like(w)
            optimizer.step()
            assert w.isfinite().all()
            if lr == 0:
                assert torch.equal(w, torch.tensor(start))
            elif decay == 0.1 and p < 2 and lr > 1e-40:
                large = w[w.abs() > 1e37]
                assert large.abs().tolist() == pytest.approx([1e38, 1e38], rel=1e-3)
                if start[0] == 0:
                    assert (w[0] == 0) == (decay_at == "previous")


@every_path
@pytest.mark.parametrize("p", [0.5, 1.0, 1.7])
def test_padam_is_the_step_of_equation_3_with_adams_update_for_the_gradient(p, path):
    start = torch.linspace(-2, 2, 8, dtype=torch.float64)  # without 0
    plain, decayed = start.clone(), start.clone()
    for w, strength in ((plain, 0.0), (decayed, 0.3)):
        w.grad = torch.sin(5 * start)
        l2 = 0.7 if strength else 0.0
        PAdam([w], lr=0.1, weight_decay=strength, p=p, lambda_2=l2, **path).step()
    right = adiabatic_step(start, (start - plain) / 0.1, 0.1, 0.3, p, l2=0.7)
    torch.testing.assert_close(decayed, right, rtol=1e-13, atol=0)


def test_zero_is_left_for_good_only_if_the_decay_is_at_the_previous_weight():
    previous, updated, free = (torch.zeros(3) for _ in range(3))
    with pytest.warns(UserWarning, match="1 of 1 tensors to be decayed with p < 2 are all zeros"):
        train(PAdam([previous], p=1.5), [previous], 5)
    train(PAdam([updated], p=1.5, decay_at="updated"), [updated], 5)
    train(PAdam([free], weight_decay=0), [free], 5)
    assert (previous == 0).all()
    assert (updated != 0).all()
    assert (free != 0).all()


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}], ids=name)
@pytest.mark.parametrize("p", [0.5, 1, 1.3, 2])
def test_a_dynamic_decay_is_padams_without_delay_and_begins_as_that_of_p_2(p, path):
    options = {"lr": 0.1, "weight_decay": 0.3, "lambda_2": 0.2, **path}
    dynamic, usual = some_weights(zero=True), some_weights(zero=True)
    train(DynamicPAdam(dynamic, p=p, beta_s=0, **options), dynamic, 10)
    train(PAdam(usual, p=p, **options), usual, 10)
    for x, y in zip(dynamic, usual, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=0)
    slow, square = some_weights(zero=True), some_weights(zero=True)
    train(DynamicPAdam(slow, p=p, beta_s=1 - 1e-12, **options), slow, 1)
    options["weight_decay"] *= p / 2
    train(PAdam(square, p=2, **options), square, 1)
    for x, y in zip(slow, square, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=0)


@every_path
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_s_follows_whether_it_decays_or_not(decay, path):
    (w,) = weights = [torch.tensor([1.0, -4.0], dtype=torch.float64)]
    optimizer = DynamicPAdam(weights, lr=0.1, p=1.5, weight_decay=decay, beta_s=0.9, **path)
    inverse_s = torch.ones(2, dtype=torch.float64)
    for step in range(3):
        inverse_s = 0.9 * inverse_s + 0.1 * w.abs().sqrt()
        train(optimizer, weights, 1, first=step)
        torch.testing.assert_close(optimizer.state[w]["inverse_s"], inverse_s)


@every_path
def test_a_dynamic_decay_lets_weights_leave_zero(path):
    weights = [torch.zeros(3, dtype=torch.float64)]
    train(DynamicPAdam(weights, p=0.5, weight_decay=0.1, beta_s=0.9, **path), weights, 3)
    assert (weights[0] != 0).all()


@every_path
@every_class
def test_state_is_named_and_kept_as_adams(cls, path):
    weights = some_weights(torch.float32)
    weights[3] = weights[3].bfloat16()
    optimizer = cls(weights, amsgrad=True, **path)
    train(optimizer, weights, 2)
    for w in weights:
        state = optimizer.state[w]
        own = ["inverse_s"] if cls is DynamicPAdam else []
        assert list(state) == ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", *own]
        assert (state["step"].shape, state["step"].dtype) == ((), torch.float32)
        assert state["step"] == 2
        assert state["step"].device.type == "cpu"
        for key in list(state)[1:]:
            assert (state[key].shape, state[key].dtype) == (w.shape, torch.float32)
    plain = clones(weights)
    optimizer_without = cls(plain, amsgrad=False, **path)
    train(optimizer_without, plain, 1)
    for w in plain:
        assert list(optimizer_without.state[w]) == ["step", "exp_avg", "exp_avg_sq", *own]
    matrix = weights[1]
    assert optimizer.state[matrix]["exp_avg"].stride() == matrix.stride()


@every_class
def test_the_step_count_is_on_the_device_only_if_captured(cls):
    for capturable, device in ((False, "cpu"), (True, "meta")):
        w = torch.empty(3, device="meta")
        w.grad = torch.empty_like(w)
        optimizer = cls([w], capturable=capturable)
        lists = [[] for _ in range(7)]
        optimizer._init_group(optimizer.param_groups[0], *lists)
        assert optimizer.state[w]["step"].device.type == device
    optimizer.param_groups[0]["capturable"] = True
    optimizer.state[w]["step"] = torch.tensor(0.0)
    with pytest.raises(RuntimeError, match="on the parameter's device, meta, not on cpu"):
        optimizer.step()


@every_class
def test_a_capture_needs_capturable(cls, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    w = [torch.ones(2)]
    before = clones(w)
    with pytest.raises(RuntimeError, match="only with capturable=True"):
        train(cls(w), w, 1)
    assert equal(w, before)
    train(cls(w, capturable=True), w, 1)


def test_fused_is_for_cpus_and_gpus():
    _adam_family._warn_of_device.cache_clear()
    weights = [torch.empty(3, device="meta"), torch.ones(3)]
    for w in weights:
        w.grad = torch.ones_like(w)
    optimizer = PAdam(weights, weight_decay=0.0, fused=True)
    with pytest.warns(UserWarning, match="fused=True has no effect on meta tensors"):
        optimizer.step()
    optimizer.step()  # without a second warning, which would be an error
    assert (weights[1] != 1).all()


def test_fused_cannot_be_captured_on_gpus(monkeypatch):
    _adam_family._warn_of_device.cache_clear()
    monkeypatch.setitem(_fused.KERNELS, "meta", lambda _: None)  # one more device with a kernel
    w = torch.empty(3, device="meta")
    w.grad = torch.ones_like(w)
    optimizer = PAdam([w], weight_decay=0.0, fused=True, capturable=True)
    with pytest.warns(UserWarning, match="no effect on meta tensors with capturable=True"):
        optimizer.step()
    _adam_family._warn_of_device.cache_clear()
    PAdam([w], weight_decay=0.0, fused=True).step()  # of which the kernel would warn


class Reads(TorchDispatchMode):
    """How often a number is read from a tensor while it is on."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@both_paths
@pytest.mark.parametrize(("cls", "options"), CASES, ids=name)
def test_a_capturable_step_reads_no_number(cls, options, foreach):
    counts = []
    for capturable in (True, False):
        weights = some_weights()
        lr = torch.tensor(0.1)
        optimizer = cls(weights, lr=lr, foreach=foreach, capturable=capturable, **options)
        with Reads() as reads:
            train(optimizer, weights, 2)
        counts.append(reads.count)
    assert counts[0] == 0
    assert counts[1] > 0


def test_fused_reads_no_number_for_what_it_leaves_to_a_captured_step():
    w = torch.empty(3, device="meta")
    w.grad = torch.empty_like(w)
    optimizer = PAdam([w], lr=torch.tensor(0.1), fused=True, capturable=True)
    with warnings.catch_warnings(), Reads() as reads:
        warnings.simplefilter("ignore")  # that fused is for CPUs
        optimizer.step()
    assert reads.count == 0


@pytest.mark.parametrize("capturable", [False, True])
@both_paths
@every_class
def test_devices_and_precisions_are_grouped(cls, foreach, capturable):
    weights = [torch.ones(3), torch.ones(2, device="meta"), torch.ones(2, device="meta").half()]
    for w in weights:
        w.grad = torch.ones_like(w)
    alone = [torch.ones(3)]
    alone[0].grad = weights[0].grad
    for group in (weights, alone):
        cls(group, foreach=foreach, capturable=capturable).step()
    assert torch.equal(weights[0], alone[0])


@every_path
@every_class
def test_parameters_without_gradient_stay_and_have_no_state(cls, path):
    weights = some_weights()
    before = clones(weights)
    optimizer = cls(weights, **path)
    optimizer.step()
    weights[1].grad = torch.ones_like(weights[1])
    optimizer.step()
    assert equal([weights[i] for i in (0, 2, 3)], [before[i] for i in (0, 2, 3)])
    assert next(w for w in weights if optimizer.state.get(w)) is weights[1]
    assert optimizer.state[weights[1]]["step"] == 1


@every_path
@every_class
def test_lr_0_only_advances_the_state(cls, path):
    for lr in (0.0, torch.tensor(0.0)):
        weights = some_weights(torch.float32, zero=True)
        before = clones(weights)
        optimizer = cls(weights, lr=lr, **path)
        train(optimizer, weights, 3)
        assert equal(weights, before)
        assert all(optimizer.state[w]["step"] == 3 for w in weights)
        assert all((optimizer.state[w]["exp_avg"] != 0).all() for w in weights)


@every_path
@every_class
def test_a_tensor_lr_is_that_number_and_follows_a_scheduler(cls, path):
    runs = []
    for lr in (0.1, torch.tensor(0.1, dtype=torch.float64), torch.tensor([0.1]).double()):
        weights = some_weights()
        optimizer = cls(weights, lr=lr, **path)
        optimizer.param_groups[0]["lr"] = lr
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for step in range(4):
            train(optimizer, weights, 1, first=step)
            scheduler.step()
        assert (optimizer.param_groups[0]["lr"] is lr) == isinstance(lr, torch.Tensor)
        assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.1 / 16, rel=1e-6)
        runs.append(weights)
    for weights in runs[1:]:
        for x, y in zip(runs[0], weights, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)


@both_paths
@every_class
def test_the_step_has_its_closure_hooks_and_one_profiler_range(cls, foreach):
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = cls([w], foreach=foreach)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure():
        calls.append("closure")
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    with torch.autograd.profiler.profile() as profile, torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == ["before", "closure", "after"]
    assert loss == 5
    assert (w.detach().abs() < torch.tensor([1.0, 2.0])).all()
    ranges = [e for e in profile.function_events if e.name.startswith("Optimizer.step")]
    assert [e.name for e in ranges] == [f"Optimizer.step#{cls.__name__}.step"]


@every_path
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_class
def test_low_precision_is_stepped_in_float32_and_rounded_once(cls, dtype, path):
    low = some_weights(dtype)
    optimizer = cls(low, lr=0.01, weight_decay=0.3, **path)
    for step in range(3):
        high = [w.float() for w in low]
        twin = cls(high, lr=0.01, weight_decay=0.3, **path)
        for w, h in zip(low, high, strict=True):
            if w in optimizer.state:
                twin.state[h] = {k: v.clone() for k, v in optimizer.state[w].items()}
        gradients = some_gradients(low, step)
        for w, h, g in zip(low, high, gradients, strict=True):
            w.grad, h.grad = g, g.float()
        optimizer.step()
        twin.step()
        assert equal(low, [h.to(dtype) for h in high])
        for w, h in zip(low, high, strict=True):
            assert equal(optimizer.state[w].values(), twin.state[h].values())


@every_path
@every_class
def test_mixed_precisions_share_a_group(cls, path):
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    mixed = [w.to(dtype) for w, dtype in zip(some_weights(), dtypes, strict=True)]
    alone = clones(mixed)
    train(cls(mixed, lr=0.01, **path), mixed, 5)
    optimizers = [cls([w], lr=0.01, **path) for w in alone]
    for step in range(5):
        gradients = some_gradients(alone, step)
        for w, g, optimizer in zip(alone, gradients, optimizers, strict=True):
            w.grad = g
            optimizer.step()
    assert equal(mixed, alone)


@every_path
@every_class
def test_memory_layout_does_not_matter(cls, path):
    strided, contiguous = some_weights(zero=True), [w.contiguous() for w in some_weights(zero=True)]
    assert not strided[1].is_contiguous()
    assert not strided[2].is_contiguous()
    train(cls(strided, **path), strided, 5)
    train(cls(contiguous, **path), contiguous, 5)
    assert equal(strided, contiguous)


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_class
def test_a_killed_run_resumes_to_the_bit(cls, dtype, path):
    def new(weights):
        groups = [{"params": weights[:2]}, {"params": weights[2:], "lr": 0.05, "eps": 1e-3}]
        return cls(groups, lr=0.02, amsgrad=True, weight_decay=0.2, **path)

    through = some_weights(dtype)
    train(new(through), through, 10)
    weights = some_weights(dtype)
    first = new(weights)
    train(first, weights, 5)
    weights = clones(weights)
    second = new(weights)
    second.param_groups[1]["lr"] = 7.0
    second.load_state_dict(through_a_file(first.state_dict()))
    assert second.param_groups[1]["lr"] == 0.05
    train(second, weights, 5, first=5)
    assert equal(weights, through)
    assert through_a_file(second.state_dict())["param_groups"][0].keys() >= second.defaults.keys()


@both_paths
@every_class
def test_copies_and_pickles_continue_to_the_bit(cls, foreach):
    weights = some_weights(torch.float32)
    optimizer = cls(weights, lr=0.02, foreach=foreach)
    train(optimizer, weights, 3)
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    train(optimizer, weights, 3, first=3)
    for other in copies:
        (group,) = other.param_groups
        assert equal(train(other, group["params"], 3, first=3), weights)
        assert repr(other) == repr(optimizer)
        assert cls.__name__ in repr(other)


def test_load_hooks_see_and_may_replace_the_checkpoint():
    weights = [torch.ones(3, dtype=torch.bfloat16)]
    source = PAdam(weights)
    train(source, weights, 2)
    target = PAdam(clones(weights))
    average = torch.tensor([1.0 + 2**-20, 2.0, 3.0])
    seen = []

    def replace(_, state_dict):
        state = {**state_dict["state"][0], "exp_avg": average}
        return {**state_dict, "state": {0: state}}

    target.register_load_state_dict_pre_hook(replace)
    target.register_load_state_dict_post_hook(
        lambda o: seen.append(next(iter(o.state.values()))["exp_avg"])
    )
    target.load_state_dict(source.state_dict())
    assert torch.equal(seen[0], average)
    assert len(target._optimizer_load_state_dict_pre_hooks) == 1
    assert len(target._optimizer_load_state_dict_post_hooks) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("amsgrad", [False, True], ids=["adam", "amsgrad"])
@pytest.mark.parametrize("theirs", [torch.optim.Adam, torch.optim.AdamW], ids=name)
@every_class
def test_checkpoints_of_torchs_adam_load_and_continue(cls, theirs, amsgrad, dtype):
    weights = some_weights(dtype)
    source = theirs(weights, lr=0.02, betas=(0.8, 0.9), amsgrad=amsgrad, fused=True)
    train(source, weights, 3)
    ours = clones(weights)
    target = cls(ours, lr=1.0, foreach=True)
    defaults = dict(target.defaults)
    target.load_state_dict(through_a_file(source.state_dict()))
    (group,) = target.param_groups
    assert (group["lr"], group["betas"], group["amsgrad"]) == (0.02, (0.8, 0.9), amsgrad)
    assert group["weight_decay"] == source.defaults["weight_decay"]
    assert (group["foreach"], group["fused"]) == (None, True)
    for key in defaults.keys() - source.defaults.keys():
        assert group[key] == defaults[key]
    if cls in P_NORMS:
        assert "decoupled_weight_decay" not in group
    for w, u in zip(weights, ours, strict=True):
        state = target.state[u]
        assert state["step"] == 3
        assert state["exp_avg"].dtype == torch.float32
        assert torch.equal(state["exp_avg_sq"], source.state[w]["exp_avg_sq"].float())
    if cls is Padam:
        group["partial"] = 0.5
    elif cls in P_NORMS:
        group["weight_decay"] = source.param_groups[0]["weight_decay"] = 0
    before = clones(ours)
    group["fused"] = source.param_groups[0]["fused"] = False
    train(source, weights, 2, first=3)
    train(target, ours, 2, first=3)
    assert not equal(ours, before)
    if dtype == torch.float32:
        for x, y in zip(ours, weights, strict=True):
            torch.testing.assert_close(x, y, rtol=2e-6, atol=1e-6)


def test_step_counts_of_old_checkpoints_were_numbers():
    weights = [torch.ones(3)]
    optimizer = PAdam(weights)
    train(optimizer, weights, 2)
    state_dict = copy.deepcopy(optimizer.state_dict())
    state_dict["state"][0]["step"] = 2
    target = PAdam(clones(weights))
    target.load_state_dict(state_dict)
    (state,) = target.state.values()
    assert torch.equal(state["step"], torch.tensor(2.0))
    (w,) = target.param_groups[0]["params"]
    assert equal(train(target, [w], 2, first=2), train(optimizer, weights, 2, first=2))


@every_class
def test_amsgrad_may_begin_later(cls):
    weights = some_weights()
    optimizer = cls(weights, amsgrad=False)
    train(optimizer, weights, 2)
    optimizer.param_groups[0]["amsgrad"] = True
    train(optimizer, weights, 1, first=2)
    for state in optimizer.state.values():
        assert torch.equal(state["max_exp_avg_sq"], state["exp_avg_sq"])


BAD = [
    (CLASSES, {"lr": -1.0}, r"lr must lie in \[0, ∞\), not -1.0"),
    (CLASSES, {"lr": float("nan")}, r"lr must lie in \[0, ∞\), not nan"),
    (CLASSES, {"lr": torch.tensor(-1.0)}, r"lr must lie in \[0, ∞\), not -1.0"),
    (CLASSES, {"lr": torch.ones(2)}, "lr must be one number, not a tensor of 2"),
    (CLASSES, {"lr": "1"}, r"lr must lie in \[0, ∞\), not '1'"),
    (CLASSES, {"eps": -1e-8}, r"eps must lie in \[0, ∞\), not -1e-08"),
    (CLASSES, {"weight_decay": -0.5}, r"weight_decay must lie in \[0, ∞\), not -0.5"),
    (CLASSES, {"weight_decay": float("inf")}, r"weight_decay must lie in \[0, ∞\), not inf"),
    (CLASSES, {"betas": (0.9,)}, r"betas must be two numbers in \[0, 1\), not \(0.9,\)"),
    (CLASSES, {"betas": 0.9}, "betas must be two numbers .*, not 0.9"),
    (CLASSES, {"betas": (1.0, 0.9)}, r"betas must be two numbers in \[0, 1\), not \(1.0, 0.9\)"),
    (CLASSES, {"betas": (0.9, -0.1)}, r"betas must be .*, not \(0.9, -0.1\)"),
    (CLASSES, {"foreach": True, "differentiable": True}, "foreach=True and differentiable=True ex"),
    (CLASSES, {"fused": True, "differentiable": True}, "fused=True and differentiable=True excl"),
    (CLASSES, {"foreach": True, "fused": True}, "foreach=True and fused=True exclude each other"),
    (P_NORMS, {"p": 0}, r"p must lie in \(0, 2\], not 0"),
    (P_NORMS, {"p": 2.5}, r"p must lie in \(0, 2\], not 2.5"),
    (P_NORMS, {"lambda_2": -1}, r"lambda_2 must lie in \[0, ∞\), not -1"),
    ([DynamicPAdam], {"beta_s": 1}, r"beta_s must lie in \[0, 1\), not 1"),
    ([PAdam], {"decay_at": "late"}, "decay_at must be 'previous' or 'updated', not 'late'"),
    ([*P_NORMS, Padam], {"partial": 0}, r"partial must lie in \(0, 1/2\], not 0"),
    ([*P_NORMS, Padam], {"partial": 0.6}, r"partial must lie in \(0, 1/2\], not 0.6"),
    ([AdamExponent], {"exponent": -0.1}, r"exponent must lie in \[0, 1\], not -0.1"),
    ([AdamExponent], {"exponent": 1.1}, r"exponent must lie in \[0, 1\], not 1.1"),
]


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [(cls, options, message) for classes, options, message in BAD for cls in classes],
    ids=name,
)
def test_bad_hyperparameters_are_refused_wherever_given(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls([torch.ones(2)], **options)
    with pytest.raises(ValueError, match=message):
        cls([{"params": [torch.ones(2)], **options}])
    with pytest.raises(ValueError, match=message):
        cls([{"params": [torch.ones(2)], **cls([torch.ones(1)]).defaults}], **options)
    optimizer = cls([torch.ones(2)])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [torch.ones(3)], **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        *((cls, {"lr": 0, "betas": (0, 0), "eps": 0, "weight_decay": 0}) for cls in CLASSES),
        *((cls, {"lr": np.float32(0.5)}) for cls in CLASSES),
        (PAdam, {"p": 2, "partial": 0.5}),
        (DynamicPAdam, {"beta_s": 0}),
        (Padam, {"partial": 0.5}),
        (AdamExponent, {"exponent": 1}),
        (AdamExponent, {"exponent": 0}),
    ],
    ids=name,
)
def test_the_ends_of_the_ranges_are_allowed(cls, options):
    (group,) = cls([torch.ones(2)], **options).param_groups
    assert {key: group[key] for key in options} == options


@every_class
def test_differentiable_is_for_all_groups(cls):
    optimizer = cls([torch.ones(2)])
    with pytest.raises(ValueError, match=r"differentiable must be False, .*, not True"):
        optimizer.add_param_group({"params": [torch.ones(3)], "differentiable": True})
    with pytest.raises(TypeError, match="param_group must be a dict"):
        optimizer.add_param_group([torch.ones(3)])


@pytest.mark.parametrize("option", ["lambda_p", "p_norm"])
@pytest.mark.parametrize("cls", P_NORMS, ids=name)
def test_the_names_of_the_source_are_explained(cls, option):
    message = f"^{cls.__name__} has no option '{option}': .* decay is weight_decay, .* norm is p$"
    with pytest.raises(TypeError, match=message):
        cls([torch.ones(2)], **{option: 1.0})
    with pytest.raises(TypeError, match=message):
        cls([{"params": [torch.ones(2)], option: 1.0}])
    with pytest.raises(TypeError, match=f"^{cls.__name__} has no option 'momentum'$"):
        cls([torch.ones(2)], momentum=0.9)


@both_paths
@every_class
def test_sparse_and_complex_are_refused(cls, foreach):
    sparse = torch.ones(3)
    sparse.grad = torch.eye(3)[0].to_sparse()
    with pytest.raises(RuntimeError, match=r"gradients must be .* not of torch.sparse_coo and .*"):
        cls([sparse], foreach=foreach).step()
    number = torch.ones(3, dtype=torch.complex64)
    number.grad = torch.ones_like(number)
    with pytest.raises(RuntimeError, match=r"parameters must be .* and torch.complex64"):
        cls([number], foreach=foreach).step()
    assert torch.equal(sparse, torch.ones(3))


@pytest.mark.parametrize(
    ("function", "cls", "own"),
    [
        (padam, PAdam, {"weight_decay": 0.1, "p": 0.8, "lambda_2": 0.2, "partial": 0.3}),
        (dynamic_padam, DynamicPAdam, {"weight_decay": 0.1, "p": 0.8, "beta_s": 0.5}),
        (partial_adam, Padam, {"weight_decay": 0.1, "partial": 0.3}),
        (adam_exponent, AdamExponent, {"weight_decay": 0.1, "exponent": 0.3}),
    ],
    ids=name,
)
@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}], ids=name)
def test_functions_take_the_step_on_the_callers_state(function, cls, own, path):
    weights, twins = some_weights(), some_weights()
    train(cls(twins, lr=0.1, amsgrad=True, eps=1e-3, **own), twins, 3)
    state = [[torch.zeros_like(w) for w in weights] for _ in range(3)]
    if cls is DynamicPAdam:
        state.append([torch.ones_like(w) for w in weights])
    steps = [torch.tensor(0.0) for _ in weights]
    options = {"amsgrad": True, "beta1": 0.9, "beta2": 0.999, "lr": 0.1, "eps": 1e-3, **own}
    for step in range(3):
        grads = some_gradients(weights, step)
        function(weights, grads, *state, steps, **path, **options)
    assert [t.item() for t in steps] == [3] * 4
    for x, y in zip(weights, twins, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="exclude each other"):
        function(weights, grads, *state, steps, foreach=True, differentiable=True, **options)
    function([], [], *([] for _ in state), [], **path, **options)


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}], ids=name)
@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (1, lambda x: x[:1], "grads must be 2, as params are, not 1"),
        (2, lambda x: x[:1], "exp_avgs must be 2, as params are, not 1"),
        (3, lambda _: [], "exp_avg_sqs must be 2, as params are, not 0"),
        (4, lambda _: [], "max_exp_avg_sqs must be 2, as params are, not 0"),
        (5, lambda x: [*x, x[0]], "inverse_ss must be 2, as params are, not 3"),
        (6, lambda x: x[:1], "state_steps must be 2, as params are, not 1"),
        (6, lambda _: [torch.zeros(0)] * 2, "state_steps must be tensors of one number each"),
    ],
)
def test_functions_refuse_lists_that_do_not_fit(path, place, change, message):
    lists = [[torch.ones(3), torch.ones(3)] for _ in range(6)]
    lists.append([torch.tensor(0.0), torch.tensor(0.0)])
    lists[place] = change(lists[place])
    options = {"beta1": 0.9, "beta2": 0.9, "lr": 0.1, "eps": 1e-3, "weight_decay": 0.1, "p": 1}
    with pytest.raises(ValueError, match=message):
        dynamic_padam(*lists, amsgrad=True, **path, **options)
    if place == 5:  # padam has no such list
        return
    del lists[5]
    with pytest.raises(ValueError, match=message):
        padam(*lists, amsgrad=True, **path, **options)
    assert all((w == 1).all() for w in lists[0])


@every_path
@every_class
def test_the_default_device_does_not_matter(cls, path):
    weights, twins = some_weights(), some_weights()
    train(cls(weights, **path), weights, 2)
    optimizer = cls(twins, **path)
    for step in range(2):
        for w, g in zip(twins, some_gradients(twins, step), strict=True):
            w.grad = g
        with torch.device("meta"):
            optimizer.step()
    assert equal(weights, twins)


@every_path
@every_class
def test_fake_tensors_are_stepped_without_numbers(cls, path):
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        weights = [torch.ones(3, 4), torch.zeros(5, dtype=torch.bfloat16)]
        optimizer = cls(weights, **path)
        for _ in range(2):
            for w in weights:
                w.grad = torch.ones_like(w)
            optimizer.step()
        assert optimizer.state[weights[1]]["exp_avg"].shape == (5,)


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}], ids=name)
@every_class
def test_subclasses_of_tensors_are_stepped(cls, path):
    weights = [TwoTensor(torch.ones(3), 2 * torch.ones(3))]
    twins = [torch.ones(3), 2 * torch.ones(3)]
    for w in weights + twins:
        w.grad = torch.ones_like(w)
    cls(weights, lr=0.1, **path).step()
    cls(twins, lr=0.1, foreach=False).step()
    assert equal([weights[0].a, weights[0].b], twins)


@every_class
def test_foreach_is_the_default_only_where_torch_has_it_so(cls, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError

    weights = some_weights()
    with monkeypatch.context() as patch:
        patch.setattr(_adam_family, "_foreach", refuse)
        train(cls(weights), weights, 1)
    with monkeypatch.context() as patch:
        patch.setattr(_adam_family, "_for_loop", refuse)
        patch.setattr(_adam_family, "_default_to_fused_or_foreach", lambda *_: (False, True))
        train(cls(weights), weights, 1)


DIFFERENTIABLE = [
    (PAdam, {"weight_decay": 0.3, "p": 0.7, "lambda_2": 0.2}),
    (PAdam, {"weight_decay": 0.3, "p": 1.5, "amsgrad": True}),
    (PAdam, {"weight_decay": 0.3, "p": 1.5, "decay_at": "updated", "partial": 0.3}),
    (PAdam, {"weight_decay": 0.3, "p": 2}),
    (Padam, {"weight_decay": 0.3}),
    (Padam, {"weight_decay": 0.3, "decoupled_weight_decay": True, "amsgrad": False}),
    (AdamExponent, {"exponent": 0.3, "weight_decay": 0.3, "amsgrad": True}),
]


@pytest.mark.parametrize(("cls", "options"), DIFFERENTIABLE, ids=name)
def test_autograd_goes_through_several_steps(cls, options):
    def three_steps(start, lr, *gradients):
        w = start.clone()
        optimizer = cls([w], lr=1.0, differentiable=True, **options)
        optimizer.param_groups[0]["lr"] = lr
        for gradient in gradients:
            w.grad = gradient
            optimizer.step()
        return w

    draw = partial(torch.randn, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tensors = [draw(), torch.tensor(0.05, dtype=torch.float64), draw(), draw(), draw()]
    with warnings.catch_warnings():
        # torch warns that the gradient of a tensor that is no leaf is not filled in by autograd.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
        assert torch.autograd.gradcheck(three_steps, [t.requires_grad_() for t in tensors])
        at_zero = [tensors[0], torch.zeros((), dtype=torch.float64, requires_grad=True)]
        (slope,) = torch.autograd.grad(three_steps(*at_zero, *tensors[2:]).sum(), at_zero[1])
    assert slope.isfinite()
    assert slope != 0


@pytest.mark.parametrize("decay_at", ["previous", "updated"])
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_the_factor_has_derivatives_at_zero(p, decay_at):
    w, lr = torch.tensor([0.0, 1.0]), torch.tensor(0.1)
    start = w.clone().requires_grad_()
    stepped = start.clone()
    stepped.grad = torch.ones(2)
    options = {"p": p, "weight_decay": 0.1, "decay_at": decay_at, "eps": 0.0}
    optimizer = PAdam([stepped], lr=1.0, differentiable=True, **options)
    optimizer.param_groups[0]["lr"] = lr.requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
        optimizer.step()
    slopes, by_lr = torch.autograd.grad(stepped.sum(), (start, lr))
    assert slopes.isfinite().all()
    assert by_lr.isfinite()
    if decay_at == "previous":  # near 0 the weight is û|w|^(2−p)/(pηλ) for û = −η
        assert slopes[0] == 0


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_the_factor_of_a_slow_s_has_derivatives_at_zero(p):
    w, inverse_s = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    stepped, state = w.clone(), inverse_s.clone()
    options = {"amsgrad": False, "beta1": 0.0, "beta2": 0.0, "beta_s": 0.5, "lr": 0.1, "eps": 0.0}
    options |= {"weight_decay": 0.2, "p": p, "lambda_2": 0.0, "differentiable": True}
    moments = [torch.zeros(1)], [torch.zeros(1)], [], [state], [torch.tensor(0.0)]
    dynamic_padam([stepped], [torch.ones(1)], *moments, **options)
    by_w, slope = torch.autograd.grad(stepped, (w, inverse_s))
    # û = −0.1, half of 1/s is new, and the factor's slope at 0 is 1/(pηλ).
    torch.testing.assert_close(slope, torch.tensor([-0.1 * 0.5 / (p * 0.1 * 0.2)]))
    assert by_w == 0


def test_there_is_no_derivative_at_zero_for_p_between_1_and_2():
    w = torch.tensor([0.0, 1.0, 0.0])
    w.grad = torch.ones(3)
    for p in (0.5, 1, 2):
        other = w.clone()
        other.grad = w.grad
        PAdam([other], p=p, differentiable=True).step()
    with pytest.raises(ValueError, match=r"infinite at w = 0 for p = 1.5, and 2 of 3 weights"):
        PAdam([w], p=1.5, differentiable=True).step()
    PAdam([w], p=1.5, weight_decay=0, lambda_2=0.1, differentiable=True).step()


class Operators(TorchDispatchMode):
    """The names of the operators that are called while it is on."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@both_paths
@pytest.mark.parametrize(
    ("cls", "options", "powers"),
    [
        (PAdam, {"p": 1}, False),
        (PAdam, {"p": 2}, False),
        (PAdam, {"p": 0.8, "weight_decay": 0}, False),
        (PAdam, {"p": 0.8}, True),
        (DynamicPAdam, {"p": 1}, False),
        (Padam, {"partial": 0.5}, False),
        (Padam, {"partial": 0.3}, True),
        (AdamExponent, {"exponent": 0.5}, False),
        (AdamExponent, {"exponent": 0.3}, True),
    ],
    ids=name,
)
def test_powers_are_taken_only_where_there_are_some(cls, options, powers, foreach):
    weights = some_weights()
    optimizer = cls(weights, foreach=foreach, **options)
    with Operators() as operators:
        train(optimizer, weights, 1)
    assert any("log2" in operator for operator in operators.names) == powers
    assert not any("pow" in operator for operator in operators.names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("power", [-1.999, -1.5, -1.2, -1, -0.5, 0, 0.25, 0.5, 0.6, 1, 1.9, 2])
def test_a_power_is_accurate_for_every_number(power, dtype):
    x = torch.logspace(-44.8, 38.5, 3001, dtype=torch.float64).to(dtype)
    x = x[x.double() ** power < 3e38]  # which float32 can hold
    x = torch.cat([x, x.new_tensor([0.0, 1.0, torch.inf, torch.nan])])
    exact = x.double() ** power
    raised = x.clone()
    _adam_family._raise_([raised], power)
    usual = (x > 1e-6) & (x < 1e6)
    root = power in (-1, -0.5, 0, 0.25, 0.5, 1, 2)
    unit = torch.finfo(dtype).eps
    for some, units in ((slice(None), 80), (usual, 30)):
        rtol = (1 if root else units) * unit
        torch.testing.assert_close(
            raised[some].double(), exact[some], rtol=rtol, atol=1e-38, equal_nan=True
        )
    assert raised[x == 1] == 1


class Peak(TorchDispatchMode):
    """The most bytes alive in tensors made while it is on."""

    def __init__(self):
        super().__init__()
        self.alive, self.bytes = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        before = torch.utils._pytree.tree_leaves((args, kwargs))
        old = {StorageWeakRef(t.untyped_storage()) for t in before if torch.is_tensor(t)}
        out = func(*args, **kwargs)
        for t in torch.utils._pytree.tree_leaves(out):
            if torch.is_tensor(t) and (ref := StorageWeakRef(t.untyped_storage())) not in old:
                self.alive[ref] = t.untyped_storage().nbytes()
        self.alive = {ref: n for ref, n in self.alive.items() if not ref.expired()}
        self.bytes = max(self.bytes, sum(self.alive.values()))
        return out


@pytest.mark.parametrize(
    ("cls", "options", "foreach", "tensors"),
    [
        (PAdam, {}, False, 2),
        (PAdam, {"maximize": True}, False, 2),
        (PAdam, {"decay_at": "updated"}, False, 1),
        (Padam, {"weight_decay": 0.1}, False, 1),
        (Padam, {"weight_decay": 0.1, "maximize": True}, False, 2),
        (AdamExponent, {"weight_decay": 0.1, "decoupled_weight_decay": True}, False, 1),
        (PAdam, {}, True, 16),
        (PAdam, {"p": 2}, True, 8),
        (PAdam, {"p": 1.5, "maximize": True}, True, 16),
        (DynamicPAdam, {}, True, 16),
        (DynamicPAdam, {}, False, 2),
        (DynamicPAdam, {}, None, 2),
        (PAdam, {"decay_at": "updated", "maximize": True}, True, 16),
        (Padam, {"weight_decay": 0.1, "maximize": True}, True, 16),
        (Padam, {}, True, 16),
        (AdamExponent, {"exponent": 0.3, "weight_decay": 0.1}, True, 16),
    ],
    ids=name,
)
def test_memory_is_bounded(cls, options, foreach, tensors):
    weights = [torch.ones(1000) for _ in range(16)]
    assert peak_of(cls(weights, foreach=foreach, **options), weights) == tensors


@both_paths
def test_memory_for_low_precision_is_bounded(foreach):
    # The weights, the factor and the denominator; the gradients are gone before the last. Foreach
    # takes a third of the weights at a time.
    weights = [torch.ones(1000).bfloat16() for _ in range(16)]
    assert peak_of(PAdam(weights, foreach=foreach), weights) == (15 if foreach else 3)


def peak_of(optimizer, weights):
    """Return the peak of temporaries in a step, in float32 tensors of 1000 numbers."""
    train(optimizer, weights, 1)
    with Peak() as peak:
        optimizer.step()
    return round(peak.bytes / 4000)


@both_paths
@pytest.mark.parametrize(
    ("cls", "key", "values"),
    [
        (PAdam, "p", [2.0, 1.9, 1.5, 1.0, 0.9, 2.0]),
        (PAdam, "weight_decay", [0.1, 0.2, 0.3, 0.0, 0.5, 0.6]),
        (PAdam, "lambda_2", [0.1, 0.2, 0.3, 0.0, 0.5, 0.6]),
        (Padam, "weight_decay", [0.1, 0.2, 0.3, 0.0, 0.5, 0.6]),
        (DynamicPAdam, "p", [2.0, 1.9, 1.5, 1.0, 0.9, 2.0]),
        (Padam, "partial", [0.5, 0.4, 0.3, 0.25, 0.125, 0.5]),
        (AdamExponent, "exponent", [0.5, 0.4, 0.3, 0.25, 0.125, 0.5]),
    ],
    ids=name,
)
def test_a_compiled_step_has_one_more_graph_for_a_number_that_moves(cls, key, values, foreach):
    torch._dynamo.reset()
    graphs = []

    def backend(module, _):
        graphs.append(module)
        return module.forward

    twins = [[torch.nn.Parameter(w) for w in some_weights()] for _ in range(2)]
    optimizers = [cls(weights, lr=torch.tensor(0.1), foreach=foreach) for weights in twins]
    with warnings.catch_warnings():
        # torch warns that a compiled optimizer has no profiler range.
        warnings.simplefilter("ignore")
        steps = [torch.compile(optimizers[0].step, backend=backend), optimizers[1].step]
        for number, value in enumerate(values):
            for weights, optimizer, step in zip(twins, optimizers, steps, strict=True):
                optimizer.param_groups[0][key] = value
                for w, g in zip(weights, some_gradients(weights, number), strict=True):
                    w.grad = g
                step()
    assert len(graphs) == 2
    for x, y in zip(*twins, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("cls", "options", "foreach", "tensor"),
    [
        (PAdam, {"p": 0.7}, False, True),
        (PAdam, {"p": 0.7}, False, False),
        (PAdam, {"p": 0.7, "lambda_2": 0.1}, True, True),
        (PAdam, {"decay_at": "updated"}, True, False),
        (PAdam, {"p": 2}, True, True),
        (Padam, {}, False, False),
        (Padam, {"decoupled_weight_decay": True, "weight_decay": 0.1}, True, True),
        (AdamExponent, {"exponent": 0.3}, False, True),
        (AdamExponent, {}, True, False),
    ],
    ids=name,
)
def test_a_compiled_step_follows_a_schedule(cls, options, foreach, tensor):
    torch._dynamo.reset()
    graphs = []

    def backend(module, _):
        graphs.append(module)
        return module.forward

    twins = [[torch.nn.Parameter(w) for w in some_weights(zero=True)] for _ in range(2)]
    steps, optimizers, schedulers = [], [], []
    for weights in twins:
        lr = torch.tensor(0.1) if tensor else 0.1
        optimizer = cls(weights, lr=lr, foreach=foreach, **options)
        rates = [0.5, 1.0, 0.7, 0.0, 0.3, 0.1, 0.0]
        schedulers.append(torch.optim.lr_scheduler.LambdaLR(optimizer, rates.__getitem__))
        optimizers.append(optimizer)
        steps.append(optimizer.step)
    with warnings.catch_warnings():
        # torch warns that a compiled optimizer has no profiler range.
        warnings.simplefilter("ignore")
        steps[0] = torch.compile(steps[0], backend=backend)
        for number in range(6):
            for weights, step, scheduler in zip(twins, steps, schedulers, strict=True):
                for w, g in zip(weights, some_gradients(weights, number), strict=True):
                    w.grad = g
                step()
                scheduler.step()
    assert len(graphs) == (1 if tensor else 2)
    for x, y in zip(*twins, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)
