import numpy as np
import pytest
import torch

from beyond_adam.data import digits
from beyond_adam.models import PointwiseCNN, digits_problem, image_mlp, mlp
from beyond_adam.models.mlp import ACTIVATIONS
from beyond_adam.numerical import central_difference
from beyond_adam.reference import Adam, GradientDescent, descend


def small(slope=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return PointwiseCNN(rng.normal(size=(4, 3, 3)) + 0.2, rng.normal(size=(4, 3, 3)), slope)


def weights(count=50):
    return np.random.default_rng(5).uniform(-3, 3, size=(count, 2))


@pytest.mark.parametrize("slope", [0.01, 0.1, 1.0])
def test_the_network_is_two_convolutions_with_a_leaky_relu(slope):
    cnn = small(slope)
    hidden, output = (nn_conv() for _ in range(2))
    for w in weights(8):
        with torch.no_grad():
            hidden.weight.fill_(w[0])
            output.weight.fill_(w[1])
            images = torch.tensor(cnn.images)[:, None]
            expected = output(torch.nn.functional.leaky_relu(hidden(images), slope))
        np.testing.assert_allclose(cnn.predict(w), expected[:, 0], rtol=1e-13, atol=1e-15)


def nn_conv():
    return torch.nn.Conv2d(1, 1, kernel_size=1, bias=False, dtype=torch.float64)


@pytest.mark.parametrize("slope", [0.01, 0.1, 1.0])
def test_the_moments_give_the_loss_of_the_predictions(slope):
    cnn, w = small(slope), weights()
    direct = ((cnn.predict(w) - cnn.targets) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(cnn.value(w), direct, rtol=1e-13)


@pytest.mark.parametrize("slope", [0.01, 0.1, 1.0])
def test_gradient_and_hessian_are_those_of_autograd(slope):
    cnn = small(slope)
    images, targets = torch.tensor(cnn.images), torch.tensor(cnn.targets)

    def loss(w):
        hidden = torch.nn.functional.leaky_relu(w[0] * images, slope)
        return torch.nn.functional.mse_loss(w[1] * hidden, targets)

    for w in weights():
        tensor = torch.tensor(w)
        gradient = torch.autograd.functional.jacobian(loss, tensor)
        hessian = torch.autograd.functional.hessian(loss, tensor)
        np.testing.assert_allclose(cnn.gradient(w), gradient, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(cnn.hessian(w), hessian, rtol=1e-11, atol=1e-13)


def test_the_gradient_agrees_with_central_differences():
    cnn, w = small(), weights()
    np.testing.assert_allclose(
        cnn.gradient(w), central_difference(cnn.value, w, 1e-5), rtol=1e-7, atol=1e-7
    )


def test_across_the_kink_the_loss_is_continuous_and_the_gradient_is_not():
    cnn, h = small(), 1e-12
    right, on, left = np.array([[h, 2.0], [0.0, 2.0], [-h, 2.0]])
    np.testing.assert_allclose(cnn.value(left), cnn.value(on), rtol=1e-10)
    np.testing.assert_allclose(cnn.value(right), cnn.value(on), rtol=1e-10)
    np.testing.assert_allclose(cnn.gradient(right), cnn.gradient(on), rtol=1e-10, atol=1e-11)
    assert abs(cnn.gradient(left)[0] - cnn.gradient(on)[0]) > 0.1


@pytest.mark.parametrize("seed", range(6))
def test_the_minimiser_is_balanced_and_lowest(seed):
    cnn = small(seed=seed)
    landscape = cnn.landscape()
    (w,) = landscape.minimisers
    assert abs(w[0]) == pytest.approx(abs(w[1]), rel=1e-14)
    assert landscape.value(w) == pytest.approx(landscape.minimum, rel=1e-14)
    np.testing.assert_allclose(landscape.gradient(w), 0, atol=1e-14)
    grid = np.stack(np.meshgrid(*[np.linspace(-3, 3, 401)] * 2), axis=-1)
    heights = landscape.value(grid)
    assert landscape.minimum <= heights.min() < landscape.minimum + 1e-4
    # The whole branch of the hyperbola is as low.
    stretch = np.array([[0.1], [3.0], [50.0]])
    branch = w * np.concatenate([stretch, 1 / stretch], axis=1)
    np.testing.assert_allclose(landscape.value(branch), landscape.minimum, rtol=1e-13)


def test_a_linear_network_has_a_minimiser_on_either_side():
    landscape = small(slope=1.0).landscape()
    first, second = landscape.minimisers
    np.testing.assert_array_equal(first, -second)
    assert second[0] > 0


def test_targets_without_correlation_leave_only_the_origin():
    images, targets = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    landscape = PointwiseCNN(images, targets, slope=0.25).landscape()
    np.testing.assert_array_equal(landscape.minimisers, [[0, 0]])
    assert landscape.minimum == 1.0
    assert landscape.domain == ((-1.0, 1.0), (-1.0, 1.0))


def test_a_teacher_without_noise_is_found_to_all_digits():
    cnn = digits_problem(teacher=(-2.0, 0.5), noise=0.0)
    landscape = cnn.landscape()
    np.testing.assert_allclose(landscape.minimisers, [[-1.0, 1.0]], rtol=1e-14)
    assert landscape.minimum < 1e-30
    np.testing.assert_allclose(cnn.value([-2.0, 0.5]), 0, atol=1e-29)


def test_the_digits_problem_is_standardised_seeded_and_as_noisy_as_told():
    cnn = digits_problem(seed=3, noise=0.5)
    assert cnn.images.shape == (1797, 8, 8)
    assert cnn.images.mean() == pytest.approx(0, abs=1e-12)
    assert cnn.images.std() == pytest.approx(1, abs=1e-12)
    assert cnn.landscape().minimum == pytest.approx(0.25, rel=0.02)
    assert cnn.valleys[0].product == pytest.approx(1.5, rel=0.01)
    np.testing.assert_array_equal(cnn.targets, digits_problem(seed=3).targets)
    assert (cnn.targets != digits_problem(seed=4).targets).any()


@pytest.mark.parametrize("rule", [GradientDescent(lr=0.05), Adam(lr=0.05)])
def test_optimizers_reach_the_floor_of_the_valley_they_start_in(rule):
    cnn = digits_problem()
    starts = np.array([[0.5, -2.0], [-0.5, 2.0]])
    ends = descend(rule, cnn.landscape().gradient, starts, 2000).points[-1]
    floors = [valley.floor for valley in cnn.valleys]
    sides = [0 if end[0] > 0 else 1 for end in ends]
    assert set(sides) <= {0, 1}
    np.testing.assert_allclose(cnn.value(ends), [floors[side] for side in sides], rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "targets", "slope", "message"),
    [
        (np.ones((2, 3)), np.ones(6), 0.1, r"not \(2, 3\) and \(6,\)"),
        (np.array([1.0, np.nan]), np.ones(2), 0.1, "images must be finite"),
        (np.ones(2), np.array([1.0, np.inf]), 0.1, "targets must be finite"),
        (np.zeros(2), np.ones(2), 0.1, "pixel that is not 0"),
        (np.ones(2), np.ones(2), 0.0, r"\(0, 1\], not 0.0"),
        (np.ones(2), np.ones(2), 1.5, r"\(0, 1\], not 1.5"),
    ],
)
def test_data_that_make_no_problem_are_refused(images, targets, slope, message):
    with pytest.raises(ValueError, match=message):
        PointwiseCNN(images, targets, slope)


def test_a_problem_keeps_its_own_data():
    images = np.ones(2)
    cnn = PointwiseCNN(images, images)
    images[0] = 5
    assert cnn.images.tolist() == [1, 1]
    with pytest.raises(ValueError, match="read-only"):
        cnn.images[0] = 5


def test_an_mlp_is_affine_maps_with_activations_between():
    model = mlp([3, 5, 4, 2], activation="tanh", seed=2)
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    (w1, b1, w2, b2, w3, b3) = model.parameters()
    expected = torch.tanh(torch.tanh(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    torch.testing.assert_close(model(x), expected)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_have_their_closed_form(activation):
    model = mlp([3, 50, 2], activation)
    x = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(4, 3)
    h = model[0](x)
    active = {
        "relu": h * (h > 0),
        "leaky_relu": torch.where(h > 0, h, 0.01 * h),
        "gelu": h * torch.special.ndtr(h),
        "tanh": torch.tanh(h),
        "sigmoid": 1 / (1 + torch.exp(-h)),
        "elu": torch.where(h > 0, h, torch.exp(h) - 1),
    }
    torch.testing.assert_close(model(x), model[2](active[activation]))


def test_an_mlp_of_images_flattens_them_and_takes_its_seed_from_the_global_generator():
    torch.manual_seed(3)
    seed = int(torch.randint(2**31, ()))
    rest = torch.rand(3)
    torch.manual_seed(3)
    model = image_mlp([12, 5, 2], "elu")
    assert torch.equal(torch.rand(3), rest)
    images = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    same = mlp([12, 5, 2], "elu", seed=seed, dtype=torch.float32)
    assert torch.equal(model(images), same(images.reshape(2, 12)))


def test_an_mlp_starts_from_its_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    models = [mlp([8, 4, 2], seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    one, same, other = (torch.nn.utils.parameters_to_vector(m.parameters()) for m in models)
    assert torch.equal(one, same)
    assert not torch.isclose(one, other).any()
    single = mlp([8, 4, 2], seed=1, dtype=torch.float32)
    for p, q in zip(single.parameters(), models[0].parameters(), strict=True):
        assert p.dtype == torch.float32
        assert torch.equal(p, q.float())


def test_torchs_defaults_do_not_matter_to_an_mlp(other_defaults):
    def weights():
        torch.manual_seed(1)
        return torch.cat(
            [w.flatten() for net in (mlp([3, 2]), image_mlp([3, 2])) for w in net.parameters()]
        )

    usual = weights()
    with other_defaults():
        assert torch.equal(weights(), usual)


def test_the_weights_of_an_mlp_are_uniform_in_the_bounds_of_torch():
    layer = mlp([100, 400])[0]
    for parameter in layer.parameters():
        scaled = parameter.detach() * 10
        assert scaled.abs().max() <= 1
        assert scaled.mean() == pytest.approx(0, abs=0.1)
        assert scaled.square().mean() == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize("sizes", [[], [3], [3, 0], [3, -1, 2]])
def test_an_mlp_without_layers_is_refused(sizes):
    with pytest.raises(ValueError, match="two or more positive numbers"):
        mlp(sizes)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"'relu', 'leaky_relu', .* not 'swish2'"):
        mlp([2, 2], activation="swish2")


def test_an_mlp_learns_the_digits():
    data = digits()
    model = mlp([64, 32, 10], dtype=torch.float32)
    x = torch.tensor(data.images.reshape(-1, 64), dtype=torch.float32) / 16
    y = torch.tensor(data.labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[data.train]), y[data.train]).backward()
        optimizer.step()
    right = model(x[data.test]).argmax(dim=1) == y[data.test]
    assert right.double().mean() > 0.9
