import pandas as pd
import pytest

from beyond_adam.experiments import deck
from beyond_adam.publishing import deck_rows
from beyond_adam.publishing.chapter import Claims
from beyond_adam.publishing.claims import Verdict, judge


@pytest.fixture(scope="module")
def tables():
    return deck.run("smoke")


@pytest.fixture
def claims(tmp_path):
    return Claims(tmp_path / "verdicts.json", ["adam-and-beyond"])


def test_every_row_with_a_start_is_measured_in_both_ways(tables, claims):
    found = deck_rows.measurements(tables["rows"], claims)
    ids = {*found.measured, *found.untestable}
    assert ids == {
        f"aab-r{number:02d}-{way}"
        for number in range(1, 38)
        for way in ("analytic", "digits")
        if number != 7
    }


def test_a_misprint_is_measured_as_printed_and_as_corrected(tables, claims):
    found = deck_rows.measurements(tables["rows"], claims)
    id = "aab-r11-digits"
    if id in found.untestable:  # another C library
        assert not tables["rows"]["libm_matches"].any()
        return
    verdict = judge(claims.claim(id), found.measured[id], found.corrected[id])
    assert verdict is Verdict.MISPRINT
    assert judge(claims.claim(id), found.measured[id]) is Verdict.DIFFERS


def test_divergence_is_measured_as_a_behaviour(tables, claims):
    found = deck_rows.measurements(tables["rows"], claims)
    assert found.measured["aab-r01-analytic"] == "diverges"


def test_another_c_library_is_no_verdict_on_the_deck(tables, claims):
    elsewhere = tables["rows"].assign(libm_matches=False, digits_match=False)
    found = deck_rows.measurements(elsewhere, claims)
    assert "aab-r05-digits" in found.untestable
    assert "aab-r05-digits" not in found.measured
    assert "aab-r05-analytic" in found.measured
    assert deck_rows.excuse(elsewhere, "quick")
    assert not deck_rows.excuse(tables["rows"].assign(libm_matches=True), "quick")


def test_the_table_has_a_line_for_each_row(tables, claims):
    found = deck_rows.measurements(tables["rows"], claims)
    verdicts = dict.fromkeys(found.measured, Verdict.WITHIN)
    table = deck_rows.table(tables["rows"], tables["behaviour"], verdicts)
    assert list(table["row"]) == [f"R{number:02d}" for number in range(1, 38)]
    assert table["exact_cell"].iloc[0].startswith("diverges: not finite<br>from step")
    assert table["deck_verdict"].iloc[6] == "untestable"
    assert isinstance(table, pd.DataFrame)
