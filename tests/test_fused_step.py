"""The kernel behind ``fused=True``: its arithmetic, memory, compilers, and scaled gradients.

What every way to take a step must do is in test_adam_family.py.
"""

import copy
import itertools
import os
import shutil
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from beyond_adam.optim import (
    AdamExponent,
    DynamicPAdam,
    PAdam,
    Padam,
    PNormScheduler,
    _fused,
)
from beyond_adam.optim.functional import adam_exponent, dynamic_padam, padam, partial_adam

CLASSES = [PAdam, DynamicPAdam, Padam, AdamExponent]
FUNCTIONS = [padam, dynamic_padam, partial_adam, adam_exponent]
RULES = [
    (PAdam, {}),
    (PAdam, {"weight_decay": 0, "amsgrad": True}),
    (PAdam, {"p": 0.5, "amsgrad": True, "partial": 0.125}),
    (PAdam, {"p": 0.8, "partial": 0.3}),
    (PAdam, {"p": 1.3, "decay_at": "updated", "maximize": True}),
    (PAdam, {"p": 1.5, "lambda_2": 0.3}),
    (PAdam, {"p": 2, "betas": (0.3, 0.4)}),
    (PAdam, {"betas": (0.0, 0.0), "amsgrad": True}),
    (DynamicPAdam, {}),
    (DynamicPAdam, {"p": 1.3, "beta_s": 0.3}),
    (Padam, {"weight_decay": 0.1}),
    (Padam, {"partial": 0.3, "amsgrad": False, "decoupled_weight_decay": True}),
    (AdamExponent, {"exponent": 0.3, "weight_decay": 0.1}),
    (AdamExponent, {"exponent": 0.0}),
    (AdamExponent, {"exponent": 1.0, "bias_correction": False, "amsgrad": True}),
]
FLOAT = torch.finfo(torch.float32)
LEAST = 2.0**-149
"""The least positive float32."""


def name(value):
    if isinstance(value, type) or callable(value):
        return getattr(value, "__name__", None)
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items()) or "defaults"
    return None


every_rule = pytest.mark.parametrize(("cls", "options"), RULES, ids=name)
every_class = pytest.mark.parametrize("cls", CLASSES, ids=name)


@pytest.fixture(autouse=True)
def kernel():
    """Without the kernel, most tests here would compare other paths with themselves."""
    assert _fused.library() is not None


def draw(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def train(cls, weights, gradients, *, fused=True, **options):
    """Take a step for each list of gradients; return the states."""
    path = {"fused": True} if fused else {"foreach": False}
    optimizer = cls(weights, **options, **path)
    for grads in gradients:
        for w, g in zip(weights, grads, strict=True):
            w.grad = g
        optimizer.step()
    return [optimizer.state[w] for w in weights]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def assert_accurate(found, exact, rtol=1e-5, least=2 * LEAST):
    """Compare with float64 results; those of float32 below its normal numbers have few digits."""
    exact = exact.float().double()  # which may overflow
    torch.testing.assert_close(found.double(), exact, rtol=rtol, atol=least, equal_nan=True)


def magnitudes():
    """Return float32 numbers of both signs and all sizes, subnormal ones and 0 too."""
    exponents = torch.linspace(-44.8, 38.5, 3001, dtype=torch.float64)
    some = torch.cat([10**exponents, torch.tensor([LEAST, FLOAT.tiny, 1.0, FLOAT.max])]).float()
    return torch.cat([some, -some, torch.zeros(2)])


@pytest.mark.parametrize("decay_at", ["previous", "updated"])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.8, 1.0, 1.3, 1.5, 1.9, 1.999, 2.0])
def test_the_factor_is_accurate_for_every_weight(p, decay_at):
    w = magnitudes()
    options = {"p": p, "decay_at": decay_at, "lr": 1.0}
    # û is w, and then 1 farther from 0.
    for gradient in (torch.zeros_like(w), -torch.where(w == 0, 1.0, w.sign())):
        moved = w.clone()
        train(PAdam, [moved], [[gradient]], lr=1.0, weight_decay=0)
        x = (w if decay_at == "previous" else moved).double().abs()
        for strength, square in itertools.product(
            (1e-36, 1e-12, 1e-8, 1e-3, 1.0, 1e3, 1e6), (0.0, 0.1, 1e4)
        ):
            new = w.clone()
            decays = {"weight_decay": strength / p, "lambda_2": square}
            train(PAdam, [new], [[gradient]], **options, **decays)
            assert new.isfinite().all()
            factor = 1 / (1 + square + strength * x ** (p - 2))
            if p < 2:
                assert (new[x == 0] == 0).all()
            # Below the normal numbers the factor may be anything as small.
            normal = factor > FLOAT.tiny
            assert normal.sum() > 2000
            exact = factor * moved.double()
            rtol = 1e-5 if strength >= 1e-3 else 1.6e-5
            assert_accurate(new[normal], exact[normal], rtol)
            if strength <= 1e3:
                usual = (w.abs() > 1e-6) & (w.abs() < 1e6)
                assert_accurate(new[usual], exact[usual], rtol=5e-6)


@pytest.mark.parametrize("decay_at", ["previous", "updated"])
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0, 1.5, 1.9])
def test_no_strength_makes_a_weight_infinite(p, decay_at):
    w = magnitudes()
    for lr, decay, square in itertools.product((1e-30, 1.0), (1e-30, 1e30, 1e300), (0, 1e30)):
        new = w.clone()
        options = {"lr": lr, "weight_decay": decay, "lambda_2": square}
        train(PAdam, [new], [[torch.ones_like(w)]], p=p, decay_at=decay_at, **options)
        assert new.isfinite().all()
        if decay_at == "previous":
            assert (new[w == 0] == 0).all() == (p * lr * decay >= FLOAT.tiny)


