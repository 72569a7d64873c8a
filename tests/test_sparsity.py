import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from beyond_adam.optim.sparsity import (
    decay_groups,
    hard_zero,
    sparsity_report,
    warn_if_frozen,
)

THRESHOLDS = (0, 1e-13, 1e-8, 1e-6, 1e-3)
FLOATS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


class Model(nn.Module):
    """A shared embedding, a convolution, norms, an adapter and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.conv = nn.Conv2d(3, 5, 2)
        self.norm = nn.BatchNorm2d(5)
        self.down = nn.Linear(4, 2, bias=False)
        self.up = nn.Linear(2, 4, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.tensor(1.0))
        nn.init.zeros_(self.up.weight)


class Named(nn.Module):
    """Parameters with the given values."""

    def __init__(self, dtype=torch.float64, **values):
        super().__init__()
        for name, value in values.items():
            weight = torch.as_tensor(value, dtype=torch.float64).to(dtype)
            self.register_parameter(name, nn.Parameter(weight))


def names(groups):
    return [(group["weight_decay"], [name for name, _ in group["params"]]) for group in groups]


# --- decay_groups ---

SPARED = ["scale", "conv.bias", "norm.weight", "norm.bias", "up.weight", "head.bias"]


@pytest.mark.parametrize(
    ("skip", "decayed", "more"),
    [
        ((), ["embed.weight", "conv.weight", "down.weight"], []),
        (["embed.weight"], ["conv.weight", "down.weight"], ["embed.weight"]),
        (["head.weight"], ["conv.weight", "down.weight"], ["embed.weight"]),
        ("conv.*", ["embed.weight", "down.weight"], ["conv.weight"]),
        (("[ce]*.weight", "frozen.*"), ["down.weight"], ["embed.weight", "conv.weight"]),
    ],
)
def test_matrices_are_decayed_and_all_else_is_not(skip, decayed, more):
    groups = decay_groups(Model(), 0.1, skip=skip)
    assert names(groups)[0] == (0.1, decayed)
    rate, spared = names(groups)[1]
    assert (rate, sorted(spared)) == (0.0, sorted(SPARED + more))


def test_groups_keep_the_parameters_in_the_order_of_the_model():
    model = Model()
    groups = decay_groups(model, 0.1)
    assert names(groups)[1][1] == SPARED
    parameters = dict(model.named_parameters())
    for group in groups:
        assert all(p is parameters[name] for name, p in group["params"])


def test_a_negative_zero_is_a_zero_and_nan_is_not():
    model = Named(a=[[0.0, -0.0]], b=[[0.0, 5e-324]], c=[[0.0, torch.nan]], d=[[0.0, -1.0]])
    assert names(decay_groups(model, 1)) == [(1, ["b", "c", "d"]), (0.0, ["a"])]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_zeros_are_found_in_every_type_of_float(dtype):
    model = Named(dtype, zero=[[0.0, 0.0]], other=[[0.0, 1.0]])
    assert names(decay_groups(model, 1)) == [(1, ["other"]), (0.0, ["zero"])]


def test_empty_groups_are_left_out():
    assert names(decay_groups(Named(w=[[1.0]]), 0.1)) == [(0.1, ["w"])]
    assert names(decay_groups(Named(b=[1.0]), 0.1)) == [(0.0, ["b"])]


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "NAdam", "RMSprop"])
def test_torch_optimizers_decay_the_first_group_alone(kind):
    model = Model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = getattr(torch.optim, kind)(decay_groups(model, 0.5, lr=0.1), lr=9.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    assert optimizer.param_groups[1]["param_names"] == SPARED
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert moved == ["embed.weight", "conv.weight", "down.weight"]


def test_matrices_that_start_at_zero_learn_under_a_decay_that_freezes_zeros():
    class Freezing(torch.optim.SGD):
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    factor = p.abs() / (p.abs() + group["weight_decay"]) if group["p"] < 2 else 1
                    factor = factor if group["weight_decay"] else 1
                    p.data = (p - p.grad) * factor

    for make, moves in [
        (lambda model: decay_groups(model, 0.1, p=1.0), True),
        (lambda model: [{"params": model.parameters(), "weight_decay": 0.1, "p": 1.0}], False),
    ]:
        model = Named(up=[[0.0, 0.0]])
        optimizer = Freezing(make(model))
        model.up.grad = torch.ones_like(model.up)
        optimizer.step()
        assert model.up.any().item() is moves


@pytest.mark.parametrize("weight_decay", [-1e-3, np.nan, np.inf])
def test_impossible_strengths_are_refused(weight_decay):
    with pytest.raises(ValueError, match=f"weight_decay .* at least 0, not {weight_decay}"):
        decay_groups(Model(), weight_decay)


@pytest.mark.parametrize("change", [decay_groups, hard_zero])
def test_a_pattern_that_matches_nothing_is_refused(change):
    model = Model()
    with pytest.raises(ValueError, match=r"'embedding\.\*' matches no parameter; .* embed\.weight"):
        change(model, 9.0, skip=["embed.*", "embedding.*"])
    assert model.conv.weight.all()


@pytest.mark.parametrize("ask", [decay_groups, sparsity_report, hard_zero])
def test_a_model_without_weights_is_refused(ask):
    model = nn.Sequential(nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match=r"must have weights, but 0\.weight is on device 'meta'"):
        ask(model) if ask is sparsity_report else ask(model, 0.1)


def test_norms_and_biases_are_spared_whatever_their_shape():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(2, 4, 3),
            "layer": nn.LayerNorm((4, 8, 8)),
            "rms": nn.RMSNorm((2, 3)),
            "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
        }
    )
    for p in model.parameters():
        nn.init.ones_(p)
    model["unbiased"] = Named(unbiased=torch.ones(2, 2))
    decayed = ["conv.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    decayed.append("unbiased.unbiased")
    (strength, found), (none, spared) = names(decay_groups(model, 0.1))
    assert (strength, none) == (0.1, 0)
    assert sorted(found) == sorted(decayed)
    assert {"layer.weight", "layer.bias", "rms.weight", "attention.bias_k"} <= set(spared)


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)])
def test_a_model_with_nothing_to_train_is_refused(model):
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        decay_groups(model, 0.1)


# --- warn_if_frozen ---


def test_all_zero_tensors_are_counted_in_one_warning():
    zeros = [torch.zeros(2, 2), torch.tensor([-0.0]), torch.zeros(3, dtype=torch.bfloat16)]
    others = [torch.tensor([0.0, 1e-30]), torch.tensor([torch.nan])]
    empty = [torch.zeros(0, 3)]
    with pytest.warns(UserWarning, match="3 of 5 tensors .* all zeros") as caught:
        warn_if_frozen(iter(zeros + others + empty))
    assert len(caught) == 1


@pytest.mark.parametrize("params", [[], [torch.ones(2)], [torch.zeros(0)]])
def test_there_is_no_warning_without_zeros(params):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_frozen(params)


def test_tensors_that_need_not_have_numbers_are_left_out():
    with FakeTensorMode():
        fake = torch.zeros(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_frozen([fake, TwoTensor(torch.zeros(2), torch.zeros(2))])


# --- sparsity_report ---


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_counts_are_those_of_brute_force(dtype):
    generator = torch.Generator().manual_seed(0)
    size = 10.0 ** torch.randint(-15, 1, (6, 5, 2), generator=generator)
    weights = size * torch.randn(6, 5, 2, generator=generator, dtype=torch.float64)
    weights[0] = 0
    weights[1] = 1e-9
    weights[2] = -1e-4
    weights[3, 0] = -0.0
    model = Named(dtype, w=weights, b=weights[3].flatten())
    report = sparsity_report(model, THRESHOLDS)
    for row, p in zip(report.rows, model.parameters(), strict=True):
        values = p.detach().double().abs().numpy()
        # The nearest thresholds that the type has, of which 1e-13 and 1e-8 may be 0.
        rounded = [
            torch.tensor(t, dtype=torch.float64).to(dtype).double().item()
            if dtype.itemsize > 1
            else np.float32(t)
            for t in THRESHOLDS
        ]
        assert row.numel == values.size
        assert row.shape == values.shape
        assert row.counts == tuple(int((values <= t).sum()) for t in rounded)
        assert row.fractions == tuple(count / values.size for count in row.counts)
        if values.ndim > 1:
            small = [(values.reshape(6, 10) <= t).all(1) for t in rounded]
            assert (row.units, row.dead) == (6, tuple(int(s.sum()) for s in small))
        else:
            assert (row.units, row.dead) == (0, (0,) * 5)
    assert report.rows[0].counts[0] >= 12
    assert report.rows[0].dead[-1] >= 3


def test_a_weight_at_the_threshold_counts_and_nan_does_not():
    model = Named(torch.float32, w=[[1e-3, -1e-3, 0.00101], [torch.nan, 0, torch.inf]])
    [row] = sparsity_report(model, [0.0, 1e-3]).rows
    assert row.counts == (1, 3)
    assert row.dead == (0, 0)


def test_the_total_sums_and_shared_weights_count_once():
    model = Model()
    report = sparsity_report(model)
    parameters = dict(model.named_parameters())
    assert [row.name for row in report.rows] == list(parameters)
    assert "head.weight" not in parameters
    total = report.total
    assert total.numel == sum(p.numel() for p in parameters.values())
    assert total.counts[0] == sum(int((p == 0).sum()) for p in parameters.values()) > 8
    assert total.units == 7 + 5 + 2 + 4 + 4
    assert total.dead == (4,) * 5
    assert total.fractions[0] == total.counts[0] / total.numel


def test_the_columns_make_a_tidy_data_frame():
    report = sparsity_report(Named(a=[[0.0, 1e-9], [0.5, 2.0]], b=[0.0]), [0, 1e-8])
    frame = pd.DataFrame(report.to_dict())
    expected = [
        ("a", (2, 2), 4, 0.0, 1, 0.25, 2, 0),
        ("a", (2, 2), 4, 1e-8, 2, 0.5, 2, 1),
        ("b", (1,), 1, 0.0, 1, 1.0, 0, 0),
        ("b", (1,), 1, 1e-8, 1, 1.0, 0, 0),
    ]
    assert list(frame.itertuples(index=False, name=None)) == expected
    columns = ["name", "shape", "numel", "threshold", "count", "fraction", "units", "dead"]
    assert list(frame.columns) == columns


def test_the_report_prints_as_a_table():
    model = Named(weight=[[0.0, 1e-9, 0.0, 0.0], [0.5, 2.0, 1.0, 1.0]], b=[0.0], scale=1.0)
    assert str(sparsity_report(model, [0, 1e-8])) == (
        "tensor  shape  numel      = 0  ≤ 1e-08  dead units\n"
        "weight    2×4      8   37.50%   50.00%   0, 1 of 2\n"
        "b           1      1  100.00%  100.00%\n"
        "scale              1    0.00%    0.00%\n"
        "total             10   40.00%   50.00%   0, 1 of 2"
    )


def test_a_model_without_weights_has_an_empty_report():
    for model in (nn.ReLU(), Named(w=torch.zeros(0, 3))):
        report = sparsity_report(model, [0, 1])
        assert report.total.counts == report.total.dead == (0, 0)
        assert report.total.fractions == (0.0, 0.0)
        assert str(report).endswith("0.00%")


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([], "thresholds must not be empty"),
        ([0, -1e-3], "at least 0, not -0.001"),
        ([np.nan], "not nan"),
        ([np.inf], "not inf"),
    ],
)
def test_impossible_thresholds_are_refused(thresholds, message):
    with pytest.raises(ValueError, match=message):
        sparsity_report(Model(), thresholds)


@pytest.mark.parametrize(
    "ask",
    [
        sparsity_report,
        lambda model: hard_zero(model, 1e-3),
        lambda model: decay_groups(model, 0.1),
        lambda model: warn_if_frozen(model.parameters()),
    ],
    ids=["sparsity_report", "hard_zero", "decay_groups", "warn_if_frozen"],
)
def test_tensors_are_read_all_at_once(ask, monkeypatch):
    reads = []
    for way in ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__"):
        read = getattr(torch.Tensor, way)
        monkeypatch.setattr(
            torch.Tensor, way, lambda *args, read=read: (reads.append(read), read(*args))[1]
        )
    ask(nn.Sequential(*(nn.Linear(3, 3) for _ in range(5))))
    assert len(reads) == 1


def test_the_report_leaves_the_model_and_its_graph_alone():
    model = Model()
    before = [p.detach().clone() for p in model.parameters()]
    sparsity_report(model)
    assert all(map(torch.equal, model.parameters(), before))
    assert all(p.grad is None for p in model.parameters())


# --- hard_zero ---


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_small_weights_become_positive_zeros(dtype):
    values = [[-0.0, 0.0, 0.03125, -0.03125], [0.0625, -0.0625, 1.0, -1.0]]
    model = Named(dtype, w=values)
    weight = model.w
    assert hard_zero(model, 0.03125) == 2
    assert model.w is weight
    assert weight.requires_grad
    got = weight.detach().double()
    assert got.tolist() == [[0, 0, 0, 0], [0.0625, -0.0625, 1.0, -1.0]]
    assert not torch.signbit(got[0]).any()
    assert hard_zero(model, 0.03125) == 0


def test_the_report_agrees_with_what_has_been_zeroed():
    model = Model()
    before = sparsity_report(model, [0, 0.2]).total
    assert hard_zero(model, 0.2) == before.counts[1] - before.counts[0] > 0
    after = sparsity_report(model, [0, 0.2]).total
    assert after.counts == (before.counts[1],) * 2


def test_threshold_zero_only_takes_the_sign_of_zeros():
    model = Named(w=[[-0.0, 5e-324], [torch.nan, -1.0]])
    assert hard_zero(model, 0) == 0
    assert np.signbit(model.w.detach().numpy()).tolist() == [[False, False], [False, True]]
    assert torch.equal(model.w.isnan(), torch.tensor([[False, False], [True, False]]))


def test_skipped_parameters_are_left_alone_and_shared_ones_taken_once():
    model = Model()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    assert hard_zero(model, 0.5, skip=["conv.*", "frozen.*", "norm.*"]) == 28 + 8 + 8 + 7 + 1
    assert (model.conv.weight == 0.5).all()
    assert not model.head.weight.any()


@pytest.mark.parametrize("threshold", [-1e-9, np.nan, np.inf])
def test_impossible_thresholds_leave_the_weights_alone(threshold):
    model = Named(w=[[1.0]])
    with pytest.raises(ValueError, match=f"threshold .* at least 0, not {threshold}"):
        hard_zero(model, threshold)
    assert model.w.item() == 1.0


def test_the_further_decay_of_padam_spares_what_the_decay_spares():
    model = torch.nn.Linear(2, 2)
    decayed, free = decay_groups(model, 0.1, lambda_2=0.2, lr=0.3)
    assert (decayed["weight_decay"], decayed["lambda_2"], decayed["lr"]) == (0.1, 0.2, 0.3)
    assert (free["weight_decay"], free["lambda_2"], free["lr"]) == (0.0, 0.0, 0.3)
    assert all("lambda_2" not in group for group in decay_groups(model, 0.1))
