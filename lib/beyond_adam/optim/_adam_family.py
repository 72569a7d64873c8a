"""The one step behind PAdam, Padam and AdamExponent, and the class they share.

The optimizers of this family differ from Adam in two degrees of freedom, the exponent c of the
second moment and the rule that decays the weights, and in a few conventions: where ε sits, what
corrects the bias, and whether v is replaced by its running maximum. A `Rule` fixes them all;
`adam_family` takes the step, one tensor at a time or with torch's foreach kernels.

Weights of float16 or bfloat16 are stepped in float32, with moments in float32, and rounded once.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, Literal, NamedTuple, cast, overload

import torch
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    StateDict,
    _default_to_fused_or_foreach,
    _get_scalar_dtype,
    _to_scalar,
    _use_grad_for_differentiable,
)

from beyond_adam.optim._ranges import RANGES

DecayAt = Literal["previous", "updated"]
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


class Rule(NamedTuple):
    """One member of the family: hyperparameters and conventions."""

    lr: float | Tensor
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    exponent: float
    """c: the step is divided by v^c, which is taken as (√v)^(2c)."""
    eps_at: Literal["root", "power"]
    """(√v + ε)^(2c) or (√v)^(2c) + ε; the same at c = 1/2."""
    correction: Literal["moments", "step size", "none"]
    """Divide m by 1 − β₁ᵗ and v by 1 − β₂ᵗ; multiply η by √(1 − β₂ᵗ)/(1 − β₁ᵗ); neither."""
    decay: Literal["coupled", "decoupled", "p-norm"]
    """g + λw; w(1 − ηλ) before the step; division by 1 + ηλ₂ + pηλ|w|^(p−2) after it."""
    amsgrad: bool
    maximize: bool
    p: float = 2.0
    lambda_2: float = 0.0
    decay_at: DecayAt = "previous"


def adam_family(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    rule: Rule,
    *,
    foreach: bool | None,
    capturable: bool,
    differentiable: bool,
) -> None:
    """Take one step of `rule`; `functional` describes the arguments."""
    if foreach and differentiable:
        raise ValueError("foreach=True and differentiable=True exclude each other")
    for param, grad in zip(params, grads, strict=True):
        for name, tensor in (("parameters", param), ("gradients", grad)):
            if tensor.layout != torch.strided or tensor.is_complex():
                raise RuntimeError(
                    f"{name} must be dense and real, not of {tensor.layout} and {tensor.dtype} "
                    f"(for a parameter of shape {tuple(param.shape)} and {param.dtype})"
                )
    compiling = torch.compiler.is_compiling()
    if not compiling:
        if capturable:
            for param, step in zip(params, state_steps, strict=True):
                if param.device != step.device:
                    raise RuntimeError(
                        "with capturable=True the step count must be on the parameter's device, "
                        f"{param.device}, not on {step.device}"
                    )
        elif torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a step can be captured in a CUDA graph only with capturable=True")
    if not params:
        return
    if foreach is None:
        _, foreach = _default_to_fused_or_foreach(params, differentiable)
    # A graph must not hold the numbers of one step: there they are tensors, elsewhere floats.
    as_tensors = capturable or differentiable or compiling
    lr = _to_scalar(rule.lr)
    if isinstance(lr, Tensor) and not as_tensors:
        lr = lr.item()
    rule = rule._replace(lr=lr)
    lists = (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps)
    if foreach:
        _foreach(*lists, rule, as_tensors=as_tensors)
    else:
        _for_loop(*lists, rule, as_tensors=as_tensors, differentiable=differentiable)


def _for_loop(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    rule: Rule,
    *,
    as_tensors: bool,
    differentiable: bool,
) -> None:
    for i, param in enumerate(params):
        w, grad, m, v = _upcast(param), _upcast(grads[i]), exp_avgs[i], exp_avg_sqs[i]
        if rule.maximize:
            grad = -grad
        state_steps[i] += 1
        lr, step_size, divisor = _scalars(rule, state_steps[i], w.dtype, as_tensors)

        if rule.decay == "coupled" and rule.weight_decay != 0:
            grad = grad.add(w, alpha=rule.weight_decay)
        m.lerp_(grad, 1 - rule.beta1)
        v.mul_(rule.beta2).addcmul_(grad, grad, value=1 - rule.beta2)
        del grad
        if rule.amsgrad:
            peak = max_exp_avg_sqs[i]
            if differentiable:  # autograd keeps both arguments, and the next step changes them
                peak.copy_(torch.maximum(peak.clone(), v.clone()))
            else:
                peak.clamp_min_(v)  # `maximum` with `out` breaks graphs if they are strided
            v = peak

        if rule.decay == "decoupled" and rule.weight_decay != 0:
            w.mul_(1 - lr * rule.weight_decay)
        shrinks = _shrinks(rule)
        if shrinks and rule.decay_at == "previous":
            shrinkage = _shrinkage(w, lr, rule, differentiable)

        root = v.sqrt()
        if differentiable:
            root = root.clone()  # autograd keeps the root itself
        if divisor is not None:
            root.div_(divisor)
        if rule.eps_at == "root":
            root.add_(rule.eps)
        if rule.exponent != 0.5:
            root.pow_(2 * rule.exponent)
        if rule.eps_at == "power":
            root.add_(rule.eps)
        if isinstance(step_size, Tensor):
            w.addcmul_((m.clone() if differentiable else m) / root, -step_size)
        else:
            w.addcdiv_(m, root, value=-step_size)
        del root

        if shrinks:
            if rule.decay_at == "updated":
                shrinkage = _shrinkage(w, lr, rule, differentiable)
            w.div_(shrinkage)
            del shrinkage
        if w.dtype != param.dtype:
            param.copy_(w)


def _foreach(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    rule: Rule,
    *,
    as_tensors: bool,
) -> None:
    weights = [_upcast(param) for param in params]
    grads = [_upcast(grad) for grad in grads]
    lists = [weights, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps]
    # torch types each list as one that may hold None; none of these does.
    groups = Optimizer._group_tensors_by_device_and_dtype(cast(list[list[Tensor | None]], lists))
    del grads, lists
    for group, _ in groups.values():
        w, g, m, v, peak, steps = cast(list[list[Tensor]], group)
        group.clear()  # so that lists deleted below are freed
        if rule.maximize:
            g = list(torch._foreach_neg(g))
        if not torch.compiler.is_compiling() and steps[0].is_cpu:
            # Else each of the additions would wrap the number in a tensor of its own.
            torch._foreach_add_(steps, torch.tensor(1.0), alpha=1.0)
        else:
            torch._foreach_add_(steps, 1)
        scalars = [_scalars(rule, t, x.dtype, as_tensors) for t, x in zip(steps, w, strict=True)]
        lr = scalars[0][0]  # the same for all tensors
        # torch types lists of scalars as floats, and takes lists of tensors too.
        step_sizes = cast(list[float], [-step_size for _, step_size, _ in scalars])
        divisors = cast(list[float], [divisor for _, _, divisor in scalars])

        if rule.decay == "coupled" and rule.weight_decay != 0:
            if rule.maximize:  # then these are no longer the caller's gradients
                torch._foreach_add_(g, w, alpha=rule.weight_decay)
            else:
                g = list(torch._foreach_add(g, w, alpha=rule.weight_decay))
        torch._foreach_lerp_(m, g, 1 - rule.beta1)
        torch._foreach_mul_(v, rule.beta2)
        torch._foreach_addcmul_(v, g, g, 1 - rule.beta2)
        del g
        if rule.amsgrad:
            torch._foreach_maximum_(peak, v)
            v = peak

        if rule.decay == "decoupled" and rule.weight_decay != 0:
            torch._foreach_mul_(w, _operand(1 - lr * rule.weight_decay, len(w)))
        shrinks = _shrinks(rule)
        if shrinks and rule.decay_at == "previous":
            shrinkage = _foreach_shrinkage(w, lr, rule)

        root = torch._foreach_sqrt(v)
        if rule.correction == "moments":
            torch._foreach_div_(root, divisors)
        if rule.eps_at == "root":
            torch._foreach_add_(root, rule.eps)
        if rule.exponent != 0.5:
            torch._foreach_pow_(root, 2 * rule.exponent)
        if rule.eps_at == "power":
            torch._foreach_add_(root, rule.eps)
        if as_tensors:
            torch._foreach_div_(root, step_sizes)
            torch._foreach_addcdiv_(w, m, root)
        else:
            torch._foreach_addcdiv_(w, m, root, step_sizes)
        del root

        if shrinks:
            if rule.decay_at == "updated":
                shrinkage = _foreach_shrinkage(w, lr, rule)
            torch._foreach_div_(w, _operand(shrinkage, len(w)))
            del shrinkage
    rounded = [i for i, param in enumerate(params) if param.dtype != weights[i].dtype]
    if rounded:
        torch._foreach_copy_([params[i] for i in rounded], [weights[i] for i in rounded])


def _upcast(tensor: Tensor) -> Tensor:
    """Return the tensor itself, or a float32 copy of one of less precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _scalars(
    rule: Rule, step: Tensor, dtype: torch.dtype, as_tensors: bool
) -> tuple[float | Tensor, float | Tensor, float | Tensor | None]:
    """Return η, the step size, and what divides √v (None for 1), as floats or as tensors."""
    lr: float | Tensor
    bias1: float | Tensor
    bias2: float | Tensor
    if as_tensors:
        t = step.to(dtype)
        lr = rule.lr.to(t) if isinstance(rule.lr, Tensor) else t.new_full((), rule.lr)
        # 1 − βᵗ without the cancellation, which would cost float32 three digits at first.
        bias1 = -torch.expm1(t * torch.log1p(t.new_full((), rule.beta1 - 1)))
        bias2 = -torch.expm1(t * torch.log1p(t.new_full((), rule.beta2 - 1)))
    else:
        lr, count = rule.lr, step.item()
        bias1, bias2 = 1 - rule.beta1**count, 1 - rule.beta2**count
    if rule.correction == "moments":
        return lr, lr / bias1, bias2**0.5
    if rule.correction == "step size":
        return lr, lr * bias2**0.5 / bias1, None
    return lr, lr, None


