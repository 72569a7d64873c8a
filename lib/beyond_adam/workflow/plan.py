"""What there is to do: the chapters, what each depends on, and why one is stale."""

import ast
import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from beyond_adam import dependencies, project
from beyond_adam.experiments import store

Key = dict[str, str]


@dataclass(frozen=True)
class Notebook:
    """A committed chapter, read but not run."""

    slug: str
    file: Path

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """The notebook as its JSON has it."""
        return cast(dict[str, Any], json.loads(self.file.read_text()))

    @functools.cached_property
    def code(self) -> list[str]:
        """The source of every code cell, in order."""
        return [
            "".join(cell["source"]) for cell in self.content["cells"] if cell["cell_type"] == "code"
        ]

    @functools.cached_property
    def _python(self) -> str:
        """All code as one Python text, without the lines that only IPython understands."""
        lines = "\n".join(self.code).splitlines()
        return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))

    @functools.cached_property
    def modules(self) -> set[str]:
        """The modules of this package that the code imports itself."""
        return dependencies.imported_modules(self._python)

    @functools.cached_property
    def sources(self) -> list[str]:
        """The source works the chapter declares, ``Chapter(…, sources=[…])``."""
        for node in ast.walk(ast.parse(self._python)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Chapter"):
                for keyword in node.keywords:
                    if keyword.arg == "sources":
                        return list(ast.literal_eval(keyword.value))
        return []

    @functools.cached_property
    def data(self) -> list[str]:
        """The files below ``data/`` that the code names, each by a literal."""
        nodes = ast.walk(ast.parse(self._python))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
        return sorted(x for x in texts if isinstance(x, str) and re.fullmatch(r"data/[^\s*]+", x))

    @functools.cached_property
    def experiments(self) -> dict[str, str]:
        """The experiments whose records the chapter loads: record name to module."""
        return {
            name: module for module in sorted(self.modules) if (name := experiment_name(module))
        }

    def key(self, profile: str) -> Key:
        """Return everything the outcome of a run depends on, with hashes.

        Prose is not among it: a changed text needs a new page, not a new run.
        """
        root = project.root()
        modules = dependencies.closure(self.modules)
        data = [*self.data, *(f"data/ledger/{source}.yml" for source in self.sources)]
        return {
            "parameters": f"profile={profile}",
            "code": dependencies.digest("\0".join(self.code)),
            **{f"module {name}": sha for name, sha in modules.items()},
            **store.archived(modules),
            **{file: _file_digest(root / file) for file in ["requirements.lock", *data]},
        }


def _file_digest(file: Path) -> str:
    return dependencies.digest(file.read_bytes()) if file.is_file() else "missing"


@functools.cache
def experiment_name(module: str) -> str | None:
    """Return the ``NAME`` that `module` declares if it is an experiment, else None."""
    file = dependencies.module_file(module)
    if file is None or not module.startswith("beyond_adam.experiments."):
        return None
    for node in ast.parse(file.read_text()).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="NAME")], value=value)
                | ast.AnnAssign(target=ast.Name(id="NAME"), value=ast.expr() as value)
            ):
                return str(ast.literal_eval(value))
    return None


