import copy
import doctest
import importlib
import itertools
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from beyond_adam.models import fashion_cnn, mlp, slim
from beyond_adam.models.mlp import ACTIVATIONS
from beyond_adam.models.slim import FORMATS, sizes

LAYERS, POOLINGS = (nn.Linear, nn.Conv2d), (nn.MaxPool2d, nn.AvgPool2d)


def chain(*modules, seed=0):
    """Return a chain in float64 and evaluation mode, with weights and biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(*modules).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.1 + torch.rand(p.shape, generator=generator))
            p.mul_(torch.randint(2, p.shape, generator=generator) * 2 - 1)
    return model


def constant(layer, **values):
    """Make units constants: by number, with a bias."""
    with torch.no_grad():
        for unit, value in values.items():
            layer.weight[int(unit[1:])] = 0
            if layer.bias is not None:
                layer.bias[int(unit[1:])] = value


def unused(layer, *inputs):
    with torch.no_grad():
        layer.weight[:, inputs] = 0


def widths(model):
    return [len(layer.weight) for layer in model if isinstance(layer, LAYERS)]


def images(channels=1, side=6, batch=3):
    return torch.randn(
        batch, channels, side, side, generator=torch.Generator().manual_seed(1)
    ).double()


def assert_same(model, slimmed, x):
    torch.testing.assert_close(slimmed(x), model(x), rtol=1e-12, atol=1e-12)


def dense(*between, units=5):
    return chain(nn.Linear(3, units), *between, nn.Linear(units, 2))


def convolutional(*between, padding=1, **options):
    """Return two convolutions with five channels between them."""
    return chain(nn.Conv2d(1, 5, 3), *between, nn.Conv2d(5, 2, 3, padding=padding, **options))


X = torch.randn(4, 3, generator=torch.Generator().manual_seed(2)).double()


def test_units_that_are_never_positive_go():
    model = dense(nn.ReLU())
    constant(model[0], u1=-1.0, u3=0.0)
    slimmed = slim(model)
    assert widths(slimmed) == [3, 2]
    kept = [0, 2, 4]
    for name, expected in (("weight", model[0].weight[kept]), ("bias", model[0].bias[kept])):
        assert torch.equal(getattr(slimmed[0], name), expected)
    assert torch.equal(slimmed[2].weight, model[2].weight[:, kept])
    assert torch.equal(slimmed[2].bias, model[2].bias)
    assert_same(model, slimmed, X)


def test_a_constant_moves_into_the_bias():
    model = dense(nn.ReLU())
    constant(model[0], u1=2.0, u3=0.5)
    slimmed = slim(model)
    assert widths(slimmed) == [3, 2]
    w, b = model[2].weight, model[2].bias
    torch.testing.assert_close(slimmed[2].bias, b + 2 * w[:, 1] + 0.5 * w[:, 3])
    assert_same(model, slimmed, X)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_constant_goes_through_any_activation(activation):
    model = dense(ACTIVATIONS[activation](), nn.Dropout(0.5))
    constant(model[0], u0=-0.7, u1=0.0, u2=1.5)
    slimmed = slim(model)
    assert widths(slimmed) == [2, 2]
    assert_same(model, slimmed, X)


def test_what_nobody_reads_goes():
    model = dense(nn.Tanh())
    unused(model[2], 0, 4)
    slimmed = slim(model)
    assert widths(slimmed) == [3, 2]
    assert torch.equal(slimmed[2].bias, model[2].bias)
    assert_same(model, slimmed, X)


def test_a_bias_is_made_if_there_is_none_and_it_is_needed():
    model = chain(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2, bias=False))
    constant(model[0], u1=-1.0)
    assert slim(model)[2].bias is None
    constant(model[0], u2=1.0)
    slimmed = slim(model)
    torch.testing.assert_close(slimmed[2].bias.detach(), model[2].weight[:, 2].detach())
    assert_same(model, slimmed, X)


def test_without_a_bias_the_constant_is_zero():
    model = chain(nn.Linear(3, 5, bias=False), nn.Sigmoid(), nn.Linear(5, 2))
    constant(model[0], u1=0.0)
    slimmed = slim(model)
    assert widths(slimmed) == [4, 2]
    assert_same(model, slimmed, X)


@pytest.mark.parametrize(
    "between", [[nn.ReLU()], [nn.MaxPool2d(2, padding=1), nn.ReLU()], [nn.ReLU(), nn.AvgPool2d(2)]]
)
def test_before_padding_only_channels_of_zeros_go(between):
    model = convolutional(*between)
    constant(model[0], u0=1.0, u1=-1.0, u4=0.0)
    slimmed = slim(model)
    assert widths(slimmed) == [3, 2]
    assert torch.equal(slimmed[0].bias, model[0].bias[[0, 2, 3]])
    assert_same(model, slimmed, images())


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 0},
        {"padding": "valid"},
        {"padding": "same", "padding_mode": "circular"},
        {"padding": 1, "padding_mode": "replicate"},
        {"padding": 1, "padding_mode": "reflect"},
    ],
)
def test_where_no_zeros_are_padded_all_constants_go(options):
    model = convolutional(nn.ReLU(), **options)
    constant(model[0], u0=1.0, u1=-1.0)
    slimmed = slim(model)
    assert widths(slimmed) == [3, 2]
    assert_same(model, slimmed, images())


@pytest.mark.parametrize(
    ("pooling", "left"),
    [
        (nn.AvgPool2d(2), 3),
        (nn.AvgPool2d(2, padding=1), 4),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), 3),
        (nn.AvgPool2d(2, divisor_override=3), 4),
        (nn.MaxPool2d(2, padding=1), 3),
    ],
)
def test_an_average_keeps_constants_unless_it_counts_zeros_around_the_image(pooling, left):
    model = chain(nn.Conv2d(1, 5, 3), nn.ReLU(), pooling, nn.Conv2d(5, 2, 2))
    constant(model[0], u0=1.0, u1=-1.0)
    slimmed = slim(model)
    assert widths(slimmed) == [left, 2]
    assert_same(model, slimmed, images())


def test_a_constant_channel_is_constant_at_all_places_that_are_flattened():
    model = chain(
        nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)
    )
    constant(model[0], u1=0.25)
    slimmed = slim(model)
    assert slimmed[4].weight.shape == (4, 18)
    assert slimmed[4].in_features == 18
    w = model[4].weight.unflatten(1, (3, 9))
    torch.testing.assert_close(slimmed[4].bias, model[4].bias + 0.25 * w[:, 1].sum(1))
    assert torch.equal(slimmed[4].weight, w[:, [0, 2]].flatten(1))
    assert_same(model, slimmed, images())


def deep(*changes):
    model = mlp([3, 4, 4, 4, 2], "relu")
    for change in changes:
        change(model)
    return model


def test_constants_lead_to_constants():
    model = deep()
    constant(model[0], u0=-1.0, u1=2.0)
    with torch.no_grad():
        model[2].weight[1, 2:] = 0  # so that this unit depends on constants alone
        model[4].weight[2, [0, 2, 3]] = 0  # and this one on that
    slimmed = slim(model)
    assert widths(slimmed) == [2, 3, 3, 2]
    assert_same(model, slimmed, X)


def test_what_only_unused_units_read_is_unused():
    model = deep()
    unused(model[6], 0)
    with torch.no_grad():
        model[4].weight[1:, 1] = 0
        model[2].weight[[0, 2, 3], 2] = 0
    slimmed = slim(model)
    assert widths(slimmed) == [3, 3, 3, 2]
    assert_same(model, slimmed, X)


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_a_layer_without_effect_leaves_a_constant_network_of_single_units(layer):
    for part in ("constant", "unused"):
        model = deep()
        if part == "constant":
            constant(model[layer], u0=1.0, u1=-1.0, u2=2.0, u3=0.0)
        else:
            unused(model[layer + 2], 0, 1, 2, 3)
        slimmed = slim(model)
        assert widths(slimmed) == [1, 1, 1, 2]
        assert slimmed(X).std(dim=0).max() < 1e-12
        assert_same(model, slimmed, X)


def test_a_constant_that_has_to_stay_is_not_silenced():
    model = chain(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1))
    constant(model[0], u0=1.0)
    assert_same(model, slim(model), images())


def test_the_model_is_left_as_it_was():
    model = fashion_cnn(side=8, widths=(4, 4, 4))
    constant(model[0], u1=-1.0)
    unused(model[10], 2)
    model[3].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    slimmed = slim(model)
    assert str(slimmed) != str(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert slimmed.training
    assert list(slimmed.state_dict()) == list(before)
    grads = [p.requires_grad for p in slimmed.parameters()]
    assert grads == [p.requires_grad for p in model.parameters()]
    for p in slimmed.parameters():
        assert p.is_leaf
        assert p.dtype == torch.float32


def test_what_is_printed_of_a_layer_is_true():
    model = fashion_cnn(side=8, widths=(4, 5, 6))
    constant(model[0], u1=-1.0)
    constant(model[3], u1=2.0, u3=-1.0)
    constant(model[7], u0=2.0)
    slimmed = slim(model)
    layers = [layer for layer in slimmed if isinstance(layer, LAYERS)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers[:2]] == [(1, 3), (3, 3)]
    assert [(layer.in_features, layer.out_features) for layer in layers[2:]] == [(12, 5), (5, 10)]
    for layer in layers:
        fresh = type(layer)(*layer.weight.shape[1::-1], *layer.weight.shape[2:3])
        assert layer.weight.shape == fresh.weight.shape
        assert layer.bias.shape == fresh.bias.shape


def test_the_network_of_the_post_without_most_of_its_weights():
    torch.manual_seed(0)
    model = fashion_cnn().eval()
    with torch.no_grad():
        model[0].weight[::2] = 0
        model[3].weight[torch.rand(64) < 0.5] = 0
        model[3].bias.abs_()
        model[7].weight[torch.rand(128, 3136) < 0.995] = 0
        model[7].weight[torch.rand(128) < 0.5] = 0
    slimmed = slim(model)
    assert all(few < many for few, many in zip(widths(slimmed)[:3], (32, 64, 128), strict=True))
    x = torch.randn(16, 1, 28, 28)
    torch.testing.assert_close(slimmed(x), model(x), rtol=0, atol=1e-6)


def random_chain(seed, dtype):
    """Return a chain of two to six layers, many parts of which are zero, and an input."""
    rng = np.random.default_rng(seed)
    side, channels = 13, int(rng.integers(1, 4))
    x_shape = (2, channels, side, side)
    modules = []
    for _ in range(rng.integers(0, 4)):
        padding = int(rng.integers(2))
        mode = str(rng.choice(["zeros", "zeros", "circular", "replicate"]))
        width = int(rng.integers(1, 6))
        bias = bool(rng.integers(4))
        modules.append(nn.Conv2d(channels, width, 3, padding=padding, padding_mode=mode, bias=bias))
        channels, side = width, side - 2 + 2 * padding
        if rng.integers(2) and side >= 6:
            pooling = [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AvgPool2d(2, padding=1)]
            modules.append(pooling[rng.integers(3)])
            side = (side + 2 * int(modules[-1].padding)) // 2
        modules.append(ACTIVATIONS[str(rng.choice(["relu", "relu", "sigmoid", "gelu"]))]())
    modules.append(nn.Flatten())
    inputs = channels * side**2
    for width in rng.integers(1, 6, size=rng.integers(2, 4)):
        modules.append(nn.Linear(inputs, int(width), bias=bool(rng.integers(4))))
        modules.append(nn.Dropout(0.3))
        modules.append(ACTIVATIONS[str(rng.choice(["relu", "relu", "tanh"]))]())
        inputs = int(width)
    model = nn.Sequential(*modules).to(dtype).eval()
    with torch.no_grad():
        for p in model.parameters():
            values = rng.standard_normal(p.shape) / max(1, p[0].numel()) ** 0.5
            values *= rng.random(p.shape) < rng.choice([0.2, 0.5, 1])
            if p.ndim > 1:
                values[rng.random(len(p)) < rng.choice([0, 0.4, 0.8])] = 0
                values[:, rng.random(p.shape[1]) < rng.choice([0, 0.4, 0.8])] = 0
            p.copy_(torch.from_numpy(values))
    return model, torch.from_numpy(rng.standard_normal(x_shape)).to(dtype)


def removable(model):
    """Return how many more units could go, by the definition, one by one."""
    number = 0
    layers = [index for index, module in enumerate(model) if isinstance(module, LAYERS)]
    for first, last in itertools.pairwise(layers):
        before, after = model[first], model[last]
        units = len(before.weight)
        if units == 1:
            continue
        outgoing = after.weight.reshape(len(after.weight), units, -1)
        padded = isinstance(after, nn.Conv2d) and after.padding_mode == "zeros"
        padded = padded and after.padding[0] > 0
        for unit in range(units):
            value = torch.zeros(1) if before.bias is None else before.bias[unit]
            stays = bool(before.weight[unit].any())
            for module in model[first + 1 : last]:
                if isinstance(module, POOLINGS):
                    stays |= module.padding == 1 and value.item() != 0
                elif not isinstance(module, nn.Flatten):
                    value = module(value)
            stays |= padded and value.item() != 0
            number += not stays or not outgoing[:, unit].any()
    return number


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_random_network_is_the_same_function_and_nothing_is_left_to_remove(seed):
    for dtype, error in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        model, x = random_chain(seed, dtype)
        slimmed = slim(model)
        torch.testing.assert_close(slimmed(x), model(x), rtol=0, atol=error)
        assert removable(slimmed) == 0
        assert widths(slim(slimmed)) == widths(slimmed)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)],
            r"module 1, BatchNorm2d.* is none of Linear",
        ),
        ([nn.Sequential(nn.Linear(2, 2))], r"module 0, Sequential"),
        ([nn.Conv2d(2, 2, 3, groups=2)], r"module 0, Conv2d.* must have one group"),
        ([nn.Linear(2, 2), nn.Flatten(0)], r"module 1, Flatten.* all dimensions but the first"),
        (
            [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(2, 2)],
            r"module 2, .* with the units of Conv2d",
        ),
        ([nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(9, 2)], r"module 2, .* the units"),
        ([nn.Conv2d(1, 2, 3), nn.Conv2d(3, 2, 3)], r"module 1, .* the units"),
        ([nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Conv2d(2, 2, 3)], r"module 2, .* the units"),
        ([nn.Linear(2, 2), nn.Conv2d(2, 2, 3)], r"module 1, .* the units"),
        ([nn.Linear(2, 2), nn.Flatten(), nn.Linear(6, 2)], r"module 2, .* the units"),
        ([nn.Linear(4, 4), nn.MaxPool2d(1), nn.Linear(4, 4)], r"module 2, .* the units"),
        ([nn.Linear(2, 2)] * 2, r"module 1, .* one place only"),
    ],
)
def test_chains_that_are_not_understood_are_refused(modules, message):
    with pytest.raises(ValueError, match=message):
        slim(nn.Sequential(*modules))


def counted(tensor):
    return sizes({"tensor": torch.tensor(tensor)})


def test_weights_that_are_being_pruned_are_refused():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    prune.l1_unstructured(model[2], "weight", amount=1)
    with torch.no_grad():
        model(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"module 2, Linear.* make pruning permanent first"):
        slim(model)
    prune.remove(model[2], "weight")
    assert slim(model)[0].out_features == 1


def test_formats_of_a_matrix_counted_by_hand():
    # 3 of 2 × 5 entries: a value takes 4 bytes, a short index 2.
    found = counted([[0.0, 1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 3.0, 0.0, -0.0]])
    assert list(found) == list(FORMATS)
    assert found["dense"] == 40
    assert found["bitmap"] == 2 + 12
    assert found["CSR"] == 12 + 3 * 2 + 3 * 2
    assert found["coordinates"] == 12 + 3 * 2
    assert found["best"] == 14


def test_best_is_chosen_for_each_tensor():
    state = {"full": torch.ones(3, 3), "none": torch.zeros(3, 3), "vector": torch.ones(2)}
    found = sizes(state)
    assert found["dense"] == 36 + 36 + 8
    assert found["bitmap"] == (2 + 36) + 2 + (1 + 8)
    assert found["CSR"] == (36 + 9 * 2 + 4 * 2) + 4 * 2 + 8
    assert found["coordinates"] == 9 * 6 + 0 + 2 * 6
    assert found["best"] == 36 + 0 + 8


def test_kernels_are_matrices_with_a_row_for_each_output():
    kernel = torch.zeros(4, 3, 5, 5)
    kernel[0, 2, 4, 4] = kernel[3, 0, 0, 0] = 1
    assert sizes({"kernel": kernel})["CSR"] == 2 * (4 + 2) + 5 * 2


@pytest.mark.parametrize(
    ("shape", "left", "coordinates", "csr"),
    [
        # Indices up to 32767 take 2 bytes: of places, of columns, and of where rows begin.
        ((1, 32768), 1, 4 + 2, (4 + 2) + 2 * 2),
        ((1, 32769), 1, 4 + 4, (4 + 4) + 2 * 2),
        ((2, 32768), 1, 4 + 4, (4 + 2) + 3 * 2),
        ((2, 32768), 32767, 8 * 32767, 6 * 32767 + 3 * 2),
        ((2, 32768), 32768, 8 * 32768, 6 * 32768 + 3 * 4),
    ],
)
def test_indices_are_short_as_long_as_they_fit(shape, left, coordinates, csr):
    tensor = torch.zeros(shape)
    tensor.view(-1)[:left] = 1
    found = sizes({"tensor": tensor})
    assert (found["coordinates"], found["CSR"]) == (coordinates, csr)


def test_the_compressed_size_is_that_of_float32_in_the_order_of_names():
    state = {"b": torch.arange(50.0).view(2, 25).T, "a": torch.full((50,), 0.5).double()}
    entries = np.stack([np.arange(25), np.arange(25, 50)], axis=1)
    raw = np.concatenate([np.full(50, 0.5), entries.ravel()]).astype("<f4").tobytes()
    assert sizes(state)["zlib"] == len(zlib.compress(raw, 9))
    assert sizes(state)["dense"] == len(raw)


def test_tensors_without_entries_or_dimensions_take_what_they_take():
    found = sizes({"none": torch.zeros(0, 3), "scalar": torch.tensor(2.0, requires_grad=True)})
    assert (found["dense"], found["bitmap"], found["coordinates"]) == (4, 1 + 4, 6)
    assert (found["CSR"], found["best"]) == (2 + 4, 4)
    assert sizes({}) == dict.fromkeys(FORMATS, 0) | {"zlib": len(zlib.compress(b"", 9))}


def test_the_example_prints_what_it_says():
    module = importlib.import_module("beyond_adam.models.slim")
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0
