"""`VllmEngine`: paths as requests to a running vLLM, one request per path.

Each request is read by a task of its own, so that it is read to its end even when nobody listens
any more: closing vLLM's generator would lose the count of the tokens made meanwhile. It knows no
trees and no text. How a request's fields are translated stands in `vllm_requests.py`, how an
engine is set up in `vllm_settings.py`; what all requests of a tree carry is a field of `Context`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from vllm.exceptions import VLLMError
from vllm.inputs import tokens_input

from treepo.engines.base import Chunk, EngineInfo, PathRequest, Uncertainty
from treepo.engines.vllm_requests import EntropyRow, EntropySource, Translator, to_error, to_params
from treepo.engines.vllm_settings import start_client
from treepo.errors import EngineError

STREAM_INTERVAL = 16
"""Tokens per chunk. Nearly all that long chunks save is saved at 16 (vLLM's output processor takes
3.0 microseconds a token, 4.9 at 1 and 2.9 at 64); a decision comes half an interval late on
average, and the usual KV block is no shorter."""

_SHUTDOWN_S = 30.0
"""Seconds for vLLM's processes to end by themselves; killed ones leave shared memory behind."""


@dataclass(frozen=True, slots=True)
class Context:
    """What every request of one tree carries, so that its branches find the trunk's blocks."""

    lora_request: Any
    cache_salt: str | None
    priority: int
    data_parallel_rank: int | None
    trace_headers: Mapping[str, str] | None


@dataclass(slots=True)
class _Reading:
    """One open request, between the task that reads it and whoever listens."""

    chunks: asyncio.Queue[Chunk | EngineError] = field(default_factory=asyncio.Queue)
    is_aborted: bool = False
    is_heard: bool = True


@dataclass(slots=True)
class _Shared:
    """State that all views of one engine have in common."""

    open: dict[str, _Reading] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    unheard_tokens: int = 0
    weight_version: str = ""
    failure: EngineError | None = None


