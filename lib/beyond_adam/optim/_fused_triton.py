"""The step of the Adam family in one pass over the memory of a GPU, by a Triton kernel.

One launch steps all tensors of a dtype: a program finds, in a table of addresses, the tensor that
its block of elements lies in. The arithmetic is that of `_fused.cpp`, but that every power is taken
as one, roots too, since a GPU has more arithmetic to spare. So p and the exponents may move
without anything being compiled.
"""

# Triton reads the kernel's source, and takes annotations for something else.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import ctypes
from array import array
from contextlib import nullcontext
from functools import reduce
from itertools import accumulate, chain
from math import inf, log2
from operator import or_
from typing import Final

import torch
import triton
import triton.language as tl

from beyond_adam.optim._fused import CORRECTIONS, DECAYS, DTYPES, Slots, _Rule

BLOCK: Final = 1024
"""Elements of a program."""
ALIGNMENT: Final = 16
"""Bytes; addresses that are multiples of it are read and written by fewer instructions."""
NUMBERS: Final = tl.constexpr(12)
"""How many fields of `_Rule` are numbers; they come first, and log₂(pηλ) after them."""
SIZES: Final = tl.constexpr(6)
"""The row of the table that has numbers of elements, below addresses of w, g, m, v, max v, 1/s."""
FIRSTS: Final = tl.constexpr(7)
"""The row of the table that has the tensors' first blocks."""
TYPES: Final = {i: getattr(tl, str(dtype).removeprefix("torch.")) for dtype, i in DTYPES.items()}
FAR: Final = tl.constexpr(200.0)
"""More than any log₂ of a positive float32, in size."""
NO_DECAY: Final = tl.constexpr(DECAYS["none"])
UPDATED: Final = tl.constexpr(DECAYS["updated"])
DYNAMIC: Final = tl.constexpr(DECAYS["dynamic"])


def try_out(device: str = "cuda") -> None:
    """Step one weight, and raise whatever Triton raises if it does not work."""
    one = torch.ones((), device=device)
    absent, address = [0], [one.data_ptr()]
    steps = [torch.zeros((), device="cpu")]  # whatever the default device
    slots = Slots(one.device, [*[address] * 4, absent, absent], [1], steps)
    take_step(_Rule(gradient=1.0, kept=1.0, power=1.0, rest=1.0), slots)


