"""Makes the environment in .venv, with exactly the packages of requirements.lock.

Run by the Makefile with whatever Python the machine has, so: the standard library only, and no
syntax newer than what can still print that the Python is too old. It does nothing when .venv holds
what the lock asks for. Everything the installers say goes to .venv/set-up.log.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
OLDEST = (3, 11)


def fail(message):
    """End with one line on what is wrong."""
    sys.exit("set-up: " + message)


def wanted():
    """Return the fingerprint of the environment that the lock describes for this Python."""
    text = f"{sys.version_info[:2]} {ROOT}"
    for name in ("requirements.lock", "pyproject.toml"):
        text += hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
    return text


def run(log, *command):
    """Run a command with its output in the log; return whether it succeeded."""
    return subprocess.call([str(part) for part in command], stdout=log, stderr=log, cwd=ROOT) == 0


def main():
    """Set the environment up, unless it is."""
    if sys.version_info < OLDEST:
        needed, here = (".".join(map(str, v[:2])) for v in (OLDEST, sys.version_info))
        fail(f"Python {needed} or newer is needed, {sys.executable} is {here}; see PYTHON=…")
    stamp = VENV / "ready"
    if stamp.is_file() and stamp.read_text() == wanted():
        stamp.touch()  # newer than the lock again, so that make does not ask next time
        return
    print("set-up: installing the locked packages into .venv; this takes minutes, once", flush=True)
    VENV.mkdir(exist_ok=True)
    with (VENV / "set-up.log").open("w") as log:
        see = f"; see {log.name}"
        if not run(log, sys.executable, "-m", "venv", VENV):
            fail("Python has no venv module (Debian, Ubuntu: install python3-venv)" + see)
        pip = (VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install")
        if not run(log, *pip, "--require-hashes", "-r", "requirements.lock"):
            said = Path(log.name).read_text()
            offline = any(word in said for word in ("NewConnectionError", "Retrying", "resolution"))
            cannot = "reach the package index (no network?)" if offline else "install the lock"
            fail(f"pip cannot {cannot}{see}")
        if not run(log, *pip, "--no-deps", "--no-build-isolation", "-e", "."):
            fail("the project itself cannot be installed" + see)
    stamp.write_text(wanted())


if __name__ == "__main__":
    main()
