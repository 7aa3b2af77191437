"""How a route's answer is completed with its tree: whole, or as a stream.

A `Face` gets what vLLM's handler made and the trees behind it. Here is the one of the routes whose
answers are lists of choices; `/v1/responses` has its own in `responses.py`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import Response

from treepo_server.response.answer import TreeAnswer
from treepo_server.response.sse import Frame, TreeStream, count_tokens
from treepo_server.trees.client import TreeClient
from treepo_server.ways_in.streams import OwnedStream


class Face(Protocol):
    """What a route adds to vLLM's answers."""

    @property
    def is_single(self) -> bool:
        """Whether an answer has room for one output only."""
        ...

    def completed(self, answer: Any, client: TreeClient, raw_request: Request) -> dict[str, Any]:
        """The body of a whole answer."""
        ...

    async def streamed(
        self, answer: Any, client: TreeClient, raw_request: Request, model: str
    ) -> Response:
        """The response of a streamed answer, from vLLM's generator.

        Raises:
            TreePOError: It ended before anything was sent.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChoicesFace:
    """Chat and text completions; `frame` is that of their chunks."""

    frame: Callable[[str, int, str], Frame]
    is_single: bool = False

    def completed(self, answer: Any, client: TreeClient, raw_request: Request) -> dict[str, Any]:
        """VLLM's response with the tree in it, and usage that counts every token once."""
        tree = client.answer
        _count(raw_request.state.request_metadata.final_usage_info, tree)
        body: dict[str, Any] = answer.model_dump()
        count_tokens(body["usage"], tree.num_tokens(), tree.num_cached())
        for choice in body["choices"]:
            choice["tree"] = tree.choice(choice["index"])
        body["tree"] = tree.report()
        return body

    async def streamed(
        self, answer: Any, client: TreeClient, raw_request: Request, model: str
    ) -> Response:
        """VLLM's chunks, with progress, the ends of choices and the whole tree."""
        name: str = raw_request.state.request_metadata.request_id
        frame = self.frame(name, int(time.time()), model)
        asked = client.request
        stream = TreeStream(client.answer, frame, asked.num_choices, asked.counts_always)
        lines = _lines(stream, answer, client.answer, raw_request)
        return OwnedStream(lines, lines)


async def _lines(
    stream: TreeStream, chunks: AsyncGenerator[str, None], tree: TreeAnswer, raw_request: Request
) -> AsyncGenerator[str, None]:
    """The lines of a stream; where the caller leaves, vLLM's generator ends, and its tree."""
    async with aclosing(stream.events(chunks)) as lines:
        async for line in lines:
            yield line
    usage = raw_request.state.request_metadata.final_usage_info
    if usage is not None and tree.is_finished:
        _count(usage, tree)


def _count(usage: Any, tree: TreeAnswer) -> None:
    """The same for the usage that vLLM's middleware reads."""
    usage.completion_tokens = tree.num_tokens()
    usage.total_tokens = usage.prompt_tokens + tree.num_tokens()