def _shrinks(rule: Rule) -> bool:
    return rule.decay == "p-norm" and (rule.weight_decay != 0 or rule.lambda_2 != 0)


def _shrinkage(w: Tensor, lr: float | Tensor, rule: Rule, differentiable: bool) -> float | Tensor:
    """Return 1 + ηλ₂ + pηλ/X for X = |w|^(2−p): the weights are divided by it.

    Dividing by X where the textbook multiplies by X/(X(1 + ηλ₂) + pηλ) keeps an X that overflows
    or vanishes right: it leaves 1 + ηλ₂ or ∞. Only 0/0 is left, at w = 0 and ηλ = 0.
    """
    strength = rule.p * lr * rule.weight_decay
    rest = 1 + lr * rule.lambda_2
    if rule.p == 2 or (not isinstance(strength, Tensor) and strength == 0):
        return rest + strength
    if differentiable:
        if rule.p > 1 and rule.weight_decay != 0 and not torch.compiler.is_compiling():
            zeros = int((w == 0).sum())
            if zeros:
                raise ValueError(
                    f"d|w|^(2 − p)/dw is infinite at w = 0 for p = {rule.p}, and {zeros} of "
                    f"{w.numel()} weights are 0: differentiable=True needs p ≤ 1, p = 2 or w ≠ 0"
                )
        w = w.clone()  # autograd keeps it, and the step changes the original
    x = w.abs()
    if rule.p != 1:
        x.pow_(2 - rule.p)
    if isinstance(strength, Tensor):
        x.add_(strength == 0)
    x = strength / x if differentiable else x.reciprocal_().mul_(strength)
    return x.add_(rest)


