"""Sphinx extension: docstrings that may write |w| for a magnitude.

They are written to be read as they stand, also by ``help``; reStructuredText would look for a
substitution named w.
"""

import re
from typing import Any

#: What is left as it is, a directive `math` with its lines, an example, a literal; or a bar.
_PARTS = re.compile(
    r"^(?P<indent> *)\.\. math::.*(?:\n(?P=indent) +.*|\n *$)*|^ *>>> .*(?:\n.*\S.*)*|``[^`]+``|\|",
    flags=re.MULTILINE,
)


def escaped(text: str) -> str:
    """Return reStructuredText with all bars escaped but those in formulas, examples, literals."""
    return _PARTS.sub(lambda part: r"\|" if part[0] == "|" else part[0], text)


def _process(
    _app: Any, _what: str, _name: str, _object: object, _options: Any, lines: list[str]
) -> None:
    lines[:] = escaped("\n".join(lines)).split("\n")


def setup(app: Any) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
