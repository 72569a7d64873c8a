r"""Optimizer steps as functions of lists of tensors; the caller owns the state.

They serve who keeps the state elsewhere than in a `torch.optim.Optimizer`, as the functions of
torch's own functional API do. Call them under `torch.no_grad`, except to differentiate through a
step. All of them take, for n tensors in the same order:

params
    The weights w, of any shape; stepped in place. Dense, real, and floating-point.
grads
    The gradients g of the loss, shaped like the weights; never written.
exp_avgs, exp_avg_sqs
    The moving averages m and v of g and g², shaped like the weights, zero before the first step;
    updated in place. Of the weights' dtype, but float32 for weights of float16 or bfloat16.
max_exp_avg_sqs
    Likewise the running maxima of v; an empty list unless ``amsgrad``.
state_steps
    The numbers of steps taken, as 0-dim tensors; incremented in place.

and by keyword

foreach
    Whether to step all tensors at once with torch's foreach kernels rather than one by one. None:
    if all are on an accelerator that has them. With it, one temporary list of tensors is alive at
    a time; two for a `padam` that decays at the previous weights with p < 2; and copies of
    half-precision weights and gradients.
capturable
    Whether a CUDA graph may capture the step: then no value is read from the device. The step
    counts must be on the device of their weights.
differentiable
    Whether autograd is to go through the step. Excludes ``foreach``.
maximize
    Whether to ascend: g is replaced by −g.
lr
    The learning rate η ≥ 0, a number or a tensor of one element.
beta1, beta2
    The decay rates of m and v, in [0, 1).
eps
    The number ε ≥ 0 that keeps the division finite.

They raise RuntimeError if a weight or gradient is sparse or complex, or a step count not where
``capturable`` wants it, and ValueError if ``foreach`` and ``differentiable`` are both true. The
ranges of hyperparameters are checked by the classes, not here.
"""

from torch import Tensor

from beyond_adam.optim._adam_family import DecayAt, Rule, adam_family

__all__ = ["adam_exponent", "padam", "partial_adam"]


def padam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    *,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    maximize: bool = False,
    amsgrad: bool,
    beta1: float,
    beta2: float,
    lr: float | Tensor,
    eps: float,
    weight_decay: float,
    p: float,
    lambda_2: float = 0.0,
    partial: float = 0.5,
    decay_at: DecayAt = "previous",
) -> None:
    """Take the step of `beyond_adam.optim.PAdam`, Adam with p-norm decay.

    The module describes the arguments all steps share, the class those of this one.
    """
    rule = Rule(
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
        exponent=partial,
        eps_at="root",
        correction="moments",
        decay="p-norm",
        amsgrad=amsgrad,
        maximize=maximize,
        p=p,
        lambda_2=lambda_2,
        decay_at=decay_at,
    )
    adam_family(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        max_exp_avg_sqs,
        state_steps,
        rule,
        foreach=foreach,
        capturable=capturable,
        differentiable=differentiable,
    )


def partial_adam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    *,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    maximize: bool = False,
    amsgrad: bool,
    beta1: float,
    beta2: float,
    lr: float | Tensor,
    eps: float,
    weight_decay: float,
    partial: float,
    decoupled_weight_decay: bool = False,
) -> None:
    """Take the step of `beyond_adam.optim.Padam`, partially adaptive momentum.

    The module describes the arguments all steps share, the class those of this one.
    """
    rule = Rule(
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
        exponent=partial,
        eps_at="root",
        correction="step size",
        decay="decoupled" if decoupled_weight_decay else "coupled",
        amsgrad=amsgrad,
        maximize=maximize,
    )
    adam_family(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        max_exp_avg_sqs,
        state_steps,
        rule,
        foreach=foreach,
        capturable=capturable,
        differentiable=differentiable,
    )


def adam_exponent(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    *,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    maximize: bool = False,
    amsgrad: bool,
    beta1: float,
    beta2: float,
    lr: float | Tensor,
    eps: float,
    weight_decay: float,
    exponent: float,
    bias_correction: bool = True,
    decoupled_weight_decay: bool = False,
) -> None:
    """Take the step of `beyond_adam.optim.AdamExponent`, Adam with any power of v.

    The module describes the arguments all steps share, the class those of this one.
    """
    rule = Rule(
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
        exponent=exponent,
        eps_at="power",
        correction="moments" if bias_correction else "none",
        decay="decoupled" if decoupled_weight_decay else "coupled",
        amsgrad=amsgrad,
        maximize=maximize,
    )
    adam_family(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        max_exp_avg_sqs,
        state_steps,
        rule,
        foreach=foreach,
        capturable=capturable,
        differentiable=differentiable,
    )
