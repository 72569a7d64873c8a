"""MyST text for the book: figures, tables, verdicts.

A notebook output carries this text under `MIME`; when the book is staged it takes the output's
place, so that Sphinx numbers, links and checks it like hand-written text. Directives are fenced by
tildes: after backticks no caption could hold a role.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Final

from beyond_adam.publishing.claims import Verdict

MIME: Final = "application/vnd.beyond-adam.myst"


def figure(id: str, caption: str, alt: str, scale: str, extra: str = "") -> str:
    """Return a numbered figure with its scale, its downloads and, in `extra`, raw HTML."""
    links = _links("figures", id, ("svg", "pdf", "png", "csv", "json"))
    return (
        f"~~~~{{figure}} /figures/{id}.svg\n:name: {id}\n:alt: {_one_line(alt)}\n"
        f":figclass: ba-figure\n\n{_one_line(caption)}\n\n{_legend(scale, links)}\n~~~~\n{extra}"
    )


def table(
    id: str, caption: str, scale: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    """Return a numbered table with its scale and its downloads below."""
    links = _links("tables", id, ("csv", "json"))
    return f"{list_table(id, caption, header, rows)}\n{_legend(scale, links)}\n"


def list_table(
    id: str, caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], css: str = ""
) -> str:
    """Return a numbered table whose cells are MyST text."""
    lines = "\n".join(
        f"{'* -' if column == 0 else '  -'} {_one_line(cell)}"
        for row in [header, *rows]
        for column, cell in enumerate(row)
    )
    return (
        f"~~~~{{list-table}} {_one_line(caption)}\n:name: {id}\n:header-rows: 1\n"
        f":class: ba-table {css}\n\n{lines}\n~~~~\n"
    )


def _legend(scale: str, links: str) -> str:
    return f'<span class="ba-passport">{html.escape(scale)}<br>{links}</span>'


def _links(folder: str, id: str, endings: Sequence[str]) -> str:
    names = {"csv": "data (CSV)", "json": "passport (JSON)"}
    links = [
        f'<a href="../{folder}/{id}.{ending}" download>{names.get(ending, ending.upper())}</a>'
        for ending in endings
    ]
    return " · ".join(links) + f' · <a href="../figures-and-tables.html#cite-{id}">cite</a>'


def badge(verdict: Verdict) -> str:
    """Return a verdict as a coloured badge that also reads without colour."""
    return f'<span class="ba-badge {verdict.css}">{verdict.symbol} {verdict.value}</span>'


def anchors(ids: Sequence[str]) -> str:
    """Return targets that the reproduction report and the errata link to."""
    return "".join(f"({id})=\n" for id in ids)


def note(text: str, css: str) -> str:
    """Return a paragraph set apart by a style of its own."""
    return f":::{{div}} {css}\n{_one_line(text)}\n:::\n"


def _one_line(text: str) -> str:
    """Fold white space: a line break inside a directive's argument would end it."""
    return " ".join(text.split())
