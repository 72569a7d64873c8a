import subprocess

import pytest

from beyond_adam import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return an empty checkout with one commit, of which git is asked anew."""
    (tmp_path / "_toc.yml").touch()
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "First"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.setenv("BEYOND_ADAM_ROOT", str(tmp_path))
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


def test_a_commit_is_clean_until_something_changes(checkout):
    head, dirty = provenance.commit()
    assert len(head) == 40
    assert not dirty
    (checkout / "new").touch()
    provenance.commit.cache_clear()
    assert provenance.commit() == (head, True)


@pytest.mark.parametrize(("changed", "dirty"), [("data/runs/a", False), ("data/b", True)])
def test_a_folder_may_be_left_out(checkout, changed, dirty):
    (checkout / changed).parent.mkdir(parents=True, exist_ok=True)
    (checkout / changed).touch()
    assert provenance.commit(but="data/runs")[1] is dirty
    assert provenance.commit()[1]


def test_without_a_checkout_nothing_is_known(tmp_path, monkeypatch):
    (tmp_path / "_toc.yml").touch()
    monkeypatch.setenv("BEYOND_ADAM_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    provenance.commit.cache_clear()
    assert provenance.commit() == ("unknown", True)
    provenance.commit.cache_clear()
