"""A stream as events: which path opened where, what it says, how it ended, and the whole tree.

Pure functions of one chunk of the SDK. A further event is a class here and a line in `events_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openai.types.chat import ChatCompletionChunk

from treepo_client.report import Tree


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the tree has come."""

    live_paths: int
    finished: int
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A path begins to stream; its first `start` tokens are those of path `parent`.

    One that `is_late` was opened knowing what stands behind its fork, so its weight is not exact.
    """

    index: int
    parent: int | None
    start: int
    is_late: bool


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what a path thinks before its text, where the server keeps the two apart."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """More text of a path; a forked path begins with the text that it inherits."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A path has ended, and why."""

    index: int
    finish: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """The tree has ended; `tree.winner` is the index of the winning path."""

    tree: Tree


Event = Progress | Opened | Reasoning | Text | Ended | Done


def events_of(chunk: ChatCompletionChunk) -> Iterator[Event]:
    """The events of one chunk, in their order."""
    told: dict[str, Any] = getattr(chunk, "tree", None) or {}
    if "progress" in told:
        yield from _progress(told["progress"])
    for choice in chunk.choices:
        if reasoning := getattr(choice.delta, "reasoning", None):
            yield Reasoning(choice.index, reasoning)
        if choice.delta.content:
            yield Text(choice.index, choice.delta.content)
        if choice.finish_reason:
            own: dict[str, Any] = getattr(choice, "tree", None) or {}
            finish = own.get("finish") or choice.finish_reason
            yield Ended(choice.index, finish, own.get("answer"))
    if "trajectories" in told:
        yield Done(Tree.model_validate(told))


def _progress(told: dict[str, Any]) -> Iterator[Event]:
    for path in told.get("opened", ()):
        yield Opened(path["index"], path["parent"], path["start"], path["is_late"])
    yield Progress(told["live_paths"], told["finished"], told["generated_tokens"])
