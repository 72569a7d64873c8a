"""The examples of docstrings, and of the pages below api/, run and print what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

from beyond_adam import optim

PAGES = sorted((Path(__file__).parents[1] / "api").glob("*.md"))


def docstrings():
    """Their examples take torch and the names of the package as imported."""
    names = {"torch": torch} | {name: getattr(optim, name) for name in optim.__all__}
    modules = [name for _, name, _ in pkgutil.walk_packages(optim.__path__, "beyond_adam.optim.")]
    for name in ["beyond_adam.optim", "beyond_adam.reference", *modules]:
        yield from doctest.DocTestFinder().find(importlib.import_module(name), globs=names)


def pages():
    """Their examples run from top to bottom, and import all they use."""
    for page in PAGES:
        lines, inside = [], False
        for line in page.read_text().splitlines():
            if line.startswith("```"):
                inside = line == "```pycon"
            lines.append(line if inside and not line.startswith("```") else "")
        yield doctest.DocTestParser().get_doctest("\n".join(lines), {}, page.name, str(page), 0)


EXAMPLES = [test for test in (*docstrings(), *pages()) if test.examples]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_an_example_prints_what_it_says(test):
    report = []
    # Else doctest would take the -v of pytest's command line for its own.
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.REPORT_NDIFF)
    runner.run(test, out=report.append)
    assert not report, "".join(report)


def test_every_page_has_an_example():
    assert {page.name for page in PAGES} - {test.name for test in EXAMPLES} == {"index.md"}


def test_every_public_name_has_an_entry():
    entry = re.compile(r"^ *\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", flags=re.MULTILINE)
    entries = {name for page in PAGES for name in entry.findall(page.read_text())}
    assert {*optim.__all__, *optim.functional.__all__} <= entries
