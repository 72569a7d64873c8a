"""Training runs: what they are, the loop that runs them, and the records they leave.

- `Definition`: a run, down to the seed; `Penalty`, `Pruning` and `WarmUp` are parts of one.
- `train`: runs it, from its last checkpoint if there is one.
- `perform`: returns the `Record` of a run, and runs it if there is none; `find` only looks.
- `collect`, `together`, `provenance_table`: the records of many runs, and tables made of them.
- `put_away`: archives a record with the project; `confirm` repeats its first epochs.
"""

from beyond_adam.training.definition import Definition, Penalty, Pruning, WarmUp
from beyond_adam.training.engine import Outcome, train
from beyond_adam.training.records import (
    Record,
    Records,
    Runs,
    collect,
    confirm,
    find,
    perform,
    provenance_table,
    put_away,
    together,
)

__all__ = [
    "Definition",
    "Outcome",
    "Penalty",
    "Pruning",
    "Record",
    "Records",
    "Runs",
    "WarmUp",
    "collect",
    "confirm",
    "find",
    "perform",
    "provenance_table",
    "put_away",
    "together",
    "train",
]
