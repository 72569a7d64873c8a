import math

import pytest
import yaml

from beyond_adam.publishing.claims import (
    Claim,
    LedgerError,
    Verdict,
    judge,
    measured_text,
    read_ledger,
    read_source,
)


def claim(criterion, *published):
    return Claim("c", "s", "p. 1", "It is so.", "ch", "m", "r", published, criterion)


@pytest.mark.parametrize(
    ("printed", "measured", "verdict"),
    [
        ("92.71", 92.7149, Verdict.REPRODUCED),
        ("92.71", 92.7151, Verdict.WITHIN),
        ("92.71", 93.1, Verdict.DIFFERS),
        ("-1.91897874e+13", -19189787363569.086, Verdict.REPRODUCED),
        ("-1.91897874e+13", -19189787000000.0, Verdict.DIFFERS),
        ("3", math.nan, Verdict.DIFFERS),
        ("3", math.inf, Verdict.DIFFERS),
    ],
)
def test_values_are_held_to_print_precision_and_then_to_the_tolerance(printed, measured, verdict):
    assert judge(claim({"kind": "value", "tolerance": 0.3}, printed), measured) is verdict


def test_decimals_restore_the_zeros_that_numpy_trims():
    as_printed = claim({"kind": "value"}, "1.")
    eight = claim({"kind": "value", "decimals": 8}, "1.")
    assert judge(as_printed, 1.4) is Verdict.REPRODUCED
    assert judge(eight, 1.4) is Verdict.DIFFERS
    assert judge(eight, 1 + 1e-9) is Verdict.REPRODUCED


def test_relative_tolerance():
    half = claim({"kind": "value", "relative": 0.1}, "200")
    assert judge(half, 219) is Verdict.WITHIN
    assert judge(half, 221) is Verdict.DIFFERS


def test_near_asks_every_component():
    basin = claim({"kind": "near", "centre": [-2, -2], "radius": 0.1}, "-1.9", "-1.9")
    assert judge(basin, [-2.05, -1.95]) is Verdict.WITHIN
    assert judge(basin, [-2.05, -1.85]) is Verdict.DIFFERS
    assert judge(basin, [-1.9, -1.9]) is Verdict.REPRODUCED


def test_interval_may_be_open():
    assert judge(claim({"kind": "interval", "low": 0.8, "high": None}), 7.0) is Verdict.REPRODUCED
    assert judge(claim({"kind": "interval", "low": 0.8, "high": None}), 0.7) is Verdict.DIFFERS


def test_a_behaviour_that_explains_printed_numbers_is_only_within_the_criterion():
    diverges = {"kind": "behaviour", "expected": "diverges"}
    assert judge(claim(diverges, "1e13"), "diverges") is Verdict.WITHIN
    assert judge(claim(diverges), "diverges") is Verdict.REPRODUCED
    assert judge(claim(diverges), "cycle") is Verdict.DIFFERS


def test_a_statement_is_true_or_false():
    assert judge(claim({"kind": "holds"}), True) is Verdict.REPRODUCED
    assert judge(claim({"kind": "holds"}), False) is Verdict.FALSE


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([(0.1, 0.3)], Verdict.REPRODUCED),
        ([(0.1, 0.3), (1e-9, 1.0)], Verdict.REPRODUCED),
        ([(0.1, 0.3), (-0.1, 0.3)], Verdict.UNDECIDED),
        ([(0.0, 0.3)], Verdict.UNDECIDED),
        ([(-0.3, 0.0)], Verdict.UNDECIDED),
        ([(-math.inf, math.inf)], Verdict.UNDECIDED),
        ([(-0.3, -0.1)], Verdict.DIFFERS),
        ([(0.1, 0.3), (-0.3, -0.1), (-1.0, 1.0)], Verdict.DIFFERS),
    ],
)
def test_paired_differences_need_the_stated_sign(intervals, verdict):
    assert judge(claim({"kind": "paired"}), intervals) is verdict


def test_an_interval_is_written_from_low_to_high():
    paired = claim({"kind": "paired"})
    assert measured_text(paired, [(-0.12345, 0.5), (1.0, 2.0)]) == "-0.123 to 0.5, 1 to 2"


