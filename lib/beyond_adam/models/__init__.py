"""Models small enough to look inside."""

from beyond_adam.models.mlp import mlp
from beyond_adam.models.pointwise_cnn import PointwiseCNN, Valley, digits_problem

__all__ = ["PointwiseCNN", "Valley", "digits_problem", "mlp"]
