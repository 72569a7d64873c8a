"""Training runs: what they are, the loop that runs them, and the records they leave.

- `Definition`: a run, down to the seed; `Penalty` and `Pruning` are parts of one.
- `train`: runs it, from its last checkpoint if there is one.
"""

from beyond_adam.training.definition import Definition, Penalty, Pruning
from beyond_adam.training.engine import Outcome, train

__all__ = ["Definition", "Outcome", "Penalty", "Pruning", "train"]
