"""What the executed chapters left behind: passports of figures and tables, and verdicts."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beyond_adam.publishing.claims import Source, Verdict, read_ledger
from beyond_adam.workflow import plan


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: a claim's verdict, or the proof of an erratum."""

    chapter: str
    verdict: str
    measured: str
    note: str


@dataclass(frozen=True)
class Results:
    """Everything the chapters published at one profile, in the order of the book."""

    profile: str
    ledger: dict[str, Source]
    artefacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    claims: dict[str, Finding] = field(default_factory=dict)
    errata: dict[str, Finding] = field(default_factory=dict)

    def verdict(self, id: str) -> Verdict:
        """Return the verdict on a claim, measured or not."""
        if id in self.claims:
            return Verdict(self.claims[id].verdict)
        claim = next(s.claims[id] for s in self.ledger.values() if id in s.claims)
        return Verdict.UNTESTABLE if claim.untestable else Verdict.NOT_YET

    def proved(self, source: Source) -> int:
        """Count the errata of a source that a chapter has proved."""
        found = (self.errata[id] for id in source.errata if id in self.errata)
        return sum(finding.verdict == "proved" for finding in found)

    def counts(self, source: Source) -> Counter[Verdict]:
        """Count the verdicts on the claims of a source."""
        return Counter(self.verdict(id) for id in source.claims)


def collect(profile: str) -> Results:
    """Gather the products of all chapters.

    Raises
    ------
    ValueError
        If two chapters publish the same id or check the same claim.
    """
    results = Results(profile, read_ledger())
    for slug in plan.notebooks():
        place = plan.products(slug, profile)
        files = [*place.glob("figures/*.json"), *place.glob("tables/*.json")]
        passports = [(json.loads(file.read_text()), file) for file in files]
        for passport, file in sorted(passports, key=lambda pair: pair[0]["position"]):
            _add(results.artefacts, file.stem, passport)
            results.folders[file.stem] = file.parent
        verdicts = place / "verdicts.json"
        found = json.loads(verdicts.read_text()) if verdicts.is_file() else {}
        for kind, target in (("claims", results.claims), ("errata", results.errata)):
            for id, entry in found.get(kind, {}).items():
                _add(target, id, Finding(chapter=slug, **entry))
    return results


def _add(target: dict[str, Any], id: str, entry: Any) -> None:
    if id in target:
        raise ValueError(f"{id} is published by two chapters")
    target[id] = entry


def summary(results: Results) -> str:
    """Return the verdicts of all sources as a table for one screen."""
    rows = [["", *(v.value.split(" (")[0].split(" as ")[0] for v in Verdict), "errata proved"]]
    for source in results.ledger.values():
        counts = results.counts(source)
        cells = [str(counts[verdict] or "·") for verdict in Verdict]
        rows.append([source.name, *cells, f"{results.proved(source)} of {len(source.errata)}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
