import copy

import pandas as pd
import pytest

from beyond_adam.workflow.verify import _fingerprint, compare


@pytest.fixture
def record(tmp_path):
    csv = tmp_path / "fig-a.csv"
    frame = pd.DataFrame({"x": range(1000), "y": [k / 7 for k in range(1000)]})
    frame["orbit"], frame["name"] = frame["y"] % 1, "adam"
    frame.to_csv(csv, index=False)
    passport = {"data": {"sha256": "before"}, "tolerance": 1e-6, "volatile": ["orbit"]}
    return {
        "artefacts": {"fig-a": _fingerprint(csv, passport)},
        "claims": {"good": "reproduced", "so-so": "within criterion", "bad": "differs"},
        "errata": {"e1": "proved"},
    }


def changed(record, **verdicts):
    now = copy.deepcopy(record)
    now["claims"] |= verdicts
    return now


def test_equal_records_agree(record):
    assert compare(record, copy.deepcopy(record)) == ([], [])


def test_a_value_within_tolerance_is_only_reported(record):
    now = copy.deepcopy(record)
    now["artefacts"]["fig-a"]["sha256"] = "after"
    now["artefacts"]["fig-a"]["columns"]["y"]["samples"][7] += 1e-8
    assert compare(record, now) == ([], ["fig-a: other bytes, data within tolerance"])


@pytest.mark.parametrize("change", [1.0, float("inf")])
def test_a_value_beyond_tolerance_is_wrong(record, change):
    now = copy.deepcopy(record)
    now["artefacts"]["fig-a"]["sha256"] = "after"
    now["artefacts"]["fig-a"]["columns"]["y"]["samples"][7] += change
    wrong, _ = compare(record, now)
    assert len(wrong) == 1
    assert "fig-a: column y" in wrong[0]


def test_other_text_is_wrong_wherever_it_stands(record, tmp_path):
    frame = pd.read_csv(tmp_path / "fig-a.csv")
    frame.loc[501, "name"] = "sgd"
    frame.to_csv(tmp_path / "fig-a.csv", index=False)
    passport = {"data": {"sha256": "after"}, "tolerance": 1e-6, "volatile": ["orbit"]}
    now = copy.deepcopy(record)
    now["artefacts"]["fig-a"] = _fingerprint(tmp_path / "fig-a.csv", passport)
    assert compare(record, now)[0] == ["fig-a: column name has other text"]


@pytest.mark.parametrize(
    ("verdict", "is_wrong"), [("untestable here", False), (None, True), ("proved", None)]
)
def test_a_proof_that_is_lost_is_wrong_unless_the_machine_cannot_tell(record, verdict, is_wrong):
    now = copy.deepcopy(record)
    now["errata"] = {"e1": verdict} if verdict else {}
    wrong, fine = compare(record, now)
    assert wrong == (["e1: no longer proved"] if is_wrong else [])
    assert fine == (["e1: was 'proved', is 'untestable here'"] if is_wrong is False else [])


def test_a_volatile_column_is_not_recorded(record):
    assert "orbit" not in record["artefacts"]["fig-a"]["columns"]


@pytest.mark.parametrize(
    ("claim", "verdict", "is_wrong"),
    [
        ("good", "within criterion", True),
        ("good", "differs", True),
        ("good", "false as stated", True),
        ("good", "untestable", False),
        ("so-so", "reproduced", False),
        ("bad", "within criterion", False),
        ("bad", "not yet measured", True),
    ],
)
def test_only_a_worse_verdict_is_wrong(record, claim, verdict, is_wrong):
    wrong, fine = compare(record, changed(record, **{claim: verdict}))
    assert bool(wrong) is is_wrong
    assert bool(fine) is not is_wrong


def test_what_is_gone_and_what_is_new_are_wrong(record):
    gone = {"artefacts": {}, "claims": {}, "errata": {}}
    assert len(compare(record, gone)[0]) == 5
    assert len(compare(gone, record)[0]) == 5