def toc_files() -> list[str]:
    """Return every page of ``_toc.yml`` in reading order, without endings."""

    def walk(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [str(node[key]) for key in ("root", "file") if key in node]
            return own + [page for value in node.values() for page in walk(value)]
        if isinstance(node, list):
            return [page for item in node for page in walk(item)]
        return []

    return walk(yaml.safe_load((project.root() / "_toc.yml").read_text()))


def notebooks() -> dict[str, Notebook]:
    """Return the chapters of the book in the order of the table of contents."""
    files = [project.root() / f"{page}.ipynb" for page in toc_files()]
    return {file.stem: Notebook(file.stem, file) for file in files if file.is_file()}


def experiments() -> dict[str, str]:
    """Return every experiment that a chapter uses: record name to module."""
    return {n: m for notebook in notebooks().values() for n, m in notebook.experiments.items()}


def executed(slug: str, profile: str) -> Path:
    """Return where the executed copy of a chapter lies; its key is beside it."""
    return project.build() / "executed" / profile / f"{slug}.ipynb"


def products(slug: str, profile: str) -> Path:
    """Return where a run of a chapter leaves its figures, tables and verdicts."""
    return project.build() / "products" / profile / slug


#: A directive that shows docstrings, or says what module those that follow are of.
_SHOWN = re.compile(r"^ *\.\. (?:auto\w+|currentmodule):: *([\w.]+)", flags=re.MULTILINE)


def documented(files: Iterable[Path]) -> dict[str, str]:
    """Return the modules whose docstrings pages show, and what these import, with their hashes."""
    names = {name for file in files if file.is_file() for name in _SHOWN.findall(file.read_text())}
    imports = "\n".join(f"import {name}" for name in sorted(names))
    return dependencies.closure(dependencies.imported_modules(imports), docstrings=True)


def book_key(profile: str) -> Key:
    """Return everything the pages depend on.

    That is every run, all prose and configuration, and the docstrings that pages show.
    """
    root, package = project.root(), Path(__file__).parents[1]
    pages = [root / f"{page}{end}" for page in toc_files() for end in (".ipynb", ".md")]
    files = [*pages, root / "_toc.yml", root / "_config.yml", *sorted(root.glob("chapters/*.bib"))]
    files += sorted(root.glob("data/ledger/*.yml"))
    own = [file for file in sorted(package.glob("workflow/**/*")) if file.suffix != ".pyc"]
    runs = {
        f"chapter {slug}": dependencies.digest(json.dumps(notebook.key(profile)))
        for slug, notebook in notebooks().items()
    }
    docstrings = documented(root / f"{page}.md" for page in toc_files())
    return (
        runs
        | {f"module {name}": sha for name, sha in docstrings.items()}
        | {str(file.relative_to(root)): _file_digest(file) for file in files if file.is_file()}
        | {str(file.relative_to(package)): _file_digest(file) for file in own if file.is_file()}
    )


def untrained() -> list[str]:
    """Return the names of the runs at paper scale that are not archived and can be trained here."""
    import torch  # needed only here

    from beyond_adam.workflow import runs

    gpu = torch.cuda.is_available()
    names = [entry.run.name for entry in runs.declared("paper") if gpu or not entry.needs_gpu]
    return [name for name in names if not (project.archive() / name / "record.json").is_file()]


def read_key(file: Path) -> Key | None:
    """Return a key that was kept as JSON, or None if there is none that can be read."""
    try:
        return cast(Key, json.loads(file.read_text()))
    except (OSError, ValueError):
        return None


def targets(profile: str) -> list[str]:
    """Return all files that a build has to see to, relative to the build folder."""
    records = {name for notebook in notebooks().values() for name in notebook.experiments}
    return [
        "html/book.json",
        *(f"executed/{profile}/{slug}.json" for slug in notebooks()),
        *(f"records/{profile}/{name}/record.json" for name in sorted(records)),
    ]


def stale(profile: str) -> dict[Path, str]:
    """Return what has to be made, and why; empty if everything is up to date.

    A record, a chapter or the book is named by the file that has its key.
    """
    kept = {
        store.folder(name, profile) / "record.json": (
            f"record {name}",
            store.key(module, profile),
            _record_key(name, profile),
        )
        for name, module in experiments().items()
    }
    chapters = {
        executed(slug, profile).with_suffix(".json"): (f"chapter {slug}", notebook.key(profile))
        for slug, notebook in notebooks().items()
    }
    chapters[project.build() / "html" / "book.json"] = ("book", book_key(profile))
    kept |= {file: (*job, read_key(file)) for file, job in chapters.items()}
    found = {}
    for file, (job, now, before) in kept.items():
        if before is None:
            found[file] = f"{job}: not there yet"
        elif before != now:
            differences = dependencies.changed(before, now)
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            found[file] = f"{job}: {', '.join(differences[:3])}{more}"
    return found


def _record_key(name: str, profile: str) -> Key | None:
    record = store.described(name, profile)
    return record["key"] if record else None
