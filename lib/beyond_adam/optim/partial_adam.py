"""Padam: partially adaptive momentum."""

from torch import Tensor
from torch.optim.optimizer import ParamsT

from beyond_adam.optim._adam_family import AdamFamily
from beyond_adam.optim.functional import partial_adam

__all__ = ["Padam"]


class Padam(AdamFamily):
    r"""Partially adaptive momentum: AMSGrad with a smaller power of v (Chen et al., 2018).

    With m and v the moving averages of g and g², and v̂ the running maximum of v (v itself without
    ``amsgrad``),

    .. math::

        w \leftarrow w - η \frac{\sqrt{1 - β_2^t}}{1 - β_1^t}
        \frac{m}{(\sqrt{\hat v} + ε)^{2c}},

    where c = ``partial``. At c = 1/2 this is AMSGrad (as `torch.optim.Adam` has it, but for where ε
    is added: torch adds it to the corrected root); as c → 0 it tends to momentum.

    The conventions are those of the code behind the paper's experiments, which the paper does not
    state: the maximum is of the *uncorrected* v; ε is inside the power, so that for c = 1/8 the
    denominator is at least ε^(1/4) = 0.01; the correction for bias stays √(1 − β₂ᵗ)/(1 − β₁ᵗ) for
    every c, outside the power, which is a warm-up for c < 1/2; and weight decay is coupled.

    Not to be confused with `beyond_adam.optim.PAdam`, Adam with p-norm decay. pytorch_optimizer
    calls the present method PAdam.

    Parameters
    ----------
    params
        Parameters or parameter groups, as for any torch optimizer. Every option below but
        ``differentiable`` may differ between groups, and is saved in the ``state_dict``.
    lr
        Learning rate η ≥ 0, about that of momentum; a tensor of one element spares
        `torch.compile` a recompilation.
    betas
        Decay rates (β₁, β₂) of m and v, in [0, 1).
    eps
        The number ε ≥ 0 added to √v̂.
    weight_decay
        Strength λ ≥ 0 of the square norm: g + λw takes the place of g.
    partial
        Exponent c of v̂, 0 < c ≤ 1/2.
    amsgrad
        Whether v̂ is the running maximum.
    decoupled_weight_decay
        Whether to decay as AdamW does instead: w becomes w(1 − ηλ) before the step.
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
        Whether autograd is to go through the step.

    Raises
    ------
    ValueError
        If an option is out of its range.
    RuntimeError
        At a step, if a gradient is sparse or complex.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = Padam(model.parameters(), lr=0.1, partial=0.125, weight_decay=5e-4)
    """

    _function = staticmethod(partial_adam)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        partial: float = 0.125,
        amsgrad: bool = True,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "partial": partial,
            "amsgrad": amsgrad,
            "decoupled_weight_decay": decoupled_weight_decay,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)
