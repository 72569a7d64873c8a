"""The pipeline on a book of one chapter: what runs when, and that it goes red."""

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import beyond_adam
from beyond_adam.workflow import plan
from beyond_adam.workflow.__main__ import CommandError, build

ENDINGS = ("svg", "pdf", "png", "csv", "json")


def test_from_nothing_to_a_book(first_build):
    book, done = first_build
    assert done.returncode == 0, done.stdout + done.stderr
    page = (book.out / "html" / "chapters" / "toy.html").read_text()
    assert "Fig. 1.1" in page
    assert "Table 1.1" in page
    assert 'alt="A line that rises from the origin and ends at two."' in page
    assert "reproduced" in page
    report = (book.out / "html" / "reproduction-report.html").read_text()
    assert "chapters/toy.html#claim-toy-top" in report
    assert "chapters/toy.html#erratum-toy-e01" in (book.out / "html" / "errata.html").read_text()
    for ending in ENDINGS:
        assert (book.out / "figures" / f"fig-toy-line.{ending}").is_file()
        assert (book.out / "html" / "figures" / f"fig-toy-line.{ending}").is_file()
    assert re.search(r"toy +1 ", done.stdout)
    assert str(book.out / "html" / "index.html") in done.stdout


def test_every_page_is_whole_without_a_network(first_build):
    html = first_build[0].out / "html"
    for file in (file for file in html.rglob("*.html") if "_static" not in file.parts):
        for tag, url in re.findall(r'<(\w+)\b[^>]*?(?:src|href)="([^"#]+)', file.read_text()):
            if re.match("https?:", url):
                assert tag == "a", f"{file.name} loads {url}"
            elif ":" not in url:
                assert (file.parent / url.partition("?")[0]).exists(), f"{file.name}: {url}"
        assert "unpkg" not in file.read_text()
    assert (html / "_static" / "mathjax" / "tex-mml-chtml.js").is_file()


def test_nothing_runs_twice_and_two_runs_give_the_same_bytes(book):
    (book.root / "chapters" / "toy.ipynb").touch()
    before = {file: file.read_bytes() for file in sorted(book.out.glob("figures/*"))}
    assert "nothing has changed" in book.run("build").stdout
    shutil.rmtree(book.out)
    assert book.run("build").returncode == 0
    assert {file: file.read_bytes() for file in sorted(book.out.glob("figures/*"))} == before


def test_what_is_gone_is_made_again(book):
    shutil.rmtree(book.out / "executed")
    done = book.run("build")
    assert done.returncode == 0
    assert "chapter toy: not there yet" in done.stdout
    assert (book.out / "executed" / "quick" / "toy.json").is_file()
    assert "nothing has changed" in book.run("build").stdout


def test_what_runs_does_not_hang_on_what_the_engine_remembers(book):
    shutil.rmtree(book.out / ".snakemake")
    book.write_chapter(top="2.5")
    done = book.run("build")
    assert done.returncode == 0
    assert "chapter toy: code changed" in done.stdout
    assert "chapter toy: running" in done.stdout


def test_data_and_verdicts_are_held_against_the_record(book):
    assert "no committed record" in book.run("verify").stderr
    assert book.run("accept").returncode == 0
    assert book.run("verify").returncode == 0
    accepted = (book.root / "data" / "record" / "quick.json").read_bytes()
    book.write_chapter(top="2.5")
    for command in ("verify", "accept"):
        stale = book.run(command)
        assert stale.returncode == 1
        assert "'quick' is not up to date, run `make`: chapter toy: code changed" in stale.stderr
    assert (book.root / "data" / "record" / "quick.json").read_bytes() == accepted
    done = book.run("build")
    assert "chapter toy: code changed" in done.stdout
    assert "chapter toy: running" in done.stdout
    verified = book.run("verify")
    assert verified.returncode == 1
    assert "toy-top: was 'reproduced', is 'differs'" in verified.stderr
    assert "fig-toy-line: column y is off by 0.5" in verified.stderr