def _foreach_shrinkage(
    w: list[Tensor], lr: float | Tensor, rule: Rule
) -> float | Tensor | list[Tensor]:
    """Return `_shrinkage` of every tensor."""
    strength = rule.p * lr * rule.weight_decay
    rest = 1 + lr * rule.lambda_2
    if rule.p == 2 or (not isinstance(strength, Tensor) and strength == 0):
        return rest + strength
    x = list(torch._foreach_abs(w))
    if rule.p != 1:
        torch._foreach_pow_(x, 2 - rule.p)
    if isinstance(strength, Tensor):
        torch._foreach_add_(x, _operand((strength == 0).to(strength.dtype), len(x)))
    torch._foreach_reciprocal_(x)
    torch._foreach_mul_(x, _operand(strength, len(x)))
    torch._foreach_add_(x, _operand(rest, len(x)))
    return x


def _operand(value: float | Tensor | list[Tensor], n: int) -> float:
    """Return `value` as foreach functions of n tensors take it, called a float for mypy."""
    # One tensor for all of them would be read as a number, which no graph survives.
    return cast(float, [value] * n if isinstance(value, Tensor) else value)


def _check(options: dict[str, Any]) -> None:
    """Raise ValueError for a hyperparameter out of its range."""
    for name, (allowed, interval) in RANGES.items():
        if name not in options:
            continue
        value = options[name]
        if name == "lr" and isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(f"lr must be one number, not a tensor of {value.numel()}")
            value = value.item()
        if not (isinstance(value, Real) and allowed(value)):
            raise ValueError(f"{name} must lie in {interval}, not {value!r}")
    betas = options["betas"]
    if (
        not isinstance(betas, tuple | list)
        or len(betas) != 2
        or not all(isinstance(beta, Real) and 0 <= float(beta) < 1 for beta in betas)
    ):
        raise ValueError(f"betas must be two numbers in [0, 1), not {betas!r}")
    if options.get("decay_at", "previous") not in ("previous", "updated"):
        raise ValueError(f"decay_at must be 'previous' or 'updated', not {options['decay_at']!r}")
    if options["foreach"] and options["differentiable"]:
        raise ValueError("foreach=True and differentiable=True exclude each other")