def preset(cls, m, v, options):
    """Step weights of 0 without a gradient, but with these moments, late in training."""
    w = torch.zeros_like(m)
    w.grad = torch.zeros_like(m)
    optimizer = cls([w], lr=1.0, fused=True, **options)
    moments = {"exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    if optimizer.defaults["amsgrad"]:
        moments["max_exp_avg_sq"] = v.clone()
    optimizer.state[w] = {"step": torch.tensor(1e6), **moments}
    optimizer.step()
    return w, optimizer.state[w]


@pytest.mark.parametrize("eps", [0.0, 1e-8, 1e-2])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(
    ("cls", "c"),
    [
        *((Padam, c) for c in (0.5, 0.25, 0.125, 0.0625, 0.3, 0.05)),
        *((AdamExponent, c) for c in (0, 0.125, 0.25, 0.3, 0.5, 0.7, 1)),
    ],
    ids=name,
)
def test_every_power_of_the_second_moment_is_accurate(cls, c, amsgrad, eps):
    v = magnitudes().abs()
    v = torch.cat([v, torch.tensor([torch.inf])])
    m = torch.full_like(v, 1e-3)
    own = {"partial": c} if cls is Padam else {"exponent": c}
    w, state = preset(cls, m, v, {"eps": eps, "amsgrad": amsgrad, "betas": (0.9, 0.99), **own})
    m, v = state["exp_avg"].double(), state["exp_avg_sq"].double()
    if amsgrad:
        v = state["max_exp_avg_sq"].double()
    denominator = (v**0.5 + eps) ** (2 * c) if cls is Padam else v**c + eps
    assert_accurate(w, -(m / denominator))


@pytest.mark.parametrize("beta_s", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8, 1.0, 1.5, 1.9, 2.0])
def test_a_dynamic_decay_is_accurate(p, beta_s):
    w = magnitudes()
    w = w[w.abs().double() ** (2 - p) < FLOAT.max]
    for strength, square in itertools.product((0.0, 1e-8, 1e-3, 1.0, 1e3), (0.0, 0.1)):
        new = w.clone()
        decays = {"weight_decay": strength / p, "lambda_2": square, "p": p, "beta_s": beta_s}
        (state,) = train(DynamicPAdam, [new], [[torch.zeros_like(w)]], lr=1.0, **decays)
        inverse = beta_s + (1 - beta_s) * w.double().abs() ** (2 - p)
        assert_accurate(state["inverse_s"], inverse, least=FLOAT.tiny)
        factor = 1 / (1 + square + (strength / inverse if strength else 0.0))
        normal = factor > FLOAT.tiny
        assert_accurate(new[normal], (factor * w.double())[normal])


AVERAGES = pytest.mark.parametrize("betas", [(0.0, 0.0), (0.2, 0.9), (0.9, 0.999)], ids=str)


def assert_averages_forget(betas, device="cpu"):
    w, m = torch.ones(3, device=device), 0.0
    optimizer = PAdam([w], betas=betas, fused=True)
    for g in (1e9, 1.0, 1e-9):
        w.grad = torch.full_like(w, g)
        optimizer.step()
        m = betas[0] * m + (1 - betas[0]) * w.grad.double()
        assert_accurate(optimizer.state[w]["exp_avg"], m, rtol=1e-6)


@AVERAGES
def test_moving_averages_forget_what_was_large(betas):
    assert_averages_forget(betas)


def in_last_places(found, expected, scale):
    """Return the difference in units of the last place of numbers as large as `scale`."""
    unit = torch.nextafter(scale, torch.full_like(scale, torch.inf)) - scale
    return (found - expected).abs().double() / unit.double()


TORCHS = pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (partial(PAdam, weight_decay=0), torch.optim.Adam),
        (partial(PAdam, weight_decay=0, amsgrad=True), partial(torch.optim.Adam, amsgrad=True)),
        (
            partial(AdamExponent, weight_decay=1.0, maximize=True),
            partial(torch.optim.Adam, weight_decay=1.0, maximize=True),
        ),
        (
            partial(AdamExponent, weight_decay=0.3, amsgrad=True),
            partial(torch.optim.Adam, weight_decay=0.3, amsgrad=True),
        ),
        (
            partial(AdamExponent, weight_decay=0.3, decoupled_weight_decay=True),
            partial(torch.optim.AdamW, weight_decay=0.3),
        ),
        (partial(Padam, eps=0.0, partial=0.5), partial(torch.optim.Adam, eps=0.0, amsgrad=True)),
    ],
    ids=["PAdam", "PAdam-amsgrad", "AdamExponent", "coupled", "decoupled", "Padam"],
)
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def assert_steps_are_torchs(ours, theirs, dtype, device="cpu"):
    """Compare steps within two units of the last place."""
    w = draw(5000, dtype=dtype).to(device)
    twin = w.clone()
    a, b = ours([w], lr=0.01, fused=True), theirs([twin], lr=0.01, foreach=False)
    for step in range(10):
        w.grad = twin.grad = draw(5000, seed=step + 1, dtype=dtype).to(device)
        before = twin.clone()
        a.step()
        b.step()
        scale = torch.maximum(before.abs(), twin.abs())
        assert in_last_places(w, twin, scale.clamp_min(0.05)).max() <= 2
        assert not torch.equal(before, twin)
        for key, value in b.state[twin].items():
            # Sums that cancel have fewer digits: count from what the largest gradients add.
            added = {"step": 0.0, "exp_avg": 0.1 * 5}.get(key, 0.001 * 5**2)
            assert in_last_places(a.state[w][key], value, value.abs() + added).max() <= 2
            a.state[w][key].copy_(value)
        w.copy_(twin)


