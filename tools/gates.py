"""The gates that no linter has: file length, one machine's paths and indexes, names of lost files.

Each gate reads the files that git tracks or would track and returns lines `file:line: what`; a
new gate is a function in `GATES`. Style belongs to ruff and layers to import-linter.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400

HOMES = "home|root|Users|work|mnt"
MACHINE_PATH = re.compile(rf"(?<![\w./~$}}-])/(?:{HOMES})/[\w.-]")
INDEX = re.compile(r"--(?:extra-)?(?:index-url|find-links)\b|https?://")
NAMED = re.compile(r"`([\w./-]+\.py)`")


@cache
def tracked() -> list[Path]:
    """Text files that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S603
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def length(path: Path, lines: list[str]) -> Iterator[str]:
    """No Python file is longer than two screens' worth of scrolling."""
    if path.suffix == ".py" and len(lines) > MAX_LINES:
        yield f"{MAX_LINES}: {len(lines)} lines, {MAX_LINES} are allowed: split it by its jobs"


def machine_paths(path: Path, lines: list[str]) -> Iterator[str]:
    """No file names a folder of somebody's machine."""
    here = str(ROOT) + "/"
    for number, line in enumerate(lines, 1):
        if here in line or MACHINE_PATH.search(line):
            yield f"{number}: an absolute path of one machine: make it relative"


def index_hosts(path: Path, lines: list[str]) -> Iterator[str]:
    """Requirements name packages, not where to get them."""
    if path.parent.name != "requirements":
        return
    for number, line in enumerate(lines, 1):
        if INDEX.search(line):
            yield f"{number}: a package index: leave that to the machine's own configuration"


def named_files(path: Path, lines: list[str]) -> Iterator[str]:
    """The docstring of a module names only files that are there."""
    if path.suffix != ".py":
        return
    docstring = ast.get_docstring(ast.parse("\n".join(lines))) or ""
    for name in NAMED.findall(docstring):
        if not any(known.as_posix().endswith(f"/{name}") for known in tracked()):
            number = next(n for n, line in enumerate(lines, 1) if f"`{name}`" in line)
            yield f"{number}: no file is called `{name}`: name the one that has the job now"


GATES = (length, machine_paths, index_hosts, named_files)


def main() -> int:
    """Prints every breach; 1 if there is one."""
    breaches = 0
    for path in tracked():
        lines = path.read_text(errors="replace").splitlines()
        for gate in GATES:
            for breach in gate(path, lines):
                print(f"{path.relative_to(ROOT)}:{breach}", file=sys.stderr)
                breaches += 1
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
