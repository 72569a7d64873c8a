import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from beyond_adam.models import (
    fashion_cnn,
    image_mlp,
    lstm,
    padam_wide_resnet,
    resnet18,
    resnet20,
    vgg16_bn,
    wide_resnet,
)

CONVOLUTIONAL = [fashion_cnn, vgg16_bn, resnet18, resnet20, wide_resnet, padam_wide_resnet]
MODELS = [*CONVOLUTIONAL, image_mlp, lstm]
OPTIONS = {image_mlp: {"sizes": [3 * 32 * 32, 20, 10]}}


def seeded(make, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(**OPTIONS.get(make, {}) | options)


def example(make=None, batch=2):
    shape = {lstm: (10, 1), fashion_cnn: (1, 28, 28)}.get(make, (3, 32, 32))
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def count(model):
    return sum(p.numel() for p in model.parameters())


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def scramble(model):
    """Give every parameter its own random values, so that none can stand in for another."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model


def copy_in_order(source, target):
    values = source.state_dict().values()
    target.load_state_dict(dict(zip(target.state_dict(), values, strict=True)))


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        # Post on p-norm Adam: "roughly 420k".
        (fashion_cnn, 421_642),
        # Code of Padam, 10 and 100 classes.
        (vgg16_bn, 14_728_266),
        (lambda: vgg16_bn(100, dropout=0.5), 14_774_436),
        (resnet18, 11_173_962),
        (lambda: resnet18(100), 11_220_132),
        # HyperAdam, one and two layers.
        (lstm, 1_781),
        (lambda: lstm(layers=2), 5_061),
    ],
)
def test_parameters_are_as_many_as_published(make, parameters):
    with torch.device("meta"):
        assert count(make()) == parameters


@pytest.mark.parametrize(
    ("make", "millions"),
    [
        # He et al., table 6.
        (resnet20, "0.27"),
        # Zagoruyko and Komodakis, the tables on depth and width.
        (lambda: wide_resnet(40, 1), "0.6"),
        (lambda: wide_resnet(40, 2), "2.2"),
        (lambda: wide_resnet(40, 4), "8.9"),
        (lambda: wide_resnet(16, 8), "11.0"),
        (lambda: wide_resnet(16, 10), "17.1"),
        (lambda: wide_resnet(22, 8), "17.2"),
        (lambda: wide_resnet(28, 10), "36.5"),
        # Later work on the 16-4 network, CIFAR-10 and CIFAR-100.
        (wide_resnet, "2.75"),
        (lambda: wide_resnet(classes=100), "2.77"),
    ],
)
def test_parameters_round_to_what_is_published(make, millions):
    decimals = len(millions.partition(".")[2])
    with torch.device("meta"):
        assert f"{count(make()) / 1e6:.{decimals}f}" == millions


def test_the_mlp_of_hyperadam_has_15910_parameters():
    model = seeded(image_mlp, sizes=[784, 20, 10], activation="tanh")
    assert count(model) == 15_910
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_the_shortcuts_of_resnet20_are_free_and_the_stem_of_the_wide_one_is_narrow():
    with torch.device("meta"):
        assert count(resnet20()) == 269_722  # option B has 2 752 more
        assert count(wide_resnet()) == 2_748_890


@pytest.mark.parametrize(("classes", "number"), [(10, 2_777_674), (100, 2_800_804)])
def test_padams_wide_network_has_as_many_parameters_as_its_code_makes(classes, number):
    with torch.device("meta"):
        assert count(padam_wide_resnet(classes)) == number


def test_padams_wide_network_is_a_residual_network_with_another_start_and_other_widths():
    model = scramble(padam_wide_resnet().double())
    tensors = iter(model.parameters())
    x = example(batch=4).double()

    def conv(x, stride=1):
        weight = next(tensors)
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def normal(x):
        return functional.batch_norm(x, None, None, next(tensors), next(tensors), training=True)

    out = functional.relu(normal(conv(x)))
    for stride in (1, 2, 2):
        inner = normal(conv(functional.relu(normal(conv(out, stride)))))
        shortcut = out if stride == 1 else normal(conv(out, stride))
        out = functional.relu(inner + shortcut)
        out = functional.relu(normal(conv(functional.relu(normal(conv(out))))) + out)
    out = functional.linear(out.mean(dim=(2, 3)), next(tensors), next(tensors))
    torch.testing.assert_close(model(x), out)
    assert next(tensors, None) is None


@pytest.mark.parametrize(
    ("make", "relus"), [(resnet18, 17), (resnet20, 19), (wide_resnet, 13), (padam_wide_resnet, 13)]
)
def test_every_activation_is_a_module_so_that_its_units_can_be_counted(make, relus):
    with torch.device("meta"):
        modules = make().modules()
    assert sum(isinstance(module, nn.ReLU) for module in modules) == relus


def test_resnet18_has_21_weights_to_decay_and_41_vectors():
    # Code of p-norm Adam: 11 164 352 parameters are decayed, 9 610 are not.
    with torch.device("meta"):
        parameters = list(resnet18().parameters())
    matrices = [p.numel() for p in parameters if p.ndim > 1]
    assert (len(parameters), len(matrices), sum(matrices)) == (62, 21, 11_164_352)


@pytest.mark.parametrize("make", MODELS)
def test_each_model_can_be_made_and_trained(make):
    model = seeded(make)
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    # Batch statistics take the biases before them out; running ones let their gradients through.
    out = model.eval()(example(make))
    assert out.shape == (2, 1 if make is lstm else 10)
    out.square().sum().backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        assert p.grad.any(), key


@pytest.mark.parametrize("make", [vgg16_bn, resnet18, resnet20, wide_resnet, padam_wide_resnet])
def test_the_number_of_classes_is_free(make):
    assert make(classes=7)(example()).shape == (2, 7)


@pytest.mark.parametrize("make", MODELS)
def test_each_model_is_drawn_from_the_global_generator(make):
    one, same, other = (vector(seeded(make, seed)) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("make", CONVOLUTIONAL)
def test_the_memory_format_changes_nothing(make):
    model = scramble(seeded(make).double()).eval()
    x = example(make).double()
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected)


def test_resnet18_is_that_of_torchvision_with_a_small_stem():
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    same_function(resnet18(), theirs)


def test_vgg16_is_that_of_torchvision_with_a_small_head():
    vgg = torchvision.models.vgg
    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    same_function(vgg16_bn(), nn.Sequential(features, nn.Flatten(), nn.Linear(512, 10)))


def test_resnet20_is_made_of_basic_blocks_and_zero_padding():
    class Pad(nn.Module):
        def forward(self, x):
            channels = x.shape[1]
            embedding = torch.eye(2 * channels, channels, dtype=x.dtype)
            return functional.conv2d(x, embedding[..., None, None], stride=2)

    def stage(inputs, outputs):
        block = torchvision.models.resnet.BasicBlock
        halves = outputs > inputs
        first = block(inputs, outputs, 1 + halves, Pad() if halves else None)
        return [first, block(outputs, outputs), block(outputs, outputs)]

    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    stages = [*stage(16, 16), *stage(16, 32), *stage(32, 64)]
    head = [nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10)]
    same_function(resnet20(), nn.Sequential(*stem, *stages, *head))


def same_function(ours, theirs):
    """Check that two modules with the same tensors in the same order agree, and their gradients."""
    copy_in_order(scramble(ours.double()), theirs.double())
    x = example().double()
    outputs = ours(x), theirs(x)
    torch.testing.assert_close(*outputs)
    for out in outputs:
        out.logsumexp(dim=1).sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_the_wide_resnet_is_that_of_the_paper():
    model = scramble(wide_resnet(16, 2).double())
    tensors = iter(model.parameters())
    x = example(batch=4).double()

    def conv(x, stride=1):
        weight = next(tensors)
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def active(x):
        normal = functional.batch_norm(x, None, None, next(tensors), next(tensors), training=True)
        return functional.relu(normal)

    out = conv(x)
    for stride in (1, 2, 2):
        preactivated = active(out)
        inner = conv(active(conv(preactivated, stride)))
        out = inner + conv(preactivated, stride)
        out = out + conv(active(conv(active(out))))
    out = functional.linear(active(out).mean(dim=(2, 3)), next(tensors), next(tensors))
    torch.testing.assert_close(model(x), out)
    assert next(tensors, None) is None


@pytest.mark.parametrize("layers", [1, 2])
def test_the_lstm_is_that_of_torch_with_one_bias(layers):
    ours = scramble(lstm(3, 2, hidden=5, layers=layers).double())
    theirs = nn.LSTM(3, 5, layers, batch_first=True).double()
    with torch.no_grad():
        for index, layer in enumerate(ours.layers):
            weight, recurrent = layer.parameters()
            getattr(theirs, f"weight_ih_l{index}").copy_(weight[:, :-1])
            getattr(theirs, f"weight_hh_l{index}").copy_(recurrent)
            getattr(theirs, f"bias_ih_l{index}").copy_(weight[:, -1])
            getattr(theirs, f"bias_hh_l{index}").zero_()
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(ours(x), ours.head(theirs(x)[0][:, -1]))


@pytest.mark.parametrize(
    ("make", "fan"), [(resnet20, "in"), (wide_resnet, "out"), (padam_wide_resnet, "out")]
)
def test_convolutions_start_with_the_variance_of_the_source(make, fan):
    sizes = set()
    for module in seeded(make).modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach()
            ends = {"in": module.in_channels, "out": module.out_channels}
            expected = math.sqrt(2 / (ends[fan] * module.kernel_size[0] ** 2))
            # Five standard errors of the standard deviation of n normal numbers, σ/√(2n).
            tolerance = 5 / math.sqrt(2 * weight.numel())
            assert weight.std().item() == pytest.approx(expected, rel=tolerance)
            assert abs(weight.mean().item()) < 5 * expected / math.sqrt(weight.numel())
            sizes.add(weight.shape)
    assert len(sizes) > 5


@pytest.mark.parametrize(
    ("make", "layer"),
    [(vgg16_bn, nn.Conv2d), (resnet18, nn.Conv2d), (wide_resnet, nn.Linear)],
)
def test_other_layers_start_as_torch_draws_them(make, layer):
    # Kaiming-uniform with a = √5: bounded by 1/√fan-in, and close to the bound somewhere.
    for module in seeded(make).modules():
        if isinstance(module, layer):
            largest = module.weight.detach().abs().max() * math.sqrt(module.weight[0].numel())
            assert 0.98 < largest.item() <= 1


def test_the_lstm_starts_with_normal_parameters():
    parameters = vector(lstm(hidden=100, layers=2))
    assert parameters.std().item() == pytest.approx(0.1, rel=0.02)
    # A uniform distribution of that width would end at 0.17.
    assert parameters.abs().max().item() > 0.35


@pytest.mark.parametrize("make", [fashion_cnn, vgg16_bn, wide_resnet])
def test_dropout_is_there_when_asked_for(make):
    x = example(make, batch=4)

    def moves(dropout, training):
        model = seeded(make, dropout=dropout).train(training)
        return not torch.equal(model(x), model(x))

    assert moves(0.5, training=True)
    assert not moves(0.5, training=False)
    assert not moves(0.0, training=True)


@pytest.mark.parametrize("make", [vgg16_bn, resnet18, resnet20, wide_resnet, padam_wide_resnet])
@pytest.mark.parametrize("classes", [0, -1])
def test_a_model_without_classes_is_refused(make, classes):
    with pytest.raises(ValueError, match=f"classes must be at least 1, not {classes}"):
        make(classes=classes)


@pytest.mark.parametrize("depth", [4, 15, 17, 18, -2, 0])
def test_a_wide_resnet_has_a_depth_of_6n_and_4(depth):
    with pytest.raises(ValueError, match=rf"6n \+ 4 with n at least 1 .* not {depth}"):
        wide_resnet(depth)


def test_a_wide_resnet_has_a_width():
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        wide_resnet(width=0)


@pytest.mark.parametrize("option", ["inputs", "outputs", "hidden", "layers"])
def test_an_lstm_without_a_size_is_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, not 0"):
        lstm(**{option: 0})


@pytest.mark.parametrize("make", [fashion_cnn, vgg16_bn, wide_resnet])
@pytest.mark.parametrize("dropout", [-0.1, 1.5])
def test_dropout_is_a_probability(make, dropout):
    with pytest.raises(ValueError, match=f"between 0 and 1, but got {dropout}"):
        make(dropout=dropout)
