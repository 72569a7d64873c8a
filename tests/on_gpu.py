"""What the kernel for GPUs computes: run on one, or interpreted by Triton where there is none.

Triton decides when it is imported, so that these tests need a process of their own;
test_fused_triton.py sees to that.
"""

import os

import numpy as np
import pytest
import torch

from beyond_adam.optim import AdamExponent, DynamicPAdam, PAdam, Padam, _fused, _fused_triton
from test_fused_step import (
    AVERAGES,
    FLOAT,
    LAYOUTS,
    PRECISIONS,
    RULES,
    TORCHS,
    assert_accurate,
    assert_averages_forget,
    assert_steps_are_torchs,
    draw,
    equal,
    magnitudes,
    name,
    train,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    """Step CPU tensors too by the kernel for GPUs, where it is interpreted."""
    if INTERPRETED:
        # One program is interpreted as fast as another, however many elements it has.
        monkeypatch.setattr(_fused_triton, "BLOCK", 8192)
        monkeypatch.setitem(_fused.KERNELS, "cpu", lambda _: _fused_triton.take_step)
    with np.errstate(all="ignore"):
        yield


def test_the_default_device_does_not_matter():
    with torch.device("meta"):
        _fused_triton.try_out(DEVICE)


# ---- the arithmetic ----


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize(
    ("cls", "options"), [*RULES, (DynamicPAdam, {"weight_decay": 0, "lambda_2": 0.1})], ids=name
)
def test_a_step_is_that_of_the_for_loop(cls, options, dtype):
    sizes = [5, 0, 8192, 1, 8193, 1024, 300, 0]
    options = {"lr": 0.01, **options}
    weights = [draw(size, dtype=dtype, seed=i).to(DEVICE) for i, size in enumerate(sizes)]
    twins = [w.clone() for w in weights]
    # After a step in low precision both have other weights, by one rounding. Interpreted, numbers
    # are cut off to bfloat16.
    exact, low = dtype == torch.float64, {torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(dtype)
    steps = range(1 if low else 3)
    gradients = [[draw(n, seed=7 * i + n, dtype=dtype).to(DEVICE) for n in sizes] for i in steps]
    states = train(cls, weights, gradients, **options)
    others = train(cls, twins, gradients, fused=False, **options)
    for w, twin, state, other in zip(weights, twins, states, others, strict=True):
        atol = 1e-12 if exact else 1e-6
        torch.testing.assert_close(w, twin, rtol=low or (1e-10 if exact else 1e-5), atol=atol)
        for key, value in other.items():
            rtol = 1e-10 if exact else 1e-4
            torch.testing.assert_close(state[key], value, rtol=rtol, atol=atol)


@pytest.mark.parametrize("decay_at", ["previous", "updated"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8, 1.0, 1.5, 1.999, 2.0])
def test_the_factor_is_accurate_for_every_weight(p, decay_at):
    w = magnitudes().to(DEVICE)
    for gradient in (torch.zeros_like(w), -torch.where(w == 0, 1.0, w.sign())):
        moved = w.clone()
        train(PAdam, [moved], [[gradient]], lr=1.0, weight_decay=0)
        x = (w if decay_at == "previous" else moved).double().abs()
        for strength, square in ((1e-36, 0.1), (1e-8, 0.0), (1e-3, 1e4), (1.0, 0.0), (1e6, 0.1)):
            new = w.clone()
            decays = {"weight_decay": strength / p, "lambda_2": square}
            train(PAdam, [new], [[gradient]], lr=1.0, p=p, decay_at=decay_at, **decays)
            assert new.isfinite().all()
            factor = 1 / (1 + square + strength * x ** (p - 2))
            if p < 2:
                assert (new[x == 0] == 0).all()
            normal = factor > FLOAT.tiny
            assert normal.sum() > 2000
            exact = factor * moved.double()
            rtol = 1e-5 if strength >= 1e-3 else 2e-5
            assert_accurate(new[normal], exact[normal], rtol, least=FLOAT.tiny)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(
    ("cls", "c"),
    [
        *((Padam, c) for c in (0.5, 0.25, 0.125, 0.3)),
        *((AdamExponent, c) for c in (0, 0.25, 0.3, 0.5, 1)),
    ],
    ids=name,
)
def test_every_power_of_the_second_moment_is_accurate(cls, c, amsgrad):
    v = magnitudes().abs().to(DEVICE)
    w, own = torch.zeros_like(v), {"partial": c} if cls is Padam else {"exponent": c}
    w.grad = torch.zeros_like(w)
    options = {"eps": 1e-8, "amsgrad": amsgrad, "betas": (0.9, 0.99), **own}
    optimizer = cls([w], lr=1.0, fused=True, **options)
    moments = {"exp_avg": torch.full_like(v, 1e-3), "exp_avg_sq": v.clone()}
    if amsgrad:
        moments["max_exp_avg_sq"] = v.clone()
    state = optimizer.state[w] = {"step": torch.tensor(1e6), **moments}
    optimizer.step()
    m, v = state["exp_avg"].double(), state["exp_avg_sq"].double()
    v = state["max_exp_avg_sq"].double() if amsgrad else v
    denominator = (v**0.5 + 1e-8) ** (2 * c) if cls is Padam else v**c + 1e-8
    assert_accurate(w, -(m / denominator))


@PRECISIONS
@TORCHS
def test_a_step_is_torchs_within_two_units_of_the_last_place(ours, theirs, dtype):
    assert_steps_are_torchs(ours, theirs, dtype, DEVICE)


@AVERAGES
def test_moving_averages_forget_what_was_large(betas):
    assert_averages_forget(betas, DEVICE)


# ---- memory ----


@pytest.mark.parametrize(("of_weights", "of_gradients"), LAYOUTS, ids=lambda f: f.__name__)
def test_any_layout_gives_the_same_bits(of_weights, of_gradients):
    shapes = [(4, 3, 5, 2), (6, 7, 1, 1)]
    starts = [draw(*shape) for shape in shapes]
    grads = [[draw(*shape, seed=i) for shape in shapes] for i in (1, 2)]
    usual = [w.clone().to(DEVICE) for w in starts]
    states = train(PAdam, usual, [[g.to(DEVICE) for g in some] for some in grads], amsgrad=True)
    weights = [of_weights(w.to(DEVICE)) for w in starts]
    given = [[of_gradients(g.to(DEVICE)) for g in some] for some in grads]
    versions = [w._version for w in weights]
    found = train(PAdam, weights, given, amsgrad=True)
    assert equal(usual, weights)
    for state, other in zip(states, found, strict=True):
        assert equal(state.values(), other.values())
    assert all(w._version > version for w, version in zip(weights, versions, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65])
def test_every_tensor_is_found_in_the_table(count):
    sizes = [(37 * i) % 20 for i in range(count - 1)] + [20000]
    whole, grad = draw(sum(sizes)).to(DEVICE), draw(sum(sizes), seed=1).to(DEVICE)
    parts = [part.clone() for part in whole.split(sizes)]
    states = train(PAdam, parts, [[*grad.split(sizes)]] * 2, p=0.8)
    (state,) = train(PAdam, [whole], [[grad]] * 2, p=0.8)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)
    assert torch.equal(torch.cat([s["exp_avg"] for s in states]), state["exp_avg"])
    assert {s["step"].item() for s in states} == {2.0}


def test_a_tensor_may_have_many_blocks(monkeypatch):
    monkeypatch.setattr(_fused_triton, "BLOCK", 16)
    sizes = (100, 1, 2400)
    weights = [draw(size).to(DEVICE) for size in sizes]
    twins = [w.clone() for w in weights]
    grads = [[draw(size, seed=1).to(DEVICE) for size in sizes]]
    train(PAdam, weights, grads)
    train(PAdam, twins, grads, fused=False)
    for w, twin in zip(weights, twins, strict=True):
        torch.testing.assert_close(w, twin, rtol=1e-5, atol=1e-7)


def test_tensors_may_have_taken_other_numbers_of_steps():
    late, early = draw(10).to(DEVICE), draw(10, seed=1).to(DEVICE)
    twins = [late.clone(), early.clone()]
    optimizers = [PAdam([late, early], fused=True), PAdam(twins, foreach=False)]
    for step in range(3):
        for optimizer in optimizers:
            first, second = optimizer.param_groups[0]["params"]
            first.grad = None if step == 0 else torch.ones_like(first)
            second.grad = torch.ones_like(second)
            optimizer.step()
    torch.testing.assert_close(late, twins[0])
    torch.testing.assert_close(early, twins[1])
    assert [state["step"].item() for state in optimizers[0].state.values()] == [3, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_steps_are_counted_in_either_precision(dtype):
    w = draw(10).to(DEVICE)
    w.grad = torch.ones_like(w)
    optimizer = PAdam([w], fused=True)
    optimizer.step()
    optimizer.state[w]["step"] = torch.tensor(2.0**24 - 1, dtype=dtype)
    for count in (2**24, 2**24 + (dtype == torch.float64)):
        optimizer.step()
        assert optimizer.state[w]["step"].item() == count


def test_it_can_be_tried_out():
    _fused_triton.try_out(DEVICE)


def test_a_scaled_gradient_is_unscaled_on_the_fly():
    w = draw(100).to(DEVICE)
    twin = w.clone()
    optimizer = PAdam([w], fused=True)
    w.grad = 1024 * draw(100, seed=1).to(DEVICE)
    optimizer.grad_scale = torch.tensor(1024.0, device=DEVICE)
    optimizer.found_inf = torch.tensor(0.0, device=DEVICE)
    optimizer.step()
    train(PAdam, [twin], [[draw(100, seed=1).to(DEVICE)]])
    assert torch.equal(w, twin)
