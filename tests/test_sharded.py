"""Sharded models, by FSDP2 or by hand, on two processes: every class and path as if unsharded.

What is to hold on both processes is a function `both_…`; a test calls it there.
"""

import copy
import datetime
import multiprocessing
import os
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial

import pytest
import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from beyond_adam.optim import PAdam, _fused
from beyond_adam.optim.sparsity import decay_groups, hard_zero, sparsity_report
from test_adam_family import PATHS, equal, every_class

PLACES = {"rows": Shard(0), "columns": Shard(1), "copies": Replicate()}
every_path = pytest.mark.parametrize("path", ["for-loop", "foreach", "fused"])
every_place = pytest.mark.parametrize("place", PLACES)


def join(rank, store):
    """Make this process one of two."""
    with warnings.catch_warnings():  # of there being no compiler, as in conftest.py
        warnings.simplefilter("ignore")
        _fused.library()
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=30),  # if the other has failed
    )


@pytest.fixture(scope="module")
def on_both(tmp_path_factory):
    """Return what calls a function on two processes, and raises what it raised first."""
    store = tmp_path_factory.mktemp("processes") / "store"
    spawn = multiprocessing.get_context("spawn")
    processes = [ProcessPoolExecutor(1, spawn, join, (rank, str(store))) for rank in range(2)]

    def call(function, *args):
        calls = [process.submit(function, *args) for process in processes]
        for failure in filter(None, [done.exception() for done in as_completed(calls)]):
            raise failure

    yield call
    call(distributed.destroy_process_group)
    for process in processes:
        process.shutdown(wait=False)


@cache
def flat():
    """Return the two processes in a row."""
    return init_device_mesh("cpu", (2,))


@cache
def tall():
    """Return them as a column, of two dimensions."""
    return init_device_mesh("cpu", (2, 1), mesh_dim_names=("rows", "columns"))


def new_model(dtype=torch.float64):
    """Return 7 and 3 rows, which two processes share unevenly, and 1, of which one has nothing."""
    torch.manual_seed(0)
    layers = nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1)
    return nn.Sequential(*layers).to(dtype)


LENGTHS = [4, 4, 2, 2, 1, 1], [3, 3, 1, 1, 0, 0]
"""Of its parameters, on the two processes."""


def sharded(model):
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=flat())
    return fully_shard(model, mesh=flat())


def fit(model, optimizer, steps, *, first=0, share=slice(None)):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 5, generator=generator).to(model[0].weight.dtype)[share]
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def my_half():
    """Return the half of a batch of this process; FSDP averages the gradients."""
    rank = distributed.get_rank()
    return slice(4 * rank, 4 * rank + 4)


def whole(tensors):
    return [t.full_tensor() if isinstance(t, DTensor) else t for t in tensors]


def both_train(cls, path):
    options = {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True, **PATHS[path]}
    alone, model = new_model(), sharded(new_model())
    weights, shards = list(alone.parameters()), list(model.parameters())
    assert [len(w.to_local()) for w in shards] == LENGTHS[distributed.get_rank()]
    reference, optimizer = cls(weights, **options), cls(shards, **options)
    fit(alone, reference, 4)
    fit(model, optimizer, 3, share=my_half())
    written = [*shards, *(t for state in optimizer.state.values() for t in state.values())]
    before = [tensor._version for tensor in written]
    fit(model, optimizer, 1, first=3, share=my_half())
    assert all(t._version > version for t, version in zip(written, before, strict=True))
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)
    close(whole(shards), weights)
    for shard, w in zip(shards, weights, strict=True):
        state, other = optimizer.state[shard], reference.state[w]
        assert state.keys() == other.keys()
        close(whole(state.values()), list(other.values()))
        step, *kept = state.values()
        assert type(step) is torch.Tensor
        assert all(tensor.device_mesh == shard.device_mesh for tensor in kept)
        assert all(tensor.placements == shard.placements for tensor in kept)


