"""Optimizers for torch models."""

from beyond_adam.optim.rule_optimizer import RuleOptimizer

__all__ = ["RuleOptimizer"]
