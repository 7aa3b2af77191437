"""What `treepo sample` can be told: one frozen configuration, and the arguments that fill it.

It starts nothing. An option is a field of `SampleConfig` and a line in `add_arguments`.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from treepo.answers.reader import parse_rule
from treepo.commands.arguments import add_settings, said_in, settings, validated
from treepo.config import TreeConfig, parse_tree_config
from treepo.local.embedded import MODEL_NAME


class SampleConfig(BaseModel):
    """What `treepo sample` was asked to do.

    Attributes:
        prompts: The prompt file.
        output: The rollout file.
        model: A folder or a name on the model hub; None for the embedded model.
        tree: How trees grow.
        max_tokens: Most generated tokens of a trajectory.
        temperature: Of the sampling.
        top_p: Nucleus, 1 for everything.
        top_k: Most likely tokens kept, 0 for all.
        seed: Every prompt gets a seed of its own from it; None for none.
        concurrency: Trees that grow at one time; None for as many as fill the engine.
        limit: Only the first so many prompts of the file.
        vllm: vLLM's `AsyncEngineArgs`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: Path
    output: Path
    model: str | None = None
    tree: TreeConfig = TreeConfig()
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    vllm: dict[str, Any] = {}

    @property
    def sampling(self) -> dict[str, Any]:
        """How tokens are drawn, as `Sampling` calls it."""
        return self.model_dump(include={"max_tokens", "temperature", "top_p", "top_k", "seed"})

    @property
    def origin(self) -> dict[str, Any]:
        """What the trees depend on beside their own settings; every record carries it."""
        return {"model": self.model or MODEL_NAME, "sampling": self.sampling}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "prompts",
        help='JSON lines: {"prompt": "text"}, {"messages": [...]} or {"prompt_token_ids": [...]}; '
        "other columns are kept",
    )
    parser.add_argument("-o", "--output", required=True, help="rollout file; it is added to")
    parser.add_argument("--model", help="folder or hub name; default: the embedded model")
    add_settings(parser, "--tree", "tree settings, for example width=8 or '{\"width\": 8}'")
    parser.add_argument("--max-tokens", help="most tokens of a trajectory (1024)")
    parser.add_argument("--temperature", help="sampling temperature (1.0)")
    parser.add_argument("--top-p", help="nucleus (1.0)")
    parser.add_argument("--top-k", help="most likely tokens kept (0: all)")
    parser.add_argument("--seed", help="makes a rerun draw the same trees where it can")
    parser.add_argument("--concurrency", help="trees at one time; default: as many as fit")
    parser.add_argument("--limit", help="only the first so many prompts")
    add_settings(parser, "--vllm", "arguments of vLLM's engine, for example tensor_parallel_size=2")


def parse(args: Namespace) -> SampleConfig:
    """The configuration that the arguments ask for.

    Raises:
        ConfigError: An argument is out of range; it names the argument.
        FieldError: A tree setting is; it names the setting.
    """
    said = said_in(args)
    said["tree"] = parse_tree_config(settings("--tree", args.tree))
    parse_rule(said["tree"].answer)
    return validated(SampleConfig, said)
