"""What a newcomer's machine may lack: one clear line each, and a failure."""

import os
import runpy
import shutil
import subprocess
import sys
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
    for name in ("MAKEFLAGS", "MAKELEVEL"):  # of the make that runs the tests
        clean.pop(name, None)
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


@pytest.mark.parametrize(
    ("failing", "used"),
    [
        ([], ["uv", "lock by uv", "project"]),
        (["lock by uv"], ["uv", "lock by uv", "lock by pip", "project"]),
        (["lock by uv", "lock by pip"], ["uv", "lock by uv", "lock by pip"]),
        (["uv"], ["uv"]),
    ],
)
def test_pip_installs_what_uv_cannot(checkout, failing, used, capsys):
    names = {"uv.txt": "uv", "requirements.lock": "lock by pip", ".": "project"}
    seen = []

    def pretend(_log, *command):
        if "venv" in command:
            return True
        name = "lock by uv" if "uv" in command else names[Path(command[-1]).name or "."]
        seen.append(name)
        return name not in failing

    set_up = runpy.run_path(str(checkout / "tools" / "set_up.py"))["main"]
    set_up.__globals__["run"] = pretend
    if used[-1] == "project":
        set_up()
    else:
        with pytest.raises(SystemExit, match="set-up: pip cannot install the lock"):
            set_up()
    assert seen == used
    assert (checkout / ".venv" / "ready").exists() == (used[-1] == "project")
    assert "set-up: installing" in capsys.readouterr().out
    first, *hashes = (checkout / ".venv" / "uv.txt").read_text().splitlines()
    assert first.startswith("uv==")
    assert hashes
    assert all(line.strip().startswith("--hash=sha256:") for line in hashes)


def test_help_lists_the_targets(checkout):
    done = make(checkout, "help")
    assert done.returncode == 0
    for target in ("book", "test", "verify", "paper", "lab", "serve", "clean"):
        assert f"make {target} " in done.stdout


@pytest.fixture
def ready(checkout):
    """Pretend that the environment was set up, and return how to say by what."""

    def pretend(change=lambda lines: lines):
        wanted = runpy.run_path(str(checkout / "tools" / "set_up.py"))["wanted"]()
        (checkout / ".venv").mkdir()
        (checkout / ".venv" / "kept").touch()
        (checkout / ".venv" / "ready").write_text("\n".join(change(wanted.splitlines())))

    return pretend


def test_what_is_ready_is_left_alone(checkout, ready):
    ready()
    os.utime(checkout / ".venv" / "ready", (0, 0))  # older than the lock
    done = make(checkout, ".venv/ready", f"PYTHON={sys.executable}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("changed", "kept"), [({0: "(3, 9)"}, False), ({1: "/elsewhere"}, False), ({2: "0"}, True)]
)
def test_what_is_of_another_python_or_place_is_made_anew(checkout, ready, changed, kept):
    ready(lambda lines: [changed.get(i, line) for i, line in enumerate(lines)])
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    done = make(checkout, ".venv/ready", f"PYTHON={sys.executable}", **nowhere, PIP_RETRIES="1")
    assert "set-up: installing the locked packages" in done.stdout
    assert "pip cannot reach" in done.stderr
    assert (checkout / ".venv" / "kept").exists() == kept
    assert not (checkout / ".venv" / "ready").exists()


def test_an_environment_keeps_its_python(checkout):
    said = 'print-%:; @echo "$($*)"\n'
    (checkout / "Makefile").write_text((checkout / "Makefile").read_text() + said)
    assert make(checkout, "print-PYTHON").stdout == "python3\n"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert make(checkout, "print-PYTHON").stdout == ".venv/bin/python\n"
    assert make(checkout, "print-PYTHON", "PYTHON=python3.12").stdout == "python3.12\n"
