"""A Dockerfile as stages of instructions, without a container engine.

It knows the instructions that ours uses, refuses others, and runs nothing: `image.py` does that.
A further instruction is a word in `KNOWN`, and a case there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

KNOWN = frozenset(
    {"ARG", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM"}
    | {"HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR"}
)
_COMMENT = re.compile(r"^\s*#.*\n", re.MULTILINE)
_CONTINUED = re.compile(r"\\\n\s*")


class DockerfileError(Exception):
    """An instruction that is not understood; the message quotes it."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, and what follows in one line."""

    name: str
    words: str


@dataclass(frozen=True, slots=True)
class Stage:
    """What stands between one FROM and the next.

    Attributes:
        name: Behind AS.
        base: An image, or the name of an earlier stage.
        instructions: In their order, without FROM.
    """

    name: str
    base: str
    instructions: tuple[Instruction, ...]


def read(text: str) -> list[Stage]:
    """The stages of a Dockerfile; arguments before the first FROM are filled in.

    Raises:
        DockerfileError: It holds an instruction that is not known here.
    """
    fixed: dict[str, str] = {}
    stages: list[Stage] = []
    for line in _CONTINUED.sub("", _COMMENT.sub("", text)).splitlines():
        if not line.strip():
            continue
        name, _, words = line.partition(" ")
        if name not in KNOWN:
            raise DockerfileError(f"not known here: {line}")
        if name == "FROM":
            base, _, title = filled(words, fixed).partition(" AS ")
            stages.append(Stage(title.strip(), base.strip(), ()))
        elif not stages:
            fixed |= pairs(words)
        else:
            last = stages[-1]
            added = (*last.instructions, Instruction(name, words.strip()))
            stages[-1] = Stage(last.name, last.base, added)
    return stages


def filled(words: str, variables: Mapping[str, str]) -> str:
    """`words` with `${NAME}` replaced; an unknown name stays as it is."""
    return Template(words).safe_substitute(variables)


def pairs(words: str) -> dict[str, str]:
    """What `ARG` or `ENV` sets; an argument without a default sets nothing."""
    return dict(word.split("=", 1) for word in words.split() if "=" in word)


def command(words: str) -> Sequence[str]:
    """The program and its arguments of an ENTRYPOINT or of a HEALTHCHECK's CMD."""
    parsed: list[str] = json.loads(words[words.index("[") :])
    return parsed
