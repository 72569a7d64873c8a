"""Records of training runs: in the build folder, or archived with the project.

A record is a folder named after its run. It holds ``record.json`` (definition, provenance, last
measurements), ``epochs.parquet`` and ``layers.parquet`` (see `beyond_adam.training.train`), the
tables of `beyond_adam.training.probes`, and ``weights.safetensors``. While the run is not complete
there are checkpoints in the place of all that.
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from beyond_adam import dependencies, project, provenance
from beyond_adam.data import load as load_data
from beyond_adam.training import checkpoints, engine, probes
from beyond_adam.training.definition import Definition

MODULES: Final = ("beyond_adam.training.engine",)
"""Modules that every run depends on, besides those that its definition names."""

LOCK: Final = "requirements.lock"
ARCHIVE: Final = "data/runs"
"""What a run may find changed in a checkout, since runs are put there: no result depends on it."""
PROBES: Final = probes.__name__
WEIGHTS: Final = "weights.safetensors"


@dataclass(frozen=True, eq=False)
class Record:
    """What a run left.

    Attributes
    ----------
    run
        What was run.
    folder
        Where it lies.
    archived
        Whether that is in the project and not in the build folder.
    content
        What ``record.json`` holds: ``definition``, ``digest``, ``failure`` (why the run ended
        before its time, or nothing), ``fingerprint`` of the data, number of ``parameters``,
        ``last`` (the last row of ``epochs``), names of the ``tables``, and ``segments``: for each
        stretch of epochs (from ``first`` to ``last``) that was computed in one go its ``seconds``,
        ``commit``, whether the tree was ``dirty``, ``versions``, ``hardware``, ``device``,
        ``threads``, whether the model was ``compiled``, and hashes of the ``modules``, the ``lock``
        and the data. ``probes`` is the hash of the module that measured the tables; ``files`` has
        the SHA-256 of tables and weights. And ``confirmed``, if `confirm` has: number of ``epochs``
        that were repeated, ``commit``, whether the tree was ``dirty``, and ``hashes`` of what gave
        the same results again.
    """

    run: Definition
    folder: Path
    archived: bool
    content: Mapping[str, Any] = field(repr=False)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of the record; raises ValueError if the file is not the one it had."""
        return pd.read_parquet(self._whole(f"{name}.parquet"))

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters and buffers of the trained model; raises as `table` does."""
        if not self.has_weights:
            raise FileNotFoundError(f"{self.folder}: this run was archived without its weights")
        return load_file(self._whole(WEIGHTS))

    @property
    def has_weights(self) -> bool:
        """Whether the trained model is there."""
        return (self.folder / WEIGHTS).is_file()

    @property
    def is_whole(self) -> bool:
        """Whether its tables and the trained model are what the run left."""
        tables = [f"{table}.parquet" for table in self.content["tables"]]
        return all(self._is_whole(name) for name in (*tables, WEIGHTS))

    def _is_whole(self, name: str) -> bool:
        file = self.folder / name
        return file.is_file() and _sha256(file) == self.content.get("files", {}).get(name)

    def _whole(self, name: str) -> Path:
        file = self.folder / name
        if not self._is_whole(name):
            raise ValueError(f"{file} is not what the run left: restore it, or remove the folder")
        return file

    def changes(self) -> list[str]:
        """Return what the results depend on and what has changed since: modules, and the lock.

        That does not count which `confirm` has found to give the same results.
        """
        probed = {PROBES: self.content.get("probes")}
        then = [
            {**segment["modules"], LOCK: segment.get("lock"), **probed}
            for segment in self.content["segments"]
        ]
        confirmed = self.content.get("confirmed", {}).get("hashes", {})
        now = {**modules(self.run), LOCK: _lock(), PROBES: _probes()}
        return sorted(
            name
            for name, sha in now.items()
            if any(hashes.get(name) != sha for hashes in then) and confirmed.get(name) != sha
        )


def modules(run: Definition) -> dict[str, str]:
    """Return the modules that a run depends on, with their hashes; those of torch do not count.

    In one process the hashes stay what they first were, as does the code that has been imported.
    """
    own = {name for name in run.modules if name.split(".")[0] == "beyond_adam"}
    others = {name for name in run.modules - own if name.split(".")[0] != "torch"}
    return _closure(frozenset({*MODULES, *own})) | {name: _others(name) for name in others}


@cache
def _closure(names: frozenset[str]) -> dict[str, str]:
    return dependencies.closure(names)


@cache
def _others(name: str) -> str:
    """Return the hash of a module outside this package.

    Of one without a file, as the cells of a notebook, no other process has the same.
    """
    file = getattr(sys.modules.get(name), "__file__", None)
    return dependencies.code_digest(Path(file).read_text()) if file else uuid.uuid4().hex


def origin(
    run: Definition, device: str | torch.device, *, compiled: bool = False
) -> dict[str, Any]:
    """Return what is kept of the circumstances of a run: code, data, versions, and hardware."""
    commit, dirty = provenance.commit(but=ARCHIVE)
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "device": _device_name(torch.device(device)),
        "threads": torch.get_num_threads(),
        "compiled": compiled,
        **_basis(run),
    }


def _basis(run: Definition) -> dict[str, Any]:
    """Return what the training of a run rests on: code, packages and data."""
    return {"modules": modules(run), "lock": _lock(), **_data(run)}


def _data(run: Definition) -> dict[str, str]:
    return {"fingerprint": load_data(run.data).fingerprint}


def _holds(record: Record) -> bool:
    """Return whether a record is whole, and of code, packages and data as they are now."""
    same = _agree(record.content["segments"], _data(record.run)) and not record.changes()
    return same and record.is_whole


def _agree(segments: Iterable[Mapping[str, Any]], now: Mapping[str, Any]) -> bool:
    """Return whether all segments have the entries that one would have now."""
    return all(segment.get(name) == value for segment in segments for name, value in now.items())


def _lock() -> str:
    return dependencies.digest((project.root() / LOCK).read_bytes())


@cache
def _probes() -> str:
    return dependencies.code_digest(Path(probes.__file__).read_text())


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def working(run: Definition) -> Path:
    """Return the folder of a run below the build folder."""
    return project.build() / "runs" / run.name


def find(run: Definition) -> Record | None:
    """Return the record of a run, the archived one first; None if there is none."""
    for folder, archived in ((project.archive() / run.name, True), (working(run), False)):
        file = folder / "record.json"
        if file.is_file():
            try:
                content = json.loads(file.read_text())
            except ValueError as error:
                raise ValueError(f"{file} is damaged ({error}): remove its folder") from error
            return Record(run, folder, archived, content)
    return None


@contextlib.contextmanager
def _alone(run: Definition) -> Iterator[None]:
    """Wait until no other process is at work on a run, and let none begin meanwhile."""
    file = working(run).with_name(f"{run.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{run.name}: waiting for another process that is at work on it", flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def perform(
    run: Definition,
    *,
    device: str | torch.device = "cpu",
    show: bool = False,
    fresh: bool = True,
    compiled: bool = False,
) -> Record:
    """Return the record of a run; what is missing of it is trained.

    Parameters
    ----------
    run
        The definition.
    device
        Where to train.
    show
        Whether to show a progress bar.
    fresh
        Whether epochs that were trained by other code, packages or data are trained again. If not,
        the run goes on from there, and its record says which modules have changed.
    compiled
        As for `beyond_adam.training.train`.

    Raises
    ------
    DatasetError, ValueError, OSError
        As `train` does.
    RuntimeError
        If `torch.distributed` is initialised: a record is written by one process.
    """
    if dist.is_initialized():
        raise RuntimeError("a record is written by one process; several may call train")
    with _alone(run):
        record = find(run)
        if record is not None:
            kept = record.archived or not (fresh or record.content["failure"])
            if kept or _holds(record):
                return record
            shutil.rmtree(record.folder)
        elif (
            fresh
            and (begun := checkpoints.newest(working(run)))
            and not _agree(begun[1]["segments"], _basis(run))
        ):
            checkpoints.remove(working(run))
        return _trained(run, torch.device(device), show=show, compiled=compiled)


def _trained(run: Definition, device: torch.device, *, show: bool, compiled: bool) -> Record:
    """Return the record of a run that is trained from its last checkpoint."""
    folder = working(run)
    circumstances, measured_by = origin(run, device, compiled=compiled), _probes()
    outcome = engine.train(
        run, folder, device=device, origin=circumstances, compiled=compiled, show=show
    )
    tables = {
        "epochs": pd.DataFrame(outcome.epochs),
        "layers": pd.DataFrame(outcome.layers),
        **({} if outcome.failure else probes.measure(run, outcome.model, device)),
    }
    content = {
        "name": run.name,
        "digest": run.digest,
        "definition": run.as_json(),
        "failure": outcome.failure,
        "fingerprint": circumstances["fingerprint"],
        "parameters": sum(p.numel() for p in outcome.model.parameters()),
        "last": outcome.epochs[-1],
        "tables": sorted(tables),
        "probes": measured_by,
        "segments": outcome.segments,
    }
    _save(folder, content, tables, outcome.model)
    checkpoints.remove(folder)
    return Record(run, folder, archived=False, content=content)


Runs = Mapping[tuple[str, int], Definition]
"""Runs by method and seed."""

Records = Mapping[tuple[str, int], Record]
"""Records by method and seed."""


def collect(runs: Runs, profile: str) -> Records:
    """Return the records of runs.

    Parameters
    ----------
    runs
        The runs.
    profile
        At "paper" only archived records are returned, because the others take hours: train them
        by ``beyond-adam run``. At other profiles runs without a record are trained.

    Raises
    ------
    ValueError
        If a run diverged.
    """
    if project.check_profile(profile) != "paper":
        records = {label: perform(run) for label, run in runs.items()}
        for (method, seed), record in records.items():
            if record.content["failure"]:
                raise ValueError(f"{method}, seed {seed}: {record.content['failure']}")
        return records
    found = {label: find(run) for label, run in runs.items()}
    return {label: record for label, record in found.items() if record and record.archived}


def together(records: Records, table: str | Callable[[Record], pd.DataFrame]) -> pd.DataFrame:
    """Return a table of each record, one below the other, with columns ``method`` and ``seed``.

    Parameters
    ----------
    records
        The records.
    table
        Name of the table in the records, or a function that makes one of a record.
    """
    frames = []
    for (method, seed), record in records.items():
        frame = record.table(table) if isinstance(table, str) else table(record)
        frame.insert(0, "method", method)
        frame.insert(1, "seed", seed)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def provenance_table(records: Records) -> pd.DataFrame:
    """Return where records come from.

    Returns
    -------
    DataFrame
        One line a segment: ``method``, ``seed``, ``name`` of the run, whether it is ``archived``,
        ``data`` and its ``fingerprint``, ``first`` and ``last`` epoch, ``hours`` of computation,
        ``commit``, whether the tree was ``dirty``, processor or ``device``, ``threads``, version of
        ``torch``, what has ``changed`` since the run (`Record.changes`), separated by spaces, and
        the commit at which its results were ``confirmed``, or nothing, and whether the tree was
        dirty then, ``confirmed_dirty``.
    """

    def segments(record: Record) -> pd.DataFrame:
        changed = " ".join(record.changes())
        confirmed = record.content.get("confirmed", {"commit": "", "dirty": False})
        lines = [
            {
                "name": record.run.name,
                "archived": record.archived,
                "data": record.run.data,
                "fingerprint": segment.get("fingerprint", record.content["fingerprint"]),
                "first": segment["first"],
                "last": segment["last"],
                "hours": segment["seconds"] / 3600,
                "commit": segment["commit"],
                "dirty": segment["dirty"],
                "device": segment["hardware"]["cpu"]
                if segment["device"] == "cpu"
                else segment["device"],
                "threads": segment["threads"],
                "torch": segment["versions"]["torch"],
                "changed": changed,
                "confirmed": confirmed["commit"],
                "confirmed_dirty": confirmed["dirty"],
            }
            for segment in record.content["segments"]
        ]
        return pd.DataFrame(lines)

    return together(records, segments)


def _save(
    folder: Path,
    content: dict[str, Any],
    tables: Mapping[str, pd.DataFrame],
    model: nn.Module,
) -> None:
    """Write a record; ``record.json`` comes last, so that what has one is whole."""
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", compression="zstd")
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    try:
        save_file(tensors, folder / WEIGHTS)
    except SafetensorError as error:
        raise OSError(f"cannot write {folder / WEIGHTS}: {error}") from error
    names = [*(f"{name}.parquet" for name in tables), WEIGHTS]
    content["files"] = {name: _sha256(folder / name) for name in sorted(names)}
    _write(folder, content)


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    draft = folder / "record.json.part"
    draft.write_text(json.dumps(content, indent=1) + "\n")
    draft.replace(folder / "record.json")


def confirm(record: Record, epochs: int = 2) -> Record:
    """Repeat the first epochs of a run by the code as it is now, and note it if all is the same.

    Losses, accuracies and numbers of small weights have to agree bit for bit, on a CPU and with the
    number of threads of the first segment. What was measured of the trained model is measured again
    if its weights are there; otherwise nothing is noted of `probes`.

    Parameters
    ----------
    record
        The record, of a run on a CPU; if the epochs agree it is written again.
    epochs
        How many of them; of a run that prunes at least all up to the first after which something is
        removed.

    Returns
    -------
    Record
        The record as it is now.

    Raises
    ------
    ValueError
        If they do not agree; the message names the first epoch, or the table, that does not. Or if
        it is a run on a GPU, or on a processor of another model, which rounds sums otherwise.
    """
    threads, before = torch.get_num_threads(), record.content["segments"][0]
    if before["device"] != "cpu":
        raise ValueError(f"{record.run.name}: was trained on {before['device']}, not on a CPU")
    processors = before["hardware"]["cpu"], provenance.hardware()["cpu"]
    if processors[0] != processors[1]:
        raise ValueError(
            f"{record.run.name}: was trained on a processor {processors[0]!r}, whose last bits "
            f"cannot be expected of this one, {processors[1]!r}"
        )
    commit, dirty = provenance.commit(but=ARCHIVE)
    pruning = record.run.pruning
    epochs = max(epochs, pruning.first + 1 if pruning else 0)
    hashes = {**modules(record.run), LOCK: _lock()}
    torch.set_num_threads(before["threads"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            compiled = before.get("compiled", False)
            outcome = engine.train(record.run, Path(folder), until=epochs, compiled=compiled)
        if record.has_weights:
            hashes[PROBES] = _probes()
            _measure_again(record, outcome.model)
    finally:
        torch.set_num_threads(threads)
    for name, rows in (("epochs", outcome.epochs), ("layers", outcome.layers)):
        now = pd.DataFrame(rows)
        then = record.table(name).head(len(now))
        kept = [column for column in then.columns if column != "seconds"]
        same = (now[kept] == then[kept]).all(axis=1)
        if not same.all():
            epoch = now["epoch"][~same].iloc[0]
            raise ValueError(f"{record.run.name}: epoch {epoch} does not come out the same")
    confirmed = {
        "epochs": epochs,
        "commit": commit,
        "dirty": dirty,
        "hashes": hashes,
    }
    content = {**record.content, "confirmed": confirmed}
    _write(record.folder, content)
    return Record(record.run, record.folder, record.archived, content)


def _measure_again(record: Record, model: nn.Module) -> None:
    model.load_state_dict(record.weights())
    for name, table in probes.measure(record.run, model, "cpu").items():
        if not table.equals(record.table(name)):
            raise ValueError(f"{record.run.name}: table {name} does not come out the same")


def put_away(record: Record, *, weights: bool) -> Record:
    """Copy a record to the archive, with or without its weights, and return the copy.

    Raises
    ------
    ValueError
        If the run failed, or the record is damaged.
    """
    if record.content["failure"]:
        raise ValueError(f"{record.folder.name} failed: {record.content['failure']}")
    if not record.is_whole:
        raise ValueError(f"{record.folder} is damaged: remove it and train again")
    project.archive().mkdir(parents=True, exist_ok=True)
    with _alone(record.run):
        return _copied(record, weights)


def _copied(record: Record, weights: bool) -> Record:
    draft = Path(tempfile.mkdtemp(dir=project.archive(), prefix="."))
    unwanted = ("checkpoint*", "*.part", *(() if weights else (WEIGHTS,)))
    ignored = shutil.ignore_patterns(*unwanted)
    try:
        shutil.copytree(record.folder, draft, ignore=ignored, dirs_exist_ok=True)
    except BaseException:
        shutil.rmtree(draft)
        raise
    place = project.archive() / record.folder.name
    if place.exists():
        shutil.rmtree(place)
    draft.rename(place)
    return Record(record.run, place, archived=True, content=record.content)
