"""Makes the environment in .venv, with exactly the packages of requirements.lock.

Run by the Makefile with whatever Python the machine has, so: the standard library only, and no
syntax newer than what can still print that the Python is too old. It does nothing when .venv holds
what the lock asks for, and begins anew when .venv is of another Python or was made in another
place. Everything the installers say goes to .venv/set-up.log.
"""

import hashlib
import shutil
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
    """Return what the environment has to be of: this Python and place, and the packages locked."""
    files = [ROOT / name for name in ("requirements.lock", "pyproject.toml")]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return "\n".join([str(sys.version_info[:2]), str(ROOT), *hashes])


def pinned(package):
    """Return what the lock says of a package: its version and hashes."""
    lines = iter((ROOT / "requirements.lock").read_text().splitlines())
    found = [next(line for line in lines if line.startswith(package + "=="))]
    while found[-1].endswith("\\"):
        found.append(next(lines))
    return "\n".join(found)


def run(log, *command):
    """Run a command with its output in the log; return whether it succeeded."""
    return subprocess.call([str(part) for part in command], stdout=log, stderr=log, cwd=ROOT) == 0


def main():
    """Set the environment up, unless it is."""
    if sys.version_info < OLDEST:
        needed, here = (".".join(map(str, v[:2])) for v in (OLDEST, sys.version_info))
        fail(f"Python {needed} or newer is needed, {sys.executable} is {here}; see PYTHON=…")
    stamp = VENV / "ready"
    made = stamp.read_text() if stamp.is_file() else ""
    if made == wanted():
        return
    python = Path(sys.executable).resolve()  # not the one in .venv, which may go
    if made and made.splitlines()[:2] != wanted().splitlines()[:2]:
        shutil.rmtree(VENV)
    stamp.unlink(missing_ok=True)
    print("set-up: installing the locked packages into .venv; this takes minutes, once", flush=True)
    VENV.mkdir(exist_ok=True)
    with (VENV / "set-up.log").open("w") as log:
        see = f"; see {log.name}"
        if not run(log, python, "-m", "venv", VENV):
            fail("Python has no venv module (Debian, Ubuntu: install python3-venv)" + see)
        inside = VENV / "bin" / "python"
        pip = (inside, "-m", "pip", "--disable-pip-version-check", "install")
        # Bytecode now, as pip makes it: later processes may not be allowed to keep theirs.
        uv = (inside, "-m", "uv", "pip", "install", "--python", inside, "--compile-bytecode")
        locked = ("--require-hashes", "-r")
        first = VENV / "uv.txt"
        first.write_text(pinned("uv"))
        # uv is several times as fast, but does not know where pip is told to look for packages.
        if not run(log, *pip, *locked, first) or (
            not run(log, *uv, *locked, "requirements.lock")
            and not run(log, *pip, *locked, "requirements.lock")
        ):
            said = Path(log.name).read_text()
            offline = any(word in said for word in ("NewConnectionError", "Retrying", "resolution"))
            cannot = "reach the package index (no network?)" if offline else "install the lock"
            fail(f"pip cannot {cannot}{see}")
        if not run(log, *pip, "--no-deps", "--no-build-isolation", "-e", "."):
            fail("the project itself cannot be installed" + see)
    stamp.write_text(wanted())


if __name__ == "__main__":
    main()
