"""Compares what was just computed with the committed record, number by number.

``data/record/<profile>.json`` keeps, for each figure and table, the hash of its data and a digest
of every column, and for each claim and erratum its verdict. Equal hashes end the comparison;
otherwise numbers have to agree within the tolerance that the figure declares, by their extremes,
their mean and up to `SAMPLES` of them a column, and text has to be the same throughout.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from beyond_adam import project
from beyond_adam.publishing.claims import Verdict
from beyond_adam.workflow import plan
from beyond_adam.workflow.results import Results, collect

SAMPLES: Final = 200

#: Worse is later. The three in the middle are settled results, each as good as the other.
_RANK: Final = {
    Verdict.REPRODUCED: 0,
    Verdict.WITHIN: 1,
    Verdict.MISPRINT: 2,
    Verdict.FALSE: 2,
    Verdict.UNTESTABLE: 2,
    Verdict.UNDECIDED: 3,
    Verdict.DIFFERS: 4,
    Verdict.NOT_YET: 5,
}

Record = dict[str, Any]


def record_file(profile: str) -> Path:
    """Return where the committed record of a profile lies."""
    return project.root() / "data" / "record" / f"{profile}.json"


def current(profile: str) -> Record:
    """Return the record of what the last run at `profile` computed.

    Raises
    ------
    ValueError
        If something has changed since, or was never computed.
    """
    stale = [why for file, why in plan.stale(profile).items() if file.name != "book.json"]
    if stale:
        more = f" (and {len(stale) - 1} more)" * (len(stale) > 1)
        raise ValueError(f"profile {profile!r} is not up to date, run `make`: {stale[0]}{more}")
    return _record(collect(profile))


def _record(results: Results) -> Record:
    return {
        "artefacts": {
            id: _fingerprint(results.folders[id] / f"{id}.csv", passport)
            for id, passport in results.artefacts.items()
        },
        "claims": {id: finding.verdict for id, finding in sorted(results.claims.items())},
        "errata": {id: finding.verdict for id, finding in sorted(results.errata.items())},
    }


def _fingerprint(csv: Path, passport: Record) -> Record:
    frame = pd.read_csv(csv)
    return {
        "sha256": passport["data"]["sha256"],
        "tolerance": passport["tolerance"],
        "columns": {
            str(name): _column(frame[name])
            for name in frame.columns
            if name not in passport["volatile"]
        },
    }


def _column(column: "pd.Series[Any]") -> Record:
    if not pd.api.types.is_numeric_dtype(column) or column.dtype == bool:
        text = "\0".join(map(str, column))
        return {"length": len(column), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    every = max(1, math.ceil(len(column) / SAMPLES))
    samples = column.iloc[::every]
    values = column.to_numpy(float)
    finite = values[np.isfinite(values)]
    extremes = [finite.min(), finite.max(), finite.mean()] if finite.size else []
    return {
        "length": len(column),
        "finite": int(finite.size),
        "range": [_short(value) for value in extremes],
        "samples": [_short(value) for value in samples.to_numpy(float)],
    }


def _short(value: float) -> float | str:
    """Round to the digits of the CSV; JSON has no word for infinity, so it becomes text."""
    return float(f"{value:.10g}") if math.isfinite(value) else str(value)


def compare(committed: Record, now: Record) -> tuple[list[str], list[str]]:
    """Compare two records; return what went wrong, and what changed without being wrong."""
    wrong, changed = [], []
    for id, before in committed["artefacts"].items():
        after = now["artefacts"].get(id)
        if after is None:
            wrong.append(f"{id}: is gone")
        elif before["sha256"] != after["sha256"]:
            differences = _different_columns(before, after)
            wrong += [f"{id}: {difference}" for difference in differences]
            if not differences:
                changed.append(f"{id}: other bytes, data within tolerance")
    for id, verdict in committed["claims"].items():
        after = now["claims"].get(id, Verdict.NOT_YET)
        if after != verdict:
            worse = _RANK[Verdict(after)] >= _RANK[Verdict(verdict)]
            excused = after == Verdict.UNTESTABLE  # this machine cannot tell, and says why
            (wrong if worse and not excused else changed).append(
                f"{id}: was {verdict!r}, is {str(after)!r}"
            )
    for id, verdict in committed["errata"].items():
        after = now["errata"].get(id)
        if after is None:
            wrong.append(f"{id}: no longer proved")
        elif after != verdict:  # the other is that this machine cannot tell, and says why
            changed.append(f"{id}: was {verdict!r}, is {after!r}")
    for kind in ("artefacts", "claims", "errata"):
        new = set(now[kind]) - set(committed[kind])
        wrong += [f"{id}: not in the committed record" for id in sorted(new)]
    return wrong, changed


def _different_columns(before: Record, after: Record) -> list[str]:
    if list(before["columns"]) != list(after["columns"]):
        return [f"columns were {list(before['columns'])}, are {list(after['columns'])}"]
    differences = []
    for name, old in before["columns"].items():
        new = after["columns"][name]
        if old.get("finite") != new.get("finite") or old["length"] != new["length"]:
            differences.append(f"column {name} has another number of (finite) values")
            continue
        if "sha256" in old or "sha256" in new:
            if old.get("sha256") != new.get("sha256"):
                differences.append(f"column {name} has other text")
            continue
        pairs = zip([*old["range"], *old["samples"]], [*new["range"], *new["samples"]], strict=True)
        scale = max((abs(x) for x in old["range"][:2]), default=0.0)
        worst = max((_distance(a, b) for a, b in pairs), default=0.0)
        allowed = before["tolerance"] * scale
        if worst > allowed:
            differences.append(f"column {name} is off by {worst:.3g}, allowed is {allowed:.3g}")
    return differences


def _distance(before: float | str, after: float | str) -> float:
    if isinstance(before, str) or isinstance(after, str):
        return 0.0 if before == after else math.inf
    return abs(before - after)


def write(profile: str) -> Path:
    """Accept what was just computed as the committed record."""
    file = record_file(profile)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(current(profile), indent=1, ensure_ascii=False)
    file.write_text(text + "\n")
    return file


def verify(profile: str) -> tuple[list[str], list[str]]:
    """Compare the last run with the committed record; see `compare`.

    Raises
    ------
    FileNotFoundError
        If no record of this profile is committed.
    ValueError
        As `current` does.
    """
    file = record_file(profile)
    if not file.is_file():
        raise FileNotFoundError(f"no committed record of profile {profile!r}: {file}")
    return compare(json.loads(file.read_text()), current(profile))
