"""Runs one chapter or one experiment."""

import importlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from beyond_adam import project
from beyond_adam.experiments import store
from beyond_adam.workflow import plan

T = TypeVar("T")


class ChapterError(Exception):
    """A chapter did not run to its end; the message names the chapter and the cell."""


def chapter(slug: str, profile: str) -> None:
    """Execute a chapter by papermill and keep the executed copy and its products.

    While it runs, and after a failure, the partly executed notebook lies in
    ``_build/running/<profile>/``.

    Raises
    ------
    ChapterError
        If a cell raises, or there is no such chapter.
    """
    notebook = _known("chapter", slug, plan.notebooks())
    key = notebook.key(profile)
    target, products = plan.executed(slug, profile), plan.products(slug, profile)
    running = project.build() / "running" / profile / f"{slug}.ipynb"
    draft = running.with_suffix(".products")
    shutil.rmtree(draft, ignore_errors=True)
    for folder in (draft, target.parent, products.parent):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {  # the kernel inherits them
        "BEYOND_ADAM_ROOT": str(project.root()),
        "BEYOND_ADAM_BUILD": str(project.build()),
        "BEYOND_ADAM_PRODUCTS": str(draft),
        "PYTHONHASHSEED": "0",
    }
    started = time.perf_counter()
    print(f"chapter {slug}: running {len(notebook.code)} code cells", flush=True)
    try:
        executed = papermill.execute_notebook(
            str(notebook.file),
            str(running),
            parameters={"profile": profile},
            cwd=str(notebook.file.parent),
            kernel_name="python3",
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        raise ChapterError(_failure(slug, error, running)) from None
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                print(f"chapter {slug}: cell {cell['id']!r} warns: {output['text']}", flush=True)
    nbformat.write(_stripped(executed), running)  # type: ignore[no-untyped-call]
    shutil.rmtree(products, ignore_errors=True)
    draft.rename(products)
    running.replace(target)
    target.with_suffix(".json").write_text(json.dumps(key, indent=2) + "\n")
    print(f"chapter {slug}: done in {time.perf_counter() - started:.1f} s", flush=True)


def _known(kind: str, name: str, all_of_them: Mapping[str, T]) -> T:
    if name not in all_of_them:
        raise ChapterError(f"no {kind} {name!r}; there are {', '.join(all_of_them)}")
    return all_of_them[name]


def _failure(slug: str, error: PapermillExecutionError, running: object) -> str:
    notebook = nbformat.read(running, as_version=4)  # type: ignore[no-untyped-call]
    cell = notebook.cells[error.cell_index]
    name = cell.get("id", "?")
    first = next((line for line in error.source.splitlines() if line.strip()), "")
    return (
        f"chapter {slug} failed in cell {name!r} ({first.strip()[:60]}): "
        f"{error.ename}: {error.evalue}\n"
        f"the partly executed notebook is {running}"
    )


def _stripped(notebook: Any) -> Any:
    """Remove what differs from run to run: time stamps, and papermill's own records."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


def parameterise(profile: str) -> None:
    """Write every chapter, with the profile as its parameter but not run, for nbval to run."""
    folder = project.build() / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in plan.notebooks().values():
        content = load_notebook_node(str(notebook.file))
        content = parameterize_notebook(content, {"profile": profile})
        nbformat.write(content, folder / notebook.file.name)  # type: ignore[no-untyped-call]


def record(name: str, profile: str) -> None:
    """Run an experiment unless its record holds; raise ChapterError if no chapter has it."""
    module = _known("experiment", name, plan.experiments())
    started = time.perf_counter()
    print(f"record {name}: computing", flush=True)
    store.load(importlib.import_module(module), profile)
    print(f"record {name}: done in {time.perf_counter() - started:.1f} s", flush=True)
