r"""Optimizer steps as functions of lists of tensors; the caller owns the state.

They are for callers that keep the state elsewhere than in a `torch.optim.Optimizer`, like the
functions of torch's own functional API. Call them under `torch.no_grad`, except to differentiate
through a step. All of them take, for n tensors in the same order:

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
    if all are on an accelerator that has them. It takes memory for one temporary list of tensors.
fused
    Whether to step in one pass over memory, with a kernel that is compiled on first use: in C++ for
    tensors on a CPU, by Triton for those on a GPU. Without a compiler that works, for tensors of
    other devices, and on a GPU with ``capturable``, it warns once and has no effect.
capturable
    Whether a CUDA graph may capture the step: then no value is read from the device, except
    ``found_inf``, with which it cannot be captured. The step counts must be on the device of their
    weights, and so should be an ``lr`` that is a tensor.
differentiable
    Whether autograd is to go through the step. This, ``foreach`` and ``fused`` exclude each other.
maximize
    Whether to ascend: g is replaced by −g.
grad_scale
    One number that the gradients are divided by, or None for 1.
found_inf
    One number; if it is not 0, nothing is done at all. This and the last are for
    `torch.amp.GradScaler`.
lr
    The learning rate η ≥ 0, a number or a tensor of one element.
beta1, beta2
    The decay rates of m and v, in [0, 1).
eps
    The number ε ≥ 0 that keeps the division finite.

They raise RuntimeError if a weight or gradient is sparse or complex, or a step count not where
``capturable`` wants it, and ValueError if more than one of ``foreach``, ``fused`` and
``differentiable`` is true. The ranges of hyperparameters are checked by the classes, not here.
"""

from torch import Tensor

from beyond_adam.optim._adam_family import DecayAt, Rule, adam_family

__all__ = ["adam_exponent", "dynamic_padam", "padam", "partial_adam"]


def padam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    *,
    foreach: bool | None = None,
    fused: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    maximize: bool = False,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
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
        fused=fused,
        capturable=capturable,
        differentiable=differentiable,
        grad_scale=grad_scale,
        found_inf=found_inf,
    )


def dynamic_padam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    inverse_ss: list[Tensor],
    state_steps: list[Tensor],
    *,
    foreach: bool | None = None,
    fused: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    maximize: bool = False,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    amsgrad: bool,
    beta1: float,
    beta2: float,
    lr: float | Tensor,
    eps: float,
    weight_decay: float,
    p: float,
    lambda_2: float = 0.0,
    partial: float = 0.5,
    beta_s: float = 0.999,
) -> None:
    """Take the step of `beyond_adam.optim.DynamicPAdam`, whose decay follows with a delay.

    Its `inverse_ss` are the 1/s, shaped like the weights, one before the first step, and updated in
    place. The module describes the arguments all steps share, the class those of this one.
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
        beta_s=beta_s,
    )
    adam_family(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        max_exp_avg_sqs,
        state_steps,
        rule,
        inverse_ss=inverse_ss,
        foreach=foreach,
        fused=fused,
        capturable=capturable,
        differentiable=differentiable,
        grad_scale=grad_scale,
        found_inf=found_inf,
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
    fused: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    maximize: bool = False,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
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
        fused=fused,
        capturable=capturable,
        differentiable=differentiable,
        grad_scale=grad_scale,
        found_inf=found_inf,
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
    fused: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    maximize: bool = False,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
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
        fused=fused,
        capturable=capturable,
        differentiable=differentiable,
        grad_scale=grad_scale,
        found_inf=found_inf,
    )
