"""AdamExponent: Adam with any power of the second moment."""

from torch import Tensor
from torch.optim.optimizer import ParamsT

from beyond_adam.optim._adam_family import AdamFamily
from beyond_adam.optim.functional import adam_exponent

__all__ = ["AdamExponent"]


class AdamExponent(AdamFamily):
    r"""Adam with an exponent c in place of the square root, to be moved in training (Chen, 2019).

    .. math::

        w \leftarrow w - η \frac{\hat m}{\hat v^{c} + ε}

    where m̂ and v̂ are the moving averages of g and g², corrected for their bias unless
    ``bias_correction=False`` (the source leaves the correction out of its formulas). At c = 1/2
    this is `torch.optim.Adam`. At c = 0, without the correction, it is
    ``torch.optim.SGD(lr=η(1 − β₁)/(1 + ε), momentum=β₁)``.

    The exponent is an option of each group: whoever moves it in training sets
    ``group["exponent"]``, as schedulers set ``group["lr"]``. Where v < 1 a smaller exponent also
    means a smaller step, so a schedule from 1/2 to 0 is also a strong decay of the learning rate.

    Parameters
    ----------
    params
        Parameters or parameter groups, as for any torch optimizer. Every option below but
        ``differentiable`` may differ between groups, and is saved in the ``state_dict``.
    lr
        Learning rate η ≥ 0; a tensor of one element spares `torch.compile` a recompilation.
    betas
        Decay rates (β₁, β₂) of the averages of g and g², in [0, 1).
    eps
        The number ε ≥ 0 added to the power of v̂.
    weight_decay
        Strength λ ≥ 0 of the square norm: g + λw takes the place of g.
    exponent
        Exponent c of v̂, in [0, 1]; 0⁰ is 1.
    bias_correction
        Whether m and v are divided by 1 − β₁ᵗ and 1 − β₂ᵗ.
    amsgrad
        Whether v is replaced by its running maximum, as in torch before the correction for bias.
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
    >>> optimizer = AdamExponent(model.parameters(), exponent=0.5)
    >>> for group in optimizer.param_groups:  # after some epochs
    ...     group["exponent"] = 0.4
    """

    _function = staticmethod(adam_exponent)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        exponent: float = 0.5,
        bias_correction: bool = True,
        amsgrad: bool = False,
        *,
        decoupled_weight_decay: bool = False,
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
            "exponent": exponent,
            "bias_correction": bias_correction,
            "amsgrad": amsgrad,
            "decoupled_weight_decay": decoupled_weight_decay,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)
