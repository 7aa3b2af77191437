"""`treepo train CONFIG [key=value ...]`: policy updates from sampled trees.

It reads the configuration, opens the engine and hands over to `treepo.train.run`. A run that is
in `output_dir` is resumed. The last line on stdout is a JSON object with the summary.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treepo.errors import TreePOError
from treepo.local.processes import end_with_parent, run_contained

if TYPE_CHECKING:
    from treepo.train.config import TrainConfig

__all__ = ["add_arguments", "run"]

_INTERRUPTED = 130


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("config", help="YAML file; see docs/training.md")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="for example optimizer.lr=1e-5 steps=50"
    )
    parser.add_argument("--trees", help="learn from this rollout file instead of sampling")


def run(args: Namespace) -> int:
    """Trains; returns 0, or what the run ended with.

    vLLM leaves processes behind when it is killed, so it runs in a process that this one only
    watches.

    Raises:
        TreePOError: The configuration is wrong.
    """
    from treepo.train.config_file import load

    words = [*args.settings, *([f"trees={args.trees}", "data.train=null"] if args.trees else [])]
    config = load(args.config, words)
    # On a CPU engine and trainer take turns on the same cores: who waits must not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # vLLM warns at every load of weights, which is every step, of layers that have none.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    command = [sys.executable, "-P", "-m", "treepo.commands.train", config.model_dump_json()]
    outcome = run_contained(command)
    return _INTERRUPTED if outcome.was_asked else outcome.code


def main(argv: Sequence[str]) -> int:
    """The watched process: trains as the configuration, a JSON object, says."""
    from treepo.train.config import TrainConfig
    from treepo.train.report import warn_plainly

    end_with_parent()
    warn_plainly()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        summary = _train(TrainConfig.model_validate_json(argv[0]))
    except TreePOError as error:
        print(f"treepo: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
    if os.environ.get("RANK", "0") == "0":  # accelerate starts this command once per rank
        print(json.dumps(summary), flush=True)
    return 0


def _train(config: TrainConfig) -> dict[str, Any]:
    from treepo.local.backends import VllmBackend
    from treepo.local.embedded import prepare
    from treepo.train.run import load_transformers, open_rollouts, run_training

    name = config.model or str(prepare())
    backend = VllmBackend(config.model, {"use_tqdm_on_load": False, **config.engine.vllm})
    return run_training(
        config,
        backend.tokenizer(),
        lambda: load_transformers(config, name),
        lambda: open_rollouts(config, backend),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
