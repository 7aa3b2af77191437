"""The tree's part of a stream of server-sent events: progress, per-choice reports, usage, the end.

vLLM's own generator writes the chunks; here they pass through, and only those that end a choice or
carry usage are opened. The last chunk before `[DONE]` gets the report of the whole tree. While
nothing arrives, a chunk with an empty delta keeps the connection alive. It samples nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

PROGRESS_INTERVAL_S = 1.0
"""Longest silence on a stream, in seconds."""

DONE = "data: [DONE]\n\n"
_PREFIX = "data: "


class StreamedTree(Protocol):
    """What the stream asks of its tree while it grows and when it has ended."""

    def progress(self) -> dict[str, Any]:
        """The `tree` of a progress chunk."""
        ...

    def num_tokens(self) -> int:
        """Tokens generated so far; once the tree has ended, exactly."""
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
        num_choices: Choices that get a last chunk each.
    """

    tree: StreamedTree
    frame: Frame
    num_choices: int
    _held: dict[str, Any] | None = None
    _finished: set[int] = field(default_factory=set)

    async def events(
        self, chunks: AsyncGenerator[str, None], interval_s: float = PROGRESS_INTERVAL_S
    ) -> AsyncGenerator[str, None]:
        """The stream that the caller reads, from the one that vLLM writes."""
        yield self._progress()
        async with aclosing(_with_silences(chunks, interval_s)) as pieces:
            async for piece in pieces:
                for line in self._lines(piece):
                    yield line

    def _lines(self, piece: str | None) -> list[str]:
        if piece is None:
            return [self._progress()]
        if piece == DONE:
            return [*(_line(chunk) for chunk in self._last()), DONE]
        return self._passed(piece)

    def _progress(self) -> str:
        return _line({**self.frame.chunk(0), "tree": self.tree.progress()})

    def _passed(self, piece: str) -> list[str]:
        """The lines to send now; a chunk that may be the last one waits for the next."""
        lines = [] if self._held is None else [_line(self._held)]
        self._held = None
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
            count_tokens(chunk["usage"], self.tree.num_tokens())
        if chunk["choices"] and not ending:
            return [*lines, _line(chunk)]
        self._held = chunk
        return lines

    def _last(self) -> list[dict[str, Any]]:
        report = self.tree.report()
        chunks = [] if self._held is None else [self._held]
        self._held = None
        if report is None:
            return chunks
        chunks += self._unused()
        if chunks:
            chunks[-1]["tree"] = report
        return chunks

    def _unused(self) -> list[dict[str, Any]]:
        """Last chunks for choices that no path has filled."""
        missing = sorted(set(range(self.num_choices)) - self._finished)
        self._finished.update(missing)
        return [
            self.frame.chunk(index, finish_reason="stop", tree=self.tree.choice(index))
            for index in missing
        ]


def count_tokens(usage: dict[str, Any], num_tokens: int) -> None:
    """Let a usage object count every generated token once, instead of those of the choices."""
    usage["completion_tokens"] = num_tokens
    usage["total_tokens"] = usage["prompt_tokens"] + num_tokens


def _line(chunk: dict[str, Any]) -> str:
    return f"{_PREFIX}{json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _with_silences(
    chunks: AsyncGenerator[str, None], interval_s: float
) -> AsyncGenerator[str | None, None]:
    """The chunks, and None whenever none came for `interval_s` seconds."""
    step = asyncio.ensure_future(anext(chunks, DONE))
    try:
        while True:
            done, _ = await asyncio.wait({step}, timeout=interval_s)
            if not done:
                yield None
                continue
            piece = step.result()
            yield piece
            if piece == DONE:
                return
            step = asyncio.ensure_future(anext(chunks, DONE))
    finally:
        step.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await step
        await chunks.aclose()
