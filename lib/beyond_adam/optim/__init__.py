"""Optimizers for torch models."""

from beyond_adam.optim.rule_optimizer import RuleOptimizer
from beyond_adam.optim.twins import twin

__all__ = ["RuleOptimizer", "twin"]