def take_step(rule: _Rule, slots: Slots) -> None:
    """Take a step for all tensors, and count it."""
    *firsts, total = accumulate((-(-size // BLOCK) for size in slots.sizes), initial=0)
    numbers = array("d", [getattr(rule, name) for name, _ in _Rule._fields_[: NUMBERS.value]])
    numbers.append(log2(rule.strength) if rule.strength else -inf)
    number = ctypes.c_double if rule.double_steps else ctypes.c_float
    cells = [number.from_address(step.data_ptr()) for step in slots.steps]
    counts = [cell.value for cell in cells]
    scalars = {count: _scalars(rule, count + 1) for count in set(counts)}
    numbers.extend(chain.from_iterable(scalars[count] for count in counts))
    table = array("q", chain(*slots.addresses, slots.sizes, firsts))
    # The table first: it begins where wide loads may begin, whatever the number of tensors.
    sent = torch.frombuffer(bytearray(table) + bytearray(numbers), dtype=torch.int64)
    on_gpu = slots.device.type == "cuda"  # it is not where Triton is interpreted
    if on_gpu:
        sent = sent.pin_memory().to(slots.device, non_blocking=True)
    stored = TYPES[rule.dtype]
    with torch.cuda.device(slots.device) if on_gpu else nullcontext():
        if total:
            step_block[(total,)](
                sent[len(table) :].view(torch.float64),
                sent[: len(table)],
                len(counts),
                S=stored,
                T=tl.float64 if stored == tl.float64 else tl.float32,
                AMSGRAD=bool(rule.amsgrad),
                EPS_AT_POWER=bool(rule.eps_at_power),
                DECAY=rule.decay,
                ALIGNED=reduce(or_, chain(*slots.addresses)) % ALIGNMENT == 0,
                TENSORS=triton.next_power_of_2(len(counts)),
                BLOCK=BLOCK,
                enable_fp_fusion=True,
            )
    for cell, count in zip(cells, counts, strict=True):
        cell.value = count + 1


def _scalars(rule: _Rule, count: float) -> tuple[float, float]:
    """Return η and what divides √v, corrected for bias at a step."""
    bias1, bias2 = 1 - rule.beta1**count, 1 - rule.beta2**count
    if rule.correction == CORRECTIONS["moments"]:
        return rule.lr / bias1, bias2**0.5
    if rule.correction == CORRECTIONS["step size"]:
        return rule.lr * bias2**0.5 / bias1, 1.0
    return rule.lr, 1.0


@triton.jit(do_not_specialize=["count"])
def step_block(
    numbers,
    table,
    count,
    S: tl.constexpr,
    T: tl.constexpr,
    AMSGRAD: tl.constexpr,
    EPS_AT_POWER: tl.constexpr,
    DECAY: tl.constexpr,
    ALIGNED: tl.constexpr,
    TENSORS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Step a block of one of `count` tensors, stored as S and computed in T."""
    block = tl.program_id(0)
    rows = tl.arange(0, TENSORS)
    firsts = tl.load(table + FIRSTS * count + rows, mask=rows < count, other=2**62)
    tensor = tl.sum((firsts <= block).to(tl.int32), 0) - 1
    column = table + tensor
    start = (block - tl.load(column + FIRSTS * count)) * BLOCK
    left = tl.load(column + SIZES * count) - start
    scalars = numbers + NUMBERS + 1 + 2 * tensor
    if left >= BLOCK:
        _step(
            numbers, scalars, column, count, start, None,
            S, T, AMSGRAD, EPS_AT_POWER, DECAY, ALIGNED, BLOCK,
        )  # fmt: skip
    else:
        mask = tl.arange(0, BLOCK) < left
        _step(
            numbers, scalars, column, count, start, mask,
            S, T, AMSGRAD, EPS_AT_POWER, DECAY, ALIGNED, BLOCK,
        )  # fmt: skip


@triton.jit
def _step(
    numbers,
    scalars,
    column,
    count,
    start,
    mask,
    S: tl.constexpr,
    T: tl.constexpr,
    AMSGRAD: tl.constexpr,
    EPS_AT_POWER: tl.constexpr,
    DECAY: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    gradient = tl.load(numbers + 1).to(T)
    coupled = tl.load(numbers + 2).to(T)
    kept = tl.load(numbers + 3).to(T)
    new1 = (1 - tl.load(numbers + 4)).to(T)
    beta2 = tl.load(numbers + 5)
    new2 = (1 - beta2).to(T)
    beta2 = beta2.to(T)
    eps = tl.load(numbers + 6).to(T)
    power = tl.load(numbers + 7)
    rest = tl.load(numbers + 8).to(T)
    strength = tl.load(numbers + 9)
    p = tl.load(numbers + 10)
    new_s = (1 - tl.load(numbers + 11)).to(T)
    log2_of_strength = tl.load(numbers + 12).to(T)
    step_size = tl.load(scalars).to(T)
    divisor = tl.load(scalars + 1).to(T)

    # All is read before anything is written: no load is moved ahead of a store.
    w_at = _elements(column, start, S, ALIGNED, BLOCK)
    g_at = _elements(column + count, start, S, ALIGNED, BLOCK)
    m_at = _elements(column + 2 * count, start, T, ALIGNED, BLOCK)
    v_at = _elements(column + 3 * count, start, T, ALIGNED, BLOCK)
    w, g = tl.load(w_at, mask).to(T), tl.load(g_at, mask).to(T)
    m, v = tl.load(m_at, mask), tl.load(v_at, mask)
    if AMSGRAD:
        peak_at = _elements(column + 4 * count, start, T, ALIGNED, BLOCK)
        peak = tl.load(peak_at, mask)
    if DECAY == DYNAMIC:
        inverse_at = _elements(column + 5 * count, start, T, ALIGNED, BLOCK)
        inverse = tl.load(inverse_at, mask)

    g = gradient * g
    if coupled != 0:
        g += coupled * w
    m = _towards(m, g, new1)
    v = beta2 * v + new2 * (g * g)
    tl.store(m_at, m, mask)
    tl.store(v_at, v, mask)
    if AMSGRAD:
        v = tl.where((v > peak) | (v != v), v, peak)  # either NaN is kept
        tl.store(peak_at, v, mask)

    if EPS_AT_POWER:
        denominator = _raised(_quotient(v, divisor * divisor), power, T) + eps
    else:
        denominator = _raised(_quotient(_root(v), divisor) + eps, power, T)
    u = kept * w - step_size * _quotient(m, denominator)

    if DECAY == DYNAMIC:
        inverse = _towards(inverse, _raised(tl.abs(w), 2 - p, T), new_s)
        tl.store(inverse_at, inverse, mask)
        u = _quotient(u, rest + tl.where(strength > 0, _quotient(strength.to(T), inverse), 0.0))
    elif DECAY != NO_DECAY:
        x = tl.abs(u if DECAY == UPDATED else w)
        decay = tl.zeros_like(x) + strength.to(T)
        if p != 2:  # where the power is 1 also at 0, and there may be no strength
            decay = tl.exp2(_log2_of_power(x, p - 2, T) + log2_of_strength)
        u = _quotient(u, rest + decay)
    tl.store(w_at, u.to(S), mask)


@triton.jit
def _elements(cell, start, T: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """Return the addresses of a block of the tensor whose address is in a cell of the table."""
    address = tl.load(cell).to(tl.pointer_type(T))
    if ALIGNED:
        address = tl.multiple_of(address, 16)
    return address + start + tl.arange(0, BLOCK)


@triton.jit
def _towards(a, b, part):
    """Return what lies by `part` of the way from a to b, which is exact at both ends."""
    return tl.where(part < 0.5, a + part * (b - a), b - (1 - part) * (b - a))


@triton.jit
def _raised(x, power, T: tl.constexpr):
    """Return x^power for x ≥ 0 and power ≥ 0; exact for 0 and 1."""
    raised = x
    if power == 0:
        raised = tl.zeros_like(x) + 1
    elif power != 1:
        raised = tl.exp2(_log2_of_power(x, power, T))
    return raised


@triton.jit
def _log2_of_power(x, power, T: tl.constexpr):
    """Return power · log₂ x for x ≥ 0 and a power in double precision."""
    log2, rounded = tl.log2(x), power.to(T)
    lost = (power - rounded.to(tl.float64)).to(T)
    return rounded * log2 + lost * tl.minimum(tl.maximum(log2, -FAR), FAR)  # not 0 · ∞


@triton.jit
def _root(x):
    return tl.sqrt_rn(x) if x.dtype == tl.float32 else tl.sqrt(x)


@triton.jit
def _quotient(a, b):
    return tl.div_rn(a, b) if b.dtype == tl.float32 else a / b
