"""What `treepo sample` can be told: one frozen configuration, and the arguments that fill it.

It starts nothing. An option is a field of `SampleConfig` and a line in `add_arguments`.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from treepo.answers.reader import parse_rule
from treepo.config import TreeConfig, parse_tree_config
from treepo.errors import ConfigError
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
    parser.add_argument(
        "--tree",
        action="append",
        default=[],
        metavar="JSON|KEY=VALUE",
        help="tree settings, for example width=8 or '{\"width\": 8}'; may be repeated",
    )
    parser.add_argument("--max-tokens", help="most tokens of a trajectory (1024)")
    parser.add_argument("--temperature", help="sampling temperature (1.0)")
    parser.add_argument("--top-p", help="nucleus (1.0)")
    parser.add_argument("--top-k", help="most likely tokens kept (0: all)")
    parser.add_argument("--seed", help="makes a rerun draw the same trees where it can")
    parser.add_argument("--concurrency", help="trees at one time; default: as many as fit")
    parser.add_argument("--limit", help="only the first so many prompts")
    parser.add_argument(
        "--vllm",
        action="append",
        default=[],
        metavar="JSON|KEY=VALUE",
        help="arguments of vLLM's engine, for example tensor_parallel_size=2; may be repeated",
    )


def parse(args: Namespace) -> SampleConfig:
    """The configuration that the arguments ask for.

    Raises:
        ConfigError: An argument is out of range; it names the argument.
        FieldError: A tree setting is; it names the setting.
    """
    said = {name: value for name, value in vars(args).items() if value is not None}
    said.pop("command", None)
    said["vllm"] = settings("--vllm", args.vllm)
    said["tree"] = parse_tree_config(settings("--tree", args.tree))
    parse_rule(said["tree"].answer)
    try:
        return SampleConfig.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"`--{name}` is {first['input']!r}: {first['msg']}") from None


def settings(option: str, words: Sequence[str]) -> dict[str, Any]:
    """Repeated JSON objects and `key=value` pairs as one object, later ones first.

    Raises:
        ConfigError: A word is neither; it names the option.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            found[name] = _value(value)
        elif isinstance(given := _value(word), dict):
            found |= given
        else:
            raise ConfigError(f"`{option}` is {word!r}; write key=value or a JSON object")
    return found


def _value(text: str) -> Any:
    with suppress(json.JSONDecodeError):
        return json.loads(text)
    return text
