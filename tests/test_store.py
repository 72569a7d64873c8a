import errno
import types

import pandas as pd
import pytest

from beyond_adam.experiments import store


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("BEYOND_ADAM_BUILD", str(tmp_path))
    runs = []

    def run(profile):
        runs.append(profile)
        return {"numbers": pd.DataFrame({"x": [0.1, 1 / 3], "name": ["a", "b"]})}

    # Its code is that of a real module, so that there is something to hash.
    return types.SimpleNamespace(NAME="toy", __name__="beyond_adam.project", run=run, runs=runs)


def test_a_record_is_computed_once_and_comes_back_bit_for_bit(experiment):
    first = store.load(experiment, "smoke")["numbers"]
    second = store.load(experiment, "smoke")["numbers"]
    assert experiment.runs == ["smoke"]
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_profiles_do_not_share_records(experiment):
    store.load(experiment, "smoke")
    store.load(experiment, "quick")
    assert experiment.runs == ["smoke", "quick"]


def test_a_change_in_what_it_depends_on_makes_a_record_stale(experiment, monkeypatch):
    store.load(experiment, "smoke")
    key = store.key(experiment.__name__, "smoke")
    monkeypatch.setattr(store, "key", lambda *_: key | {"module x": "new"})
    store.load(experiment, "smoke")
    store.load(experiment, "smoke")
    assert experiment.runs == ["smoke", "smoke"]


@pytest.mark.parametrize("damaged", ["record.json", "numbers.parquet"])
def test_a_damaged_record_is_computed_again(experiment, damaged):
    store.load(experiment, "smoke")
    (store.folder("toy", "smoke") / damaged).write_bytes(b"{")
    tables = store.load(experiment, "smoke")
    assert len(experiment.runs) == 2
    assert list(tables["numbers"]["name"]) == ["a", "b"]


def test_a_full_disk_leaves_the_old_record_and_nothing_else(experiment, monkeypatch):
    store.load(experiment, "smoke")
    place = store.folder("toy", "smoke")

    def full(_table, file):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "key", lambda *_: {"other": "key"})
        patch.setattr(pd.DataFrame, "to_parquet", full)
        with pytest.raises(OSError, match="No space left"):
            store.load(experiment, "smoke")
    assert [file.name for file in place.parent.iterdir()] == ["toy"]
    store.load(experiment, "smoke")
    assert len(experiment.runs) == 2


def test_an_experiment_that_fails_leaves_the_old_record(experiment, monkeypatch):
    store.load(experiment, "smoke")
    monkeypatch.setattr(store, "key", lambda *_: {"other": "key"})
    experiment.run = {}.__getitem__
    with pytest.raises(KeyError):
        store.load(experiment, "smoke")
    assert store.described("toy", "smoke")["tables"] == ["numbers"]


def test_an_unknown_profile_is_refused(experiment):
    with pytest.raises(ValueError, match="'huge'"):
        store.load(experiment, "huge")
