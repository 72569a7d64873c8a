import errno
import os
import sys
from pathlib import Path

import pytest
import torch

from beyond_adam.training import checkpoints


def state(epoch):
    return {"weight": torch.full((3, 2), float(epoch)), "rows": [{"epoch": epoch, "loss": 0.5}]}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the checkpoints of epochs 1 to 3, as many as are kept."""
    for epoch in (1, 2, 3):
        checkpoints.save(tmp_path, epoch, state(epoch))
    return tmp_path


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def newest(folder):
    """Return the number of epochs of the newest checkpoint, which has to be what was saved."""
    found = checkpoints.newest(folder)
    if found is None:
        return None
    epoch, content = found
    assert torch.equal(content["weight"], state(epoch)["weight"])
    assert content["rows"] == state(epoch)["rows"]
    return epoch


def test_the_last_two_are_kept(folder):
    assert names(folder) == ["checkpoint-000002.pt", "checkpoint-000003.pt"]
    assert newest(folder) == 3


def test_epochs_are_in_the_order_of_numbers(tmp_path):
    for epoch in (9, 10, 99, 100, 1000):
        checkpoints.save(tmp_path, epoch, state(epoch))
    assert newest(tmp_path) == 1000


def test_without_a_checkpoint_there_is_none(tmp_path, capsys):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None
    assert capsys.readouterr().out == ""


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "truncated": lambda content: content[:-1],
    "cut-in-half": lambda content: content[: len(content) // 2],
    "digest-alone": lambda content: content[:32],
    "empty": lambda _: b"",
    "longer": lambda content: content + b"\0",
    "altered-digest": lambda content: flip(content, 0),
    "altered-byte": lambda content: flip(content, len(content) // 2),
    "zeros": lambda content: bytes(len(content)),
}


def damage(file, how):
    file.write_bytes(DAMAGES[how](file.read_bytes()))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_said_to_be_so_and_the_one_before_is_taken(folder, capsys, how):
    damage(folder / "checkpoint-000003.pt", how)
    assert newest(folder) == 2
    said = f"{folder}/checkpoint-000003.pt: damaged, going back to the one before\n"
    assert capsys.readouterr().out == said
    damage(folder / "checkpoint-000002.pt", how)
    assert newest(folder) is None
    assert capsys.readouterr().out.count("damaged, going back") == 2


def test_damaged_checkpoints_do_not_take_the_place_of_whole_ones(folder):
    for file in folder.iterdir():
        damage(file, "altered-byte")
    checkpoints.save(folder, 1, state(1))
    assert newest(folder) == 1
    assert names(folder) == ["checkpoint-000001.pt"]
    checkpoints.save(folder, 2, state(2))
    assert names(folder) == ["checkpoint-000001.pt", "checkpoint-000002.pt"]


@pytest.mark.parametrize("how", DAMAGES)
def test_the_two_that_are_kept_are_whole(folder, how):
    damage(folder / "checkpoint-000003.pt", how)
    checkpoints.save(folder, 4, state(4))
    assert names(folder) == ["checkpoint-000002.pt", "checkpoint-000004.pt"]
    damage(folder / "checkpoint-000004.pt", how)
    assert newest(folder) == 2


def test_what_was_saved_on_a_gpu_can_be_taken_up_where_there_is_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _storage: "cuda:0")
        checkpoints.save(tmp_path, 1, state(1))
    assert newest(tmp_path) == 1
    assert checkpoints.newest(tmp_path)[1]["weight"].is_cpu


def test_what_a_killed_process_left_behind_is_no_checkpoint(folder):
    (folder / "checkpoint.part").write_bytes(b"half")
    assert newest(folder) == 3
    checkpoints.save(folder, 4, state(4))
    assert newest(folder) == 4
    assert names(folder) == ["checkpoint-000003.pt", "checkpoint-000004.pt"]


def no_space(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("where", "what"), [(Path, "open"), (os, "fsync"), (Path, "replace")], ids=lambda x: str(x)
)
def test_a_full_disk_leaves_the_earlier_checkpoints(folder, monkeypatch, where, what):
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(where, what, no_space)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(folder, 4, state(4))
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert newest(folder) == 3


class Killed(BaseException):
    pass


def killed_at(line, function, *args):
    """Call a function of `checkpoints`, and end it before it comes to so many lines there."""

    def trace(frame, event, _arg):
        nonlocal line
        if frame.f_code.co_filename != checkpoints.__file__:
            return None
        if event == "line":
            line -= 1
            if line == 0:
                raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*args)
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an open file
def test_a_process_may_be_killed_at_any_line_of_a_save(folder):
    line, saved = 1, []
    while killed_at(line, checkpoints.save, folder, 4, state(4)):
        saved.append(newest(folder))
        for file in folder.iterdir():
            file.unlink()
        for epoch in (2, 3):
            checkpoints.save(folder, epoch, state(epoch))
        line += 1
    assert saved[0] == 3
    assert saved[-1] == 4
    assert saved == sorted(saved)
    assert len(saved) > 10
    assert newest(folder) == 4


def test_nothing_is_left_when_they_are_removed(folder):
    (folder / "checkpoint.part").touch()
    (folder / "record.json").touch()
    checkpoints.remove(folder)
    assert names(folder) == ["record.json"]
