"""`treepo serve [MODEL] [any vLLM flag]`: vLLM's server with tree search in it.

The server runs in a process group of its own and this process only watches it, for two reasons:
vLLM exits with 0 when its engine dies, and leaves processes behind when it is killed. What is
served, and with which settings, is decided in `treepo_server.launch.vllm_serve`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from treepo.local.processes import Ended, run_contained
from treepo_server.settings.versions import check_vllm


def run(argv: Sequence[str]) -> int:
    """Serves until interrupted, terminated or failed; returns the exit code.

    0 after an interrupt, a termination or `--help`; vLLM's own code where it failed with one;
    1 where it ended without being asked to, as it does when the engine dies.

    Raises:
        UnsupportedError: The installed vLLM is outside the accepted range.
    """
    check_vllm()
    # -P: a folder named vllm where the user stands must not shadow the package.
    launch = [sys.executable, "-P", "-m", "treepo_server.launch.vllm_serve", *argv]
    ended = run_contained(launch)
    code = exit_code(
        ended,
        is_help=any(word in ("-h", "--help") or word.startswith("--help=") for word in argv),
    )
    if code == 1 and ended.code == 0:
        print("treepo: error: the engine died; its last words are above", file=sys.stderr)
    return code


def exit_code(ended: Ended, *, is_help: bool) -> int:
    """The code for a server that ended like this."""
    if ended.was_asked:
        return 0
    if ended.code == 0 and not is_help:
        return 1
    return ended.code
