import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml

from beyond_adam.publishing.chapter import Chapter
from beyond_adam.publishing.claims import LedgerError, Verdict
from conftest import LEDGER

ALT = "A line that rises from the origin to two, with no points marked."


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What the chapter displays, in order."""
    outputs = []
    display = "beyond_adam.publishing.chapter.display"
    monkeypatch.setattr(display, lambda output, **_: outputs.append(output))
    return outputs


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    (tmp_path / "data" / "ledger").mkdir(parents=True)
    (tmp_path / "data" / "ledger" / "toy.yml").write_text(yaml.safe_dump(LEDGER))
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    monkeypatch.setenv("BEYOND_ADAM_ROOT", str(tmp_path))
    monkeypatch.setenv("BEYOND_ADAM_PRODUCTS", str(tmp_path / "products"))
    return Chapter("toy", profile="smoke", sources=["toy"])


def draw(chapter, id="fig-toy-line", **changes):
    data = pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 2.0]})
    figure, axes = plt.subplots()
    axes.plot(data["x"], data["y"])
    arguments = {"caption": "A line, $y = x$.", "alt": ALT, "data": data, "seeds": [0, 1]}
    chapter.figure(figure, id, **(arguments | changes))
    return chapter.products / "figures"


def test_a_figure_becomes_five_files_and_one_numbered_output(chapter, shown):
    folder = draw(chapter)
    endings = ["csv", "json", "pdf", "png", "svg"]
    assert sorted(file.name for file in folder.iterdir()) == [f"fig-toy-line.{e}" for e in endings]
    page = shown[0]["application/vnd.beyond-adam.myst"]
    assert ":name: fig-toy-line" in page
    assert ":alt: A line that" in page
    assert "smoke profile" in page
    assert "seeds 0, 1" in page
    assert f'alt="{ALT}"' in shown[0]["text/html"]
    assert not plt.get_fignums()


def test_the_passport_says_what_the_figure_was_computed_from(chapter):
    passport = json.loads((draw(chapter) / "fig-toy-line.json").read_text())
    for key in ("id", "caption", "alt", "chapter", "commit", "dirty", "parameters", "seeds"):
        assert key in passport
    assert passport["versions"]["numpy"] == np.__version__
    assert passport["hardware"]["cores"] >= 1
    assert passport["profile"] == "smoke"
    assert re.fullmatch("[0-9a-f]{64}", passport["data"]["sha256"])


def test_what_was_measured_has_the_data_and_seeds_it_is_given_and_no_profile(chapter, shown):
    draw(chapter, seeds=[], measured="2030-01-02, Abacus")
    folder = draw(chapter, "fig-toy-b", seeds=[7], dataset="digits", measured="2030-01-02, Abacus")
    for output, given in zip(shown, ("", "digits · seed 7 · "), strict=True):
        page = output["application/vnd.beyond-adam.myst"]
        assert f"measured once, and archived · {given}2030-01-02, Abacus" in page
    passport = json.loads((folder / "fig-toy-line.json").read_text())
    assert (passport["profile"], passport["dataset"], passport["parameters"]) == ("", "", {})


def test_the_png_has_300_dots_per_inch(chapter):
    png = plt.imread(draw(chapter) / "fig-toy-line.png")
    width, height = plt.rcParams["figure.figsize"]
    assert png.shape[:2] == (round(300 * height), round(300 * width))


def test_files_are_the_same_bytes_every_time(chapter):
    first = {file.name: file.read_bytes() for file in draw(chapter).iterdir()}
    second = {file.name: file.read_bytes() for file in draw(chapter).iterdir()}
    assert first == second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "line"}, "fig-"),
        ({"id": "fig-Line"}, "kebab"),
        ({"alt": "a line"}, "alt text"),
        ({"caption": " "}, "caption"),
        ({"data": pd.DataFrame()}, "no data"),
        ({"volatile": ["z"]}, "'z'"),
    ],
)
def test_a_figure_without_what_it_needs_is_refused(chapter, changes, message):
    with pytest.raises(ValueError, match=message):
        draw(chapter, **changes)
    plt.close("all")


def test_a_table_shows_formatted_columns_and_keeps_raw_data(chapter, shown):
    frame = pd.DataFrame({"name": ["a"], "value": [1 / 3], "hidden": [7.0]})
    headers, formats = {"name": "Name", "value": "$x$"}, {"value": "{:.2f}"}
    chapter.table(frame, "tab-toy-a", caption="One.", headers=headers, formats=formats)
    page = shown[0]["application/vnd.beyond-adam.myst"]
    assert "* - a\n  - 0.33" in page
    assert "hidden" not in page
    saved = pd.read_csv(chapter.products / "tables" / "tab-toy-a.csv")
    assert list(saved.columns) == ["name", "value", "hidden"]


def test_a_verdict_is_shown_with_its_target_and_kept(chapter, shown):
    assert chapter.claims.check("toy-top", 2.05) is Verdict.WITHIN
    assert shown[0]["application/vnd.beyond-adam.myst"].startswith("(claim-toy-top)=\n")
    kept = json.loads((chapter.products / "verdicts.json").read_text())
    assert kept["claims"]["toy-top"]["verdict"] == "within criterion"
    assert kept["claims"]["toy-top"]["measured"] == "2.05"


def test_a_number_of_numpy_is_judged_as_one_of_python(chapter):
    assert chapter.claims.check("toy-top", np.float64(2.0)) is Verdict.REPRODUCED
    kept = json.loads((chapter.products / "verdicts.json").read_text())
    assert kept["claims"]["toy-top"]["measured"] == "2"


def test_many_verdicts_share_one_output(chapter, shown):
    assert chapter.claims.check_all({"toy-top": 2.0}) == {"toy-top": Verdict.REPRODUCED}
    assert "(claim-toy-top)=" in shown[0]["application/vnd.beyond-adam.myst"]


def test_what_this_machine_cannot_tell_is_untestable_and_says_why(chapter):
    verdicts = chapter.claims.check_all({}, untestable={"toy-top": "another C library"})
    assert verdicts == {"toy-top": Verdict.UNTESTABLE}


def test_claims_are_checked_once_and_by_their_name(chapter):
    chapter.claims.check("toy-top", 2.0)
    with pytest.raises(LedgerError, match="twice"):
        chapter.claims.check("toy-top", 2.0)
    with pytest.raises(LedgerError, match="'toy-bottom'"):
        chapter.claims.check("toy-bottom", 2.0)


def test_a_cell_may_be_run_again_by_hand(chapter, monkeypatch):
    monkeypatch.delenv("BEYOND_ADAM_PRODUCTS")
    by_hand = Chapter("toy", profile="smoke", sources=["toy"])
    by_hand.claims.check("toy-top", 9.0)
    assert by_hand.claims.check("toy-top", 2.0) is Verdict.REPRODUCED
    kept = json.loads((by_hand.products / "verdicts.json").read_text())
    assert kept["claims"]["toy-top"]["verdict"] == "reproduced"
    assert by_hand.products != chapter.products


def test_an_erratum_that_is_not_confirmed_is_loud(chapter):
    with pytest.raises(LedgerError, match="not confirmed"):
        chapter.claims.prove("toy-e01", shown=False, how="It does not.")


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="'huge'"):
        Chapter("toy", profile="huge")
