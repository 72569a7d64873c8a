"""The checkout itself: lock, extras, clean chapters, house rules that a machine can check."""

import ast
import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from beyond_adam.publishing.claims import Verdict
from beyond_adam.publishing.myst import badge

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted(ROOT.glob("chapters/*.ipynb"))


def names(requirements):
    return {re.split(r"[<>=;\[ ]", line, maxsplit=1)[0].lower() for line in requirements}


def test_only_numpy_and_torch_are_hard_dependencies():
    assert names(PROJECT["dependencies"]) == {"numpy", "torch"}


def test_every_requirement_is_locked_with_hashes_and_no_host_is_named():
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9._-]+)==", lock, flags=re.MULTILINE))
    extras = PROJECT["optional-dependencies"]
    wanted = names(PROJECT["dependencies"]) | names(extras["book"]) | names(extras["test"])
    assert wanted <= locked
    assert lock.count("--hash=sha256:") > len(locked)
    assert not re.search(r"https?:|index-url|find-links", lock)


IMPORTED_AS = {
    "jupyter-book": "jupyter_book",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "sphinx-book-theme": "sphinx_book_theme",
    "sphinx-exercise": "sphinx_exercise",
    "sphinx-proof": "sphinx_proof",
    "sphinx-mathjax-offline": None,  # files only
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", sorted(names(PROJECT["optional-dependencies"]["book"])))
def test_the_extra_book_can_be_imported(name):
    module = IMPORTED_AS.get(name, name)
    if module:
        importlib.import_module(module)
    else:
        importlib.metadata.distribution(name)


def test_conda_uses_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert "-r requirements.lock" in environment["dependencies"][-1]["pip"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
class TestChapter:
    @pytest.fixture
    def code(self, file):
        cells = json.loads(file.read_text())["cells"]
        return [cell for cell in cells if cell["cell_type"] == "code"]

    def test_is_clean(self, code):
        assert not [c["id"] for c in code if c["outputs"] or c["execution_count"]]

    def test_has_one_parameters_cell(self, code):
        tagged = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
        assert ["".join(cell["source"]) for cell in tagged] == ['profile = "quick"']

    def test_cells_are_short_and_show_one_figure_at_most(self, code):
        for cell in code:
            lines = [line for line in "".join(cell["source"]).splitlines() if line.strip()]
            assert len(lines) <= 15, cell["id"]
            assert "".join(cell["source"]).count("chapter.figure(") <= 1, cell["id"]

    def test_holds_no_machinery(self, code):
        tree = ast.parse("\n".join("".join(cell["source"]) for cell in code))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        assert "sys.path" not in ast.unparse(tree)

    def test_publishes_every_figure_through_the_chapter(self, code):
        source = "\n".join("".join(cell["source"]) for cell in code)
        assert "plt.show" not in source
        assert "savefig" not in source


def test_layers_import_downwards_only():
    from beyond_adam.dependencies import imported_modules

    layers = [
        {
            "_ranges",
            "project",
            "dependencies",
            "provenance",
            "landscapes",
            "numerical",
            "prox",
            "reference",
        },
        {"optim"},
        {"data", "models"},
        {"training"},
        {"experiments"},
        {"publishing"},
        {"workflow"},
    ]
    rank = {name: number for number, layer in enumerate(layers) for name in layer}
    package = ROOT / "lib" / "beyond_adam"
    for file in package.rglob("*.py"):
        own = file.relative_to(package).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        importer = ".".join(["beyond_adam", *file.relative_to(package).parts[:-1]])
        for module in imported_modules(file.read_text(), package, importer):
            if "." in module:
                other = module.split(".")[1]
                assert rank[other] <= rank[own], f"{file} imports {module}"


def test_the_front_page_names_every_chapter_and_every_verdict():
    front = (ROOT / "index.md").read_text()
    for file in NOTEBOOKS:
        assert f"{{doc}}`chapters/{file.stem}`" in front
    for verdict in Verdict:
        assert badge(verdict) in front
