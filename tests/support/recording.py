"""An engine around another that writes down what was asked and what was emitted.

It also causes trouble on demand: errors before or amid a stream, and aborts that are ignored for
requests the engine does not know, as `Engine.abort` allows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from treepo.engines.base import Chunk, Engine, EngineInfo, PathRequest


@dataclass
class Emitted:
    """Everything one request has sent to the sampler."""

    request: PathRequest
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    uncertainty: list[float] = field(default_factory=list)
    cached: int | None = None
    has_ended: bool = False

    def take(self, chunk: Chunk) -> None:
        self.token_ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        self.uncertainty.extend(chunk.uncertainty)
        if self.cached is None:
            self.cached = chunk.num_cached_tokens


Fault = Callable[[PathRequest, int], BaseException | None]
"""From a request and the number of chunks it has sent, the error to raise now, or None."""


def no_fault(request: PathRequest, num_chunks: int) -> BaseException | None:
    return None


class RecordingEngine:
    """Passes everything through and remembers it."""

    def __init__(self, inner: Engine, fault: Fault = no_fault) -> None:
        self.inner = inner
        self.fault = fault
        self.sent: dict[str, Emitted] = {}
        self.running: set[str] = set()
        self.aborted: list[str] = []

    @property
    def info(self) -> EngineInfo:
        return self.inner.info

    @property
    def num_generated_tokens(self) -> int:
        return sum(len(emitted.token_ids) for emitted in self.sent.values())

    async def abort(self, request_ids: Sequence[str]) -> None:
        self.aborted.extend(request_ids)
        await self.inner.abort([name for name in request_ids if name in self.running])

    async def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        assert request.id not in self.sent, "request ids are unique"
        emitted = self.sent[request.id] = Emitted(request)
        self.running.add(request.id)
        num_chunks = 0
        try:
            async with aclosing(self.inner.generate(request)) as stream:  # type: ignore[type-var]
                while True:
                    error = self.fault(request, num_chunks)
                    if error is not None:
                        raise error
                    chunk = await anext(stream, None)
                    if chunk is None:
                        return
                    num_chunks += 1
                    emitted.take(chunk)
                    yield chunk
        finally:
            emitted.has_ended = True
            self.running.discard(request.id)
