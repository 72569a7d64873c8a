import json

import pytest

from beyond_adam import project
from beyond_adam.publishing.measurements import Measurement

CONTENT = {
    "date": "2030-01-02",
    "commit": "abc",
    "hardware": {"cpu": "Abacus", "cores": 8, "system": "Linux x86_64", "libc": "glibc"},
    "versions": {"python": "3.14", "torch": "3.0"},
    "threads": 2,
    "rows": [{"case": "a", "ms": 1.5}, {"case": "b", "ms": None}],
    "empty": [],
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Write a file to a checkout of its own, and read it there."""

    def written(content):
        (tmp_path / "_toc.yml").touch()
        (tmp_path / "times.json").write_text(json.dumps(content))
        monkeypatch.setenv("BEYOND_ADAM_ROOT", str(tmp_path))
        return Measurement.read("times.json")

    return written


def test_a_measurement_says_where_it_comes_from(read):
    found = read(CONTENT)
    machine = "Abacus, 8 cores, Linux x86_64, 2 threads, torch 3.0"
    assert found.provenance == f"2030-01-02, {machine}, commit abc"
    assert (found.commit, found.content) == ("abc", CONTENT)


def test_a_commit_with_changes_is_said_to_be_one(read):
    assert read(CONTENT | {"commit": "abc+"}).provenance.endswith("commit abc with changes")


def test_one_thread_is_one(read):
    assert "1 thread, " in read(CONTENT | {"threads": 1}).provenance


def test_tables_are_read_by_name(read):
    rows = read(CONTENT).table("rows")
    assert rows["case"].tolist() == ["a", "b"]
    assert rows["ms"].isna().tolist() == [False, True]


@pytest.mark.parametrize("name", ["empty", "missing", "date"])
def test_what_is_no_table_is_named(read, name):
    with pytest.raises(ValueError, match=rf"measurement of 2030-01-02 has no table '{name}'"):
        read(CONTENT).table(name)


@pytest.mark.parametrize("name", ["date", "commit", "hardware", "versions", "threads"])
def test_a_file_that_lacks_something_is_refused(read, name):
    with pytest.raises(ValueError, match=rf"times.json lacks '{name}'"):
        read({key: value for key, value in CONTENT.items() if key != name})


def test_all_archived_measurements_can_be_read():
    files = sorted((project.root() / "data" / "measured").glob("*.json"))
    assert files
    for file in files:
        found = Measurement.read(f"data/measured/{file.name}")
        assert not found.table("rows").empty
