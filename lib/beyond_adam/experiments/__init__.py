"""Experiments: what is run, and the store that keeps what came out.

An experiment is a module of this package with

- ``NAME``, the name of its record, and
- ``run(profile)``, which returns the results as tidy tables, ``dict[str, pandas.DataFrame]``.

`beyond_adam.experiments.store.load` runs it once and keeps the record; chapters load records.
"""
