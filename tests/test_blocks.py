"""Steps in parts: of big tensors by blocks, and of lists by batches with foreach."""

import pytest
import torch

from beyond_adam.optim import AdamExponent, DynamicPAdam, PAdam, Padam, _adam_family
from beyond_adam.optim._adam_family import Slot, _parts
from test_adam_family import Peak, clones, equal, name, some_gradients, train

SHAPES = {
    "contiguous": (5, 37),
    "channels-last": (6, 5, 4, 3),
    "transposed": (37, 5),
    "every-other": (150,),
    "row": (1, 200),
    "column": (200, 1),
    "permuted": (4, 9, 11),
    "0-dim": (),
    "empty": (0, 3),
}
LOW = (torch.float16, torch.bfloat16)
# Powers that are products and roots, since torch rounds others differently at the end of a vector.
ROOTS = [
    (PAdam, {}),
    (PAdam, {"p": 1.5, "weight_decay": 0.3, "amsgrad": True, "maximize": True}),
    (PAdam, {"decay_at": "updated", "partial": 0.25}),
    (DynamicPAdam, {"p": 1.5, "beta_s": 0.5}),
    (Padam, {"partial": 0.25, "weight_decay": 0.1}),
    (AdamExponent, {"exponent": 1.0, "decoupled_weight_decay": True, "weight_decay": 0.1}),
]
POWERS = [
    (PAdam, {"p": 0.7, "weight_decay": 0.3}),
    (DynamicPAdam, {"p": 0.7, "beta_s": 0.5}),
    (Padam, {"partial": 0.2, "eps": 1e-2}),
    (AdamExponent, {"exponent": 0.3, "eps": 1e-2}),
]
every_layout = pytest.mark.parametrize("layout", SHAPES)
every_size = pytest.mark.parametrize("size", [7, 64])


def laid_out(layout, numbers):
    """Return the numbers in the shape and memory layout of that name."""
    tensor = numbers.reshape(SHAPES[layout]).clone()
    if layout == "channels-last":
        return tensor.to(memory_format=torch.channels_last)
    if layout == "transposed":
        return tensor.T
    if layout == "every-other":
        return tensor.repeat_interleave(2)[::2]
    if layout == "permuted":
        return tensor.permute(2, 0, 1)
    return tensor


def draw(layout, dtype):
    shape = SHAPES[layout]
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return laid_out(layout, numbers.to(dtype))


def states(optimizer):
    return [tensor for state in optimizer.state.values() for tensor in state.values()]


# --- blocks of a tensor ---


@every_size
@every_layout
def test_the_parts_are_views_with_every_element_once(layout, size):
    places = torch.arange(torch.Size(SHAPES[layout]).numel())
    slot = Slot(*[laid_out(layout, places) for _ in Slot._fields])
    slot = slot._replace(g=slot.g.contiguous())  # in an order of its own, as gradients may be
    parts = list(_parts(slot, size))
    for part in parts:
        assert all(torch.equal(tensor, part.w) for tensor in part)
    for i, tensor in enumerate(slot):
        tensor.zero_()
        for part in parts:
            part[i].add_(1)
        assert (tensor == 1).all()


