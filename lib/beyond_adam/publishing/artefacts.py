"""Figures and tables as files: every one with its data and a passport, the same bytes every run."""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from beyond_adam import provenance

#: Ten digits are more than any figure shows, and hide the last-bit noise between processors.
FLOAT_FORMAT = "%.10g"

#: How many modules that have changed a caption names.
NAMED = 2


@dataclass(frozen=True)
class Passport:
    """What one must know of a figure or table to trust and cite it; saved as ``<id>.json``.

    Attributes
    ----------
    position
        The how-manieth figure or table of its chapter this is.
    tolerance
        How far, relative to the largest magnitude in its column, a number may lie from the
        committed record.
    volatile
        Columns that legitimately differ between machines (a chaotic orbit) and are not compared.
    origin
        Of results that were not computed in this build: the lines of
        `beyond_adam.training.provenance_table`.
    measured
        Of times and rates, which no build could compute again: when and where they were taken.
    """

    id: str
    kind: str
    caption: str
    alt: str
    chapter: str
    position: int
    profile: str
    dataset: str
    seeds: tuple[int, ...]
    parameters: dict[str, Any]
    tolerance: float
    volatile: tuple[str, ...]
    origin: tuple[dict[str, Any], ...] = ()
    measured: str = ""

    @property
    def scale(self) -> str:
        """What `described` returns for a caption, which names at most `NAMED` changes."""
        return self.described(NAMED)

    def described(self, most: float = math.inf) -> str:
        """Return profile, data, seeds and hardware in one line.

        Measured times have no profile, and data and seeds only if they are given. Of archived
        results it also says how long they took, by what commit they were computed, and what has
        changed since; or, if that is more than `most` modules, how many.
        """
        seeds = ", ".join(map(str, self.seeds))
        seeds = seeds and f"seed{'s' * (len(self.seeds) > 1)} {seeds}"
        if self.measured:
            parts = ("measured once, and archived", self.dataset, seeds, self.measured)
            return " · ".join(filter(None, parts))
        seeds = seeds or "no random numbers"
        if self.origin:
            machines = {
                f"{line['device']}, {line['threads']} thread{'s' * (line['threads'] > 1)}"
                for line in self.origin
            }
            hours = sum(line["hours"] for line in self.origin)
            taken = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
            commits = named((line["commit"], line["dirty"]) for line in self.origin)
            repeated = [line for line in self.origin if line["confirmed"]]
            again = named((line["confirmed"], line["confirmed_dirty"]) for line in repeated)
            runs, those = ({line["name"] for line in lines} for lines in (self.origin, repeated))
            of_all = f" ({len(those)} of {len(runs)} runs)" if len(those) < len(runs) else ""
            again = f"first epochs repeated bit for bit at {again}{of_all} · " if repeated else ""
            changed = sorted({name for line in self.origin for name in line["changed"].split()})
            what = ", ".join(changed) or "nothing"
            if len(changed) > most:
                what = f"{len(changed)} modules, which the reproduction report names"
            return (
                f"{self.profile} profile, archived · {self.dataset} · {seeds} · "
                f"{' and '.join(sorted(machines))} · {taken} in all · commit {commits} · "
                f"{again}changed since: {what}"
            )
        machine = provenance.hardware()
        return (
            f"{self.profile} profile · {self.dataset} · {seeds} · "
            f"{machine['cpu']}, {machine['cores']} cores"
        )

    def write(self, folder: Path, data: pd.DataFrame, files: Sequence[Path] = ()) -> None:
        """Write the data as CSV and the passport as JSON beside the drawn `files`."""
        csv = folder / f"{self.id}.csv"
        data.to_csv(csv, index=False, float_format=FLOAT_FORMAT, lineterminator="\n")
        commit, dirty = provenance.commit()
        passport = asdict(self) | {
            "commit": commit,
            "dirty": dirty,
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "data": {"rows": len(data), "columns": list(data.columns), "sha256": _sha256(csv)},
            "files": {file.name: _sha256(file) for file in files},
        }
        text = json.dumps(passport, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{self.id}.json").write_text(text)


def named(commits: Iterable[tuple[str, bool]]) -> str:
    """Name commits as readers see them, each with whether the tree was dirty."""
    names = {f"{commit[:10]}{' with changes' * dirty}" for commit, dirty in commits}
    return ", ".join(sorted(names))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def draw(figure: Figure, stem: Path) -> tuple[list[Path], bytes]:
    """Save a figure as SVG, PDF and PNG (300 dpi), free of dates and random ids.

    Returns
    -------
    list of Path, bytes
        The files, and a smaller PNG to show in a notebook.
    """
    # The SVG goes into the page: its few rasterized parts need no more than a screen shows.
    formats: Mapping[str, tuple[int, dict[str, None]]] = {
        "svg": (120, {"Date": None}),
        "pdf": (300, {"CreationDate": None, "ModDate": None}),
        "png": (300, {"Software": None}),
    }
    figure.canvas.draw()
    figure.set_layout_engine("none")  # laid out once, not anew for every file
    files, preview = [], io.BytesIO()
    # Without an engine of its own a figure would take up the style's again when it is saved.
    settings: Any = {"svg.hashsalt": stem.name, "figure.constrained_layout.use": False}
    with plt.rc_context(settings):
        for ending, (dpi, metadata) in formats.items():
            file = stem.with_name(f"{stem.name}.{ending}")
            figure.savefig(file, dpi=dpi, metadata=metadata)
            files.append(file)
        figure.savefig(preview, format="png", dpi=110, metadata={"Software": None})
    return files, preview.getvalue()
