"""What the tests use beside Python packages: Debian's Chromium, and `openai` for JavaScript.

`make test` calls it. It installs only what is missing and only where that needs no questions; the
tests of what stays missing are skipped and say so, so it never fails. Another such thing is
another function in `EXTRAS`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JAVASCRIPT = ROOT / "clients" / "examples" / "javascript"
LIMIT_S = 600


def chromium() -> list[list[str]]:
    """Commands that install the browser: none where it is there, or where it is not ours to do."""
    if shutil.which("chromium") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return []
    install = ["apt-get", "install", "--yes", "--no-install-recommends"]
    return [["apt-get", "update"], [*install, "chromium", "fonts-dejavu-core"]]


def javascript() -> list[list[str]]:
    """Commands that install the packages of the example: none where they are, or without npm."""
    if (JAVASCRIPT / "node_modules").exists() or not shutil.which("npm"):
        return []
    return [["npm", "install", "--no-package-lock", "--no-audit", "--prefix", str(JAVASCRIPT)]]


EXTRAS = (chromium, javascript)


def main() -> int:
    """Runs the commands; a failure is a line on stderr and no more. Returns 0."""
    for extra in EXTRAS:
        for command in extra():
            print(f"extras: {' '.join(command[:2])} for {extra.__name__}", file=sys.stderr)
            if not _runs(command):
                print(f"extras: no {extra.__name__}; its tests are skipped", file=sys.stderr)
                break
    return 0


def _runs(command: list[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(  # noqa: S603
            command, env=environment, timeout=LIMIT_S, check=False, capture_output=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
