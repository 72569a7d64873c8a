"""Optimizers for torch models, schedulers for what they add, and tools for sparse weights.

- `PAdam`: Adam with decoupled decay for any p-norm, 0 < p ≤ 2.
- `DynamicPAdam`: PAdam whose decay follows the weights with a delay.
- `Padam`: momentum with partial adaptivity, between SGD and AMSGrad.
- `AdamExponent`: Adam whose exponent of the second moment is a hyperparameter to be moved.
- `functional`: the same as functions on tensors and state that the caller owns.
- `ExponentScheduler`, `PNormScheduler`: move exponents and p during training.
- `decay_groups`, `sparsity_report`, `hard_zero`: what to decay, and what became zero.
- `RuleOptimizer`: any rule of `beyond_adam.reference`, slow and readable.
"""

from beyond_adam.optim import functional
from beyond_adam.optim.adam_exponent import AdamExponent
from beyond_adam.optim.dynamic_pnorm_adam import DynamicPAdam
from beyond_adam.optim.partial_adam import Padam
from beyond_adam.optim.pnorm_adam import PAdam
from beyond_adam.optim.rule_optimizer import RuleOptimizer
from beyond_adam.optim.schedulers import (
    CosineSchedule,
    ExponentScheduler,
    GeometricSchedule,
    HyperparameterScheduler,
    LinearSchedule,
    PNormScheduler,
    StepSchedule,
)
from beyond_adam.optim.sparsity import (
    SparsityReport,
    TensorSparsity,
    decay_groups,
    hard_zero,
    sparsity_report,
    warn_if_frozen,
)
from beyond_adam.optim.twins import twin

__all__ = [
    "AdamExponent",
    "CosineSchedule",
    "DynamicPAdam",
    "ExponentScheduler",
    "GeometricSchedule",
    "HyperparameterScheduler",
    "LinearSchedule",
    "PAdam",
    "PNormScheduler",
    "Padam",
    "RuleOptimizer",
    "SparsityReport",
    "StepSchedule",
    "TensorSparsity",
    "decay_groups",
    "functional",
    "hard_zero",
    "sparsity_report",
    "twin",
    "warn_if_frozen",
]