class AdamFamily(Optimizer):
    """What the optimizers of the family share: state, checkpoints, checks, and the step.

    A subclass names its function of `functional`; the keys of its `defaults` are the keywords of
    that function, but for ``betas``.
    """

    _function: ClassVar[Callable[..., None]]

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        _check(defaults)
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            # A checkpoint of torch's Adam lacks some options, and has others that mean nothing.
            for name in {"fused", "decoupled_weight_decay"} - self.defaults.keys():
                group.pop(name, None)
            for name, default in self.defaults.items():
                group.setdefault(name, default)
            for param in group["params"]:
                if "step" in self.state.get(param, {}):
                    self.state[param]["step"] = torch.as_tensor(
                        self.state[param]["step"],
                        dtype=_get_scalar_dtype(),
                        device=param.device if group["capturable"] else "cpu",
                    )

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load a checkpoint of this class, or of torch's Adam or AdamW.

        The options of the checkpoint replace those of the groups; options it does not have keep
        the values this object was constructed with. Moments stay in float32 for parameters of
        less precision, which torch would round to that precision.
        """
        read: StateDict = {}

        def keep(_: Optimizer, state_dict: StateDict) -> None:
            read.update(state_dict)

        def restore(_: Optimizer) -> None:
            saved = [name for group in read["param_groups"] for name in group["params"]]
            params = [param for group in self.param_groups for param in group["params"]]
            for name, param in zip(saved, params, strict=True):
                for key, value in read["state"].get(name, {}).items():
                    if key in MOMENTS:
                        self.state[param][key] = value.to(param.device, _state_dtype(param))

        # Last of the pre-hooks and first of the post-hooks, so that the user's see it all done.
        hooks = (
            self.register_load_state_dict_pre_hook(keep),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, with the defaults for options it does not name.

        Raises
        ------
        ValueError
            If an option is out of its range, as in the constructor, or if ``differentiable`` is
            not what it is for the other groups.
        """
        if isinstance(param_group, dict):
            options = {**self.defaults, **param_group}
            _check(options)
            if options["differentiable"] != self.defaults["differentiable"]:
                raise ValueError(
                    f"differentiable must be {self.defaults['differentiable']}, as for the "
                    f"optimizer, not {options['differentiable']!r}"
                )
        super().add_param_group(param_group)

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        max_exp_avg_sqs: list[Tensor],
        state_steps: list[Tensor],
    ) -> None:
        """Fill the lists for the parameters with a gradient, and begin their states."""
        begun: list[Tensor] = []
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if "step" not in state:
                # On the CPU unless captured: there, reading it does not wait for an accelerator.
                device = p.device if group["capturable"] else "cpu"
                state["step"] = torch.zeros((), dtype=_get_scalar_dtype(), device=device)
                begun.append(p)
            for name in MOMENTS if group["amsgrad"] else MOMENTS[:2]:
                if name not in state:
                    state[name] = torch.zeros_like(
                        p, dtype=_state_dtype(p), memory_format=torch.preserve_format
                    )
            params.append(p)
            grads.append(p.grad)
            exp_avgs.append(state["exp_avg"])
            exp_avg_sqs.append(state["exp_avg_sq"])
            if group["amsgrad"]:
                max_exp_avg_sqs.append(state["max_exp_avg_sq"])
            state_steps.append(state["step"])
        if begun and not torch.compiler.is_compiling():
            self._begin(group, begun)

    def _begin(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Look at parameters of a group before their first step; here nothing is asked of them."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; parameters without a gradient stay, and their state too.

        Parameters
        ----------
        closure
            Reevaluates the model and returns the loss, which is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            exp_avgs: list[Tensor] = []
            exp_avg_sqs: list[Tensor] = []
            max_exp_avg_sqs: list[Tensor] = []
            state_steps: list[Tensor] = []
            self._init_group(
                group, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps
            )
            beta1, beta2 = group["betas"]
            self._function(
                params,
                grads,
                exp_avgs,
                exp_avg_sqs,
                max_exp_avg_sqs,
                state_steps,
                beta1=beta1,
                beta2=beta2,
                **{name: group[name] for name in self.defaults if name != "betas"},
            )
        return loss


def _state_dtype(param: Tensor) -> torch.dtype:
    return torch.float32 if param.dtype in (torch.float16, torch.bfloat16) else param.dtype
