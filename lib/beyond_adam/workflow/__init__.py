"""The workflow: from clean chapters to a checked book.

Snakemake runs it (`Snakefile`); ``python -m beyond_adam.workflow`` is what the Makefile calls.
"""
