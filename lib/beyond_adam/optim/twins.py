"""Which of PyTorch's own optimizers takes the same steps as a reference rule."""

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from beyond_adam import reference
from beyond_adam.reference import Rule


def twin(rule: Rule, params: ParamsT) -> Optimizer:
    """Return PyTorch's optimizer with the steps of `rule`, but for the order of rounding.

    Two conventions differ. PyTorch's momentum accumulates gradients without the factor 1 − α, so it
    needs the rate η(1 − α); its Adamax adds ε to the gradient's magnitude, which the paper does
    not, so it gets the least one that still keeps 0/0 away.

    Raises
    ------
    ValueError
        If PyTorch has none; the message names the rule.
    """
    match rule:
        case reference.GradientDescent():
            return torch.optim.SGD(params, lr=rule.lr)
        case reference.Momentum():
            lr = rule.lr * (1 - rule.momentum)
            return torch.optim.SGD(params, lr=lr, momentum=rule.momentum)
        case reference.AdaGrad():
            return torch.optim.Adagrad(params, lr=rule.lr, eps=rule.eps)
        case reference.RMSProp():
            return torch.optim.RMSprop(params, lr=rule.lr, alpha=rule.alpha, eps=rule.eps)
        case reference.Adam():
            return torch.optim.Adam(params, lr=rule.lr, betas=rule.betas, eps=rule.eps)
        case reference.AdaMax():
            return torch.optim.Adamax(params, lr=rule.lr, betas=rule.betas, eps=1e-38)
        case reference.AMSGrad():
            return torch.optim.Adam(
                params, lr=rule.lr, betas=rule.betas, eps=rule.eps, amsgrad=True
            )
    raise ValueError(f"PyTorch has no optimizer with the steps of {type(rule).__name__}")
