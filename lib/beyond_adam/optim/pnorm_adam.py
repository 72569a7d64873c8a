"""PAdam: Adam with decoupled decay for any p-norm."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from beyond_adam.optim._adam_family import AdamFamily, DecayAt
from beyond_adam.optim.functional import padam
from beyond_adam.optim.sparsity import warn_if_frozen

__all__ = ["PAdam"]

OLD_NAMES = frozenset({"lambda_p", "p_norm"})


class PAdam(AdamFamily):
    r"""Adam with decoupled p-norm weight decay (Outmezguine and Levi, 2024).

    It lowers loss(w) + λ Σ|w|^p + (λ₂/2) Σw² for λ = ``weight_decay``. With the gradients g of the
    loss alone, and û the weights after a step of Adam from w, every weight becomes

    .. math::

        w \leftarrow \frac{|w|^{2-p}}{|w|^{2-p} (1 + η λ_2) + p η λ}\, \hat u,
        \qquad
        \hat u = w - η \frac{\hat m}{(\sqrt{\hat v} + ε)^{2c}},

    where :math:`\hat m` and :math:`\hat v` are corrected for their bias, η is the learning rate as
    scheduled, and c = ``partial`` is 1/2 in Adam. With λ = λ₂ = 0 or at η = 0 the factor is 1, and
    the step is that of `torch.optim.Adam`, with ``partial=0.5`` to the last bit in for-loop and
    foreach, and within 2 ulp if fused.

    A weight of exactly 0 has factor 0: with ``decay_at="previous"`` it stays 0 as long as it is
    decayed (unless p = 2), so tensors that begin at zero never train. Their first step warns of it
    (unless it is compiled, or may be captured in a CUDA graph). Give biases and norms a group with
    ``weight_decay=0`` and ``lambda_2=0``, as is usual anyway; `decay_groups` makes such groups. For
    p ≤ 1 small weights go to zero, for p < 1 faster than any geometric sequence and at p = 1 like
    one, until they underflow; for 1 < p ≤ 2 they shrink to a size at which the loss holds them.

    Not to be confused with `beyond_adam.optim.Padam`, partially adaptive momentum, which some
    libraries call PAdam.

    Parameters
    ----------
    params
        Parameters or parameter groups, as for any torch optimizer. Every option below but
        ``differentiable`` may differ between groups, and is saved in the ``state_dict``.
    lr
        Learning rate η ≥ 0; a tensor of one element spares `torch.compile` a recompilation.
    betas
        Decay rates (β₁, β₂) of the averages m of g and v of g², in [0, 1).
    eps
        The number ε ≥ 0 added to √v̂, inside the power.
    weight_decay
        Strength λ ≥ 0 of the p-norm. For p = 2 it is twice that of AdamW: w = û/(1 + 2ηλ + ηλ₂).
        Strengths for different p have different units and do not compare.
    p
        Exponent of the norm, 0 < p ≤ 2.
    lambda_2
        Strength λ₂ ≥ 0 of a further square norm (the elastic net, for p = 1).
    amsgrad
        Whether v is replaced by its running maximum, as in torch before the correction for bias.
    partial
        Exponent c of v, 0 < c ≤ 1/2.
    decay_at
        Where |w| in the factor is taken: at the ``"previous"`` weight, as published, or at the
        ``"updated"`` one, û, where 0 need not stay 0 and rounding errors are not amplified.
    foreach
        Whether to step all tensors at once, which takes more memory; None: on accelerators only.
    fused
        Whether to step in one pass over memory, by a kernel that is compiled on first use.
        This, ``foreach`` and ``differentiable`` exclude each other.
    capturable
        Whether a CUDA graph may capture the step; correct but slower on any device.
    maximize
        Whether to ascend the loss; the decay is the same.
    differentiable
        Whether autograd is to go through the step. At w = 0 and 1 < p < 2 the step has no
        derivative and raises ValueError.

    Raises
    ------
    ValueError
        If an option is out of its range.
    TypeError
        For the source's names of options, ``lambda_p`` and ``p_norm``.
    RuntimeError
        At a step, if a gradient is sparse or complex.

    Notes
    -----
    The factor is one step of majorise–minimise, not the proximal operator: for p ≥ 1 it makes no
    weight exactly 0 in one step. The source is eq. 3 of Outmezguine's post "Decoupled weight decay
    for any p norm", which has λ without the factor p in places.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = PAdam(model.parameters(), lr=1e-3, weight_decay=1e-2, p=0.8)
    """

    _function = staticmethod(padam)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        p: float = 1.0,
        lambda_2: float = 0.0,
        amsgrad: bool = False,
        *,
        partial: float = 0.5,
        decay_at: DecayAt = "previous",
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **unknown: Any,
    ) -> None:
        refuse("PAdam", unknown)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "p": p,
            "lambda_2": lambda_2,
            "amsgrad": amsgrad,
            "partial": partial,
            "decay_at": decay_at,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _begin(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Warn of tensors that are all zeros and will stay so."""
        absorbing = group["weight_decay"] > 0 and group["p"] < 2
        if absorbing and group["decay_at"] == "previous" and not group["capturable"]:
            warn_if_frozen(params)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; raises as the constructor does."""
        refuse("PAdam", OLD_NAMES & set(param_group))
        super().add_param_group(param_group)


def refuse(optimizer: str, names: Iterable[str]) -> None:
    """Raise TypeError for options that are none; the source's names are explained."""
    for name in names:
        hint = (
            ": the strength of the decay is weight_decay, and the exponent of the norm is p"
            if name in OLD_NAMES
            else ""
        )
        raise TypeError(f"{optimizer} has no option {name!r}{hint}")
