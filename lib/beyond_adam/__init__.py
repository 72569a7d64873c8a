"""Beyond Adam: optimizers past Adam, and the experiments that put them to the test.

The package is built in layers, and imports point down only:

1. mathematics: :mod:`~beyond_adam.landscapes`, :mod:`~beyond_adam.numerical`,
   :mod:`~beyond_adam.reference`
2. torch optimizers: :mod:`~beyond_adam.optim`
3. :mod:`~beyond_adam.data` and :mod:`~beyond_adam.models`
4. :mod:`~beyond_adam.training`: the engine and the records of its runs;
   :mod:`~beyond_adam.experiments`: definitions and the store of their results
5. :mod:`~beyond_adam.publishing`: figures, tables, claims
6. :mod:`~beyond_adam.workflow`: from chapters to the book

Layers 1 and 2 need numpy and torch only; the rest needs the extra ``beyond-adam[book]``.
"""

__version__ = "0.1.0"
