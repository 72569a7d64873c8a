"""The pipeline on a book of one chapter: what runs when, and that it goes red."""

import json
import re
import shutil
from pathlib import Path

import pytest

import beyond_adam


def test_from_nothing_to_a_checked_book(book):
    done = book.run("build")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (book.out / "html" / "chapters" / "toy.html").read_text()
    assert "Fig. 1.1" in page
    assert "Table 1.1" in page
    assert 'alt="A line that rises from the origin and ends at two."' in page
    assert "reproduced" in page
    report = (book.out / "html" / "reproduction-report.html").read_text()
    assert "chapters/toy.html#claim-toy-top" in report
    assert "chapters/toy.html#erratum-toy-e01" in (book.out / "html" / "errata.html").read_text()
    for ending in ("svg", "pdf", "png", "csv", "json"):
        assert (book.out / "figures" / f"fig-toy-line.{ending}").is_file()
        assert (book.out / "html" / "figures" / f"fig-toy-line.{ending}").is_file()
    assert re.search(r"toy +1 ", done.stdout)
    assert str(book.out / "html" / "index.html") in done.stdout

    # Nothing has changed, so nothing runs; touching a file changes nothing.
    (book.root / "chapters" / "toy.ipynb").touch()
    again = book.run("build")
    assert "nothing has changed" in again.stdout
    assert "running" not in again.stdout

    # Every page works from the disk of a reader without network.
    for file in (book.out / "html").rglob("*.html"):
        loaded = re.findall(r'(?:src|href)="(https?:[^"]+)"[^>]*>', file.read_text())
        assert not [url for url in loaded if not _is_link(file.read_text(), url)], file
    mathjax = book.out / "html" / "_static" / "mathjax" / "tex-mml-chtml.js"
    assert mathjax.is_file()

    # Verdicts and data are held against a record.
    assert book.run("verify").returncode == 1
    assert book.run("accept").returncode == 0
    assert book.run("verify").returncode == 0
    book.write_chapter(top="2.5")
    assert book.run("build").returncode == 0
    verified = book.run("verify")
    assert verified.returncode == 1
    assert "toy-top: was 'reproduced', is 'differs'" in verified.stderr
    assert "fig-toy-line: column y is off by 0.5" in verified.stderr


def _is_link(html, url):
    """Whether a URL is only ever something to click on."""
    uses = re.findall(rf'<(\w+)[^>]*(?:src|href)="{re.escape(url)}"', html)
    return set(uses) <= {"a"}


def test_prose_needs_no_run_and_code_does(book):
    assert book.run("build").returncode == 0
    book.write_chapter(prose="Other words on {numref}`fig-toy-line`")
    prose = book.run("build")
    assert "running" not in prose.stdout
    assert "Other words" in (book.out / "html" / "chapters" / "toy.html").read_text()
    book.write_chapter("1 + 1")
    code = book.run("build")
    assert "chapter toy: code changed" in code.stdout
    assert "chapter toy: running" in code.stdout


@pytest.mark.parametrize("dependency", ["requirements.lock", "data/ledger/toy.yml"])
def test_data_and_lock_make_a_chapter_stale(book, dependency):
    assert book.run("build").returncode == 0
    with (book.root / dependency).open("a") as file:
        file.write("# changed\n")
    done = book.run("build")
    assert f"chapter toy: {dependency} changed" in done.stdout
    assert "chapter toy: running" in done.stdout


def test_only_modules_that_are_imported_make_a_chapter_stale(book):
    library = book.root / "lib" / "beyond_adam"
    shutil.copytree(Path(beyond_adam.__file__).parent, library)
    use = {"PYTHONPATH": str(library.parent)}
    assert book.run("build", **use).returncode == 0
    with (library / "landscapes.py").open("a") as file:
        file.write("# not imported by the chapter\n")
    assert "nothing has changed" in book.run("build", **use).stdout
    with (library / "publishing" / "style.py").open("a") as file:
        file.write("# imported by what the chapter imports\n")
    done = book.run("build", **use)
    assert "chapter toy: module beyond_adam.publishing.style changed" in done.stdout
    assert "chapter toy: running" in done.stdout


def test_a_cell_that_raises_turns_the_build_red(book):
    book.write_chapter("print('on the way')", "raise RuntimeError('boom')")
    done = book.run("build")
    assert done.returncode != 0
    assert "chapter toy failed in cell 'cell-7' (raise RuntimeError('boom'))" in done.stderr
    assert "RuntimeError: boom" in done.stderr
    partial = book.out / "running" / "quick" / "toy.ipynb"
    assert str(partial) in done.stderr
    assert "on the way" in json.dumps(json.loads(partial.read_text())["cells"][-3]["outputs"])
    assert not (book.out / "html").exists()


@pytest.mark.parametrize(
    "prose", ["See {numref}`fig-gone`", "See {cite:t}`nobody1900`", "{glue:text}`gone` is"]
)
def test_a_broken_reference_turns_the_build_red(book, prose):
    book.write_chapter(prose=prose)
    done = book.run("build")
    assert done.returncode != 0
    assert "Sphinx refused the book" in done.stderr
    assert "toy" in done.stderr


def test_an_unmeasurable_claim_turns_the_build_red(book):
    book.write_chapter('chapter.claims.check("toy-bottom", 1.0)')
    done = book.run("build")
    assert done.returncode != 0
    assert "no claim 'toy-bottom'" in done.stderr


def test_an_unknown_profile_is_one_clear_line(book):
    done = book.run("build", "--profile", "huge")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: unknown profile 'huge': choose one of smoke, quick, paper"
    ]
