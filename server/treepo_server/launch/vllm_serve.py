"""Starts vLLM's own `serve` with this package's plugin enabled: the process under `treepo serve`.

It goes through vLLM's subcommand, so that every flag (API server counts, headless nodes, data
parallelism) means what it means there. The settings for a CPU are those of
`treepo.engines.vllm_settings`. It does not watch the engine: `treepo.commands.serve` does, from
outside. Module level stays light, since every process that vLLM spawns imports this module again.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from treepo.engines.vllm_settings import (
    CPU_DEFAULTS,
    cpu_defaults,
    cpu_environment,
    usable_cpus,
    with_entropies,
)
from treepo.engines.vllm_worker import WORKER
from treepo.errors import ConfigError, TreePOError
from treepo.local.embedded import MAX_MODEL_LEN, MODEL_NAME, prepare
from treepo.local.processes import end_with_parent
from treepo_server.launch.options import add_flags, apply_flags
from treepo_server.launch.plugins import ENDPOINT_GROUP, PLUGIN, plugin_names

HELP = """Serves a model over the OpenAI API, with tree search for requests that carry a `tree`.
Without MODEL it is the embedded SmolLM2-135M-Instruct. Every flag is vLLM's own: `--help=all`
shows them, `--help=ModelConfig` a group of them. Those that begin with --tree are added, and
--log-json; --tree-alias 'NAME={"width": 8}' lists a model NAME that samples such a tree, for
clients that cannot send one."""


def main(argv: Sequence[str]) -> int:
    """Serves until told to stop; returns the exit code of this process.

    Args:
        argv: Arguments of `treepo serve`: a model, or none, and any vLLM flag.
    """
    end_with_parent()
    try:
        _enable_plugin()
        command, args = _parsed(list(argv))
        command.validate(args)
        command.cmd(args)
    except TreePOError as error:
        print(f"treepo: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _enable_plugin() -> None:
    """Names the plugin to vLLM and loads it once, since vLLM serves on where that fails.

    Raises:
        ConfigError: The plugin is not installed, or vLLM is told not to load any.
    """
    groups = {group: entry_points(group=group).names for group in entry_points().groups}
    plugins = entry_points(group=ENDPOINT_GROUP, name=PLUGIN)
    if not plugins:
        message = "treepo is not installed as a package, so vLLM cannot find its plugin: "
        raise ConfigError(message + "pip install -e .")
    if os.environ.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        message = "VLLM_USE_RUST_FRONTEND is set; vLLM's Rust front end loads no plugin, so `tree` "
        raise ConfigError(message + "would be ignored: unset it")
    chosen = os.environ.get("VLLM_PLUGINS")
    os.environ["VLLM_PLUGINS"] = plugin_names(chosen, groups)
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    for plugin in plugins:
        plugin.load()


def _parsed(argv: list[str]) -> tuple[Any, Namespace]:
    """The serve command of vLLM and its arguments, with what the user left open filled in."""
    from vllm import logger
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.platforms import current_platform
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    command = ServeSubcommand()
    top = FlexibleArgumentParser(prog="treepo")
    parser = command.subparser_init(top.add_subparsers(dest="subparser"))
    parser.usage, parser.description = "treepo serve [MODEL] [any vLLM flag]", HELP
    if current_platform.is_cpu():
        parser.set_defaults(**CPU_DEFAULTS)
    add_flags(parser)
    args = top.parse_args(["serve", *_with_leading_model(argv)])
    apply_flags(args)
    if args.model_tag == MODEL_NAME or (
        args.model_tag is None and args.model == parser.get_default("model")
    ):
        _use_embedded(args)
    args.logits_processors = with_entropies(vars(args))
    args.worker_extension_cls = args.worker_extension_cls or WORKER
    if current_platform.is_cpu():
        _fit_to_cpu(args, parser.get_default("gpu_memory_utilization"))
    if configure := getattr(logger, "configure_logging_from_args", None):
        configure(args)
    return command, args


def _with_leading_model(argv: list[str]) -> list[str]:
    """The arguments, led by the embedded model's name where vLLM insists on a leading model.

    It does so for `--served-model-name` before it has looked at the rest.
    """
    flags = [word.partition("=")[0].replace("_", "-") for word in argv]
    if "--served-model-name" not in flags or "--config" in flags or "--model" in flags:
        return argv
    return [MODEL_NAME, *argv] if argv[0].startswith("-") else argv


def _use_embedded(args: Namespace) -> None:
    print(f"treepo: serving the embedded model, {MODEL_NAME}", file=sys.stderr, flush=True)
    args.model = args.model_tag = str(prepare())
    args.served_model_name = args.served_model_name or [MODEL_NAME]
    args.max_model_len = args.max_model_len or MAX_MODEL_LEN


def _fit_to_cpu(args: Namespace, default_memory_share: float) -> None:
    chosen = dict(vars(args))
    if args.gpu_memory_utilization == default_memory_share:
        chosen["gpu_memory_utilization"] = None
    for name, value in cpu_defaults(chosen).items():
        setattr(args, name, value)
    workers = args.tensor_parallel_size * args.pipeline_parallel_size * args.data_parallel_size
    os.environ.update(cpu_environment(workers, os.environ, usable_cpus()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
