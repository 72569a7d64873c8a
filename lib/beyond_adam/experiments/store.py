"""The store of records: each experiment is run once and its tables are kept.

A record lies in ``_build/records/<profile>/<name>/``: one Parquet file a table, and ``record.json``
with provenance and the *key*, the hashes of everything that the result depends on: the
experiment's module, every module of this package it imports, the profile, and the lock file. A
record whose key no longer holds is computed anew; one that holds is only read.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, cast

import pandas as pd

from beyond_adam import dependencies, project, provenance

Tables = dict[str, pd.DataFrame]


class Experiment(Protocol):
    """A module that defines an experiment; see `beyond_adam.experiments`."""

    NAME: str
    __name__: str

    def run(self, profile: str) -> Tables:
        """Compute the tables at a profile."""
        ...


def folder(name: str, profile: str) -> Path:
    """Return where the record of experiment `name` lies at `profile`."""
    return project.build() / "records" / profile / name


def key(module: str, profile: str) -> dict[str, str]:
    """Return what the record of the experiment in `module` depends on, with hashes."""
    lock = project.root() / "requirements.lock"
    modules = dependencies.closure([module])
    return {
        **archived(modules),
        "profile": project.check_profile(profile),
        "requirements.lock": dependencies.digest(lock.read_bytes()),
        **{f"module {name}": sha for name, sha in modules.items()},
    }


def archived(modules: Iterable[str]) -> dict[str, str]:
    """Return the hash of the archived training runs, if any of the modules reads them."""
    if "beyond_adam.training.records" not in modules:
        return {}
    files = sorted(project.archive().glob("[!.]*/record.json"))
    hashes = [dependencies.digest(file.read_bytes()) for file in files]
    return {"archived runs": dependencies.digest("".join(hashes))}


def described(name: str, profile: str) -> dict[str, Any] | None:
    """Return the ``record.json`` of a record, or None if there is none that can be read."""
    try:
        text = (folder(name, profile) / "record.json").read_text()
        return cast(dict[str, Any], json.loads(text))
    except (OSError, ValueError):
        return None


def load(experiment: Experiment, profile: str) -> Tables:
    """Return the tables of `experiment` at `profile`, computing them if no record holds.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    current = key(experiment.__name__, profile)
    record = described(experiment.NAME, profile)
    place = folder(experiment.NAME, profile)
    if record and record["key"] == current:
        try:
            return {
                table: pd.read_parquet(place / f"{table}.parquet") for table in record["tables"]
            }
        except (OSError, ValueError):  # a damaged table: the experiment can be run again
            print(f"{place}: unreadable record, computing it again")
    started = time.perf_counter()
    tables = experiment.run(profile)
    _save(place, experiment.NAME, tables, current, time.perf_counter() - started)
    return tables


def _save(place: Path, name: str, tables: Tables, key: dict[str, str], seconds: float) -> None:
    """Write a record so that at any moment there is a whole one or none."""
    commit, dirty = provenance.commit()
    record = {
        "name": name,
        "key": key,
        "tables": sorted(tables),
        "seconds": round(seconds, 3),
        "commit": commit,
        "dirty": dirty,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{name}-"))
    try:
        for table, frame in tables.items():
            frame.to_parquet(draft / f"{table}.parquet")
        (draft / "record.json").write_text(json.dumps(record, indent=2) + "\n")
    except BaseException:  # a full disk, for one
        shutil.rmtree(draft)
        raise
    if place.exists():
        place.rename(draft / "replaced")
        draft.rename(place)
        shutil.rmtree(place / "replaced")
    else:
        draft.rename(place)