class VllmEngine:
    """An `Engine` over vLLM's `EngineClient`; see the module docstring.

    Args:
        client: A running `AsyncLLM`, or the engine client of vLLM's server.
        stream_interval: Tokens per chunk.
        entropies: Where exact entropies are found; without it, or once it has failed, paths
            report surprisal.
    """

    def __init__(
        self,
        client: Any,
        *,
        stream_interval: int = STREAM_INTERVAL,
        entropies: EntropySource | None = None,
    ) -> None:
        self.client = client
        self._stream_interval = stream_interval
        self._entropies = entropies
        self._context = Context(None, None, 0, None, None)
        self._shared = _Shared()
        self._info = _read_info(client.vllm_config, _kind(entropies))

    @classmethod
    def start(
        cls,
        model: str,
        *,
        stream_interval: int = STREAM_INTERVAL,
        entropies: EntropySource | None = None,
        **arguments: Any,
    ) -> Self:
        """An engine of its own, ready to generate; blocks while the model is loaded.

        What the arguments leave open is filled in by `vllm_settings.start_client`. A script that
        calls this needs `if __name__ == "__main__"`: vLLM's processes import it again.

        Args:
            model: A local folder or a name on the model hub.
            stream_interval: Tokens per chunk.
            entropies: As in the constructor; by default a ring of the engine's own.
            **arguments: vLLM's `AsyncEngineArgs`.
        """
        from treepo.engines.entropy_source import open_ring

        client = start_client(model, arguments)
        entropies = entropies or open_ring(client.vllm_config).ring
        return cls(client, stream_interval=stream_interval, entropies=entropies)

    def close(self) -> None:
        """End the engine that `start` started, with its processes."""
        # Let go of as well: kept until the interpreter's end, vLLM's client fails noisily there.
        client, self.client = self.client, None
        client.shutdown(timeout=_SHUTDOWN_S)

    @property
    def info(self) -> EngineInfo:
        """Block size, lengths, and what is reported per token."""
        return replace(self._info, weight_version=self._shared.weight_version)

    @property
    def num_open(self) -> int:
        """Requests that have not been read to their end, heard or not."""
        return len(self._shared.open)

    async def load_folder(self, folder: Path, version: str) -> None:
        """Sample with the weights of a folder from now on; see `vllm_weights.load_folder`."""
        from treepo.engines.vllm_weights import load_folder

        await load_folder(self, folder, version)

    def set_weights(self, version: str, failure: EngineError | None = None) -> None:
        """Say which weights it has now, and with `failure` that they are of no use.

        Every request raises the failure until the next call.
        """
        self._shared.weight_version, self._shared.failure = version, failure

    @property
    def unheard_tokens(self) -> int:
        """Tokens that arrived for requests to which nobody listened any more."""
        return self._shared.unheard_tokens

    def bind(
        self,
        *,
        lora_request: Any = None,
        cache_salt: str | None = None,
        priority: int = 0,
        data_parallel_rank: int | None = None,
        trace_headers: Mapping[str, str] | None = None,
        without_uncertainty: bool = False,
    ) -> VllmEngine:
        """A view of this engine for one tree; every path then carries these.

        Args:
            lora_request: vLLM's `LoRARequest`.
            cache_salt: Keeps the tree's prefix cache apart from that of other salts.
            priority: For `--scheduling-policy priority`.
            data_parallel_rank: The rank that holds the tree's blocks.
            trace_headers: OpenTelemetry headers of the caller.
            without_uncertainty: Report none; saves the log-probs that only surprisal needs.
        """
        view = copy.copy(self)
        view._context = Context(
            lora_request, cache_salt, priority, data_parallel_rank, trace_headers
        )
        if without_uncertainty or (self._entropies and self._entropies.has_failed):
            view._entropies = None
        kind = Uncertainty.NONE if without_uncertainty else _kind(view._entropies)
        view._info = replace(self._info, uncertainty=kind)
        return view

    async def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        """Stream one path; see `Engine.generate`.

        A listener that leaves early ends the path: the request is aborted and read to its end in
        the background, where its tokens count as `unheard_tokens`.

        Raises:
            EngineError: vLLM refused or failed the request.
        """
        reading = _Reading()
        self._shared.open[request.id] = reading
        task = asyncio.create_task(self._read(request, reading))
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)
        try:
            finish: str | None = None
            while finish is None:
                chunk = await reading.chunks.get()
                if isinstance(chunk, EngineError):
                    raise chunk
                finish = chunk.finish_reason
                yield chunk
        finally:
            await self._leave(request.id, reading)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests; their last tokens and a final chunk still arrive."""
        opened = self._shared.open
        if any(id_ not in opened for id_ in request_ids):
            # A path whose task was created in this turn of the event loop asks for it now.
            await asyncio.sleep(0)
        running = [id_ for id_ in request_ids if id_ in opened]
        for id_ in running:
            opened[id_].is_aborted = True
        if running:
            await self._abort(running)

    async def drain(self) -> None:
        """Wait until every request has been read to its end."""
        while self._shared.tasks:
            await asyncio.wait(set(self._shared.tasks))

    async def _read(self, request: PathRequest, reading: _Reading) -> None:
        last: Chunk | EngineError = EngineError("reading from vLLM was broken off")
        if self._shared.failure is not None:
            self._close(request.id, reading, None, self._shared.failure)
            return
        row = self._entropies.acquire() if self._entropies else None
        try:
            if reading.is_aborted:
                last = Chunk((), finish_reason="abort")
            else:
                last = await self._stream(request, reading, row)
        except VLLMError as error:
            last = to_error(error)
        except EngineError as error:
            last = error
        finally:
            self._close(request.id, reading, row, last)

    async def _stream(
        self, request: PathRequest, reading: _Reading, row: EntropyRow | None
    ) -> Chunk:
        """Deliver all chunks but the last, and return that.

        The generator is read until it ends by itself: left behind, it would abort the request.
        """
        is_surprisal = self._info.uncertainty is Uncertainty.SURPRISAL
        translator = Translator(is_surprisal, request.sampling.logprobs is not None, row)
        last: Chunk | None = None
        async for output in self._outputs(request, row):
            chunk = translator.chunk(output)
            if chunk.finish_reason is not None:
                last = chunk
                continue
            self._deliver(reading, chunk)
            if reading.is_aborted:
                # The abort overtook the request on its way into the engine.
                await self._abort([request.id])
        if last is None:
            raise EngineError("vLLM ended a request without a finish reason")
        if last.finish_reason == "error":
            self._deliver(reading, replace(last, finish_reason=None))
            raise EngineError("vLLM lost a request; it may be sent again", is_retryable=True)
        return last

    def _outputs(self, request: PathRequest, row: EntropyRow | None) -> Any:
        sampling, context = request.sampling, self._context
        logprobs = sampling.logprobs
        is_surprisal = self._info.uncertainty is Uncertainty.SURPRISAL
        if logprobs is None and (sampling.wants_logprobs or is_surprisal):
            logprobs = 0
        return self.client.generate(
            tokens_input(list(request.token_ids), cache_salt=context.cache_salt),
            to_params(
                sampling,
                logprobs=logprobs,
                stream_interval=self._stream_interval,
                extra_args=row.extra_args if row else None,
            ),
            request.id,
            lora_request=context.lora_request,
            trace_headers=context.trace_headers,
            priority=context.priority,
            data_parallel_rank=context.data_parallel_rank,
        )

    async def _leave(self, id_: str, reading: _Reading) -> None:
        reading.is_heard = False
        while not reading.chunks.empty():
            self._deliver(reading, reading.chunks.get_nowait())
        if self._shared.open.get(id_) is reading:
            await self.abort([id_])

    def _deliver(self, reading: _Reading, chunk: Chunk | EngineError) -> None:
        if reading.is_heard:
            reading.chunks.put_nowait(chunk)
        elif isinstance(chunk, Chunk):
            self._shared.unheard_tokens += len(chunk.token_ids)

    def _close(
        self, id_: str, reading: _Reading, row: EntropyRow | None, last: Chunk | EngineError
    ) -> None:
        if self._shared.open.get(id_) is reading:
            del self._shared.open[id_]
        if row is not None:
            row.release()
        self._deliver(reading, last)

    async def _abort(self, request_ids: list[str]) -> None:
        # Of a dead engine those who read its requests are told, and nothing is left to end.
        with suppress(VLLMError):
            await self.client.abort(request_ids)


def _kind(entropies: EntropySource | None) -> Uncertainty:
    return Uncertainty.SURPRISAL if entropies is None else Uncertainty.ENTROPY


def _read_info(config: Any, uncertainty: Uncertainty) -> EngineInfo:
    cache = config.cache_config
    return EngineInfo(
        block_size=cache.effective_attention_block_size or cache.block_size,
        max_model_len=config.model_config.max_model_len,
        max_live_paths=config.scheduler_config.max_num_seqs,
        uncertainty=uncertainty,
    )