def test_prose_needs_no_run(book):
    book.write_chapter(prose="Other words on {numref}`fig-toy-line`")
    done = book.run("build")
    assert done.stdout.startswith("book: chapters/toy.ipynb changed")
    assert "running" not in done.stdout
    assert "Other words" in (book.out / "html" / "chapters" / "toy.html").read_text()


@pytest.fixture
def reasons(book, monkeypatch):
    monkeypatch.setenv("BEYOND_ADAM_ROOT", str(book.root))
    assert plan.stale("quick") == {}
    return lambda: "\n".join(plan.stale("quick").values())


@pytest.mark.parametrize("dependency", ["requirements.lock", "data/ledger/toy.yml"])
def test_data_and_lock_make_a_chapter_stale(book, reasons, dependency):
    with (book.root / dependency).open("a") as file:
        file.write("# changed\n")
    assert f"chapter toy: {dependency} changed" in reasons()


def test_a_file_that_the_code_names_makes_a_chapter_stale(tmp_path, monkeypatch):
    monkeypatch.setenv("BEYOND_ADAM_ROOT", str(tmp_path))
    code = 'read("data/measured/times.json")  # not "data/other.json"'
    (tmp_path / "_toc.yml").touch()
    cells = [{"cell_type": "code", "source": [code]}]
    chapter = tmp_path / "toy.ipynb"
    chapter.write_text(json.dumps({"cells": cells}))
    keys = []
    for content in ("1", "2"):
        measured = tmp_path / "data" / "measured" / "times.json"
        measured.parent.mkdir(parents=True, exist_ok=True)
        measured.write_text(content)
        keys.append(plan.Notebook("toy", chapter).key("quick"))
    changed = {name for name in keys[0] if keys[0][name] != keys[1][name]}
    assert changed == {"data/measured/times.json"}


def test_a_new_bibliography_makes_only_the_pages_stale(book, reasons):
    with (book.root / "chapters" / "references.bib").open("a") as file:
        file.write("% changed\n")
    assert reasons() == "book: chapters/references.bib changed"


LIBRARY = """\
# The library

```{eval-rst}
.. automodule:: beyond_adam.toy
   :members:
```
"""
DOCSTRING = """\
    It divides by |w|^(2−p), `weight_decay` of them, `{reference}`:

    .. math:: u / |w|^{{2-p}}
"""


def test_docstrings_are_shown_and_make_only_the_pages_stale(book):
    library = book.root / "lib" / "beyond_adam"
    shutil.copytree(Path(beyond_adam.__file__).parent, library)
    (book.root / "api.md").write_text(LIBRARY)
    toc = book.root / "_toc.yml"
    toc.write_text(toc.read_text().replace("file: references", "file: references\n  - file: api"))

    def write(reference):
        docstring = DOCSTRING.format(reference=reference)
        text = f'def shrink(w, weight_decay):\n    """Shrink w.\n\n{docstring}    """\n'
        (library / "toy.py").write_text(text)

    def run(command):
        return book.python("-m", "beyond_adam.workflow", command, PYTHONPATH=str(library.parent))

    write("beyond_adam.toy.shrink")
    done = run("build")
    assert done.returncode == 0, done.stderr
    assert "running" not in done.stdout
    page = (book.out / "html" / "api.html").read_text()
    shown = re.sub(r"<[^>]*>", "", page)
    assert "shrink(w, weight_decay)" in shown
    assert "by |w|^(2−p), weight_decay of them, beyond_adam.toy.shrink:" in shown
    assert "u / |w|^{2-p}" in shown
    assert 'href="#beyond_adam.toy.shrink"' in page
    write("beyond_adam.optim.Gone")
    done = run("build")
    assert done.stdout.startswith("book: module beyond_adam.toy changed\n")
    assert "running" not in done.stdout
    assert done.returncode != 0
    assert "beyond_adam.optim.Gone" in done.stderr


