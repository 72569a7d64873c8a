"""DynamicPAdam: PAdam whose decay follows the weights with a delay."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from beyond_adam.optim._adam_family import AdamFamily
from beyond_adam.optim.functional import dynamic_padam
from beyond_adam.optim.pnorm_adam import OLD_NAMES, refuse

__all__ = ["DynamicPAdam"]


class DynamicPAdam(AdamFamily):
    r"""PAdam beyond the adiabatic limit: the auxiliary weights s are a slow state of their own.

    `beyond_adam.optim.PAdam` decays each weight like a square of strength pλs, with s at once at
    its optimum :math:`|w|^{p-2}`. Here s begins at 1, where the decay is that of p = 2, and follows
    with a delay: 1/s is a moving average,

    .. math::

        \frac{1}{s} \leftarrow β_s \frac{1}{s} + (1 - β_s) |w|^{2-p},
        \qquad
        w \leftarrow \frac{\hat u}{1 + η λ_2 + p η λ s},

    with :math:`\hat u` the weights after Adam's step, as in PAdam. So training begins as with a
    square norm and turns into that of the p-norm within about 1/(1 − β_s) steps. As 1/s never
    reaches 0 (unless β_s = 0), weights that begin at zero, or pass through it, are not held there:
    there is nothing to warn of.

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
        Strength λ ≥ 0 of the p-norm.
    p
        Exponent of the norm, 0 < p ≤ 2.
    lambda_2
        Strength λ₂ ≥ 0 of a further square norm.
    amsgrad
        Whether v is replaced by its running maximum, as in torch before the correction for bias.
    beta_s
        Decay rate β_s of the average 1/s, in [0, 1). At 0 this is PAdam.
    partial
        Exponent c of v, 0 < c ≤ 1/2.
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
    The state has one more tensor for each parameter than Adam's, ``"inverse_s"``. Outmezguine's
    post "Decoupled weight decay for any p norm" proposes a slow s and gives no rule for it; the
    present one lowers the post's Λ_p(w, s) at every step, since 1/s never moves past its optimum.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = DynamicPAdam(model.parameters(), weight_decay=1e-2, p=0.8, beta_s=0.99)
    """

    _function = staticmethod(dynamic_padam)
    _dynamic = True

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
        beta_s: float = 0.999,
        partial: float = 0.5,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **unknown: Any,
    ) -> None:
        refuse("DynamicPAdam", unknown)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "p": p,
            "lambda_2": lambda_2,
            "amsgrad": amsgrad,
            "beta_s": beta_s,
            "partial": partial,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; raises as the constructor does."""
        refuse("DynamicPAdam", OLD_NAMES & set(param_group))
        super().add_param_group(param_group)