@PRECISIONS
@TORCHS
def test_a_step_is_torchs_within_two_units_of_the_last_place(ours, theirs, dtype):
    assert_steps_are_torchs(ours, theirs, dtype)


# ---- sizes, threads and layouts ----


@pytest.fixture
def threads():
    """Return a function that sets the number of threads, until the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


SIZES = [
    (1,),
    (255,),
    (256,),
    (257,),
    (32767, 2),
    (65535,),
    (65536,),
    (65537,),
    (65536 * 2 + 3,),
    (5, 0, 40000, 1, 256, 70001, 0, 300),
    (0,),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size_and_number_of_threads_gives_the_same_bits(sizes, dtype, threads):
    options = {"p": 0.8, "weight_decay": 0.3, "partial": 0.3, "amsgrad": True, "lr": 0.01}
    start, gradients = draw(sum(sizes), dtype=dtype), [draw(sum(sizes), seed=i) for i in (1, 2)]
    gradients = [g.to(dtype) for g in gradients]
    runs = []
    for count in (1, 2, 3):
        threads(count)
        weights = [part.clone() for part in start.split(sizes)]
        states = train(PAdam, weights, [[*g.split(sizes)] for g in gradients], **options)
        kept = zip(*(list(state.values())[1:] for state in states), strict=True)
        runs.append([torch.cat(parts) for parts in (weights, *kept)])
        assert [state["step"] for state in states] == [2] * len(sizes)
    assert equal(runs[0], runs[1])
    assert equal(runs[0], runs[2])
    # Each element is stepped alike wherever it lies in a block or in a share.
    few = torch.cat([start[:100], start[-100:]])
    parts = [torch.cat([g[:100], g[-100:]]) for g in gradients]
    train(PAdam, [few], [[g] for g in parts], **options)
    assert torch.equal(torch.cat([runs[0][0][:100], runs[0][0][-100:]]), few)
    usual = start.clone()
    (state,) = train(PAdam, [usual], [[g] for g in gradients], fused=False, **options)
    rtol = 1e-12 if dtype == torch.float64 else 1e-2 if dtype == torch.bfloat16 else 1e-5
    for found, right in zip(runs[0], (usual, *list(state.values())[1:]), strict=True):
        torch.testing.assert_close(found, right, rtol=rtol, atol=1e-7)


def offset(tensor):
    """Lay a copy into a larger buffer, at an address that no vector instruction likes."""
    buffer = torch.full((tensor.numel() + 8,), 7.0, dtype=tensor.dtype)
    return buffer[3 : 3 + tensor.numel()].view(tensor.shape).copy_(tensor)


def gapped(tensor):
    """Lay a copy into a buffer with gaps between the rows and between the elements."""
    rows, columns = tensor.shape[0], tensor[0].numel()
    buffer = torch.full((rows * (2 * columns + 5) + 9,), 7.0, dtype=tensor.dtype)
    view = buffer.as_strided((rows, columns), (2 * columns + 5, 2), 4)
    view.copy_(tensor.reshape(rows, columns))
    strides = [2 * columns + 5, *(2 * stride for stride in tensor[0].contiguous().stride())]
    return buffer.as_strided(tensor.shape, strides, 4)


def transposed(tensor):
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def negative(tensor):
    """Return the same values as a view of memory that holds their negatives."""
    pairs = torch.stack([torch.zeros_like(tensor), -tensor], -1)
    return torch.view_as_complex(pairs).conj().imag


def negative_and_dense(tensor):
    return torch._neg_view(-tensor)


def plain(tensor):
    return tensor.clone()


LAYOUTS = [
    (offset, plain),
    (plain, offset),
    (gapped, plain),
    (plain, gapped),
    (gapped, gapped),
    (transposed, plain),
    (plain, transposed),
    (transposed, transposed),
    (channels_last, plain),
    (plain, channels_last),
    (channels_last, channels_last),
    (channels_last, transposed),
    (plain, negative),
    (plain, negative_and_dense),
    (channels_last, lambda tensor: negative_and_dense(channels_last(tensor))),
]


@pytest.mark.parametrize("cls", [PAdam, DynamicPAdam], ids=name)
@pytest.mark.parametrize(
    ("of_weights", "of_gradients"), LAYOUTS, ids=lambda f: f.__name__.strip("<>")
)
def test_any_layout_gives_the_same_bits(cls, of_weights, of_gradients):
    shapes = [(4, 3, 5, 2), (6, 7, 1, 1)]
    starts = [draw(*shape) for shape in shapes]
    grads = [[draw(*shape, seed=i) for shape in shapes] for i in (1, 2)]
    usual = [w.clone() for w in starts]
    states = train(cls, usual, grads, amsgrad=True, lr=0.1)
    weights = [of_weights(w) for w in starts]
    given = [[of_gradients(g) for g in some] for some in grads]
    outside = [torch.ones(w.untyped_storage().nbytes() // 4) for w in weights]
    for flags, w in zip(outside, weights, strict=True):
        flags.as_strided(w.shape, w.stride(), w.storage_offset()).fill_(0)
    strides = [w.stride() for w in weights]
    versions = [g._version for some in given for g in some]
    others = train(cls, weights, given, amsgrad=True, lr=0.1)
    assert equal(weights, usual)
    for state, other in zip(states, others, strict=True):
        assert equal(other.values(), state.values())
    # Neither the gradients nor what lies between the weights was written.
    assert all(equal(some, others) for some, others in zip(given, grads, strict=True))
    assert all(w.grad is g for w, g in zip(weights, given[-1], strict=True))
    assert [g._version for some in given for g in some] == versions
    assert [w.stride() for w in weights] == strides
    for flags, w in zip(outside, weights, strict=True):
        memory = w.as_strided(flags.shape, (1,), 0)
        assert (memory[flags == 1] == 7.0).all()
    assert any(flags.any() for flags in outside) == (of_weights in (offset, gapped))


@pytest.mark.parametrize("lay", [negative, negative_and_dense], ids=lambda f: f.__name__)
def test_a_weight_whose_memory_holds_its_negative_is_stepped_as_usual(lay):
    w, twin = lay(draw(3, 4)), draw(3, 4)
    train(PAdam, [w], [[torch.ones(3, 4)]], lr=0.1)
    train(PAdam, [twin], [[torch.ones(3, 4)]], lr=0.1)
    torch.testing.assert_close(w.resolve_neg(), twin)


def test_a_gradient_of_one_number_repeated_is_read_as_it_is():
    w, twin = torch.ones(3, 4), torch.ones(3, 4)
    train(PAdam, [w], [[torch.tensor(2.0).expand(3, 4)]])
    train(PAdam, [twin], [[torch.full((3, 4), 2.0)]])
    assert torch.equal(w, twin)


@every_rule
def test_all_that_is_written_has_a_new_version(cls, options):
    weights = [draw(3, 4), draw(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)]
    gradients = [torch.ones_like(weights[0]), torch.ones(2, 3, 4, 5)]
    states = train(cls, weights, [gradients], **options)
    written = [*weights, *(tensor for state in states for tensor in state.values())]
    before = [tensor._version for tensor in written]
    optimizer = cls(weights, fused=True, **options)
    for w, state in zip(weights, states, strict=True):
        optimizer.state[w] = state
    optimizer.step()
    assert all(t._version > old for t, old in zip(written, before, strict=True))


def test_autograd_notices_that_a_weight_has_changed():
    w = torch.nn.Parameter(torch.ones(3))
    loss = (w**2).sum()
    w.grad = torch.ones(3)
    PAdam([w], fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- what the kernel leaves to the other ways ----


def arguments(function, weights, gradients, counter=torch.float32):
    """Return the arguments of a function of `functional` for its first step."""
    kept = [torch.promote_types(w.dtype, torch.float32) for w in weights]
    likes = [*zip(weights, kept, strict=True)]
    lists = [[torch.zeros_like(w, dtype=dtype) for w, dtype in likes] for _ in range(3)]
    if function is dynamic_padam:
        lists.append([torch.ones_like(w, dtype=dtype) for w, dtype in likes])
    steps = [torch.tensor(0, dtype=counter) for _ in weights]
    own = {
        padam: {"p": 0.8, "partial": 0.3},
        dynamic_padam: {"p": 0.8},
        partial_adam: {"partial": 0.3},
        adam_exponent: {"exponent": 0.3},
    }[function]
    options = {"beta1": 0.9, "beta2": 0.99, "lr": 0.1, "eps": 1e-8, "weight_decay": 0.1}
    return [weights, gradients, *lists, steps], {"amsgrad": True, **options, **own}


@pytest.fixture
def left(monkeypatch):
    """Return a list that is filled with the numbers of tensors that the kernel leaves."""
    lengths = []
    take_step = _fused.take_step

    def record(*arguments):
        left = take_step(*arguments)
        lengths.append(len(left))
        return left

    monkeypatch.setattr(_fused, "take_step", record)
    return lengths


BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


@pytest.mark.parametrize("function", FUNCTIONS, ids=name)
@pytest.mark.parametrize(
    ("dtypes", "counter", "leaves"),
    [
        ([(F64, F64), (F32, F32), (F16, F16), (BF16, BF16), (F32, F32)], F32, 0),
        ([(F64, F64), (F32, F32), (F16, F16)], F64, 0),
        ([(F64, F64), (F32, F32)], torch.int64, 2),
        ([(BF16, F32), (F32, F32), (F16, F32)], F32, 2),
        ([(BF16, F16), (F16, BF16)], F32, 2),
    ],
    ids=["mixed", "steps of float64", "integer steps", "longer gradients", "other gradients"],
)
def test_what_does_not_suit_the_kernel_is_stepped_as_usual(function, dtypes, counter, leaves, left):
    runs = []
    for path in ({"fused": True}, {"foreach": False}):
        weights = [draw(i + 3).to(dtype) for i, (dtype, _) in enumerate(dtypes)]
        gradients = [draw(i + 3).to(dtype) for i, (_, dtype) in enumerate(dtypes)]
        lists, options = arguments(function, weights, gradients, counter)
        function(*lists, **options, **path)
        function(*lists, **options, **path)
        assert [step.item() for step in lists[-1]] == [2] * len(dtypes)
        runs.append([x for column in lists for x in column])
    assert left == [leaves] * 2
    for found, right in zip(*runs, strict=True):
        assert found.dtype == right.dtype
        rtol = 1e-2 if found.dtype in (BF16, F16) else 1e-5
        torch.testing.assert_close(found, right, rtol=rtol, atol=1e-7)


@every_class
def test_the_kernel_never_reads_or_writes_past_a_state_that_does_not_fit(cls):
    """The errors are those of the usual way."""
    for data in (torch.ones(1000).double(), torch.ones(2000), torch.ones(3)):
        w = torch.nn.Parameter(torch.ones(1000))
        (state,) = train(cls, [w], [[torch.ones(1000)]])
        optimizer = cls([w], fused=True)
        optimizer.state[w] = state
        w.data = data
        w.grad = torch.ones_like(w)
        before = w.detach().clone()
        with pytest.raises(RuntimeError, match=r"dtype|size"):
            optimizer.step()
        assert torch.equal(w, before)


def test_a_state_on_another_device_is_an_error_as_usual():
    w = torch.ones(3)
    (state,) = train(PAdam, [w], [[torch.ones(3)]])
    optimizer = PAdam([w], fused=True)
    for elsewhere in (
        {"exp_avg": torch.ones(3, device="meta")},
        {"step": state["step"].to("meta")},
    ):
        optimizer.state[w] = state | elsewhere
        with pytest.raises(RuntimeError, match="meta"):
            optimizer.step()


def test_a_gradient_without_memory_is_0(left):
    w, twin = torch.ones(3), torch.ones(3)
    train(PAdam, [w], [[torch._efficientzerotensor(3)]])
    assert left == [1]
    train(PAdam, [twin], [[torch.zeros(3)]])
    assert torch.equal(w, twin)


# ---- NaN and infinity ----


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_nan_and_infinity_spread_as_usual(cls, options, dtype):
    odd = torch.tensor([0.0, 1.5, -2.5, torch.inf, -torch.inf, torch.nan, 1e30], dtype=dtype)
    w, first, second = (x.flatten() for x in torch.meshgrid(odd, odd, odd, indexing="ij"))
    gradients = [[first], [second], [torch.ones_like(w)]]
    runs = []
    for fused in (True, False):
        new = w.clone()
        (state,) = train(cls, [new], gradients, fused=fused, **options)
        runs.append([new, *state.values()])
    assert runs[0][0].isnan().any()
    for found, right in zip(*runs, strict=True):
        assert torch.equal(found.isnan(), right.isnan())
        assert torch.equal(found.isposinf(), right.isposinf())
        assert torch.equal(found.isneginf(), right.isneginf())


@pytest.mark.parametrize("grad", [0.0, 1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("peak", [0.0, 5.0, float("nan"), float("inf")])
def test_the_maximum_keeps_either_nan(peak, grad):
    w = torch.ones(300)
    w.grad = torch.full((300,), grad)
    optimizer = Padam([w], fused=True)
    moments = {"exp_avg": torch.zeros(300), "exp_avg_sq": torch.zeros(300)}
    maximum = torch.full((300,), peak)
    optimizer.state[w] = {"step": torch.tensor(1.0), **moments, "max_exp_avg_sq": maximum.clone()}
    optimizer.step()
    state = optimizer.state[w]
    right = torch.maximum(maximum, state["exp_avg_sq"])
    torch.testing.assert_close(state["max_exp_avg_sq"], right, rtol=0, atol=0, equal_nan=True)


# ---- torch.amp.GradScaler ----

SCALED_PATHS = {
    "fused": [{"fused": True}] * 2,
    "one of two groups": [{"fused": True}, {"fused": False}],
    "none": [{"fused": False}] * 2,
    "foreach": [{"fused": True}, {"foreach": True}],
    "without a kernel": [{"fused": True}] * 2,
}


def scaled_backward(scaler, weights, gradients):
    """Give the weights these gradients, times the scale."""
    for w in weights:
        w.grad = None
    products = zip(weights, gradients, strict=True)
    scaler.scale(torch.stack([(w * g).sum() for w, g in products]).sum()).backward()


@pytest.mark.parametrize("unscale", [False, True], ids=["by the step", "by the caller"])
@pytest.mark.parametrize("paths", SCALED_PATHS, ids=str)
@every_class
def test_a_grad_scaler_changes_nothing_but_skips_what_overflows(cls, paths, unscale, monkeypatch):
    if paths == "without a kernel":
        monkeypatch.setattr(_fused, "library", lambda: None)
    shapes = [(3, 4), (5,)]
    weights, twins = ([torch.nn.Parameter(draw(*s)) for s in shapes] for _ in range(2))
    groups = [{"params": [w]} | path for w, path in zip(weights, SCALED_PATHS[paths], strict=True)]
    optimizer = cls(groups, lr=0.1, maximize=True)
    groups = [{"params": [w]} | path for w, path in zip(twins, SCALED_PATHS[paths], strict=True)]
    twin = cls(groups, lr=0.1, maximize=True)
    assert optimizer._step_supports_amp_scaling == (paths != "none")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step, overflows in enumerate((True, False, True, False)):
        scale = scaler.get_scale()
        gradients = [draw(*shape, seed=step + 1) for shape in shapes]
        if overflows:
            gradients[1][2] = torch.inf if step else torch.nan
        scaled_backward(scaler, weights, gradients)
        own = unscale or paths == "none"  # then the scaler unscales the gradients themselves
        left = [g if own else g * scale for g in gradients]
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        for w, g in zip(weights, left, strict=True):
            torch.testing.assert_close(w.grad, g, rtol=0, atol=0, equal_nan=True)
        if not overflows:
            for w, g in zip(twins, gradients, strict=True):
                w.grad = g
            twin.step()
        assert scaler.get_scale() == scale * (0.5 if overflows else 1)
        assert equal(weights, twins)
        assert len(optimizer.state) == (2 if step else 0)
        for w, other in zip(weights, twins, strict=True):
            assert equal(optimizer.state.get(w, {}).values(), twin.state.get(other, {}).values())
    assert not equal(weights, [draw(*shape) for shape in shapes])


def test_a_grad_scaler_finds_nothing_to_step():
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    w = torch.ones(2)
    scaler.step(PAdam([w], fused=True))
    assert torch.equal(w, torch.ones(2))


FUNCTION_PATHS = [{"fused": True}, {"foreach": True}, {"foreach": False}]


@pytest.mark.parametrize("path", FUNCTION_PATHS, ids=name)
@pytest.mark.parametrize("function", FUNCTIONS, ids=name)
def test_functions_unscale_without_writing_the_gradients(function, path):
    results = []
    for scale in (1.0, 2.0**10, 3.0):
        weights, given = (
            [draw(3, 4), draw(5)],
            [draw(3, 4, seed=1) * scale, draw(5, seed=2) * scale],
        )
        before = [g.clone() for g in given]
        lists, options = arguments(function, weights, given)
        scaling = {} if scale == 1 else {"grad_scale": torch.tensor(scale)}
        function(*lists, **options, **scaling, **path)
        assert equal(given, before)
        results.append([x for i, column in enumerate(lists) if i != 1 for x in column])
        start = [x.clone() for x in results[-1]]
        function(*lists, **options, **scaling, **path, found_inf=torch.tensor(1.0))
        assert equal(results[-1], start)
        results[-1] = start
        function(*lists, **options, **scaling, **path, found_inf=torch.tensor(0.0))
        assert lists[-1][0] == 2
    assert equal(results[0], results[1])
    for found, right in zip(results[2], results[0], strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("path", FUNCTION_PATHS, ids=name)
def test_unscaled_gradients_of_half_precision_may_be_too_small_for_it(path):
    """This is what the loss is scaled for."""
    weights, scale = [torch.ones(3).half()], 2.0**16
    lists, options = arguments(padam, weights, [torch.full((3,), 1e-3).half()])
    padam(*lists, **options, **path, grad_scale=torch.tensor(scale))
    right = 0.1 * lists[1][0].double() / scale
    assert 0 < right[0] < torch.finfo(torch.float16).smallest_normal / 1000
    assert_accurate(lists[2][0][0], right[0], rtol=1e-6)


# ---- compilers ----

COMPILER = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "c++")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Let the kernel be looked for again, with an empty cache, and forget it in the end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    _fused.library.cache_clear()
    yield monkeypatch
    _fused.library.cache_clear()


@pytest.fixture
def compiler(fresh, tmp_path):
    """Return a function that writes a compiler with whims, and returns its log of commands."""

    def write(whims=""):
        script, log = tmp_path / "compiler", tmp_path / "log"
        log.touch()
        # The last -O counts, and without optimisation it takes no time.
        lines = ["#!/bin/sh", f'echo "$@" >> "{log}"', whims, f'exec {COMPILER} "$@" -O0']
        script.write_text("\n".join(lines) + "\n")
        script.chmod(0o700)
        fresh.setenv("CXX", str(script))
        return lambda: [line for line in log.read_text().splitlines() if "-shared" in line]

    return write


def assert_stepped(fused):
    """Take a step with fused=True, by the kernel or not, and compare it with the usual one."""
    w, twin = draw(70000), draw(70000)
    options = {"p": 0.8, "weight_decay": 0.1, "lr": 0.1}
    train(PAdam, [w], [[draw(70000, seed=1)]], **options)
    train(PAdam, [twin], [[draw(70000, seed=1)]], fused=False, **options)
    assert (_fused.library() is not None) == fused
    if not fused:
        assert torch.equal(w, twin)
    torch.testing.assert_close(w, twin, rtol=1e-5, atol=1e-7)


def assert_one_warning(reason):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_stepped(fused=False)
        assert_stepped(fused=False)
    (warning,) = caught
    assert warning.category is UserWarning
    assert str(warning.message).startswith("fused=True has no effect")
    assert reason in str(warning.message)


def test_without_a_compiler_one_warning_says_so(fresh):
    fresh.setenv("PATH", "")
    assert_one_warning("none of c++, g++ and clang++ is installed, and CXX is not set")


@pytest.mark.parametrize("compiler", ["/nowhere/c++", "no-such-compiler -O3"])
def test_a_compiler_that_does_not_exist_is_named(compiler, fresh):
    fresh.setenv("CXX", compiler)
    assert_one_warning(f"No such file or directory: '{compiler.split()[0]}'")


def test_a_compiler_that_cannot_be_read_is_none(fresh):
    fresh.setenv("CXX", "c++ 'never closed")
    assert_one_warning("No closing quotation")


def test_without_a_kernel_for_float16_one_warning_says_so(monkeypatch):
    class Old:
        """A library of a compiler that does not know float16."""

        def has_float16(self):
            return 0

    monkeypatch.setattr(_fused, "library", cache(Old))
    stepped = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for fused in (True, True, False):
            w = draw(9).half()
            train(PAdam, [w], [[draw(9, seed=1).half()]], fused=fused)
            stepped.append(w)
    assert torch.equal(stepped[0], stepped[2])
    message = "fused=True has no effect, for want of a C++ compiler that knows float16"
    assert [str(warning.message) for warning in caught] == [message]


def test_no_kernel_is_looked_for_if_steps_are_counted_elsewhere(monkeypatch):
    def capturing(_dtype):
        raise AssertionError("a kernel that is tried out now breaks the graph")

    monkeypatch.setitem(_fused.KERNELS, "cpu", capturing)
    columns = [*([torch.ones(3)] for _ in range(4)), [], []]
    assert _fused.take_step(columns, [torch.zeros((), device="meta")], None, None) == [0]


@pytest.mark.parametrize("at", ["--version", "-shared"])
def test_what_a_compiler_says_that_fails_is_passed_on(compiler, at, tmp_path):
    log = compiler(f'case "$*" in *{at}*) echo "I am ill." >&2; exit 3;; esac')
    assert_one_warning("a C++ compiler that works: I am ill.\n")
    attempts = len(_fused.THREADS) * len(_fused.MACHINES)
    assert len(log()) == (0 if at == "--version" else attempts)
    assert not list(tmp_path.glob("cache/*/*"))


def test_a_library_that_cannot_be_loaded_is_no_kernel(compiler):
    compiler('case "$*" in *-shared*) for last; do :; done; echo rubbish > "$last"; exit;; esac')
    assert_one_warning("adam-family")


@pytest.mark.parametrize(
    "refused", [["-fopenmp"], ["-march=native", "-mcpu=native"], ["native", "-fopenmp"]], ids=str
)
def test_threads_and_the_machines_own_instructions_are_given_up_if_need_be(compiler, refused):
    patterns = "|".join(f"*{option}*" for option in refused)
    log = compiler(f'case "$*" in {patterns}) exit 1;; esac')
    assert_stepped(fused=True)
    used = log()[-1]
    assert not any(option in used for option in refused)
    assert ("-fopenmp" in used) == ("-fopenmp" not in refused)
    assert ("native" in used) == (refused == ["-fopenmp"])


def test_the_kernel_is_compiled_once_for_each_compiler_and_source(compiler, fresh, tmp_path):
    log = compiler()
    for _ in range(2):
        assert_stepped(fused=True)
        _fused.library.cache_clear()
    assert len(log()) == 1
    folder = tmp_path / "cache" / "beyond_adam"
    assert (folder.stat().st_mode & 0o777) == 0o700
    (kept,) = folder.iterdir()
    assert kept.suffix == ".so"
    source = tmp_path / "other.cpp"
    source.write_text(_fused.SOURCE.read_text() + "// another version\n")
    fresh.setattr(_fused, "SOURCE", source)
    assert_stepped(fused=True)
    _fused.library.cache_clear()
    assert len(log()) == 2
    fresh.setenv("CXX", f"{os.environ['CXX']} -fno-math-errno")
    assert_stepped(fused=True)
    assert len(log()) == 3
    assert log()[-1].startswith("-fno-math-errno ")
    assert len(list(folder.iterdir())) == 3


def test_threads_that_need_the_kernel_first_compile_it_once(compiler):
    commands = compiler("sleep 0.2")
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: _fused.library(), range(4)))
    assert all(found)
    assert len(commands()) == 1


@pytest.mark.parametrize("trouble", ["no folder", "not writable"])
def test_without_a_cache_the_kernel_is_in_a_temporary_folder(trouble, compiler, fresh, tmp_path):
    compiler()
    if trouble == "no folder":
        (tmp_path / "cache").touch()
    else:
        fresh.setattr(os, "access", lambda *_: False)
    assert_stepped(fused=True)
    assert Path(_fused.library()._name).is_relative_to(tmp_path / "temporary")


# ---- memory ----


class Allocations(TorchDispatchMode):
    """The sizes in bytes of all tensors made while it is on."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = torch.utils._pytree.tree_leaves((args, kwargs))
        old = {StorageWeakRef(t.untyped_storage()) for t in before if torch.is_tensor(t)}
        out = func(*args, **(kwargs or {}))
        for tensor in filter(torch.is_tensor, torch.utils._pytree.tree_leaves(out)):
            if StorageWeakRef(tensor.untyped_storage()) not in old:
                self.sizes.append(tensor.untyped_storage().nbytes())
        return out


