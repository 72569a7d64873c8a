"""Archived measurements of times and rates, which the programs in ``benchmarks/`` write.

How fast a machine is, is not a result that a build could reproduce, so that the book shows what was
measured once, and says where.
"""

import json
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from beyond_adam import project
from beyond_adam.publishing.artefacts import named


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """What was measured, when, and where.

    Attributes
    ----------
    content
        The whole file.
    date, commit
        When, in ISO format, and by which code.
    machine, torch
        Processor with its cores, and system; version of torch.
    threads
        Number of threads.
    """

    content: dict[str, Any]
    date: str
    commit: str
    machine: str
    torch: str
    threads: int

    @classmethod
    def read(cls, file: str) -> Self:
        """Read a measurement.

        Parameters
        ----------
        file
            Path relative to the root of the checkout. A chapter writes it as a literal, so that the
            workflow sees what it depends on.

        Raises
        ------
        ValueError
            If an entry is missing.
        """
        content = json.loads((project.root() / file).read_text())
        try:
            hardware = content["hardware"]
            return cls(
                content=content,
                date=content["date"],
                commit=content["commit"],
                machine=f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['system']}",
                torch=content["versions"]["torch"],
                threads=int(content["threads"]),
                **cls._more(content),
            )
        except KeyError as error:
            raise ValueError(f"{file} lacks {error}") from None

    @classmethod
    def _more(cls, content: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG003 (for subclasses)
        """Return what a subclass takes from the file besides."""
        return {}

    @property
    def provenance(self) -> str:
        """Where the numbers come from, as captions say it."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        commit = named([(self.commit.rstrip("+"), self.commit.endswith("+"))])
        return f"{self.date}, {self.machine}, {threads}, torch {self.torch}, commit {commit}"

    def table(self, name: str) -> pd.DataFrame:
        """Return one of its tables.

        Raises
        ------
        ValueError
            If there is none of that name, or it is empty.
        """
        rows = self.content.get(name)
        if not rows or not isinstance(rows, list):
            raise ValueError(f"the measurement of {self.date} has no table {name!r}")
        return pd.DataFrame(rows)
