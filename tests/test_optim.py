import copy
import io
import pickle

import pytest
import torch
from torch import nn

from beyond_adam.data import digits
from beyond_adam.models import mlp
from beyond_adam.optim import RuleOptimizer
from beyond_adam.reference import (
    RULES,
    AdaGrad,
    Adam,
    AdaMax,
    AMSGrad,
    GradientDescent,
    Momentum,
    RMSProp,
)

TWINS = [
    (GradientDescent(lr=0.5), lambda p: torch.optim.SGD(p, lr=0.5)),
    (Momentum(lr=0.5), lambda p: torch.optim.SGD(p, lr=0.5 * (1 - 0.9), momentum=0.9)),
    (AdaGrad(), lambda p: torch.optim.Adagrad(p, lr=1e-2)),
    (RMSProp(lr=1e-3), lambda p: torch.optim.RMSprop(p, lr=1e-3)),
    (Adam(), lambda p: torch.optim.Adam(p, lr=1e-3)),
    # A pixel that is always 0 never has a gradient: without ε torch's AdaMax would divide 0 by 0.
    (AdaMax(), lambda p: torch.optim.Adamax(p, lr=2e-3, eps=1e-38)),
    (AMSGrad(), lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True)),
]
every_rule = pytest.mark.parametrize("rule", [rule() for rule in RULES.values()], ids=RULES.keys())


@pytest.fixture(scope="module")
def problem():
    """A mean cross-entropy over 200 digits, and a network to fit."""
    data = digits()
    some = data.train[:200]
    inputs = torch.tensor(data.images[some].reshape(-1, 64) / 16.0)
    labels = torch.tensor(data.labels[some])
    return lambda model: nn.functional.cross_entropy(model(inputs), labels)


def train(model, optimizer, problem, steps=20, scheduler=None):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = problem(model)
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
        losses.append(loss.item())
    return losses


def network():
    return mlp([64, 24, 10], seed=1)


def assert_same_weights(one, other, tolerance=0.0):
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("rule", "twin"), TWINS, ids=[type(rule).__name__ for rule, _ in TWINS])
def test_a_network_trains_as_with_the_torch_optimizer(rule, twin, problem):
    model, other = network(), network()
    losses = train(model, RuleOptimizer(model.parameters(), rule), problem)
    train(other, twin(other.parameters()), problem)
    assert losses[-1] < losses[0] - 0.02
    assert_same_weights(model, other, 1e-10)


def test_every_rule_has_a_twin():
    assert [type(rule) for rule, _ in TWINS] == list(RULES.values())


@every_rule
@pytest.mark.parametrize("copier", ["state_dict", "saved", "deepcopy", "pickle"])
def test_a_restored_optimizer_goes_on_with_the_same_bits(rule, copier, problem):
    model = network()
    optimizer = RuleOptimizer(model.parameters(), rule)
    train(model, optimizer, problem, 3)
    if copier == "deepcopy":
        other, again = copy.deepcopy((model, optimizer))
    elif copier == "pickle":
        other, again = pickle.loads(pickle.dumps((model, optimizer)))
    else:
        other = copy.deepcopy(model)
        again = RuleOptimizer(other.parameters(), type(rule)(lr=0.123))
        state = optimizer.state_dict()
        if copier == "saved":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
        again.load_state_dict(state)
    train(model, optimizer, problem, 3)
    train(other, again, problem, 3)
    assert_same_weights(model, other)


def test_a_scheduler_moves_the_learning_rate(problem):
    model, other = network(), network()
    optimizer = RuleOptimizer(model.parameters(), Adam(lr=0.01))
    twin = torch.optim.Adam(other.parameters(), lr=0.01)
    halve = [torch.optim.lr_scheduler.ExponentialLR(each, 0.5) for each in (optimizer, twin)]
    train(model, optimizer, problem, 5, halve[0])
    train(other, twin, problem, 5, halve[1])
    assert optimizer.param_groups[0]["lr"] == 0.01 / 32
    assert_same_weights(model, other, 1e-10)


def test_hyperparameters_are_options_of_each_group():
    p, q = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    groups = [{"params": [p]}, {"params": [q], "lr": 0.25, "momentum": 0.0}]
    optimizer = RuleOptimizer(groups, Momentum(lr=0.5, momentum=0.5))
    for parameter in (p, q):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert p.tolist() == [0.75, 0.75]
    assert q.tolist() == [0.75, 0.75]
    saved = optimizer.state_dict()["param_groups"]
    assert [(group["lr"], group["momentum"]) for group in saved] == [(0.5, 0.5), (0.25, 0.0)]


def test_a_hyperparameter_out_of_range_is_refused_wherever_it_comes_from():
    p, q = (torch.ones(2, requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="betas must be two numbers"):
        RuleOptimizer([{"params": [p], "betas": (0.9, 1.0)}], Adam())
    optimizer = RuleOptimizer([p], Adam())
    with pytest.raises(ValueError, match="eps must lie in"):
        optimizer.add_param_group({"params": [q], "eps": -1.0})
    assert len(optimizer.param_groups) == 1
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr must lie in"):
        optimizer.step()


def test_a_closure_is_run_with_gradients_and_its_loss_returned():
    p = torch.tensor([3.0], requires_grad=True)
    optimizer = RuleOptimizer([p], GradientDescent(lr=0.25))

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert p.item() == 1.5
    assert optimizer.step() is None


@every_rule
def test_parameters_change_in_place_and_gradients_never(rule):
    p = torch.ones(3, requires_grad=True)
    g = torch.tensor([1.0, -2.0, 0.0])
    p.grad = g.clone()
    gradient, place = p.grad, p.data_ptr()
    optimizer = RuleOptimizer([p], rule)
    optimizer.step()
    assert p.grad is gradient
    assert torch.equal(gradient, g)
    assert p.data_ptr() == place
    assert p.requires_grad
    assert p.is_leaf
    assert p[0] < 1 < p[1]
    assert p[2] == 1
    assert not any(
        value.requires_grad for value in optimizer.state[p].values() if torch.is_tensor(value)
    )


def test_a_parameter_counts_only_its_own_steps():
    # Thawed late, it still takes Adam's first step, of length lr.
    early, late = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = RuleOptimizer([early, late], Adam(lr=0.1))
    for step in range(5):
        early.grad = torch.ones_like(early)
        late.grad = torch.ones_like(late) if step == 4 else None
        optimizer.step()
        if step < 4:
            assert late.item() == 0
            assert not optimizer.state.get(late)
    assert early.item() == pytest.approx(-0.5, rel=1e-6)
    assert late.item() == pytest.approx(-0.1, rel=1e-6)


def test_sparse_and_complex_gradients_are_refused():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(ValueError, match=r"dense and real, not of layout torch.sparse_coo"):
        RuleOptimizer(embedding.parameters(), Adam()).step()
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    z.abs().sum().backward()
    with pytest.raises(ValueError, match=r"dense and real, .* torch.complex64"):
        RuleOptimizer([z], Adam()).step()
