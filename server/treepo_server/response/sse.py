"""The tree's part of a stream of server-sent events: progress, per-choice reports, usage, the end.

vLLM's own generator writes the chunks; here they pass through, and only those that end a choice or
carry usage are opened. The last chunk before `[DONE]` gets the report of the whole tree. While
nothing arrives, a chunk with an empty delta keeps the connection alive. It samples nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

PROGRESS_INTERVAL_S = 1.0
"""Longest silence on a stream, in seconds."""

DONE = "data: [DONE]\n\n"
_PREFIX = "data: "
# Quotes within strings are escaped, so this is never part of a text.
_INDEX = re.compile(r'"choices":\[{"index":(\d+),')
T = TypeVar("T")


class _End:
    """Behind the last item."""


_END = _End()


class StreamedTree(Protocol):
    """What the stream asks of its tree while it grows and when it has ended."""

    def progress(self) -> dict[str, Any]:
        """The `tree` of a progress chunk."""
        ...

    @property
    def has_news(self) -> bool:
        """Whether a choice was opened that no progress chunk has told of."""
        ...

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        ...

    def num_tokens(self) -> int:
        """Tokens generated so far; once the tree has ended, exactly."""
        ...

    def num_cached(self) -> int:
        """Tokens of the prompt that the prefix cache held, as far as known."""
        ...

    def choice(self, index: int) -> dict[str, Any]:
        """The `tree` of a choice's last chunk."""
        ...

    def report(self) -> dict[str, Any] | None:
        """The `tree` of the last chunk; None where the tree failed."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """What all chunks of a stream share, and what an empty choice looks like in them."""

    base: dict[str, Any]
    empty_choice: dict[str, Any]

    def chunk(self, index: int, **fields: Any) -> dict[str, Any]:
        """A chunk with one empty choice, which gets `fields`."""
        return {**self.base, "choices": [{"index": index, **self.empty_choice, **fields}]}


def chat_frame(request_id: str, created: int, model: str) -> Frame:
    """The frame of `/v1/chat/completions`."""
    base = {"id": request_id, "object": "chat.completion.chunk", "created": created, "model": model}
    return Frame(base, {"delta": {}, "logprobs": None, "finish_reason": None})


def completion_frame(request_id: str, created: int, model: str) -> Frame:
    """The frame of `/v1/completions`."""
    base = {"id": request_id, "object": "text_completion", "created": created, "model": model}
    return Frame(base, {"text": "", "logprobs": None, "finish_reason": None})


@dataclass(slots=True)
class TreeStream:
    """One streamed answer.

    Attributes:
        tree: The tree being streamed.
        frame: For chunks of our own.
        num_choices: Choices that get a last chunk each; further ones only where they begin.
        counts_always: Whether every chunk carries usage (`continuous_usage_stats`).
    """

    tree: StreamedTree
    frame: Frame
    num_choices: int
    counts_always: bool = False
    _held: dict[str, Any] | None = None
    _finished: set[int] = field(default_factory=set)
    _unbegun: dict[int, str] = field(default_factory=dict)
    _begun: set[int] = field(default_factory=set)

    async def events(
        self, chunks: AsyncGenerator[str, None], interval_s: float = PROGRESS_INTERVAL_S
    ) -> AsyncGenerator[str, None]:
        """The stream that the caller reads, from the one that vLLM writes."""
        yield self._progress()
        async with aclosing(with_silences(chunks, interval_s)) as pieces:
            async for piece in pieces:
                for line in self._lines(piece):
                    yield line

    def _lines(self, piece: str | None) -> list[str]:
        if piece is None:
            return [self._progress()]
        if piece == DONE:
            return [*(_line(chunk) for chunk in self._last()), DONE]
        # Where a choice forked off is told before its first text.
        news = [self._progress()] if self.tree.has_news else []
        return [*news, *self._passed(piece)]

    def _progress(self) -> str:
        return _line(self._own(0, {"tree": self.tree.progress()}))

    def _own(self, index: int, more: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """A chunk that vLLM did not write: an empty choice with `fields`, and `more` beside it."""
        chunk = {**self.frame.chunk(index, **fields), **more}
        if self.counts_always:
            chunk["usage"] = self._counted({"prompt_tokens": self.tree.num_prompt_tokens})
        return chunk

    def _counted(self, usage: dict[str, Any]) -> dict[str, Any]:
        count_tokens(usage, self.tree.num_tokens(), self.tree.num_cached())
        return usage

    def _passed(self, piece: str) -> list[str]:
        """The lines to send now; a chunk that may be the last one waits for the next."""
        if self._is_early(piece):
            return []
        lines = [_line(chunk) for chunk in self._released()] + self._begin(piece)
        if '"finish_reason":"' not in piece and '"usage":{' not in piece:
            return [*lines, piece]
        chunk = json.loads(piece.removeprefix(_PREFIX))
        if not chunk["choices"]:
            lines += [_line(unused) for unused in self._unused()]
        ending = [choice for choice in chunk["choices"] if choice.get("finish_reason")]
        for choice in ending:
            self._finished.add(choice["index"])
            choice["tree"] = self.tree.choice(choice["index"])
        if chunk.get("usage"):
            self._counted(chunk["usage"])
        if chunk["choices"] and not ending:
            return [*lines, _line(chunk)]
        self._held = chunk
        return lines

    def _released(self) -> list[dict[str, Any]]:
        """The chunk that was held, if there is one, with the count as it is now."""
        chunk, self._held = self._held, None
        if chunk is not None and chunk.get("usage"):
            self._counted(chunk["usage"])
        return [] if chunk is None else [chunk]

    def _is_early(self, piece: str) -> bool:
        """Whether a piece only names the role of a choice that may never begin; it is kept."""
        if '"role":"' not in piece:
            return False
        index = json.loads(piece.removeprefix(_PREFIX))["choices"][0]["index"]
        if index < self.num_choices or index in self._unbegun or index in self._begun:
            return False
        self._unbegun[index] = piece
        return True

    def _begin(self, piece: str) -> list[str]:
        """The role of the further choice that begins with this piece."""
        match = _INDEX.search(piece)
        if match is None or int(match[1]) < self.num_choices:
            return []
        index = int(match[1])
        self._begun.add(index)
        if index not in self._unbegun:
            return []
        role = json.loads(self._unbegun.pop(index).removeprefix(_PREFIX))
        if role.get("usage"):  # as of when the stream began
            self._counted(role["usage"])
        return [_line(role)]

    def _last(self) -> list[dict[str, Any]]:
        report = self.tree.report()
        chunks = self._released()
        if report is None:
            return chunks
        chunks += self._unused()
        if chunks:
            chunks[-1]["tree"] = report
        return chunks

    def _unused(self) -> list[dict[str, Any]]:
        """Last chunks for choices that no path has filled."""
        missing = sorted((set(range(self.num_choices)) | self._begun) - self._finished)
        self._finished.update(missing)
        return [
            self._own(index, {}, finish_reason="stop", tree=self.tree.choice(index))
            for index in missing
        ]


def count_tokens(usage: dict[str, Any], num_tokens: int, num_cached: int) -> None:
    """Let a usage object count every generated token once, instead of those of the choices."""
    usage["completion_tokens"] = num_tokens
    usage["total_tokens"] = usage["prompt_tokens"] + num_tokens
    if usage.get("prompt_tokens_details"):
        usage["prompt_tokens_details"]["cached_tokens"] = num_cached


def _line(chunk: dict[str, Any]) -> str:
    return f"{_PREFIX}{json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def with_silences(
    items: AsyncGenerator[T, None], interval_s: float
) -> AsyncGenerator[T | None, None]:
    """The items, and None whenever none came for `interval_s` seconds."""
    step = asyncio.ensure_future(anext(items, _END))
    try:
        while True:
            done, _ = await asyncio.wait({step}, timeout=interval_s)
            if not done:
                yield None
                continue
            item = step.result()
            if isinstance(item, _End):
                return
            yield item
            step = asyncio.ensure_future(anext(items, _END))
    finally:
        step.cancel()
        await asyncio.wait({step})
        if not step.cancelled():
            step.exception()  # raised above already, or nobody is there to hear it
        await items.aclose()