@pytest.mark.parametrize(
    ("published", "decimals", "text"),
    [
        ((), 0, "1.2346, 0.012346"),
        (("92.71", "about 3"), 0, "1.2346, 0.012346"),
        (("1.00027483", "0.01"), 0, "1.23456789, 0.0123456789"),
        (("-4.23722310e+18",), 0, "1.23456789, 0.0123456789"),
        (("0.0000123456",), 0, "1.23457, 0.0123457"),
        (("1.",), 6, "1.234568, 0.01234568"),
    ],
)
def test_measurements_have_the_digits_of_the_longest_published_number(published, decimals, text):
    criterion = {"kind": "value", "decimals": decimals} if decimals else {"kind": "value"}
    assert measured_text(claim(criterion, *published), [1.23456789, 0.0123456789]) == text


def test_statements_and_words_are_not_numbers():
    holds = claim({"kind": "holds"})
    assert [measured_text(holds, m) for m in (True, False, "once")] == [
        "holds",
        "does not hold",
        "once",
    ]


def test_a_correction_counts_only_where_the_print_fails():
    value = claim({"kind": "value", "tolerance": 0.01}, "1.00")
    assert judge(value, 2.0, corrected=1.0) is Verdict.MISPRINT
    assert judge(value, 1.0, corrected=2.0) is Verdict.REPRODUCED
    assert judge(value, 1.0, corrected=1.0) is Verdict.REPRODUCED
    assert judge(value, 2.0, corrected=3.0) is Verdict.DIFFERS


@pytest.mark.parametrize(
    ("criterion", "measured"),
    [
        ({"kind": "holds"}, 1.0),
        ({"kind": "value"}, True),
        ({"kind": "value"}, [1.0, 2.0]),
        ({"kind": "value"}, [(1.0, 2.0)]),
        ({"kind": "behaviour", "expected": "cycle"}, "explodes"),
        ({"kind": "paired"}, True),
        ({"kind": "paired"}, 1.0),
        ({"kind": "paired"}, [0.1, 0.2]),
        ({"kind": "paired"}, [(0.2, 0.1)]),
        ({"kind": "paired"}, [(math.nan, math.nan)]),
        ({"kind": "paired"}, []),
        ({"kind": "interval", "low": 99}, []),
        ({"kind": "near", "centre": 1.0, "radius": 0.1}, []),
    ],
)
def test_a_measurement_of_the_wrong_kind_is_refused(criterion, measured):
    published = ("1.0",) if criterion["kind"] == "value" else ()
    with pytest.raises(LedgerError, match="claim c"):
        judge(claim(criterion, *published), measured)


def write(tmp_path, **changes):
    entry = {
        "id": "toy-a",
        "where": "p. 1",
        "statement": "x",
        "published": "1",
        "measure": "m",
        "criterion": {"kind": "value"},
        "reason": "r",
        "chapter": "c",
    }
    entry |= changes
    entry = {key: value for key, value in entry.items() if value is not None}
    source = {"source": "toy", "title": "T", "authors": "A", "cite": "t", "errata": []}
    file = tmp_path / "toy.yml"
    file.write_text(yaml.safe_dump(source | {"claims": [entry, *changes.pop("more", [])]}))
    return file


def test_a_sound_source_is_read(tmp_path):
    source = read_source(write(tmp_path))
    assert source.claims["toy-a"].published == ("1",)
    assert source.claims["toy-a"].criterion_text == "every printed digit"


@pytest.mark.parametrize(
    "changes",
    [
        {"criterion": {"kind": "vibes"}},
        {"criterion": {"kind": "value", "radius": 1}},
        {"criterion": {"kind": "value", "tolerance": "5e-5"}},
        {"criterion": None},
        {"untestable": "no start is given"},
        {"published": None},
        {"reason": None},
        {"colour": "red"},
    ],
)
def test_an_unsound_entry_is_refused(tmp_path, changes):
    with pytest.raises(LedgerError):
        read_source(write(tmp_path, **changes))


def test_the_projects_own_ledger_is_sound_and_its_ids_are_unique():
    ledger = read_ledger()
    ids = [id for source in ledger.values() for id in (*source.claims, *source.errata)]
    assert len(ids) == len(set(ids))
    assert len(ledger) == 5
    assert sum(len(source.errata) for source in ledger.values()) > 80
