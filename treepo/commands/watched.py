"""A command's work in a process of its own, which the one the user started only watches.

vLLM leaves processes behind when it is killed; the watcher ends them. It knows no command: one
that samples with an engine of its own gives its module to `watch`, and its work to `work`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from pydantic import BaseModel

from treepo.errors import TreePOError
from treepo.local.processes import end_with_parent, run_contained

_INTERRUPTED = 130


def watch(module: str, config: BaseModel) -> int:
    """Runs a module with a configuration, as JSON, to its end; returns its exit code."""
    ended = run_contained([sys.executable, "-P", "-m", module, config.model_dump_json()])
    return _INTERRUPTED if ended.was_asked else ended.code


def work(task: Callable[[], int]) -> int:
    """Does the work of the watched process; returns its exit code, 2 for an error of ours.

    A termination, which is what the watcher makes of Ctrl-C, ends it as Ctrl-C would: trees are
    closed, and the engine's processes ended.
    """
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return task()
    except TreePOError as error:
        print(f"treepo: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
