"""Reference rules against PyTorch's own optimizers, on a network that learns the digits.

Both start from the same weights and see the same full batch in float64, so that nothing but
rounding can part them.
"""

from typing import Final

import pandas as pd
import torch
from torch import nn

from beyond_adam.data import digits
from beyond_adam.models import mlp
from beyond_adam.optim import RuleOptimizer, twin
from beyond_adam.reference import RULES

NAME: Final = "agreement"

SIZES: Final = (64, 32, 32, 10)
STEPS: Final = {"smoke": 3, "quick": 100, "paper": 100}


def run(profile: str) -> dict[str, pd.DataFrame]:
    """Train with each rule and with its twin.

    Returns
    -------
    dict
        ``agreement``: rule, twin, steps, first_loss, last_loss, and difference, the largest
        absolute difference of any weight after any step.
    """
    data = digits()
    pixels = torch.from_numpy(data.images[data.train]).flatten(1).double() / 16
    labels = torch.from_numpy(data.labels[data.train])
    rows = []
    for name, rule_class in RULES.items():
        rule = rule_class(lr=0.1 if name in ("GradientDescent", "Momentum") else 0.01)
        ours, theirs = mlp(SIZES, "tanh"), mlp(SIZES, "tanh")
        pairs = [
            (ours, RuleOptimizer(ours.parameters(), rule)),
            (theirs, other := twin(rule, theirs.parameters())),
        ]
        losses, difference = [], 0.0
        for _ in range(STEPS[profile]):
            for model, optimizer in pairs:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(pixels), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
            difference = max(difference, _difference(ours, theirs))
        rows.append(
            {
                "rule": name,
                "twin": f"torch.optim.{type(other).__name__}",
                "steps": STEPS[profile],
                "first_loss": losses[0],
                "last_loss": losses[-2],
                "difference": difference,
            }
        )
    return {"agreement": pd.DataFrame(rows)}


def _difference(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max((p - q).abs().max().item() for p, q in pairs)
