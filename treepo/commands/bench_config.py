"""What `treepo bench` can be told: one frozen configuration, and the arguments that fill it.

It starts nothing. An option is a field of `BenchConfig` and a line in `add_arguments`.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from treepo.answers.reader import parse_rule
from treepo.commands.arguments import add_settings, said_in, settings, validated
from treepo.config import parse_tree_config
from treepo.local.embedded import MODEL_NAME
from treepo.verdict.plans import POOL, Plan, replayed_plans

TREE = "tree"
"""How the caller's own settings are called."""


class BenchConfig(BaseModel):
    """What `treepo bench` was asked to do.

    Attributes:
        prompts: The prompt file.
        answers: The column with the right answers, or a file with one answer a line.
        output: The folder for trees, results and plots; a later run goes on with its trees.
        model: A folder, a hub name or the server's name for it; None for the embedded model, or
            for the server's first.
        base_url: A running server, with `/v1`; None for an engine of its own.
        api_key: The server's key; None for that of the environment.
        tree: How the trees grow that are held against independent sampling.
        max_tokens: Most generated tokens of a trajectory.
        temperature: Of the sampling.
        top_p: Nucleus, 1 for everything.
        concurrency: Trees that grow at one time.
        limit: Only the first so many prompts.
        vllm: vLLM's `AsyncEngineArgs`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: Path
    answers: str = "answer"
    output: Path = Path("treepo-bench")
    model: str | None = None
    base_url: str | None = None
    api_key: str | None = None
    tree: dict[str, Any] = {}
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    concurrency: Annotated[int, Field(ge=1)] = 8
    limit: Annotated[int, Field(ge=1)] | None = None
    vllm: dict[str, Any] = {}

    @property
    def sampling(self) -> dict[str, Any]:
        """How tokens are drawn, as `Sampling` calls it."""
        return self.model_dump(include={"max_tokens", "temperature", "top_p"})

    @property
    def origin(self) -> dict[str, Any]:
        """What the trees depend on beside their own settings."""
        return {"model": self.model or MODEL_NAME, "base_url": self.base_url}

    @property
    def plans(self) -> list[Plan]:
        """Independent sampling, the caller's trees, and independent sampling that stops early."""
        tree = parse_tree_config(self.tree)
        pool = Plan(POOL, tree.whole_samples(tree.width).model_dump())
        return [pool, Plan(TREE, self.tree), *replayed_plans()]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--prompts", required=True, help="JSON lines, as for `treepo sample`")
    parser.add_argument(
        "--answers", help="column with the right answers (answer), or a file, one answer a line"
    )
    parser.add_argument(
        "--model", help="folder or hub name; default: the embedded model, or the server's first"
    )
    parser.add_argument("--base-url", help="a running server instead, with /v1")
    parser.add_argument("--api-key", help="default: the variable TREEPO_API_KEY, or none")
    add_settings(parser, "--tree", "tree settings to judge, for example width=8")
    parser.add_argument("-o", "--output", help="folder for trees, results, plots (treepo-bench)")
    parser.add_argument("--max-tokens", help="most tokens of a trajectory (1024)")
    parser.add_argument("--temperature", help="sampling temperature (1.0)")
    parser.add_argument("--top-p", help="nucleus (1.0)")
    parser.add_argument("--concurrency", help="trees at one time (8)")
    parser.add_argument("--limit", help="only the first so many prompts")
    add_settings(parser, "--vllm", "arguments of vLLM's engine")


def parse(args: Namespace) -> BenchConfig:
    """The configuration that the arguments ask for.

    Raises:
        ConfigError: An argument is out of range; it names the argument.
        FieldError: A tree setting is; it names the setting.
    """
    said = said_in(args)
    said["tree"] = settings("--tree", args.tree)
    parse_rule(parse_tree_config(said["tree"]).answer)
    return validated(BenchConfig, said)
