"""The one step behind PAdam, Padam and AdamExponent, and the class they share.

The optimizers of this family differ from Adam in two degrees of freedom, the exponent c of the
second moment and the rule that decays the weights, and in a few conventions: where ε sits, what
corrects the bias, and whether v is replaced by its running maximum. A `Rule` fixes them all;
`adam_family` takes the step, one tensor at a time, with torch's foreach kernels, or with a kernel
of our own.

Weights of float16 or bfloat16 are stepped in float32, with moments in float32, and rounded once.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import cache
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

from beyond_adam._ranges import RANGES
from beyond_adam.optim import _fused

DecayAt = Literal["previous", "updated"]
STATES = {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0, "inverse_s": 1.0}
"""The tensors that a step may keep, and what they begin with."""
PLAIN = {Tensor, torch.nn.Parameter}
BLOCK = 2**18
"""Elements stepped at a time on a CPU, at least: temporaries of them stay in its cache."""
THREAD = 2**15
"""Elements that torch gives a thread at least."""
POWERS = (-0.5, 0, 0.5, 1, 2)
"""Powers that torch takes without logarithms."""


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
    """g + λw; w(1 − ηλ) before the step; division by 1 + ηλ₂ + pηλs for s = |w|^(p−2) after it."""
    amsgrad: bool
    maximize: bool
    p: float = 2.0
    lambda_2: float = 0.0
    decay_at: DecayAt = "previous"
    beta_s: float | None = None
    """Decay rate of 1/s as a moving average of |w|^(2−p); None: s is what it is at once."""


def adam_family(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    rule: Rule,
    *,
    inverse_ss: list[Tensor] | None = None,
    foreach: bool | None,
    fused: bool | None,
    capturable: bool,
    differentiable: bool,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Take one step of `rule`; `functional` describes the arguments."""
    _check_paths(foreach, fused, differentiable)
    lists = {"grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    if rule.amsgrad:
        lists["max_exp_avg_sqs"] = max_exp_avg_sqs
    if rule.beta_s is not None:
        lists["inverse_ss"] = inverse_ss or []
    lists["state_steps"] = state_steps
    for name, tensors in lists.items():
        if len(tensors) != len(params):
            raise ValueError(f"{name} must be {len(params)}, as params are, not {len(tensors)}")
    if {*map(Tensor.numel, state_steps)} - {1}:
        raise ValueError("state_steps must be tensors of one number each")
    for param, grad in zip(params, grads, strict=True):
        for tensor in (param, grad):
            if tensor.layout != torch.strided or tensor.is_complex():
                name = "parameters" if tensor is param else "gradients"
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
    if not params or (found_inf is not None and found_inf.item()):
        return
    lr = _to_scalar(rule.lr)
    # A graph must not hold the numbers of one step: there they are tensors, elsewhere floats.
    as_tensors = capturable or differentiable or compiling
    if isinstance(lr, Tensor):
        # Once, not for every parameter.
        rule = rule._replace(lr=lr.to(params[0].device) if as_tensors else lr.item())

    columns = [params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs if rule.amsgrad else []]
    columns = [*columns, inverse_ss or []]
    local = _local(columns)
    if local is not columns and not compiling:
        # Writing to the shards leaves the versions of the tensors as they were.
        written = [tensor for i, column in enumerate(columns) if i != 1 for tensor in column]
        torch.autograd.graph.increment_version(written)
    columns = local
    if fused and not compiling:
        left = _fused.take_step(columns, state_steps, rule, grad_scale)
        if not left:
            return
        for device in {params[i].device.type for i in left}:
            if device not in _fused.KERNELS:
                _warn_of_device(f"{device} tensors")
            elif device != "cpu" and capturable:
                _warn_of_device(f"{device} tensors with capturable=True")
        state_steps = [state_steps[i] for i in left]
        columns = [[column[i] for i in left] if column else [] for column in columns]
    full = [column or columns[3] for column in columns]
    slots = [Slot(*tensors) for tensors in zip(*full, strict=True)]
    if grad_scale is not None:
        slots = [slot._replace(g=_upcast(slot.g) / grad_scale.to(slot.g.device)) for slot in slots]
    if foreach is None:
        _, foreach = _default_to_fused_or_foreach(full[0], differentiable)
    if foreach:
        _foreach(slots, state_steps, rule, as_tensors=as_tensors)
    else:
        _for_loop(slots, state_steps, rule, as_tensors=as_tensors, differentiable=differentiable)


@cache
def _warn_of_device(tensors: str) -> None:
    """Warn, once for each kind of tensors, that there is no fused kernel for them."""
    warnings.warn(
        f"fused=True has no effect on {tensors}, which take the default path: "
        "torch.compile(optimizer.step) fuses it there",
        stacklevel=2,
    )


class Slot(NamedTuple):
    """The tensors of one parameter, of one shape; v stands for those that the rule lacks."""

    w: Tensor
    g: Tensor
    m: Tensor
    v: Tensor
    peak: Tensor
    inverse_s: Tensor


def _local(columns: list[list[Tensor]]) -> list[list[Tensor]]:
    """Return the shards that this process holds: the step is elementwise."""
    if all(PLAIN.issuperset(map(type, column)) for column in columns):
        return columns
    columns = [columns[0], [*map(_summed, columns[0], columns[1])], *columns[2:]]
    for slot in zip(*filter(None, columns), strict=True):
        # Only DTensors have placements, and who has none of them does not wait for their import.
        placements = [getattr(tensor, "placements", "one process") for tensor in slot]
        if any(other != placements[0] for other in placements):
            raise RuntimeError(
                "a parameter, its gradient and its state must be placed alike, not on "
                + ", ".join(str(placement) for placement in placements)
            )
    return [
        [cast(Any, x).to_local() if hasattr(x, "placements") else x for x in column]
        for column in columns
    ]


def _summed(param: Tensor, grad: Tensor) -> Tensor:
    """Return a gradient summed over processes, if that is left to do, and placed as `param`."""
    sharded: Any = grad
    partial = any(place.is_partial() for place in getattr(sharded, "placements", ()))
    if partial and hasattr(param, "placements"):
        return cast(Tensor, sharded.redistribute(placements=param.placements))
    return grad


def _for_loop(
    slots: list[Slot],
    state_steps: list[Tensor],
    rule: Rule,
    *,
    as_tensors: bool,
    differentiable: bool,
) -> None:
    for slot, step in zip(slots, state_steps, strict=True):
        step += 1
        scalars = _scalars(rule, step, _state_dtype(slot.w), as_tensors)
        whole = as_tensors or not slot.w.is_cpu
        for part in (slot,) if whole else _parts(slot, _block()):
            _step_one(part, scalars, rule, differentiable)


def _block() -> int:
    """Return how many elements are stepped at a time: all threads get their part of them."""
    return max(BLOCK, THREAD * torch.get_num_threads())


def _parts(slot: Slot, size: int) -> Iterator[Slot]:
    """Yield views of the tensors with about `size` elements each."""
    n = slot.w.numel()
    if n <= size:
        yield slot
    elif all(tensor.is_contiguous() for tensor in slot):
        flat = [x.view(-1) for x in slot]
        yield from map(Slot._make, zip(*[torch.split(x, size) for x in flat], strict=True))
    else:
        longest = max(range(slot.w.dim()), key=slot.w.size)
        rows = max(1, size * slot.w.size(longest) // n)
        yield from map(Slot._make, zip(*[torch.split(x, rows, longest) for x in slot], strict=True))


def _step_one(slot: Slot, scalars: "Scalars", rule: Rule, differentiable: bool) -> None:
    """Take the step for one tensor: here are the formulas."""
    param, grad, m, v, peak, inverse_s = slot
    w, grad = _upcast(param), _upcast(grad)
    lr, step_size, divisor = scalars
    if rule.maximize:
        grad = -grad
    if rule.decay == "coupled" and _some(rule.weight_decay):
        grad = grad.add(w, alpha=rule.weight_decay)
    m.lerp_(grad, 1 - rule.beta1)
    v.mul_(rule.beta2).addcmul_(grad, grad, value=1 - rule.beta2)
    del grad
    if rule.amsgrad:
        if differentiable:  # autograd keeps both arguments, and the next step changes them
            peak.copy_(torch.maximum(peak.clone(), v.clone()))
        else:
            peak.clamp_min_(v)  # `maximum` with `out` breaks graphs if they are strided
        v = peak

    if rule.decay == "decoupled" and _some(rule.weight_decay):
        w.mul_(1 - lr * rule.weight_decay)
    shrinks = _shrinks(rule)
    if shrinks and rule.decay_at == "previous":
        shrinkage = _shrinkage(w, inverse_s, lr, rule, differentiable)

    root = v.sqrt()
    if differentiable:
        root = root.clone()  # autograd keeps the root itself
    if divisor is not None:
        root.div_(divisor)
    if rule.eps_at == "root":
        root.add_(rule.eps)
    if not _is(rule.exponent, 0.5):
        _raise_([root], 2 * rule.exponent)
    if rule.eps_at == "power":
        root.add_(rule.eps)
    if isinstance(step_size, Tensor):
        w.addcmul_((m.clone() if differentiable else m) / root, -step_size)
    else:
        w.addcdiv_(m, root, value=-step_size)
    del root

    if shrinks:
        if rule.decay_at == "updated":
            shrinkage = _shrinkage(w, inverse_s, lr, rule, differentiable)
        w.mul_(shrinkage) if differentiable else w.div_(shrinkage)
    if w.dtype != param.dtype:
        param.copy_(w)


def _foreach(slots: list[Slot], state_steps: list[Tensor], rule: Rule, *, as_tensors: bool) -> None:
    weights = [slot.w for slot in slots]
    # torch types each list as one that may hold None; these do not.
    lists = cast(list[list[Tensor | None]], [weights, state_steps])
    for (_, dtype), (_, indices) in Optimizer._group_tensors_by_device_and_dtype(
        lists, with_indices=True
    ).items():
        steps = [state_steps[i] for i in indices]
        if torch.compiler.is_compiling():
            torch._foreach_add_(steps, 1)
        else:
            _count(steps)
        members = []
        for i, step in zip(indices, steps, strict=True):
            members.append((slots[i], _scalars(rule, step, _state_dtype(weights[i]), as_tensors)))
        # Two temporaries of every tensor at once would be two lists of parameters.
        low = dtype in (torch.float16, torch.bfloat16)
        temporaries = 3 if low else 2 if _shrinks(rule) and rule.decay_at == "previous" else 1
        if torch.compiler.is_compiling() or temporaries == 1:
            _step_many(members, rule, as_tensors)
            continue
        limit = sum([slot.w.numel() for slot, _ in members]) // temporaries
        batch: list[tuple[Slot, Scalars]] = []
        size = 0
        for slot, scalars in members:
            for part in _parts(slot, max(1, limit // 2)):
                if batch and size + part.w.numel() > limit:
                    _step_many(batch, rule, as_tensors)
                    batch, size = [], 0
                batch.append((part, scalars))
                size += part.w.numel()
        _step_many(batch, rule, as_tensors)


def _step_many(members: list[tuple[Slot, "Scalars"]], rule: Rule, as_tensors: bool) -> None:
    """Take the step for tensors of one device and dtype: the formulas of `_step_one`."""
    slots, scalars = zip(*members, strict=True)
    params, g, m, v, peak, inverse_s = (list(x) for x in zip(*slots, strict=True))
    w, g = [_upcast(x) for x in params], [_upcast(x) for x in g]
    lr = scalars[0][0]  # the same for all tensors
    # torch types lists of scalars as floats, and takes lists of tensors too.
    step_sizes = cast(list[float], [-step_size for _, step_size, _ in scalars])
    divisors = cast(list[float], [divisor for _, _, divisor in scalars])
    if rule.maximize:
        g = list(torch._foreach_neg(g))
    if rule.decay == "coupled" and _some(rule.weight_decay):
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

    if rule.decay == "decoupled" and _some(rule.weight_decay):
        torch._foreach_mul_(w, _operand(1 - lr * rule.weight_decay, len(w)))
    shrinks = _shrinks(rule)
    if shrinks and rule.decay_at == "previous":
        shrinkage = _foreach_shrinkage(w, inverse_s, lr, rule)

    root = list(torch._foreach_sqrt(v))
    if rule.correction == "moments":
        torch._foreach_div_(root, divisors)
    if rule.eps_at == "root":
        torch._foreach_add_(root, rule.eps)
    if not _is(rule.exponent, 0.5):
        _raise_(root, 2 * rule.exponent)
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
            shrinkage = _foreach_shrinkage(w, inverse_s, lr, rule)
        torch._foreach_div_(w, _operand(shrinkage, len(w)))
    rounded = [i for i, param in enumerate(params) if param.dtype != w[i].dtype]
    if rounded:
        torch._foreach_copy_([params[i] for i in rounded], [w[i] for i in rounded])


def _count(steps: list[Tensor]) -> None:
    """Add 1 to each."""
    if steps[0].is_cpu:
        # Else each of the additions would wrap the number in a tensor of its own.
        torch._foreach_add_(steps, torch.tensor(1.0, device="cpu"), alpha=1.0)
    else:
        torch._foreach_add_(steps, 1)


def _upcast(tensor: Tensor) -> Tensor:
    """Return the tensor itself, or a float32 copy of one of less precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


Scalars = tuple[float | Tensor, float | Tensor, float | Tensor | None]
"""η, the step size, and what divides √v (None for 1)."""


def _scalars(rule: Rule, step: Tensor, dtype: torch.dtype, as_tensors: bool) -> Scalars:
    """Return the scalars of a step as floats or as tensors."""
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


def _is(value: float, special: float) -> bool:
    """Return whether a value has a form of its own; in graphs none has, so that it may move."""
    return not torch.compiler.is_compiling() and value == special


def _some(strength: float) -> bool:
    """Return whether there is any decay; in graphs there is, so that it may become 0."""
    return not _is(strength, 0)


def _shrinks(rule: Rule) -> bool:
    if rule.decay != "p-norm":
        return False
    return _some(rule.weight_decay) or _some(rule.lambda_2) or rule.beta_s is not None


def _shrinkage(
    w: Tensor, inverse_s: Tensor, lr: float | Tensor, rule: Rule, differentiable: bool
) -> float | Tensor:
    """Return 1 + ηλ₂ + pηλs, by default for s = |w|^(p−2): the weights are divided by it.

    Where the textbook multiplies by X/(X(1 + ηλ₂) + pηλ), with X = 1/s, this is right also for an s
    that overflows or vanishes: it leaves ∞ or 1 + ηλ₂. Only ∞ · 0 is left, at w = 0 and ηλ = 0. But
    to differentiate, the factor itself is returned, for small X as the textbook has it, since that
    has finite derivatives at w = 0.
    """
    strength = rule.p * lr * rule.weight_decay
    rest = 1 + lr * rule.lambda_2
    known = _is(rule.p, 2) or (not isinstance(strength, Tensor) and strength < _fused.LEAST)
    if known and rule.beta_s is None:
        return 1 / (rest + strength) if differentiable else rest + strength
    if differentiable:
        if 1 < rule.p < 2 and rule.weight_decay != 0 and not torch.compiler.is_compiling():
            zeros = int((w == 0).sum())
            if zeros:
                raise ValueError(
                    f"d|w|^(2 − p)/dw is infinite at w = 0 for p = {rule.p}, and {zeros} of "
                    f"{w.numel()} weights are 0: differentiable=True needs p ≤ 1, p = 2 or w ≠ 0"
                )
        w = w.clone()  # autograd keeps it, and the step changes the original
    x = w.abs()
    if rule.beta_s is not None:
        if not _is(rule.p, 1):
            _raise_([x], 2 - rule.p)
        inverse_s.lerp_(x, 1 - rule.beta_s)
        if known and not _is(rule.p, 2):
            return rest
        x = inverse_s.clone() if differentiable else x.copy_(inverse_s)
    if isinstance(strength, Tensor):
        x.add_(strength < _fused.LEAST)
    if differentiable:
        if rule.beta_s is None:
            x = x.pow(2 - rule.p)
        small = x < 1
        low, high = torch.where(small, x, 1), torch.where(small, 1, x)
        return torch.where(small, low / (low * rest + strength), 1 / (rest + strength / high))
    _raise_([x], -1 if rule.beta_s is not None else rule.p - 2)
    if isinstance(strength, Tensor):
        return x.mul_(strength).add_(rest)
    return torch.add(x.new_full((), float(rest)), x, alpha=strength, out=x)


def _foreach_shrinkage(
    w: list[Tensor], inverse_s: list[Tensor], lr: float | Tensor, rule: Rule
) -> float | Tensor | list[Tensor]:
    """Return `_shrinkage` of every tensor."""
    strength = rule.p * lr * rule.weight_decay
    rest = 1 + lr * rule.lambda_2
    known = _is(rule.p, 2) or (not isinstance(strength, Tensor) and strength < _fused.LEAST)
    if known and rule.beta_s is None:
        return rest + strength
    x = list(torch._foreach_abs(w))
    if rule.beta_s is not None:
        if not _is(rule.p, 1):
            _raise_(x, 2 - rule.p)
        torch._foreach_lerp_(inverse_s, x, 1 - rule.beta_s)
        if known and not _is(rule.p, 2):
            return rest
        torch._foreach_copy_(x, inverse_s)
    if isinstance(strength, Tensor):
        none = (strength < _fused.LEAST).to(strength.dtype)
        torch._foreach_add_(x, _operand(none, len(x)))
    _raise_(x, -1 if rule.beta_s is not None else rule.p - 2)
    torch._foreach_mul_(x, _operand(strength, len(x)))
    torch._foreach_add_(x, _operand(rest, len(x)))
    return x


def _raise_(tensors: list[Tensor], power: float) -> None:
    """Raise x ≥ 0 to a power in place."""
    known = not torch.compiler.is_compiling()
    if known and power == -1:
        torch._foreach_reciprocal_(tensors)
    elif not known or power in POWERS or not tensors[0].is_cpu or tensors[0].requires_grad:
        torch._foreach_pow_(tensors, power)
    else:
        for x in tensors:
            if power == 0.25:
                x.sqrt_().sqrt_()
            else:
                # Several times as fast as `pow_`, which has more digits than are needed, but
                # without derivatives at 0.
                x.log2_().mul_(power).exp2_()


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
    _check_paths(options["foreach"], options["fused"], options["differentiable"])


def _check_paths(foreach: bool | None, fused: bool | None, differentiable: bool) -> None:
    """Raise ValueError if more than one way to take the step is asked for."""
    paths = {"foreach": foreach, "fused": fused, "differentiable": differentiable}
    chosen = [f"{name}=True" for name, value in paths.items() if value]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} exclude each other")


class AdamFamily(Optimizer):
    """What the optimizers of the family share: state, checkpoints, checks, and the step.

    A subclass names its function of `functional`; the keys of its `defaults` are the keywords of
    that function, but for ``betas``.
    """

    _function: ClassVar[Callable[..., None]]
    _dynamic: ClassVar[bool] = False
    """Whether 1/s is a state."""

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        _check(defaults)
        super().__init__(params, defaults)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `torch.amp.GradScaler` leaves it to the step to unscale and to skip."""
        return any(group["fused"] for group in self.param_groups)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            # A checkpoint of torch's Adam lacks some options, and has one that may mean nothing.
            if "decoupled_weight_decay" not in self.defaults:
                group.pop("decoupled_weight_decay", None)
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
                    if key not in STATES:
                        continue
                    own = value.to(param.device, _state_dtype(param))
                    if own.shape == param.shape and own.stride() != param.stride():
                        # Laid out as the weights, so that one pass goes through all of them.
                        own = torch.empty_like(param, dtype=own.dtype).copy_(own)
                    self.state[param][key] = own

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
        inverse_ss: list[Tensor],
        state_steps: list[Tensor],
    ) -> None:
        """Fill the lists for the parameters with a gradient, and begin their states.

        `torch.compile` knows this method of optimizers by name and does not look inside.
        """
        kept = {"exp_avg": exp_avgs, "exp_avg_sq": exp_avg_sqs}
        if group["amsgrad"]:
            kept["max_exp_avg_sq"] = max_exp_avg_sqs
        if self._dynamic:
            kept["inverse_s"] = inverse_ss
        begun: list[Tensor] = []
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if "step" not in state:
                # On the CPU unless captured: there, reading it does not wait for an accelerator.
                device = p.device if group["capturable"] else "cpu"
                # Not by `zeros`, or it would have no value among fake tensors.
                state["step"] = torch.tensor(0.0, dtype=_get_scalar_dtype(), device=device)
                begun.append(p)
            for name, tensors in kept.items():
                if name not in state:
                    state[name] = torch.full_like(
                        p, STATES[name], dtype=_state_dtype(p), memory_format=torch.preserve_format
                    )
                tensors.append(state[name])
            params.append(p)
            grads.append(p.grad)
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
        # What `torch.amp.GradScaler` sets for the step.
        if getattr(self, "found_inf", None):  # then no state is begun either
            return loss
        grad_scale = getattr(self, "grad_scale", None)
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            exp_avgs: list[Tensor] = []
            exp_avg_sqs: list[Tensor] = []
            max_exp_avg_sqs: list[Tensor] = []
            inverse_ss: list[Tensor] = []
            state_steps: list[Tensor] = []
            self._init_group(
                group,
                params,
                grads,
                exp_avgs,
                exp_avg_sqs,
                max_exp_avg_sqs,
                inverse_ss,
                state_steps,
            )
            beta1, beta2 = group["betas"]
            self._function(
                params,
                grads,
                exp_avgs,
                exp_avg_sqs,
                max_exp_avg_sqs,
                *([inverse_ss] if self._dynamic else []),
                state_steps,
                beta1=beta1,
                beta2=beta2,
                **{name: group[name] for name in self.defaults if name != "betas"},
                grad_scale=grad_scale,
            )
        return loss


def _state_dtype(param: Tensor) -> torch.dtype:
    return torch.float32 if param.dtype in (torch.float16, torch.bfloat16) else param.dtype
