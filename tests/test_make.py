"""What a newcomer's machine may lack: one clear line each, and a failure."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path):
    """A checkout that was never set up."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    return tmp_path


def make(folder, *arguments, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    clean.pop("MAKEFLAGS", None)
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=clean | environment, capture_output=True, text=True
    )


def test_an_unknown_profile(checkout):
    done = make(checkout, "PROFILE=huge")
    assert done.returncode != 0
    assert "unknown PROFILE=huge: choose smoke, quick or paper" in done.stderr


def test_no_python(checkout):
    done = make(checkout, "PYTHON=no-such-python")
    assert done.returncode != 0
    assert done.stderr.startswith("set-up: no no-such-python: install Python 3.11")


def test_an_old_python(checkout):
    old = checkout / "old-python"
    pretend = "import runpy, sys; sys.version_info = (3, 9, 2); sys.argv = sys.argv[1:]; "
    pretend += "runpy.run_path(sys.argv[0], run_name='__main__')"
    old.write_text(f'#!/bin/sh\nexec python3 -c "{pretend}" "$@"\n')
    old.chmod(0o755)
    done = make(checkout, f"PYTHON={old}")
    assert done.returncode != 0
    assert "set-up: Python 3.11 or newer is needed" in done.stderr
    assert "is 3.9" in done.stderr


def test_no_network(checkout):
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    done = make(checkout, **nowhere, PIP_RETRIES="1", PIP_NO_CACHE_DIR="1")
    assert done.returncode != 0
    assert "set-up: pip cannot reach the package index (no network?)" in done.stderr
    assert not (checkout / ".venv" / "ready").exists()


def test_help_lists_the_targets(checkout):
    done = make(checkout, "help")
    assert done.returncode == 0
    for target in ("book", "test", "verify", "paper", "lab", "serve", "clean"):
        assert f"make {target} " in done.stdout
