"""Train torch models with a reference rule: the slow, readable path."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, overload

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from beyond_adam.reference import Adam, Rule


class RuleOptimizer(Optimizer):
    """Apply a rule of `beyond_adam.reference` to every parameter of a model.

    The hyperparameters of the rule are options of each parameter group: they are saved in the
    ``state_dict``, may differ between groups, and may be moved by learning-rate schedulers. They
    are read, and checked by the rule, at every step.

    Parameters
    ----------
    params
        Parameters or parameter groups, as for any torch optimizer. A group may override
        hyperparameters of the rule by name.
    rule
        The rule; its hyperparameters are the defaults of the groups.

    Raises
    ------
    ValueError
        If a group has a hyperparameter out of its range; at a step, also if a gradient is sparse
        or complex.

    Examples
    --------
    >>> import torch
    >>> from beyond_adam.reference import Adam
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = RuleOptimizer(model.parameters(), Adam(lr=1e-2))
    """

    def __init__(self, params: ParamsT, rule: Rule) -> None:
        self.rule = rule
        super().__init__(params, asdict(rule))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rule": self.rule}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, with the rule's hyperparameters where it names no others."""
        if isinstance(param_group, dict):  # or it is refused below
            self._rule(param_group)
        super().add_param_group(param_group)

    def _rule(self, group: dict[str, Any]) -> Rule:
        """Return the rule with the hyperparameters of a group."""
        names = self.rule.__dataclass_fields__.keys() & group.keys()
        return replace(self.rule, **{name: group[name] for name in names})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
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
        for group in self.param_groups:
            rule = self._rule(group)
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.layout != torch.strided or p.is_complex():
                    raise ValueError(
                        "gradients must be dense and real, "
                        f"not of layout {p.grad.layout} and {p.grad.dtype}"
                    )
                w, self.state[p] = rule.step(p, p.grad, self.state[p] or rule.init(p))
                p.copy_(w)
        return loss


def rule_adam(params: ParamsT, lr: float) -> RuleOptimizer:
    """Return an optimizer with the steps of `beyond_adam.reference.Adam` and its defaults."""
    return RuleOptimizer(params, Adam(lr=lr))
