"""Proximal operators, the Λ_p identity, and small solvers that use them.

- `operators`: the operators with a closed form, and two projections.
- `lp`: the exact operator of λ·|u|^p for any 0 < p < 2, with its thresholds.
- `inexact`: majorise–minimise approximations of it.
- `lambda_p`: the function Λ_p, its proximal step, and p-norm decay.
- `solvers`: proximal gradient, ISTA and FISTA.

Functions take NumPy arrays or torch tensors and return the same kind.
"""

from beyond_adam.prox.inexact import prox_lp_reweighted_l1, prox_lp_reweighted_l2
from beyond_adam.prox.lambda_p import (
    adiabatic_step,
    collapse_basin,
    decay_scale,
    dynamic_s,
    indefinite_above,
    lambda_p,
    lambda_p_gradient,
    lambda_p_hessian,
    optimal_s,
    prox_lambda_p,
)
from beyond_adam.prox.lp import lp_fold, lp_minimiser_near, lp_threshold, prox_l_half, prox_lp
from beyond_adam.prox.operators import (
    moreau_envelope,
    project_box,
    project_l1_ball,
    prox_elastic_net,
    prox_group_lasso,
    prox_l0,
    prox_l1,
    prox_l2_squared,
)
from beyond_adam.prox.solvers import Composite, Solution, fista, ista, proximal_gradient

__all__ = [
    "Composite",
    "Solution",
    "adiabatic_step",
    "collapse_basin",
    "decay_scale",
    "dynamic_s",
    "fista",
    "indefinite_above",
    "ista",
    "lambda_p",
    "lambda_p_gradient",
    "lambda_p_hessian",
    "lp_fold",
    "lp_minimiser_near",
    "lp_threshold",
    "moreau_envelope",
    "optimal_s",
    "project_box",
    "project_l1_ball",
    "prox_elastic_net",
    "prox_group_lasso",
    "prox_l0",
    "prox_l1",
    "prox_l2_squared",
    "prox_l_half",
    "prox_lambda_p",
    "prox_lp",
    "prox_lp_reweighted_l1",
    "prox_lp_reweighted_l2",
    "proximal_gradient",
]