def test_another_profile_is_another_run(reasons):
    assert reasons() == ""
    assert "chapter toy: not there yet" in plan.stale("smoke").values()


def test_only_modules_that_are_imported_make_a_chapter_stale(book):
    library = book.root / "lib" / "beyond_adam"
    shutil.copytree(Path(beyond_adam.__file__).parent, library)
    ask = "from beyond_adam.workflow import plan; print(*plan.stale('quick').values())"

    def reasons():
        return book.python("-c", ask, PYTHONPATH=str(library.parent)).stdout

    with (library / "landscapes.py").open("a") as file:
        file.write("# not imported by the chapter\n")
    assert reasons() == "\n"
    with (library / "publishing" / "style.py").open("a") as file:
        file.write("# imported by what the chapter imports, but only a comment\n")
    assert reasons() == "\n"
    with (library / "publishing" / "style.py").open("a") as file:
        file.write("LATER = 1\n")
    assert "chapter toy: module beyond_adam.publishing.style changed" in reasons()


def test_a_cell_that_raises_turns_the_build_red(book):
    page = (book.out / "html" / "chapters" / "toy.html").read_text()
    book.write_chapter("print('on the way')", "raise RuntimeError('boom')")
    done = book.run("build")
    assert done.returncode != 0
    assert "chapter toy failed in cell 'cell-7' (raise RuntimeError('boom'))" in done.stderr
    assert "RuntimeError: boom" in done.stderr
    partial = book.out / "running" / "quick" / "toy.ipynb"
    assert str(partial) in done.stderr
    assert "on the way" in json.dumps(json.loads(partial.read_text()))
    # The last good book is still there to read.
    assert (book.out / "html" / "chapters" / "toy.html").read_text() == page


@pytest.mark.parametrize(
    "prose", ["See {numref}`fig-gone`", "See {cite:t}`nobody1900`", "{glue:text}`gone` is"]
)
def test_a_broken_reference_turns_the_build_red(book, prose):
    book.write_chapter(prose=prose)
    done = book.run("pages")
    assert done.returncode != 0
    assert "Sphinx refused the book" in done.stderr
    assert "toy" in done.stderr


def test_a_claim_that_no_source_makes_turns_the_build_red(book):
    book.write_chapter('chapter.claims.check("toy-bottom", 1.0)')
    done = book.run("execute", "toy")
    assert done.returncode != 0
    assert "no claim 'toy-bottom'" in done.stderr


def test_an_unknown_profile_is_one_clear_line(book):
    done = book.run("build", "--profile", "huge")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: unknown profile 'huge': choose one of smoke, quick, paper"
    ]


def test_a_build_whose_engine_lives_on_keeps_others_out(tmp_path, monkeypatch):
    start, script = subprocess.Popen, "sleep 60 >&- 2>&- & echo $! > engine; exit 1"

    def lingering(_, **options):
        return start(["sh", "-c", script], cwd=tmp_path, **options)

    monkeypatch.setattr(subprocess, "Popen", lingering)
    monkeypatch.setattr(plan, "targets", lambda _: [])
    monkeypatch.setattr(plan, "stale", lambda _: {})
    monkeypatch.setenv("BEYOND_ADAM_BUILD", str(tmp_path))
    options = argparse.Namespace(profile="quick", jobs=1)
    with pytest.raises(CommandError, match="the build of profile 'quick' failed"):
        build(options)
    with pytest.raises(CommandError, match="another build is at work"):
        build(options)
    os.kill(int((tmp_path / "engine").read_text()), signal.SIGKILL)
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # which waits for the end of the engine
    with pytest.raises(CommandError, match="failed"):
        build(options)
    os.kill(int((tmp_path / "engine").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "said"), [("execute", "no chapter 'no'"), ("record", "no experiment 'no'")]
)
def test_what_no_chapter_has_is_one_clear_line(book, command, said):
    done = book.run(command, "no")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}; there are ")
    assert done.stderr.count("\n") == 1
