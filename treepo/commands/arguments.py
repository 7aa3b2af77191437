"""What the commands that sample have in common: their arguments, and a configuration from them.

One job: words of a command line into a frozen model, with an error that names the argument. It
knows no command; an argument that two commands take is added here.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from treepo.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def add_settings(parser: ArgumentParser, option: str, help_text: str) -> None:
    """Add an option that takes JSON objects and `key=value` pairs, as often as wanted."""
    parser.add_argument(
        option,
        action="append",
        default=[],
        metavar="JSON|KEY=VALUE",
        help=f"{help_text}; may be repeated",
    )


def said_in(args: Namespace) -> dict[str, Any]:
    """What was said on the command line, `--vllm` as one object."""
    said = {name: value for name, value in vars(args).items() if value is not None}
    said.pop("command", None)
    said["vllm"] = settings("--vllm", args.vllm)
    return said


def validated(model: type[Config], said: dict[str, Any]) -> Config:
    """The configuration with these fields.

    Raises:
        ConfigError: A value is out of range; it names the argument.
    """
    try:
        return model.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"`--{name}` is {first['input']!r}: {first['msg']}") from None


def settings(option: str, words: Sequence[str]) -> dict[str, Any]:
    """Repeated JSON objects and `key=value` pairs as one object; of a key the last value holds.

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
