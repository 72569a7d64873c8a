"""The pages that nobody writes: reproduction report, errata, figures and tables."""

from dataclasses import fields
from typing import Any

from beyond_adam.publishing.artefacts import Passport
from beyond_adam.publishing.claims import Claim, Erratum, Source, Verdict
from beyond_adam.publishing.myst import badge, list_table
from beyond_adam.workflow.results import Results

_MEANING = {
    Verdict.REPRODUCED: "every printed digit came out again, or the statement holds",
    Verdict.WITHIN: "not digit for digit, but within the criterion fixed beforehand; of a run that "
    "diverges or is chaotic: that it does, as its printed digits then mean nothing",
    Verdict.MISPRINT: "not as printed; it reproduces once the misprint is corrected",
    Verdict.FALSE: "there is a counterexample or a proof of the contrary",
    Verdict.DIFFERS: "measured, and outside the criterion",
    Verdict.UNDECIDED: "measured, but the runs vary too much to tell",
    Verdict.UNTESTABLE: "the source does not say enough to measure it",
    Verdict.NOT_YET: "no chapter measures it yet",
}


def pages(results: Results) -> dict[str, str]:
    """Return the generated pages: file name without ending, and MyST text."""
    return {
        "reproduction-report": _report(results),
        "errata": _errata(results),
        "figures-and-tables": _figures(results),
    }


_ARCHIVED = (
    ". What takes hours was measured at the `paper` profile and is archived; "
    "[the last section](#report-archived) says what has changed since"
)


def _report(results: Results) -> str:
    shown = [passport for passport in results.artefacts.values() if passport["origin"]]
    archived = [[f"{{numref}}`{passport['id']}`", _origin(passport)] for passport in shown]
    parts = [
        "# Reproduction report",
        "Every claim of every source, with the criterion that was fixed before it was measured "
        "and what the measurement said. This page is written by the build from the ledger in "
        f"`data/ledger` and from what the chapters measured at the `{results.profile}` profile"
        f"{_ARCHIVED if archived else ''}.",
        list_table(
            "tab-verdicts",
            "Verdicts by source.",
            ["Verdict", *(f"[{s.name}](#report-{s.name})" for s in results.ledger.values())],
            [
                [badge(v), *(str(results.counts(s)[v] or "·") for s in results.ledger.values())]
                for v in Verdict
            ],
        ),
        "What the verdicts mean:\n",
        "\n".join(f"- {badge(verdict)} {text}" for verdict, text in _MEANING.items()),
    ]
    parts += [_claims(source, results) for source in results.ledger.values()]
    if archived:
        caption = "Figures and tables that show archived training runs, and where these come from."
        header = ["Figure or table", "Runs"]
        table = list_table("tab-archived", caption, header, archived, "ba-wide")
        parts.append(f"(report-archived)=\n## Archived training runs\n\n{table}")
    return "\n\n".join(parts) + "\n"


def _origin(content: dict[str, Any]) -> str:
    return Passport(**{field.name: content[field.name] for field in fields(Passport)}).described()


def _claims(source: Source, results: Results) -> str:
    header = ["Claim, and how it is measured", "Published, measured", "Verdict"]
    rows = [_claim(claim, results) for claim in source.claims.values()]
    caption = f"Claims of “{source.title}”."
    table = list_table(f"tab-claims-{source.name}", caption, header, rows, "ba-wide")
    return f"(report-{source.name})=\n## {source.title}\n\n{_byline(source)}\n\n{table}"


def _claim(claim: Claim, results: Results) -> list[str]:
    finding = results.claims.get(claim.id)
    how = f"{claim.measure} *Criterion:* {claim.criterion_text}. {claim.reason}"
    verdict = badge(results.verdict(claim.id))
    numbers = [f"published {', '.join(claim.published)}"] if claim.published else []
    if finding:
        verdict += f"<br>[see the cell](#claim-{claim.id})"
        numbers += [f"measured {finding.measured}"] if finding.measured else []
    note = (finding.note if finding else "") or claim.untestable
    return [
        f"{claim.statement} <small>{claim.where} · `{claim.id}`<br>{how}</small>",
        "<br>".join(numbers),
        f"{verdict}<br><small>{note}</small>",
    ]


def _errata(results: Results) -> str:
    sources = results.ledger.values()
    total = sum(len(source.errata) for source in sources)
    proved = sum(results.proved(source) for source in sources)
    evident = sum(erratum.evident for source in sources for erratum in source.errata.values())
    parts = [
        "# Errata of the sources",
        f"Errors found in the source works, and with them omissions and ambiguities that keep one "
        f"from running what they describe: {total} so far. {proved} of them are proved in this "
        f"book, {evident} more can be seen in the source with nothing to compute, and the rest "
        "wait for the chapter that will prove them.",
    ]
    header = ["Printed", "Correct, and why", "Proof"]
    for source in sources:
        rows = [_erratum(erratum, results) for erratum in source.errata.values()]
        caption = f"Errata of “{source.title}”."
        table = list_table(f"tab-errata-{source.name}", caption, header, rows, "ba-wide")
        parts.append(f"## {source.title}\n\n{_byline(source)}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def _erratum(erratum: Erratum, results: Results) -> list[str]:
    finding = results.errata.get(erratum.id)
    proof = f"[{finding.verdict}](#erratum-{erratum.id})" if finding else "not yet proved"
    if erratum.evident:
        proof = "evident in the source"
    note = finding.note if finding else ""
    return [
        f"{erratum.printed} <small>{erratum.where} · `{erratum.id}`</small>",
        f"{erratum.correct} <small>{erratum.why}</small>",
        f"{proof}<br><small>{note}</small>",
    ]


def _figures(results: Results) -> str:
    parts = [
        "# Figures and tables",
        "Every figure and table of this book with its data and its passport: what it was "
        "computed from, by which code, on which machine. To cite one, use its entry below; the "
        "commit in it leads back to the code that drew it.",
    ]
    chapter = None
    for id, passport in results.artefacts.items():
        if passport["chapter"] != chapter:
            chapter = passport["chapter"]
            parts.append(f"## {{doc}}`chapters/{chapter}`")
        parts.append(_entry(id, passport))
    return "\n\n".join(parts) + "\n"


def _entry(id: str, passport: dict[str, Any]) -> str:
    kind = passport["kind"]
    picture = f"```{{image}} /figures/{id}.svg\n:alt: {passport['alt']}\n:width: 320px\n```\n\n"
    endings = ("svg", "pdf", "png", "csv", "json") if kind == "figure" else ("csv", "json")
    links = " · ".join(
        f'<a href="{kind}s/{id}.{ending}" download>{ending.upper()}</a>' for ending in endings
    )
    scale = f"{passport['profile']} profile" if passport["profile"] else "measured once"
    bibtex = (
        f"@misc{{beyond-adam-{id},\n"
        f"  author = {{The Beyond Adam authors}},\n"
        f"  title  = {{Beyond Adam: {kind} {id}}},\n"
        f"  note   = {{Chapter {passport['chapter']}, {scale}.\n"
        f"    Commit {passport['commit']}{' with changes' if passport['dirty'] else ''}.\n"
        f"    Data SHA-256\n    {passport['data']['sha256']}}}\n}}"
    )
    return (
        f"(cite-{id})=\n### {id}\n\n{picture if kind == 'figure' else ''}"
        f"**{{numref}}`{id}`.** {passport['caption']}\n\n{links}\n\n```bibtex\n{bibtex}\n```"
    )


def _byline(source: Source) -> str:
    return f"{source.authors}; {{cite:p}}`{source.cite}`."