@every_size
@every_layout
def test_the_parts_are_as_few_as_their_size_allows(layout, size):
    w = draw(layout, torch.float32)
    n = w.numel()
    sizes = [part.w.numel() for part in _parts(Slot(*[w] * 6), size)]
    if n <= size:
        assert sizes == [n]
    elif w.is_contiguous():
        assert sizes == [size] * (n // size) + [n % size] * (n % size > 0)
    else:  # whole slices across the longest axis, one at least
        longest = max(w.shape)
        one = n // longest
        many = max(1, size // one)
        rest = longest % many * one
        assert sizes == [many * one] * (longest // many) + [rest] * (rest > 0)


def train_all_layouts(cls, options, dtype=torch.float64):
    weights = [draw(layout, dtype) for layout in SHAPES]
    optimizer = cls(weights, lr=0.1, **options)
    train(optimizer, weights, 3)
    return weights, optimizer


@every_size
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("cls", "options"), ROOTS, ids=name)
def test_blocks_step_as_the_whole_to_the_bit(cls, options, dtype, size, monkeypatch):
    whole, its_optimizer = train_all_layouts(cls, options, dtype)
    monkeypatch.setattr(_adam_family, "_block", lambda: size)
    blocks, optimizer = train_all_layouts(cls, options, dtype)
    assert equal([*blocks, *states(optimizer)], [*whole, *states(its_optimizer)])


@every_size
@pytest.mark.parametrize(("cls", "options"), POWERS, ids=name)
def test_blocks_step_as_the_whole_for_any_power(cls, options, size, monkeypatch):
    whole, _ = train_all_layouts(cls, options)
    monkeypatch.setattr(_adam_family, "_block", lambda: size)
    blocks, _ = train_all_layouts(cls, options)
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("cls", "options"), ROOTS, ids=name)
def test_blocks_count_as_changes_and_leave_the_gradients_alone(cls, options, monkeypatch):
    monkeypatch.setattr(_adam_family, "_block", lambda: 7)
    weights, optimizer = train_all_layouts(cls, options)
    gradients = some_gradients(weights, 5)
    for w, gradient in zip(weights, gradients, strict=True):
        w.grad = gradient
    before = clones(gradients)
    written = [*weights, *states(optimizer)]
    versions = [tensor._version for tensor in written]
    optimizer.step()
    assert all(t._version > version for t, version in zip(written, versions, strict=True))
    assert all(w.grad is gradient for w, gradient in zip(weights, gradients, strict=True))
    assert equal(gradients, before)
    assert all(gradient._version == 0 for gradient in gradients)


@pytest.mark.parametrize("shape", [(2**19 + 3,), (513, 1023)], ids=["contiguous", "transposed"])
@pytest.mark.parametrize(
    ("cls", "options", "dtype", "blocks"),
    [
        (PAdam, {}, torch.float32, 2),
        (PAdam, {"p": 0.7, "maximize": True, "lambda_2": 0.1}, torch.float32, 2),
        (PAdam, {"decay_at": "updated"}, torch.float32, 1),
        (PAdam, {"p": 0.7}, torch.float64, 4),
        (PAdam, {"amsgrad": True}, torch.bfloat16, 3),
        (DynamicPAdam, {}, torch.float32, 2),
        (DynamicPAdam, {}, torch.bfloat16, 3),
        (Padam, {}, torch.float32, 1),
        (Padam, {"weight_decay": 0.1, "maximize": True}, torch.float32, 2),
        (Padam, {"weight_decay": 0.1}, torch.bfloat16, 3),
        (AdamExponent, {}, torch.float32, 1),
        (AdamExponent, {"exponent": 0.3, "weight_decay": 0.1}, torch.float16, 3),
    ],
    ids=name,
)
def test_temporaries_are_a_few_blocks(cls, options, dtype, blocks, shape, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    w = torch.ones(shape, dtype=dtype).t()
    optimizer = cls([w], **options)
    train(optimizer, [w], 1)
    with Peak() as peak:
        optimizer.step()
    block = 4 * _adam_family._block()
    assert blocks - 1 < peak.bytes / block < blocks + 1e-3  # a number or two beside


# --- batches of a list ---


def batches(monkeypatch):
    """Return a list that the sizes of the batches will be added to."""
    sizes = []
    step_many = _adam_family._step_many

    def spy(members, *others):
        sizes.append(sum(slot.w.numel() for slot, _ in members))
        step_many(members, *others)

    monkeypatch.setattr(_adam_family, "_step_many", spy)
    return sizes


@pytest.mark.parametrize(("cls", "options"), [*ROOTS, *POWERS[:2]], ids=name)
def test_batches_step_as_a_loop_does(cls, options, monkeypatch):
    roots = (cls, options) in ROOTS
    dtypes = [torch.float64, torch.float32, *LOW] if roots else [torch.float64]
    lists = []
    sizes = batches(monkeypatch)
    for foreach in (False, True):
        weights = [draw(layout, dtype) for dtype in dtypes for layout in SHAPES]
        weights += [draw(layout, dtype) for layout in SHAPES for dtype in dtypes]
        optimizer = cls(weights, lr=0.1, foreach=foreach, **options)
        lists.append([*train(optimizer, weights, 3), *states(optimizer)])
    assert sum(sizes) == 3 * sum(w.numel() for w in weights)
    assert len(sizes) > 3 * len(dtypes)
    if roots and cls in (Padam, AdamExponent):
        assert equal(*lists)
    elif roots:  # the decay is put together in other operations
        torch.testing.assert_close(*lists)
    else:
        torch.testing.assert_close(*lists, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "sizes",
    [[10, 100_000, 10, 1000, 7], [1, 5000, 4999, 5001, 1], [100_003], [1] * 50, [0, 0], [2, 0]],
    ids=["one-dominates", "three-dominate", "one", "ones", "empty", "almost-empty"],
)
@pytest.mark.parametrize(
    ("cls", "options", "dtype", "share"),
    [
        (PAdam, {}, torch.float32, 2),
        (PAdam, {"p": 0.7, "lambda_2": 0.1, "maximize": True}, torch.float32, 2),
        (PAdam, {"decay_at": "updated", "amsgrad": True}, torch.float32, 1),
        (PAdam, {"p": 2}, torch.float32, 1),
        (PAdam, {}, torch.bfloat16, 3),
        (DynamicPAdam, {}, torch.float32, 2),
        (DynamicPAdam, {"maximize": True, "amsgrad": True}, torch.bfloat16, 3),
        (Padam, {"weight_decay": 0.1, "maximize": True}, torch.float32, 1),
        (Padam, {"weight_decay": 0.1}, torch.float16, 3),
        (AdamExponent, {"exponent": 0.3, "weight_decay": 0.1}, torch.float32, 1),
    ],
    ids=name,
)
def test_temporaries_of_foreach_are_one_list(cls, options, dtype, share, sizes, monkeypatch):
    weights = [torch.ones(size, dtype=dtype) for size in sizes]
    optimizer = cls(weights, foreach=True, **options)
    train(optimizer, weights, 1)
    taken = batches(monkeypatch)
    with Peak() as peak:
        optimizer.step()
    assert sum(taken) == sum(sizes)
    assert max(taken) <= sum(sizes) // share or max(taken) == 1
    assert peak.bytes <= 4 * sum(sizes) + 4  # the steps are counted with a tensor of one number


@pytest.mark.parametrize(("threads", "size"), [(1, 2**18), (8, 2**18), (64, 2**21)])
def test_a_block_is_work_for_all_threads(monkeypatch, threads, size):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert _adam_family._block() == size
