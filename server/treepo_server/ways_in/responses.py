"""The face of `/v1/responses`: one output, one tree per turn, and events instead of chunks.

vLLM's generator makes the events; here progress is put between them (another `response.in_progress`
with the tree so far), they are numbered anew, and the last one gets the tree and its usage. The
request is checked before the first line is sent, so that a wrong one is still an HTTP error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from vllm.exceptions import GracefulHTTPError

from treepo.errors import TreePOError
from treepo_server.response.errors import reply
from treepo_server.response.sse import PROGRESS_INTERVAL_S, with_silences
from treepo_server.trees.client import TreeClient
from treepo_server.ways_in.streams import OwnedStream

NUM_OPENING = 2
"""Events that vLLM sends before it asks the engine: `response.created`, `response.in_progress`."""


@dataclass(frozen=True, slots=True)
class ResponsesFace:
    """`/v1/responses`."""

    is_single: bool = True

    def completed(self, answer: Any, client: TreeClient, raw_request: Request) -> dict[str, Any]:
        """VLLM's response with the tree in it, and usage that counts every token once."""
        return _with_tree(_dumped(answer), client)

    async def streamed(
        self, answer: Any, client: TreeClient, raw_request: Request, model: str
    ) -> Response:
        """VLLM's events, with progress between them and the tree in the last."""
        opening = [await anext(answer) for _ in range(NUM_OPENING)]
        rest = Begun(answer)
        try:
            await rest.until(client.is_planned)
        except BaseException:
            await rest.aclose()
            raise
        return OwnedStream(_lines(opening, rest, client), rest)


class Begun:
    """A generator of events whose next event is already on its way."""

    def __init__(self, events: AsyncGenerator[Any, None]) -> None:
        self._events = events
        self._step = asyncio.ensure_future(anext(events, None))

    async def until(self, flag: asyncio.Event) -> None:
        """Wait for the flag or the next event.

        Raises:
            TreePOError: What ended the generator instead, or vLLM's own errors.
        """
        waiting = asyncio.ensure_future(flag.wait())
        try:
            await asyncio.wait({self._step, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._step.done():
            self._step.result()

    async def items(self) -> AsyncGenerator[Any, None]:
        """The events."""
        while (event := await self._step) is not None:
            yield event
            self._step = asyncio.ensure_future(anext(self._events, None))

    async def aclose(self) -> None:
        """End the generator, and with it its tree."""
        self._step.cancel()
        await asyncio.wait({self._step})
        if not self._step.cancelled():
            self._step.exception()  # what it was has been said, or nobody is there to hear it
        await self._events.aclose()


async def _lines(opening: list[Any], rest: Begun, client: TreeClient) -> AsyncIterator[str]:
    events = [_dumped(event) for event in opening]
    known = events[-1]["response"]
    events[-1]["response"] = {**known, "tree": client.answer.progress()}
    number = 0
    async with aclosing(_bodies(events, rest, known, client)) as bodies:
        async for body in bodies:
            body["sequence_number"] = number
            number += 1
            yield _line(body)


async def _bodies(
    opening: list[dict[str, Any]], rest: Begun, known: dict[str, Any], client: TreeClient
) -> AsyncGenerator[dict[str, Any], None]:
    for body in opening:
        yield body
    try:
        async with aclosing(with_silences(rest.items(), PROGRESS_INTERVAL_S)) as events:
            async for event in events:
                yield _progress(known, client) if event is None else _body(event, client)
    except (TreePOError, GracefulHTTPError) as error:
        failure = {"code": "server_error", "message": _message(error)}
        response = {**known, "status": "failed", "error": failure}
        yield {"type": "response.failed", "response": response}


def _progress(known: dict[str, Any], client: TreeClient) -> dict[str, Any]:
    response = {**known, "tree": client.answer.progress()}
    return {"type": "response.in_progress", "response": response}


def _body(event: Any, client: TreeClient) -> dict[str, Any]:
    body = _dumped(event)
    if body["type"] == "response.completed":
        body["response"] = _with_tree(body["response"], client)
    return body


def _with_tree(response: dict[str, Any], client: TreeClient) -> dict[str, Any]:
    """The response with the tree of its last turn; earlier turns' trees stand beside it."""
    reports = [answer.report() for answer in client.answers]
    response["tree"] = reports[-1]
    if len(reports) > 1:
        response["tree"]["earlier_turns"] = reports[:-1]
    usage = response["usage"]
    usage["output_tokens"] = sum(answer.num_tokens() for answer in client.answers)
    usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
    return response


def _message(error: Exception) -> str:
    if isinstance(error, TreePOError):
        message: str = reply(error).body["error"]["message"]
        return message
    return str(error)


def _dumped(model: Any) -> dict[str, Any]:
    body: dict[str, Any] = model.model_dump(mode="json", by_alias=True)
    return body


def _line(body: dict[str, Any]) -> str:
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"event: {body['type']}\ndata: {data}\n\n"
