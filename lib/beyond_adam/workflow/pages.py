"""Turns executed chapters and prose into the book in ``_build/html``."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from beyond_adam import project
from beyond_adam.publishing.myst import MIME
from beyond_adam.workflow import plan, report, results


class BookError(Exception):
    """Sphinx refused the book; the message holds its warnings and errors."""


def merged(committed: dict[str, Any], executed: dict[str, Any]) -> dict[str, Any]:
    """Return the committed notebook with the outputs of its executed copy.

    The text is the committed one, so that editing prose needs no run; the parameters are those it
    ran with; outputs that carry MyST text show it.

    Raises
    ------
    BookError
        If the two do not have the same code cells.
    """
    ran = [cell for cell in executed["cells"] if cell["cell_type"] == "code"]
    injected = [cell for cell in ran if "injected-parameters" in _tags(cell)]
    own = iter([cell for cell in ran if cell not in injected])
    cells = []
    for cell in committed["cells"]:
        if cell["cell_type"] == "code":
            source = cell["source"]
            copy = next(own, None)
            if copy is None or "".join(copy["source"]) != "".join(source):
                raise BookError("the executed copy is not of this notebook: run `make clean`")
            if injected and "parameters" in _tags(cell):
                source = injected[0]["source"]
            cell = cell | {
                "source": source,
                "outputs": [_for_page(output) for output in copy["outputs"]],
                "execution_count": copy["execution_count"],
            }
        cells.append(cell)
    return committed | {"cells": cells}


def _tags(cell: dict[str, Any]) -> list[str]:
    return list(cell["metadata"].get("tags", []))


def _for_page(output: dict[str, Any]) -> dict[str, Any]:
    text = output.get("data", {}).get(MIME)
    return output if text is None else output | {"data": {"text/markdown": text}, "metadata": {}}


def build(profile: str) -> None:
    """Publish figures and tables, stage the book, and build its pages from an empty tree.

    The old pages stay in place until the new ones are whole.

    Raises
    ------
    BookError
        If Sphinx reports any warning or error.
    """
    started = time.perf_counter()
    root, out = project.root(), project.build()
    key, found = plan.book_key(profile), results.collect(profile)
    for kind in ("figures", "tables"):
        _fresh(out / kind)
    for id, folder in found.folders.items():
        for file in folder.glob(f"{id}.*"):
            shutil.copy(file, out / folder.name)

    book = _fresh(out / "book")
    shutil.copytree(Path(__file__).parent / "static", book / "_static")
    shutil.copytree(out / "figures", book / "figures")
    shutil.copy(root / "_toc.yml", book)
    shutil.copy(root / "_config.yml", book)
    for file in [*root.glob("chapters/*.bib"), *(root / f"{p}.md" for p in plan.toc_files())]:
        if file.is_file():
            _copy(file, book / file.relative_to(root))
    for slug, notebook in plan.notebooks().items():
        executed = json.loads(plan.executed(slug, profile).read_text())
        target = book / notebook.file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(merged(notebook.content, executed)))
    for name, text in report.pages(found).items():
        (book / f"{name}.md").write_text(text)

    html = _sphinx(book, out)
    for kind in ("figures", "tables"):
        shutil.copytree(out / kind, html / kind)
    (html / "book.json").write_text(json.dumps(key, indent=2) + "\n")
    shutil.rmtree(out / "html", ignore_errors=True)
    html.rename(out / "html")
    pages = len(plan.toc_files())
    print(f"book: {pages} pages in {time.perf_counter() - started:.1f} s", flush=True)


def _sphinx(book: Path, out: Path) -> Path:
    scratch = _fresh(out / "sphinx")
    log = out / "logs" / "book.log"
    log.parent.mkdir(exist_ok=True)
    # The program of this environment, whatever the PATH says.
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(book), "--path-output", str(scratch)]
    strict = ["-W", "-n", "--keep-going", "-q"]
    with log.open("w") as stream:
        done = subprocess.run([*command, *strict], stdout=stream, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        raise BookError("\n".join(["Sphinx refused the book:", *lines[-25:], f"all of it: {log}"]))
    return scratch / "_build" / "html"


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target)