@every_path
@every_class
def test_a_sharded_model_is_trained_as_the_whole_one(on_both, cls, path):
    on_both(both_train, cls, path)


def both_step_a_mixed_list(cls, path):
    def distribute(tensors):
        a, b, c, d, e, f = (tensor.clone() for tensor in tensors)
        return [
            a,
            distribute_tensor(b, flat(), [Shard(0)]),
            distribute_tensor(c, flat(), [Shard(1)]),
            distribute_tensor(d, flat(), [Replicate()]),
            distribute_tensor(e, tall(), [Shard(0), Shard(1)]),
            distribute_tensor(f, tall(), [Shard(1), Replicate()]),
        ]

    def draw():
        return [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(6)]

    generator = torch.Generator().manual_seed(0)
    alone = draw()
    mixed = distribute(alone)
    assert mixed[2].to_local().shape == ((5, 2), (5, 1))[distributed.get_rank()]
    options = {"lr": 0.05, "weight_decay": 0.1, **PATHS[path]}
    reference, optimizer = cls(alone, **options), cls(mixed, **options)
    for _ in range(3):
        gradients = draw()
        for tensors, grads in ((alone, gradients), (mixed, distribute(gradients))):
            for w, g in zip(tensors, grads, strict=True):
                w.grad = g
        reference.step()
        optimizer.step()
    torch.testing.assert_close(whole(mixed), alone, rtol=1e-12, atol=1e-14)


@every_path
@every_class
def test_plain_and_distributed_tensors_share_a_list(on_both, cls, path):
    on_both(both_step_a_mixed_list, cls, path)


def both_finish_gradients(path, begun):
    terms = torch.arange(12.0).reshape(3, 4) * (distributed.get_rank() + 1)
    sums = DTensor.from_local(terms, flat(), [Partial()])
    alone, copies = torch.ones(3, 4), distribute_tensor(torch.ones(3, 4), flat(), [Replicate()])
    alone.grad = torch.arange(12.0).reshape(3, 4) * 3
    copies.grad = sums.redistribute(placements=[Replicate()], async_op=True) if begun else sums
    PAdam([alone, copies], lr=0.1, **PATHS[path]).step()
    torch.testing.assert_close(copies.to_local(), alone)


@pytest.mark.parametrize("begun", [False, True], ids=["not-summed", "on-its-way"])
@every_path
def test_a_gradient_that_is_not_there_yet_is_waited_for(on_both, path, begun):
    on_both(both_finish_gradients, path, begun)


def both_resume(cls, dtype, full):
    def new(lr):
        model = sharded(new_model(dtype))
        return model, cls(model.parameters(), lr=lr, amsgrad=True, weight_decay=0.2)

    through, optimizer = new(lr=0.02)
    fit(through, optimizer, 2, share=my_half())
    how = StateDictOptions(full_state_dict=full)
    saved = copy.deepcopy(get_optimizer_state_dict(through, optimizer, options=how))

    other, resumed = new(lr=7.0)
    with torch.no_grad():
        for w, shard in zip(other.parameters(), through.parameters(), strict=True):
            w.copy_(shard)
    # torch takes a step here, with zeros for the gradients and the learning rate.
    set_optimizer_state_dict(other, resumed, saved, options=how)
    assert resumed.param_groups[0]["lr"] == 0.02
    assert equal(whole(other.parameters()), whole(through.parameters()))
    for w, shard in zip(other.parameters(), through.parameters(), strict=True):
        assert resumed.state[w].keys() == optimizer.state[shard].keys()
        for key, kept in optimizer.state[shard].items():
            assert type(resumed.state[w][key]) is type(kept)
            assert resumed.state[w][key].dtype == kept.dtype == torch.float32
            assert equal(whole([resumed.state[w][key]]), whole([kept]))

    fit(through, optimizer, 2, first=2, share=my_half())
    fit(other, resumed, 2, first=2, share=my_half())
    assert equal(whole(other.parameters()), whole(through.parameters()))


