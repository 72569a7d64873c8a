import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from beyond_adam import project
from beyond_adam.publishing import step_times

ARCHIVE = "data/measured/optimizer-step.json"


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def row(tensors, case, least, reference, base, goal, limit):
    """Return a row of a file, in which medians are a tenth above the least times."""
    return {
        "tensors": tensors,
        "case": case,
        "median [ms]": 1.1 * least,
        "least [ms]": least,
        "reference": reference,
        "ratio": 1.01 * least / base,
        "ratio of least": least / base,
        "goal": goal,
        "times fused AdamW": least / 2.0,
        "times the limit": least / limit,
    }


@pytest.fixture
def record():
    rows = [
        row("big", "AdamW fused", 2.0, "AdamW fused", 2.0, None, 1.6),
        row("big", "PAdam foreach, p = 0.8", 9.0, "AdamW fused", 2.0, 4.0, 1.6),
        row("big", "PAdam, p = 1", 6.0, "AdamW fused", 2.0, 3.0, 1.6),
        row("big", "PAdam fused, p = 1", 2.2, "AdamW fused", 2.0, 1.2, 1.6),
        row("small", "AdamW fused", 2.0, "AdamW fused", 2.0, math.nan, 1.0),
        row("small", "PAdam fused, p = 1", 3.0, "AdamW fused", 2.0, 1.2, 1.0),
    ]
    return {
        "date": "2030-01-02",
        "commit": "abc",
        "hardware": {"cpu": "Abacus", "cores": 8, "system": "Linux x86_64", "libc": "glibc"},
        "versions": {"python": "3.14", "torch": "3.0"},
        "threads": 1,
        "runs": 5,
        "kernel": {"compiled": 9.5, "cached": 0.004},
        "rows": rows,
    }


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Write a record to a checkout of its own, and read it there."""

    def written(record):
        (tmp_path / "_toc.yml").touch()
        (tmp_path / "times.json").write_text(json.dumps(record))
        monkeypatch.setenv("BEYOND_ADAM_ROOT", str(tmp_path))
        return step_times.read("times.json")

    return written


def test_the_archive_can_be_shown():
    times = step_times.read(ARCHIVE)
    written = json.loads((project.root() / ARCHIVE).read_text())
    assert len(times.rows) == len(written["rows"])
    assert written["versions"]["torch"] in times.provenance
    table, headers = step_times.table(times)
    assert table["case"].is_unique
    for tensors in times.rows["tensors"].unique():
        assert headers[f"{tensors}_cell"] == tensors
        _, data = step_times.relative(times, tensors)
        assert (data.set_index("case")["relative"]["AdamW fused"]) == 1


def test_it_is_told_where_times_come_from(read, record):
    times = read(record)
    machine = "Abacus, 8 cores, Linux x86_64, 1 thread, torch 3.0"
    assert times.provenance == f"2030-01-02, {machine}, commit abc"
    assert (times.commit, times.runs, times.compiled, times.cached) == ("abc", 5, 9.5, 0.004)


def test_rows_are_tidy_and_goals_may_be_missing_in_two_ways(read, record):
    rows = read(record).rows
    assert list(rows) == list(step_times.COLUMNS.values())
    assert rows["goal"].isna().tolist() == [True, False, False, False, True, False]
    assert rows["median_ms"].tolist() == pytest.approx([2.2, 9.9, 6.6, 2.42, 2.2, 3.3])


def test_goals_are_held_against_the_median_ratio(read, record):
    record["rows"][3]["goal"] = 1.105  # between the ratio of the least times and the median ratio
    times = read(record)
    assert times.judged["met"].tolist() == [False, False, False, False]
    assert times.missed == (
        "big: PAdam foreach, p = 0.8 (4.545 for 4); PAdam, p = 1 (3.030 for 3); "
        "PAdam fused, p = 1 (1.111 for 1.105). small: PAdam fused, p = 1 (1.515 for 1.2)"
    )


def test_nothing_missed_is_said_too(read, record):
    for line in record["rows"]:
        line["goal"] = line["ratio"]  # at most the goal is what is asked for
    assert read(record).missed == "none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("kernel"), r"times.json lacks 'kernel'"),
        (lambda r: r["versions"].pop("torch"), r"times.json lacks 'torch'"),
        (lambda r: r["rows"][1].pop("ratio"), r"lacks 'ratio'"),
        (lambda r: r["rows"].clear(), r"there are no rows"),
        (lambda r: r["rows"].append(r["rows"][0]), r"AdamW fused, big was measured twice"),
        (lambda r: r["rows"][1].update({"median [ms]": -1}), r"median_ms of PAdam foreach, p = 0"),
        (lambda r: r["rows"][4].update({"ratio": None}), r"ratio of AdamW fused, small is not a"),
        (lambda r: r["rows"][4].update({"ratio": math.inf}), r"ratio of AdamW fused, small is not"),
        (lambda r: r["rows"][4].update({"least [ms]": "fast"}), r"least_ms of AdamW fused, small"),
        (lambda r: r["rows"][5].update({"goal": 0}), r"goal of PAdam fused, p = 1, small is not"),
        (lambda r: r["rows"][5].update({"reference": "SGD"}), r"reference SGD, small was not meas"),
        (lambda r: r["rows"][3].update({"least [ms]": 2.3}), r"ratio_of_least of PAdam fused, p ="),
    ],
)
def test_a_file_that_is_wrong_is_refused(read, record, change, message):
    change(record)
    with pytest.raises(ValueError, match=message):
        read(record)


def test_dots_are_relative_to_adamw_and_marks_at_the_limit(read, record):
    figure, data = step_times.relative(read(record), "big")
    (axes,) = figure.axes
    order = ["AdamW fused", "PAdam fused, p = 1", "PAdam, p = 1", "PAdam foreach, p = 0.8"]
    assert [label.get_text() for label in axes.get_yticklabels()] == order
    assert data["case"].tolist() == order
    assert data["path"].tolist() == ["fused", "fused", "for-loop", "foreach"]
    np.testing.assert_allclose(data["relative"], [1, 1.1, 3, 4.5])
    np.testing.assert_allclose(data["limit"], 0.8)
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_allclose(lines["memory's limit"], [[0.8, i] for i in range(4)])
    np.testing.assert_allclose(lines["fused"], [[1, 0], [1.1, 1]])
    np.testing.assert_allclose(lines["for-loop"], [[3, 2]])
    assert axes.yaxis_inverted()


def test_an_unknown_set_is_refused(read, record):
    with pytest.raises(ValueError, match="one of big, small, not 'flat'"):
        step_times.relative(read(record), "flat")


def test_the_table_has_a_line_a_case_and_says_what_is_missed(read, record):
    table, headers = step_times.table(read(record))
    assert headers == {
        "case": "Step",
        "reference": "Relative to",
        "big_cell": "big",
        "small_cell": "small",
    }
    lines = table.set_index("case").replace("&nbsp;", " ", regex=True)
    assert lines.loc["AdamW fused", "big_cell"] == "1.010, 2.2 ms, 1.25 ×"
    assert lines.loc["PAdam fused, p = 1", "big_cell"] == "1.111 ≤ 1.2, 2.42 ms, 1.38 ×"
    assert lines.loc["PAdam fused, p = 1", "small_cell"] == "**1.515 > 1.2**, 3.3 ms, 3.00 ×"
    assert lines.loc["PAdam, p = 1", ["small_cell", "small ratio"]].isna().all()
    assert lines.loc["PAdam, p = 1", "big goal"] == 3
