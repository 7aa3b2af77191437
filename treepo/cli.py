"""`treepo COMMAND ...`: finds the command and runs it.

Each command is a module of its own that is imported when it is called, so that `treepo --help`
stays instant and works without vLLM or torch. To add one, write a module with two functions,
`add_arguments(parser)` and `run(args) -> exit code`, and list it in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from treepo import __version__
from treepo.errors import TreePOError


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.

    Attributes:
        module: Where its functions are.
        summary: Its line in `treepo --help`.
        is_raw: Whether it parses its own arguments: `run` then gets the list of them, and the
            module needs no `add_arguments`.
    """

    module: str
    summary: str
    is_raw: bool = False


COMMANDS: dict[str, Command] = {
    "bench": Command("treepo.commands.bench", "does a tree pay for my model and my prompts?"),
    "chat": Command("treepo.commands.chat", "ask a running server and watch the tree grow"),
    "sample": Command("treepo.commands.sample", "grow a tree for each prompt of a file"),
    "serve": Command(
        "treepo.commands.serve",
        "serve a model over the OpenAI API; takes any flag of vLLM's `serve`",
        is_raw=True,
    ),
    "show": Command("treepo.commands.show", "draw the trees of a file"),
    "train": Command("treepo.commands.train", "policy updates from sampled trees"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, 2 for an error of ours, 130 for Ctrl-C.

    Args:
        argv: Arguments after the program's name; None for those of this process.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        return _run(words)
    except TreePOError as error:
        print(f"treepo: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    command = COMMANDS.get(name)
    parser, subparsers = _parsers()
    if command is None:
        parser.parse_args(words or ["--help"])
        return 0
    module = import_module(command.module)
    if not command.is_raw:
        module.add_arguments(subparsers[name])
    code: int = module.run(words[1:] if command.is_raw else parser.parse_args(words))
    return code


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The top parser, and that of each command, still without its own arguments."""
    parser = argparse.ArgumentParser(
        prog="treepo", description="Tree search at inference time for vLLM."
    )
    parser.add_argument("--version", action="version", version=f"treepo {__version__}")
    group = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    subparsers = {
        name: group.add_parser(name, help=command.summary, description=command.summary)
        for name, command in COMMANDS.items()
    }
    return parser, subparsers


if __name__ == "__main__":
    sys.exit(main())