@pytest.mark.parametrize(
    ("dtype", "full"),
    [(torch.float32, False), (torch.bfloat16, True)],
    ids=["float32-in-shards", "bfloat16-whole"],
)
@every_class
def test_a_sharded_run_resumes_to_the_bit(on_both, cls, dtype, full):
    on_both(both_resume, cls, dtype, full)


def both_refuse_other_places(cls, path):
    def ones(*places):
        return distribute_tensor(torch.ones(4, 4), flat(), places)

    rows, columns, one = r"\(Shard\(dim=0\),\)", r"\(Shard\(dim=1\),\)", "one process"
    cases = [
        (ones(Shard(0)), torch.ones(4, 4), f"{rows}, {one}"),
        (ones(Shard(0)), ones(Shard(1)), f"{rows}, {columns}"),
        (torch.ones(4, 4), ones(Shard(1)), f"{one}, {columns}"),
    ]
    for w, gradient, places in cases:
        w.grad = gradient
        with pytest.raises(RuntimeError, match=f"must be placed alike, not on {places}, "):
            cls([w], **PATHS[path]).step()
        assert equal(whole([w]), [torch.ones(4, 4)])


@every_path
@every_class
def test_a_gradient_elsewhere_than_its_parameter_is_refused(on_both, cls, path):
    on_both(both_refuse_other_places, cls, path)


def both_warn_of_zeros(place):
    corner = torch.zeros(4, 4)
    corner[3, 3] = 1
    zeros = torch.zeros(1, 4)  # of which one process has nothing, if rows are shared
    place = [PLACES[place]]
    weights = [torch.ones(2), *(distribute_tensor(w, flat(), place) for w in (corner, zeros))]
    for w in weights:
        w.grad = torch.zeros_like(w)
    PAdam(weights[:2]).step()
    with pytest.warns(UserWarning, match="1 of 3 tensors to be decayed with p < 2 are all zeros"):
        PAdam(weights).step()


@every_place
def test_padam_warns_of_zeros_everywhere_not_of_zero_shards(on_both, place):
    on_both(both_warn_of_zeros, place)


def both_ask_of_sparsity(place):
    generator = torch.Generator().manual_seed(0)
    alone = new_model()
    with torch.no_grad():
        for p in alone.parameters():
            p.mul_(10.0 ** torch.randint(-9, 1, p.shape, generator=generator))
        alone[0].weight[:4] = 0  # all that one of two processes has
        alone[0].weight[5] = 1e-7
        alone[2].weight[:] = 0
    model = copy.deepcopy(alone)
    for layer in model[::2]:
        weight = distribute_tensor(layer.weight.detach(), flat(), [PLACES[place]])
        layer.weight = nn.Parameter(weight)
        layer.bias = nn.Parameter(distribute_tensor(layer.bias.detach(), flat(), [Shard(0)]))

    def names(groups):
        return [(g["weight_decay"], [name for name, _ in g["params"]]) for g in groups]

    assert names(decay_groups(model, 0.1)) == names(decay_groups(alone, 0.1))
    assert names(decay_groups(model, 0.1))[0] == (0.1, ["0.weight", "4.weight"])
    report = sparsity_report(model)
    assert report == sparsity_report(alone)
    assert report.rows[0].dead[:4] == (4, 4, 4, 5)
    assert {type(n) for row in report.rows for n in row.counts + row.dead} == {int}
    assert hard_zero(model, 1e-6) == hard_zero(alone, 1e-6) > 0
    assert equal(whole(model.parameters()), alone.parameters())
    assert sparsity_report(model) == sparsity_report(alone)


@every_place
def test_the_numbers_of_small_weights_are_those_of_the_whole_model(on_both, place):
    on_both(both_ask_of_sparsity, place)
