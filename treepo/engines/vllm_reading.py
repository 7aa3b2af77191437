"""The requests that are open in a running vLLM, each read to its end by a task of its own.

So it is read even when nobody listens any more: closing vLLM's generator would lose the count of
the tokens made meanwhile. It does not know what a request asks for or how its outputs are
translated (`vllm.py`); it gets chunks and an `abort`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from vllm.exceptions import VLLMError

from treepo.engines.base import Chunk
from treepo.engines.vllm_requests import to_error
from treepo.errors import EngineError

Abort = Callable[[list[str]], Awaitable[None]]


@dataclass(slots=True)
class _Reading:
    """One open request, between the task that reads it and whoever listens."""

    chunks: asyncio.Queue[Chunk | EngineError] = field(default_factory=asyncio.Queue)
    is_aborted: bool = False
    is_heard: bool = True


class Readings:
    """All open requests of one engine, whichever tree they belong to.

    Args:
        abort: Asks vLLM to end requests; their last outputs still come.

    Attributes:
        unheard_tokens: Tokens that arrived for requests to which nobody listened any more.
    """

    def __init__(self, abort: Abort) -> None:
        self.unheard_tokens = 0
        self._abort = abort
        self._open: dict[str, _Reading] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def num_open(self) -> int:
        """Requests that have not been read to their end, heard or not."""
        return len(self._open)

    async def listen(self, id_: str, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        """Read a request from now on, and hand on its chunks up to the last.

        A listener that leaves early ends the request, which is then read to its end unheard.

        Raises:
            EngineError: vLLM refused or failed the request.
        """
        reading = _Reading()
        self._open[id_] = reading
        task = asyncio.create_task(self._read(id_, reading, chunks))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            finish: str | None = None
            while finish is None:
                chunk = await reading.chunks.get()
                if isinstance(chunk, EngineError):
                    raise chunk
                finish = chunk.finish_reason
                yield chunk
        finally:
            await self._leave(id_, reading)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests; their last tokens and a final chunk still arrive."""
        if any(id_ not in self._open for id_ in request_ids):
            # A path whose task was created in this turn of the event loop asks for it now.
            await asyncio.sleep(0)
        running = [id_ for id_ in request_ids if id_ in self._open]
        for id_ in running:
            self._open[id_].is_aborted = True
        if running:
            await self._ask_to_end(running)

    async def drain(self) -> None:
        """Wait until every request has been read to its end."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _read(self, id_: str, reading: _Reading, chunks: AsyncIterator[Chunk]) -> None:
        last: Chunk | EngineError = EngineError("reading from vLLM was broken off")
        try:
            if reading.is_aborted:
                last = Chunk((), finish_reason="abort")
            else:
                last = await self._stream(id_, reading, chunks)
        except VLLMError as error:
            last = to_error(error)
        except EngineError as error:
            last = error
        finally:
            if self._open.get(id_) is reading:
                del self._open[id_]
            self._deliver(reading, last)

    async def _stream(self, id_: str, reading: _Reading, chunks: AsyncIterator[Chunk]) -> Chunk:
        """Deliver all chunks but the last, and return that.

        The generator is read until it ends by itself: left behind, it would abort the request.
        """
        last: Chunk | None = None
        async for chunk in chunks:
            if chunk.finish_reason is not None:
                last = chunk
                continue
            self._deliver(reading, chunk)
            if reading.is_aborted:
                # The abort overtook the request on its way into the engine.
                await self._ask_to_end([id_])
        if last is None:
            raise EngineError("vLLM ended a request without a finish reason; see its log for why")
        if last.finish_reason == "error":
            self._deliver(reading, replace(last, finish_reason=None))
            raise EngineError("vLLM lost a request; it may be sent again", is_retryable=True)
        return last

    async def _leave(self, id_: str, reading: _Reading) -> None:
        reading.is_heard = False
        while not reading.chunks.empty():
            self._deliver(reading, reading.chunks.get_nowait())
        if self._open.get(id_) is reading:
            await self.abort([id_])

    def _deliver(self, reading: _Reading, chunk: Chunk | EngineError) -> None:
        if reading.is_heard:
            reading.chunks.put_nowait(chunk)
        elif isinstance(chunk, Chunk):
            self.unheard_tokens += len(chunk.token_ids)

    async def _ask_to_end(self, request_ids: list[str]) -> None:
        # Of a dead engine those who read its requests are told, and nothing is left to end.
        with suppress(VLLMError):
            await self._abort(request_ids)
