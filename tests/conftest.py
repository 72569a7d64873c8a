import contextlib
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

from beyond_adam.data import files
from beyond_adam.optim import _fused

# Without a compiler `fused=True` warns, once, and is the default path: this is where it warns.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    KERNEL = _fused.library() is not None
REAL = ("mnist", "fashion-mnist", "cifar10")
MISSING = [name for name in REAL if not files.file_of(name).is_file()]
LONGEST = ("test_fused_triton.py", "test_workflow.py")
collect_ignore = [] if KERNEL else ["test_fused_step.py"]
collect_ignore += ["test_real_data.py"] if MISSING else []


@pytest.fixture
def other_defaults():
    """Return a context in which torch's default dtype and device are not the usual ones."""

    @contextlib.contextmanager
    def changed():
        with torch.device("meta"):
            torch.set_default_dtype(torch.float64)
            try:
                yield
            finally:
                torch.set_default_dtype(torch.float32)

    return changed


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, lest one be left when all others are done."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_terminal_summary(terminalreporter):
    if not KERNEL:
        terminalreporter.write_line("not tested, for want of a C++ compiler: the fused kernel")
    if MISSING:
        wanted = ", ".join(MISSING)
        terminalreporter.write_line(f"not tested, for want of {wanted} (make data): the real data")


PARAMETERS = 'profile = "quick"'
SETUP = """\
import pandas as pd, matplotlib.pyplot as plt
from beyond_adam.publishing.chapter import Chapter
chapter = Chapter("{slug}", profile=profile, sources=["toy"])
"""
FIGURE = """\
fig, ax = plt.subplots()
data = pd.DataFrame({"x": [0, 1, 2], "y": [0.0, 1.0, {top}]})
ax.plot(data["x"], data["y"])
chapter.figure(fig, "fig-toy-line", caption="A line, $y(x)$.", data=data,
               alt="A line that rises from the origin and ends at two.")
"""
TABLE = 'chapter.table(data, "tab-toy-points", caption="Its points.", formats={"y": "{:.1f}"})'
CLAIM = 'chapter.claims.check("toy-top", {top})\nchapter.glue("top", {top}, "{:.1f}")'
PROOF = 'chapter.claims.prove("toy-e01", shown=True, how="The line ends elsewhere.")'

LEDGER = {
    "source": "toy",
    "title": "A toy",
    "authors": "Nobody",
    "cite": "toy",
    "claims": [
        {
            "id": "toy-top",
            "where": "page 1",
            "statement": "The line ends at two.",
            "published": "2.00",
            "measure": "Draw it.",
            "criterion": {"kind": "value", "tolerance": 0.1},
            "reason": "Width of the pen.",
            "chapter": "toy",
        }
    ],
    "errata": [
        {
            "id": "toy-e01",
            "where": "page 2",
            "printed": "3",
            "correct": "2",
            "why": "It ends at two.",
            "chapter": "toy",
        }
    ],
}


@dataclass(frozen=True)
class Book:
    """A whole book with one chapter, small enough to be built in a test."""

    root: Path

    def write_chapter(
        self, *extra: str, top: str = "2.0", prose: str = "See {numref}`fig-toy-line`"
    ):
        new = nbformat.v4
        code = [FIGURE.replace("{top}", top), TABLE, CLAIM.replace("{top}", top), PROOF, *extra]
        cells = [
            new.new_markdown_cell("# Toy"),
            new.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new.new_code_cell(SETUP.replace("{slug}", "toy")),
            *(new.new_code_cell(source) for source in code),
            new.new_markdown_cell(prose + " and {glue:text}`top`."),
        ]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, self.root / "chapters" / "toy.ipynb")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "beyond_adam.workflow", *arguments)

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"BEYOND_ADAM_ROOT": str(self.root)} | environment,
            capture_output=True,
            text=True,
        )

    @property
    def out(self) -> Path:
        return self.root / "_build"


def write_book(root: Path) -> Book:
    (root / "chapters").mkdir(parents=True)
    (root / "data" / "ledger").mkdir(parents=True)
    (root / "data" / "ledger" / "toy.yml").write_text(yaml.safe_dump(LEDGER))
    (root / "requirements.lock").write_text("numpy==0\n")
    config = (Path(__file__).parents[1] / "_config.yml").read_text()
    (root / "_config.yml").write_text(config)
    pages = ["reproduction-report", "errata", "figures-and-tables", "references"]
    parts = [
        {"numbered": True, "chapters": [{"file": "chapters/toy"}]},
        {"chapters": [{"file": page} for page in pages]},
    ]
    toc = {"format": "jb-book", "root": "index", "parts": parts}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    (root / "index.md").write_text("# A toy book\n")
    (root / "references.md").write_text("# References\n\n```{bibliography}\n```\n")
    bib = "@misc{toy, title = {A toy}, author = {Nobody, N.}, year = {2000}}\n"
    (root / "chapters" / "references.bib").write_text(bib)
    toy = Book(root)
    toy.write_chapter()
    return toy


@pytest.fixture(scope="session")
def first_build(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Book, subprocess.CompletedProcess[str]]:
    """Build the toy book once; what that said is kept with it."""
    toy = write_book(tmp_path_factory.mktemp("first") / "toy-book")
    return toy, toy.run("build")


@pytest.fixture
def book(first_build, tmp_path: Path) -> Book:
    """Return a copy of the toy book, built, to change and build again."""
    root = tmp_path / "toy-book"
    shutil.copytree(first_build[0].root, root)
    return Book(root)
