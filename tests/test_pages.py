import pytest

from beyond_adam.publishing.myst import MIME
from beyond_adam.workflow.docstrings import escaped
from beyond_adam.workflow.pages import BookError, merged


def text(source):
    return {"cell_type": "markdown", "source": source, "metadata": {}}


def code(source, *outputs, tags=()):
    cell = {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}}
    return cell | {"outputs": list(outputs), "execution_count": 1 if outputs else None}


def display(**data):
    return {"output_type": "display_data", "metadata": {"a": 1}, "data": data}


PARAMETERS = code('profile = "quick"', tags=["parameters"])
COMMITTED = {"cells": [text("New words"), PARAMETERS, code("figure()"), code("1 + 1")]}
EXECUTED = {
    "cells": [
        text("Old words"),
        PARAMETERS,
        code('profile = "paper"', tags=["injected-parameters"]),
        code("figure()", display(**{MIME: "~~~{figure}", "text/html": "<img>"})),
        code("1 + 1", display(**{"text/plain": "2"})),
    ]
}


def test_the_page_has_the_committed_words_and_the_executed_outputs():
    words, _, figure, plain = merged(COMMITTED, EXECUTED)["cells"]
    assert words["source"] == "New words"
    assert figure["outputs"][0]["data"] == {"text/markdown": "~~~{figure}"}
    assert plain["outputs"][0]["data"] == {"text/plain": "2"}


def test_the_page_shows_the_parameters_it_ran_with():
    assert merged(COMMITTED, EXECUTED)["cells"][1]["source"] == 'profile = "paper"'


@pytest.mark.parametrize("cells", [[PARAMETERS, code("other()"), code("1 + 1")], [PARAMETERS]])
def test_outputs_of_other_code_are_refused(cells):
    with pytest.raises(BookError, match="make clean"):
        merged(COMMITTED, {"cells": cells})


@pytest.mark.parametrize(
    ("docstring", "shown"),
    [
        ("Σ|w|^p for all\n|w| < 1", "Σ\\|w\\|^p for all\n\\|w\\| < 1"),
        ("``|w|`` and |w|", "``|w|`` and \\|w\\|"),
        ("``a or\nb|c`` for |w|", "``a or\nb|c`` for \\|w\\|"),
        (
            ".. math::\n\n    |w|\n\n    |u|\n\nof |w|",
            ".. math::\n\n    |w|\n\n    |u|\n\nof \\|w\\|",
        ),
        ("  .. math:: |w|\n\n  of |w|", "  .. math:: |w|\n\n  of \\|w\\|"),
        (">>> x | y\na | b\n\n|w|", ">>> x | y\na | b\n\n\\|w\\|"),
    ],
    ids=["text", "literal", "literal of two lines", "formula", "formula in one line", "example"],
)
def test_bars_of_magnitudes_are_no_markup(docstring, shown):
    assert escaped(docstring) == shown