@every_rule
def test_a_step_makes_no_tensor_but_numbers(cls, options):
    weights = [draw(100), draw(3, 40).bfloat16(), channels_last(draw(2, 3, 4, 5))]
    weights += [transposed(draw(3, 4)), draw(2, 3, 4).permute(1, 2, 0), draw(1, 3).t()]
    optimizer = cls(weights, lr=torch.tensor(0.1), fused=True, **options)
    for w in weights:
        w.grad = torch.ones_like(w)
    optimizer.step()
    with Allocations() as made:
        optimizer.step()
        assert all(size <= 8 for size in made.sizes)
        weights[0].clone()
    assert made.sizes[-1] == 400


# ---- compiled by torch, and never compiled again ----


@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
@every_class
def test_torch_compiles_the_usual_step_in_its_place(cls, tensor, monkeypatch):
    torch._dynamo.reset()
    graphs, compiling = [], []
    take_step = _fused.take_step

    def spy(*arguments):
        compiling.append(torch.compiler.is_compiling())
        return take_step(*arguments)

    def backend(module, _):
        graphs.append(module)
        return module.forward

    twins = [[torch.nn.Parameter(draw(3, 4)), torch.nn.Parameter(draw(5))] for _ in range(2)]
    optimizers = [
        cls(weights, lr=torch.tensor(0.1) if tensor else 0.1, fused=True, weight_decay=0.1)
        for weights in twins
    ]
    monkeypatch.setattr(_fused, "take_step", spy)
    with warnings.catch_warnings():
        # torch warns that a compiled optimizer has no profiler range.
        warnings.simplefilter("ignore")
        steps = [torch.compile(optimizers[0].step, backend=backend), optimizers[1].step]
        for number in range(5):
            for weights, optimizer, step in zip(twins, optimizers, steps, strict=True):
                for i, w in enumerate(weights):
                    w.grad = draw(*w.shape, seed=10 * number + i)
                step()
                (group,) = optimizer.param_groups
                if tensor:
                    group["lr"].mul_(0.5)
                else:
                    group["lr"] *= 0.5
    assert compiling == [False] * 5
    assert len(graphs) == (1 if tensor else 2)
    for x, y in zip(*twins, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_no_option_that_moves_compiles_anything(monkeypatch):
    def refuse():
        raise AssertionError

    monkeypatch.setattr(_fused, "_compiled", refuse)
    assert _fused.library.cache_info().currsize == 1
    moving = {
        "lr": 0.1,
        "weight_decay": 0.2,
        "betas": (0.5, 0.6),
        "eps": 1e-3,
        "amsgrad": True,
        "maximize": True,
        "lambda_2": 0.3,
        "partial": 0.2,
        "exponent": 0.2,
        "decay_at": "updated",
        "beta_s": 0.3,
        "decoupled_weight_decay": True,
        "bias_correction": False,
    }
    for cls in CLASSES:
        w, twin = draw(300), draw(300)
        runs = [(w, cls([w], fused=True)), (twin, cls([twin], foreach=False))]
        schedulers = [
            PNormScheduler(optimizer, lambda step: 2 / (step + 1))
            for _, optimizer in runs
            if "p" in optimizer.defaults
        ]
        for step, (option, value) in enumerate(moving.items()):
            for weights, optimizer in runs:
                (group,) = optimizer.param_groups
                if option in group:
                    group[option] = value
                weights.grad = draw(300, seed=step + 1)
                optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
        torch.testing.assert_close(w, twin, rtol=1e-3, atol=1e-4)
        assert not torch.equal(w, draw(300))


# ---- the option ----


@every_class
def test_other_ways_exclude_it(cls):
    function = FUNCTIONS[CLASSES.index(cls)]
    for other in ("foreach", "differentiable"):
        both = {"fused": True, other: True}
        with pytest.raises(ValueError, match="exclude each other"):
            cls([torch.ones(2)], **both)
        with pytest.raises(ValueError, match="exclude each other"):
            cls([torch.ones(2)]).add_param_group({"params": [torch.ones(3)], **both})
        lists, options = arguments(function, [torch.ones(2)], [torch.ones(2)])
        with pytest.raises(ValueError, match="exclude each other"):
            function(*lists, **options, **both)
        assert lists[-1][0] == 0
        # A group may differ from the optimizer, within itself it may not.
        with pytest.raises(ValueError, match="exclude each other"):
            cls([torch.ones(2)], fused=True).add_param_group(
                {"params": [torch.ones(3)], "foreach": True}
            )
    cls([torch.ones(2)], fused=True).add_param_group({"params": [torch.ones(3)], "fused": False})


@every_class
def test_a_checkpoint_of_another_layout_is_laid_out_as_the_weights(cls):
    w = draw(2, 3, 4, 5)
    source, target = cls([w.clone()]), cls([w.contiguous(memory_format=torch.channels_last)])
    for optimizer in (source, target):
        optimizer.param_groups[0]["params"][0].grad = draw(2, 3, 4, 5, seed=1)
    source.step()
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    [state], [own] = source.state.values(), target.state.values()
    for key, tensor in state.items():
        assert torch.equal(own[key], tensor)
        assert own[key].ndim == 0 or own[key].is_contiguous(memory_format=torch.channels_last)


@every_class
def test_a_checkpoint_takes_the_option_along(cls):
    gradients = [[draw(3, 4, seed=i)] for i in range(4)]
    through, w = draw(3, 4), draw(3, 4)
    train(cls, [through], gradients)
    source = cls([w], fused=True)
    for (g,) in gradients[:2]:
        w.grad = g
        source.step()
    for other in ({"fused": True}, {}, {"foreach": True}):
        new = w.clone()
        target = cls([new], **other)
        target.load_state_dict(copy.deepcopy(source.state_dict()))
        assert target.param_groups[0]["fused"] is True
        assert not target.param_groups[0]["foreach"]
        for (g,) in gradients[2:]:
            new.grad = g
            target.step()
        assert torch.equal(new, through)
    copied = copy.deepcopy(source)
    (new,) = copied.param_groups[0]["params"]
    for (g,) in gradients[2:]:
        new.grad = g
        copied.step()
    assert torch.equal(new, through)
    usual, fused = cls([draw(3, 4)]), cls([draw(3, 4)], fused=True)
    fused.load_state_dict(usual.state_dict())
    assert fused.param_groups[0]["fused"] is None


@pytest.mark.parametrize("log2_of_root", [-63.9, -64.8])
def test_a_power_below_the_normal_numbers_is_the_least_of_them(log2_of_root):
    w = torch.ones(3)
    w.grad = torch.full_like(w, 2.0**log2_of_root)
    options = {"betas": (0.0, 0.0), "eps": 0.0, "bias_correction": False, "exponent": 0.99}
    AdamExponent([w], lr=1e-20, fused=True, **options).step()
    step = 1e-20 * 2.0**log2_of_root / 2.0**-126
    torch.testing.assert_close(w, torch.full_like(w, 1 - step), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("exponent", "order"), [(0.5, 2), (0.25, 4), (0.125, 8)])
def test_usual_powers_are_roots_to_the_last_bit(exponent, order):
    roots = torch.arange(1.0, 64.0 if order < 8 else 8.0, 2.0)
    w = torch.zeros_like(roots)
    w.grad = roots ** (order // 2)
    options = {"betas": (0.0, 0.0), "eps": 0.0, "bias_correction": False, "exponent": exponent}
    AdamExponent([w], lr=1.0, fused=True, **options).step()
    assert torch.equal(w, -w.grad / roots)


@pytest.mark.parametrize("decay_at", ["previous", "updated"])
@pytest.mark.parametrize("p", [0.5, 1.0, 1.5])
def test_usual_norms_decay_without_a_power(p, decay_at):
    for root in (3, 5, 7):
        power = root ** round(2 * (2 - p))  # |w|^(2−p) for w = root²
        for total in [2**k for k in range(power.bit_length(), power.bit_length() + 6)]:
            w = torch.full((3,), float(root**2))
            w.grad = torch.zeros(3)
            options = {"p": p, "weight_decay": (total - power) / p, "decay_at": decay_at}
            PAdam([w], lr=1.0, fused=True, **options).step()
            assert torch.equal(w, torch.full((3,), root**2 * power / total))
