"""What the tests use beside the locked packages: Chromium, packages for JavaScript, and Helm.

`make test` calls it. It installs only what is missing and only where that needs no questions; the
tests of what stays missing are skipped and say so, so it never fails. Another such thing is
another function in `EXTRAS`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JAVASCRIPT = (ROOT / "clients" / "examples" / "javascript", ROOT / "tests" / "support" / "axe")
# Helm's own library, which is large and needed by one test: not among the locked packages.
HELM = ROOT / ".venv" / "helm"
HELM_PACKAGES = ("helm-python-sdk==0.2.2",)
DRIVER_LIBRARY = "libatomic.so.1"
LIMIT_S = 600


def has_library(name: str) -> bool:
    """Whether the system's loader finds a library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def chromium() -> list[list[str]]:
    """Commands that install the browser, and a library of Playwright's driver.

    None where they are there, or where it is not ours to do.
    """
    is_there = shutil.which("chromium") and has_library(DRIVER_LIBRARY)
    if is_there or os.geteuid() != 0 or not shutil.which("apt-get"):
        return []
    install = ["apt-get", "install", "--yes", "--no-install-recommends"]
    return [["apt-get", "update"], [*install, "chromium", "fonts-dejavu-core", "libatomic1"]]


def javascript() -> list[list[str]]:
    """Commands that install the packages of each folder: none where they are, or without npm."""
    if not shutil.which("npm"):
        return []
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--prefix"]
    missing = (folder for folder in JAVASCRIPT if not (folder / "node_modules").exists())
    return [[*install, str(folder)] for folder in missing]


def helm() -> list[list[str]]:
    """Commands that install Helm's library: none where it is."""
    if HELM.exists():
        return []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    return [[*pip, "--target", str(HELM), *HELM_PACKAGES]]


EXTRAS = (chromium, javascript, helm)


def main() -> int:
    """Runs the commands; a failure is a line on stderr and no more. Returns 0."""
    for extra in EXTRAS:
        for command in extra():
            print(f"extras: {' '.join(command[:2])} for {extra.__name__}", file=sys.stderr)
            if reason := _failure(command):
                said = f"extras: no {extra.__name__}, so its tests are skipped: {reason}"
                print(said, file=sys.stderr)
                break
    return 0


def _failure(command: list[str]) -> str:
    """Runs it; empty where that worked, else the last line of what it said."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(  # noqa: S603
            command,
            env=environment,
            timeout=LIMIT_S,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = [f"exit code {done.returncode}", *(done.stdout + done.stderr).split("\n")]
    return [line for line in lines if line.strip()][-1] if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
