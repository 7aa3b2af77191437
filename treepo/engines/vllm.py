"""`VllmEngine`: paths as requests to a running vLLM, one request per path.

It knows no trees and no text. How open requests are read stands in `vllm_reading.py`, how a
request's fields are translated in `vllm_requests.py`, how an engine is set up in
`vllm_settings.py`; what all requests of a tree carry is a field of `Context`.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from vllm.inputs import tokens_input

from treepo.engines.base import Chunk, EngineInfo, PathRequest, Uncertainty
from treepo.engines.vllm_reading import Readings
from treepo.engines.vllm_requests import EntropyRow, EntropySource, Translator, to_params
from treepo.engines.vllm_settings import start_client
from treepo.errors import EngineError

STREAM_INTERVAL = 16
"""Tokens per chunk. Nearly all that long chunks save is saved at 16 (vLLM's output processor takes
3.0 microseconds a token, 4.9 at 1 and 2.9 at 64); a decision comes half an interval late on
average, and the usual KV block is no shorter."""
BRANCHING_INTERVAL = 4
"""Tokens per chunk of a path that may branch: a fork is seen with the chunk that it lies in, its
children start then, and forks nest. Few paths of a tree are of this kind."""

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
class _Weights:
    """The weights that all views of one engine sample with, and why they are of no use, if so."""

    version: str = ""
    failure: EngineError | None = None


class VllmEngine:
    """An `Engine` over vLLM's `EngineClient`; see the module docstring.

    Args:
        client: A running `AsyncLLM`, or the engine client of vLLM's server.
        entropies: Where exact entropies are found; without it, or once it has failed, paths
            report surprisal.
    """

    def __init__(self, client: Any, *, entropies: EntropySource | None = None) -> None:
        self.client = client
        self._entropies = entropies
        self._context = Context(None, None, 0, None, None)
        self._readings = Readings(self._abort)
        self._weights = _Weights()
        self._info = _read_info(client.vllm_config, _kind(entropies))

    @classmethod
    def start(cls, model: str, *, entropies: EntropySource | None = None, **arguments: Any) -> Self:
        """An engine of its own, ready to generate; blocks while the model is loaded.

        What the arguments leave open is filled in by `vllm_settings.start_client`. A script that
        calls this needs `if __name__ == "__main__"`: vLLM's processes import it again.

        Args:
            model: A local folder or a name on the model hub.
            entropies: As in the constructor; by default a ring of the engine's own.
            **arguments: vLLM's `AsyncEngineArgs`.
        """
        from treepo.engines.entropy_link import open_ring

        client = start_client(model, arguments)
        entropies = entropies or open_ring(client.vllm_config).ring
        return cls(client, entropies=entropies)

    def close(self) -> None:
        """End the engine that `start` started, with its processes."""
        # Let go of as well: kept until the interpreter's end, vLLM's client fails noisily there.
        client, self.client = self.client, None
        client.shutdown(timeout=_SHUTDOWN_S)

    @property
    def info(self) -> EngineInfo:
        """Block size, lengths, and what is reported per token."""
        return replace(self._info, weight_version=self._weights.version)

    @property
    def num_open(self) -> int:
        """Requests that have not been read to their end, heard or not."""
        return self._readings.num_open

    async def load_folder(self, folder: Path, version: str) -> None:
        """Sample with the weights of a folder from now on; see `vllm_weights.load_folder`."""
        from treepo.engines.vllm_weights import load_folder

        await load_folder(self, folder, version)

    def set_weights(self, version: str, failure: EngineError | None = None) -> None:
        """Say which weights it has now, and with `failure` that they are of no use.

        Every request raises the failure until the next call.
        """
        self._weights.version, self._weights.failure = version, failure

    @property
    def unheard_tokens(self) -> int:
        """Tokens that arrived for requests to which nobody listened any more."""
        return self._readings.unheard_tokens

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

    def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        """Stream one path; see `Engine.generate`.

        A listener that leaves early ends the path: the request is aborted and read to its end in
        the background, where its tokens count as `unheard_tokens`.

        Raises:
            EngineError: vLLM refused or failed the request.
        """
        return self._readings.listen(request.id, self._chunks(request))

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests; their last tokens and a final chunk still arrive."""
        await self._readings.abort(request_ids)

    async def drain(self) -> None:
        """Wait until every request has been read to its end."""
        await self._readings.drain()

    async def _chunks(self, request: PathRequest) -> AsyncIterator[Chunk]:
        if self._weights.failure is not None:
            raise self._weights.failure
        row = self._entropies.acquire() if self._entropies else None
        is_surprisal = self._info.uncertainty is Uncertainty.SURPRISAL
        translator = Translator(is_surprisal, request.sampling.logprobs is not None, row)
        try:
            async for output in self._outputs(request, row):
                yield translator.chunk(output)
        finally:
            if row is not None:
                row.release()

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
                stream_interval=BRANCHING_INTERVAL if request.may_branch else STREAM_INTERVAL,
                extra_args=row.extra_args if row else None,
            ),
            request.id,
            lora_request=context.lora_request,
            trace_headers=context.trace_headers,
            priority=context.priority,
            data_parallel_rank=context.data_parallel_rank,
        )

    async def _abort(self, request_ids: list[str]) -> None:
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
