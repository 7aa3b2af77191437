"""Runs a command, keeps its exit code, and ends whatever it left behind.

`.ci/run` calls it as `python -m tools.contained COMMAND`, since CI must leave no process on the
machine. It runs before anything is installed, so it loads `treepo/local/processes.py` as a file;
what a leftover means is for the reader of the log.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "treepo" / "local" / "processes.py"


def main(command: list[str]) -> int:
    """The command's exit code; names on stderr what it left behind."""
    spec = importlib.util.spec_from_file_location("processes", SOURCE)
    if spec is None or spec.loader is None:
        raise ImportError(str(SOURCE))
    processes = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = processes
    spec.loader.exec_module(processes)
    outcome = processes.run_contained(command)
    for line in outcome.leftovers:
        print(f"contained: was left behind and has been ended: {line}", file=sys.stderr)
    code: int = outcome.code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
