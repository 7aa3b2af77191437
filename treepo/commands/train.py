"""`treepo train CONFIG [key=value ...]`: policy updates from sampled trees.

It reads the configuration, opens the engine and hands over to `treepo.train.run`. A run that is
in `output_dir` is resumed. The last line on stdout is a JSON object with the summary.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from treepo.commands.watched import watch, work

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("config", help="YAML file; see docs/training.md")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="for example optimizer.lr=1e-5 steps=50"
    )
    parser.add_argument("--trees", help="learn from this rollout file instead of sampling")


def run(args: Namespace) -> int:
    """Trains, in a process that this one only watches; returns 0, or what the run ended with.

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
    return watch(__name__, config)


def main(argv: Sequence[str]) -> int:
    """The watched process: trains as the configuration, a JSON object, says."""
    return work(lambda: _train(argv[0]))


def _train(said: str) -> int:
    from treepo.local.backends import VllmBackend
    from treepo.local.embedded import prepare
    from treepo.train.config import TrainConfig
    from treepo.train.report import warn_plainly
    from treepo.train.run import load_transformers, open_rollouts, run_training

    warn_plainly()
    config = TrainConfig.model_validate_json(said)
    name = config.model or str(prepare())
    backend = VllmBackend(config.model, {"use_tqdm_on_load": False, **config.engine.vllm})
    summary = run_training(
        config,
        backend.tokenizer(),
        lambda: load_transformers(config, name),
        lambda: open_rollouts(config, backend),
    )
    if os.environ.get("RANK", "0") == "0":  # accelerate starts this command once per rank
        print(json.dumps(summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
