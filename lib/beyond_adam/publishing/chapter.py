"""What a chapter publishes: numbered figures and tables, checked claims, numbers in prose."""

import base64
import html
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure
from myst_nb import glue

from beyond_adam import project
from beyond_adam.publishing import artefacts, claims, myst, style
from beyond_adam.publishing.claims import Claim, Erratum, LedgerError, Measured, Verdict

Format = str | Callable[[Any], str]


class Chapter:
    """The publishing side of one chapter; made in its first cell.

    Products go to ``$BEYOND_ADAM_PRODUCTS``, which the workflow sets, or, when the notebook is run
    by hand, to ``_build/interactive/<slug>``, which no build reads.

    Parameters
    ----------
    slug
        The file name of the chapter without ending.
    profile
        One of `beyond_adam.project.PROFILES`.
    sources
        The source works whose claims the chapter checks: names of files in ``data/ledger``. Write
        them as literals: the workflow reads them to know what the chapter depends on.
    dataset
        What the figures are computed from, unless a figure says otherwise.

    Attributes
    ----------
    claims : Claims
        Checks claims and proves errata.
    live : str
        The profile for what is trained while the chapter runs, beside runs that are archived: its
        own, but "quick" at "paper".
    """

    def __init__(
        self,
        slug: str,
        *,
        profile: str,
        sources: Sequence[str] = (),
        dataset: str = "closed-form functions",
    ) -> None:
        self.slug = slug
        self.profile = project.check_profile(profile)
        self.live = "quick" if profile == "paper" else profile
        self.dataset = dataset
        chosen = os.environ.get("BEYOND_ADAM_PRODUCTS")
        self.products = Path(chosen) if chosen else project.build() / "interactive" / slug
        self._published: list[str] = []
        self.claims = Claims(self.products / "verdicts.json", sources, once=bool(chosen))
        style.use()

    def figure(
        self,
        figure: Figure,
        id: str,
        *,
        caption: str,
        alt: str,
        data: pd.DataFrame,
        seeds: Sequence[int] = (),
        dataset: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tolerance: float = 1e-6,
        volatile: Sequence[str] = (),
        profile: str = "",
        origin: pd.DataFrame | None = None,
        measured: str = "",
        player: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish a figure: numbered in the book, and as files with data and passport.

        Parameters
        ----------
        figure
            The figure; it is closed afterwards.
        id
            ``fig-…`` in kebab case; refer to it by ``{numref}``.
        caption
            MyST text: what is shown and what to see in it.
        alt
            A description for readers who cannot see the figure: at least 40 characters, and not
            the caption again.
        data
            What is plotted, tidy; becomes the CSV and is compared by ``make verify``.
        seeds, dataset, parameters
            What it was computed with; the dataset defaults to the chapter's, that of measured times
            to none.
        tolerance, volatile
            See `artefacts.Passport`.
        profile
            At which it was computed, if not at the chapter's: as a rule `Chapter.live`.
        origin
            Of archived results: a table of `beyond_adam.training.provenance_table`. Profile, data
            and seeds are then those of these runs.
        measured
            Of times and rates: when and where, `measurements.Measurement.provenance`.
        player
            Trajectories to replay on top of the figure in the book, as ``player.js`` wants them.

        Raises
        ------
        ValueError
            If id, caption, alt text or data do not meet the above.
        """
        if len(alt) < 40 or alt == caption:
            raise ValueError(f"{id}: alt text has to describe the figure, got {alt!r}")
        passport = self._passport(
            id, "figure", caption, data, origin, profile, seeds, dataset, parameters,
            alt=alt, tolerance=tolerance, volatile=tuple(volatile), measured=measured,
        )  # fmt: skip
        folder = self._folder("figures")
        files, png = artefacts.draw(figure, folder / id)
        passport.write(folder, data, files)
        preview = base64.b64encode(png).decode()
        plt.close(figure)
        extra = (
            f'<script type="application/json" class="ba-player" data-figure="{id}">'
            f"{json.dumps(player)}</script>\n"
            if player
            else ""
        )
        picture = (
            f'<figure><img alt="{html.escape(alt)}" src="data:image/png;base64,{preview}">'
            f"<figcaption>{html.escape(caption)}<br><small>{html.escape(passport.scale)}</small>"
            "</figcaption></figure>"
        )
        _show(myst.figure(id, caption, alt, passport.scale, extra), picture, f"{id}: {caption}")

    def table(
        self,
        frame: pd.DataFrame,
        id: str,
        *,
        caption: str,
        headers: Mapping[str, str] | None = None,
        formats: Mapping[str, Format] | None = None,
        seeds: Sequence[int] = (),
        dataset: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tolerance: float = 1e-6,
        volatile: Sequence[str] = (),
        profile: str = "",
        origin: pd.DataFrame | None = None,
        measured: str = "",
    ) -> None:
        """Publish a table: numbered in the book, and as CSV with a passport.

        The page shows the columns of `headers` (all by default), each under its heading and written
        by its format (``"{:.3g}"`` or a function). The CSV holds every column of `frame` as it is,
        but for those named ``…_cell``: they are MyST text for the page. The other parameters are
        those of `figure`; the id starts with ``tab-``.
        """
        data = frame[[column for column in frame.columns if not column.endswith("_cell")]]
        passport = self._passport(
            id, "table", caption, data, origin, profile, seeds, dataset, parameters,
            alt="", tolerance=tolerance, volatile=tuple(volatile), measured=measured,
        )  # fmt: skip
        passport.write(self._folder("tables"), data)
        headers = headers or {str(column): str(column) for column in frame.columns}
        formats = formats or {}
        shown = [
            [_text(value, formats.get(column, "{}")) for value in frame[column]]
            for column in headers
        ]
        rows = [list(row) for row in zip(*shown, strict=True)]
        page = myst.table(id, caption, passport.scale, list(headers.values()), rows)
        plain = pd.DataFrame(rows, columns=list(headers.values()))
        _show(page, f"<b>{html.escape(caption)}</b>{plain.to_html(index=False, escape=False)}", id)

    def glue(self, name: str, value: object, format: Format = "{}") -> None:
        """Make a computed number available to the prose as ``{glue:text}`name` ``."""
        glue(name, _text(value, format), display=False)

    def _folder(self, kind: str) -> Path:
        folder = self.products / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _passport(
        self,
        id: str,
        kind: str,
        caption: str,
        data: pd.DataFrame,
        origin: pd.DataFrame | None,
        profile: str,
        seeds: Sequence[int],
        dataset: str | None,
        parameters: Mapping[str, Any] | None,
        **others: Any,
    ) -> artefacts.Passport:
        prefix = kind[:3]
        if not re.fullmatch(rf"{prefix}(-[a-z0-9]+)+", id):
            raise ValueError(f"id {id!r}: expected {prefix}-… in kebab case")
        if not caption.strip():
            raise ValueError(f"{id}: a caption is needed")
        if data.empty:
            raise ValueError(f"{id}: no data")
        unknown = set(others["volatile"]) - set(data.columns)
        if unknown:
            raise ValueError(f"{id}: volatile columns that the data lacks: {sorted(unknown)}")
        profile, lines = profile or self.profile, tuple[dict[str, Any], ...]()
        if origin is not None:
            profile, lines = "paper", tuple(cast(Any, origin.to_dict("records")))
            seeds = sorted(set(origin["seed"].tolist()))
            dataset = ", ".join(dict.fromkeys(origin["data"]))
        if others["measured"]:
            profile, dataset = "", dataset or ""
        if id not in self._published:  # a cell may be run again
            self._published.append(id)
        return artefacts.Passport(
            id=id,
            kind=kind,
            caption=caption,
            chapter=self.slug,
            position=self._published.index(id) + 1,
            profile=profile,
            dataset=self.dataset if dataset is None else dataset,
            seeds=tuple(seeds),
            parameters=({"profile": profile} if profile else {}) | dict(parameters or {}),
            origin=lines,
            **others,
        )


class Claims:
    """Holds measurements against the ledger and keeps the verdicts of one chapter.

    With `once`, a claim that is checked twice is an error; without, as when cells are run again by
    hand, the last check counts.
    """

    def __init__(self, file: Path, sources: Sequence[str], *, once: bool = True) -> None:
        self._file = file
        self._once = once
        self._sources = claims.read_ledger(sources)
        self._found: dict[str, dict[str, Any]] = {"claims": {}, "errata": {}}

    def check(
        self,
        id: str,
        measured: Measured,
        *,
        corrected: Measured | None = None,
        note: str = "",
    ) -> Verdict:
        """Hold one measurement against its claim, show the verdict and keep it for the report.

        Parameters
        ----------
        id
            The claim's id in the ledger.
        measured
            What came out, run as the source states it; see `claims.judge`.
        corrected
            What came out with the misprint corrected that the ledger names.
        note
            The likely reason, where the two differ.
        """
        corrections = {} if corrected is None else {id: corrected}
        notes = {id: note}
        return self.check_all({id: measured}, corrected=corrections, notes=notes, listed=True)[id]

    def check_all(
        self,
        measured: Mapping[str, Measured],
        *,
        corrected: Mapping[str, Measured] | None = None,
        notes: Mapping[str, str] | None = None,
        untestable: Mapping[str, str] | None = None,
        listed: bool = False,
    ) -> dict[str, Verdict]:
        """Check many claims at once; see `check`.

        Parameters
        ----------
        measured, corrected, notes
            By claim, what `check` takes for one.
        untestable
            Claims that cannot be measured on this machine, with the reason; those that the ledger
            itself calls untestable need not be named.
        listed
            Show every claim with its verdict, not only how many got which.
        """
        corrected, notes = corrected or {}, notes or {}
        verdicts: dict[str, Verdict] = {}
        lines = []
        for id, found in measured.items():
            claim, note = self.claim(id), notes.get(id, "")
            value, right = _plain(found), _plain(corrected.get(id))
            verdicts[id] = verdict = claims.judge(claim, value, right)
            kept = right if verdict is Verdict.MISPRINT else value
            self._keep("claims", id, verdict, claims.measured_text(claim, kept), note)
            lines.append(_in_words(claim, verdict, value, right, note))
        for id, why in (untestable or {}).items():
            verdicts[id] = Verdict.UNTESTABLE
            self._keep("claims", self.claim(id).id, Verdict.UNTESTABLE, "", why)
            lines.append(f"{myst.badge(Verdict.UNTESTABLE)} {self.claim(id).statement} {why}")
        if listed:
            _show_notes({f"claim-{id}": line for id, line in zip(verdicts, lines, strict=True)})
        else:
            counts = {verdict: list(verdicts.values()).count(verdict) for verdict in Verdict}
            total = " · ".join(f"{n} {myst.badge(verdict)}" for verdict, n in counts.items() if n)
            targets = [f"claim-{id}" for id in verdicts]
            _show(myst.anchors(targets) + myst.note(total, "ba-verdict"), f"<p>{total}</p>", total)
        return verdicts

    def prove(self, id: str, shown: bool, how: str) -> None:
        """Record that this cell proves an erratum, `how` in one sentence.

        Raises
        ------
        LedgerError
            If `shown` is false: then the ledger calls something an error that is none.
        """
        self.prove_all({id: (shown, how)})

    def prove_all(self, proofs: Mapping[str, tuple[bool, str]], *, excuse: str = "") -> None:
        """Prove many errata at once: for each whether it is shown, and how; see `prove`.

        With an `excuse`, the reason why this machine may fail to show one, an erratum that is not
        shown is kept as untestable here.
        """
        lines = {}
        for id, (shown, how) in proofs.items():
            erratum = self._erratum(id)
            if not shown and not excuse:
                raise LedgerError(f"erratum {id} is not confirmed: {how}")
            note = how if shown else excuse
            self._keep("errata", id, "proved" if shown else "untestable here", "", note)
            lines[f"erratum-{id}"] = (
                f'<span class="ba-badge ba-erratum">✎ erratum</span> {erratum.printed} '
                f"**Correct:** {erratum.correct} **Shown:** {note}"
            )
        _show_notes(lines)

    def claim(self, id: str) -> Claim:
        """Return the claim `id` as the ledger has it.

        Raises
        ------
        LedgerError
            If no source that the chapter declares makes it.
        """
        for source in self._sources.values():
            if id in source.claims:
                return source.claims[id]
        raise LedgerError(f"no claim {id!r} in {', '.join(self._sources) or 'any source declared'}")

    def _erratum(self, id: str) -> Erratum:
        for source in self._sources.values():
            if id in source.errata:
                return source.errata[id]
        raise LedgerError(
            f"no erratum {id!r} in {', '.join(self._sources) or 'any source declared'}"
        )

    def _keep(self, kind: str, id: str, verdict: str, measured: str, note: str) -> None:
        if self._once and id in self._found[kind]:
            raise LedgerError(f"{id} is checked twice")
        self._found[kind][id] = {
            "verdict": str(verdict),
            "measured": measured,
            "note": note,
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._found, indent=2, ensure_ascii=False) + "\n")


def _text(value: object, format: Format) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "–"
    return format.format(value) if isinstance(format, str) else format(value)


def _plain(measured: Any) -> Any:
    """Return a scalar of NumPy, such as the outcome of a comparison, as Python's own."""
    return measured.item() if isinstance(measured, np.generic) else measured


def _in_words(
    claim: Claim, verdict: Verdict, measured: Measured, corrected: Measured | None, note: str
) -> str:
    parts = [f"{myst.badge(verdict)} {claim.statement}"]
    if claim.published:
        parts.append(f"Published: {', '.join(claim.published)}.")
    if not isinstance(measured, bool):
        parts.append(f"Measured: {claims.measured_text(claim, measured)}.")
    if corrected is not None:
        right = claim.correction.rstrip(".")
        parts.append(f"As corrected ({right}): {claims.measured_text(claim, corrected)}.")
    return " ".join([*parts, note])


def _show_notes(lines: Mapping[str, str]) -> None:
    """Display paragraphs, each with a target of its own."""
    notes = [myst.anchors([id]) + myst.note(text, "ba-verdict") for id, text in lines.items()]
    notebook = "".join(f"<p>{text}</p>" for text in lines.values())
    _show("\n".join(notes), notebook, "\n".join(f"{id}: {text}" for id, text in lines.items()))


def _show(page: str, notebook: str, plain: str) -> None:
    """Display one output that the book shows as MyST `page` and Jupyter as HTML."""
    output = {myst.MIME: page, "text/html": notebook, "text/plain": plain}
    display(output, raw=True)  # type: ignore[no-untyped-call]
