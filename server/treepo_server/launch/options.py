"""The flags that `treepo serve` adds to vLLM's: each sets the variable that its value is read from.

So `treepo serve` and vLLM's own server obey the same variables, in every API process. What a
variable means is said here, once: `--help` and docs/configuration.md repeat it. A further one is
a line in `FLAGS` and a field of `Limits` or `Capacity`.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import replace

from treepo_server.observe.logs import JSON_CONFIG
from treepo_server.settings.aliases import KEY as ALIASES
from treepo_server.settings.aliases import Aliases, with_flags
from treepo_server.settings.capacity import Capacity
from treepo_server.settings.limits import PREFIX, Limits

FLAGS = {
    "tree-max-width": "largest `tree.width` of a request",
    "tree-max-depth": "largest `tree.max_depth` of a request",
    "tree-max-total-tokens": "largest `tree.max_total_tokens` of a request",
    "tree-max-live-paths": "most paths that all trees run at one time, where the engine takes more;"
    " each API process has at least one per rank",
    "tree-share": "part of the engine's slots that trees may use, above 0",
    "tree-max-waiting": "trees that may wait for their first slot, in each API process; further"
    " ones get a 429",
    "tree-kv-full": "KV usage above which no tree gets a further path",
    "tree-drain-s": "seconds for running trees after a SIGTERM; 0 leaves signals to vLLM",
}
_NAMES = {"tree-max-waiting": "max_waiting_trees", "tree-share": "tree_share"}
_SETTLE_S = 5.0
"""Seconds that an API process has beyond the grace time before its parent kills it."""


def variable(flag: str) -> str:
    """The environment variable that a flag sets."""
    return PREFIX + _NAMES.get(flag, flag.removeprefix("tree-").replace("-", "_")).upper()


def add_flags(parser: ArgumentParser) -> None:
    """Add them to vLLM's."""
    for flag, meaning in FLAGS.items():
        parser.add_argument(f"--{flag}", metavar="N", help=f"{meaning} ({variable(flag)})")
    parser.add_argument(
        "--tree-alias",
        action="append",
        default=[],
        metavar="NAME={...}",
        help=f"a model name that stands for such a `tree` ({ALIASES}); may be given again",
    )
    parser.add_argument("--log-json", action="store_true", help="one JSON object a log line")


def apply_flags(args: Namespace) -> None:
    """Take them out of the arguments, into the environment of this process and those it starts.

    Raises:
        ConfigError: A value is wrong; the variable is named.
    """
    said = vars(args)
    for flag in FLAGS:
        value = said.pop(flag.replace("-", "_"))
        if value is not None:
            os.environ[variable(flag)] = value
    aliases = said.pop("tree_alias")
    if aliases:
        os.environ[ALIASES] = with_flags(os.environ.get(ALIASES, ""), aliases)
    if said.pop("log_json"):
        _log_json(args)
    Aliases.from_env(os.environ, Limits.from_env(os.environ))
    _leave_time(args, Capacity.from_env(os.environ).drain_s)


def _log_json(args: Namespace) -> None:
    from vllm.config.logging import LoggingConfig

    os.environ["VLLM_LOGGING_CONFIG_PATH"] = JSON_CONFIG
    config = getattr(args, "logging_config", None) or LoggingConfig()
    args.logging_config = replace(config, pylogging_config_file=JSON_CONFIG)


def _leave_time(args: Namespace, drain_s: float) -> None:
    """Have vLLM's supervisor wait for its API processes, which it would kill at once."""
    count = args.api_server_count or args.data_parallel_size
    if count > 1 and drain_s > 0:
        args.shutdown_timeout = max(args.shutdown_timeout, int(drain_s + _SETTLE_S))
