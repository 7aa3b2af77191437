"""The two vocabularies: a path's `Sampling` as vLLM's parameters, its output as `Chunk`s.

Pure translation of one request; it neither starts requests nor waits for them (`vllm.py`). A new
sampling option is a line in `to_params`, a new per-token figure a line in `Translator.chunk`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from math import isnan
from typing import Any, Protocol

import msgspec
from vllm.exceptions import GracefulHTTPError, RetryableRequestError, VLLMError
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError

from treepo.engines.base import Chunk, Sampling
from treepo.errors import EngineDeadError, EngineError

FIRST_VERSION = "default"
"""What vLLM calls the weights that an engine was started with; a record calls them nothing."""

_MAX_LATE = 4
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class EntropyRow(Protocol):
    """Where the engine writes the entropies of one request."""

    @property
    def extra_args(self) -> Mapping[str, Any]:
        """What the request carries so that the engine finds the row."""
        ...

    def read(self, start: int, end: int) -> Sequence[float]:
        """Entropies of its generated tokens `[start, end)`, in nats; nan where there is none."""
        ...

    def release(self) -> None:
        """Give the row back; the request has left the engine."""
        ...


class EntropySource(Protocol):
    """Gives requests rows in which the engine writes their entropies."""

    @property
    def has_failed(self) -> bool:
        """Whether the engine has stopped writing."""
        ...

    def acquire(self) -> EntropyRow | None:
        """A row for one request, None when all are taken."""
        ...


def to_params(
    sampling: Sampling,
    *,
    logprobs: int | None,
    stream_interval: int,
    extra_args: Mapping[str, Any] | None = None,
) -> SamplingParams:
    """The `SamplingParams` of one path.

    Everything the caller's own parameters (`sampling.native`) say is kept, except what belongs to
    the path (lengths, seed), what the host does (text) and prompt log-probs, with which vLLM would
    not read the prefix cache. Stop strings go along, so that vLLM ends a path at the token that
    completes one; the host still looks for those that cross a fork, which vLLM cannot see. Only a
    path with stop strings is turned into text by vLLM.

    Args:
        sampling: What is left of the path.
        logprobs: Alternatives to report per token, 0 for the drawn token alone, None for nothing.
        stream_interval: Tokens per chunk.
        extra_args: Added to the caller's own `extra_args`.
    """
    own = {
        "n": 1,
        "max_tokens": sampling.max_tokens,
        "min_tokens": min(sampling.min_tokens, sampling.max_tokens),
        "seed": sampling.seed,
        "stop": list(sampling.stop),
        "logprobs": logprobs,
        "flat_logprobs": True,
        "prompt_logprobs": None,
        "skip_reading_prefix_cache": False,
        "detokenize": bool(sampling.stop),
        "output_kind": RequestOutputKind.DELTA,
        "output_text_buffer_length": 0,
        "stream_interval": stream_interval,
        # The object is this request's alone; what it shares with `native` vLLM does not change.
        "skip_clone": True,
    }
    if sampling.native is not None:
        if extra_args:
            own["extra_args"] = {**(sampling.native.extra_args or {}), **extra_args}
        return msgspec.structs.replace(sampling.native, **own)
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
        extra_args=dict(extra_args) if extra_args else None,
        **own,
    )


@dataclass(slots=True)
class Translator:
    """Turns the outputs of one request into chunks.

    A token whose entropy is not there yet waits for the next chunk, so that no decision is made
    without it: a GPU's values come a step or two after the token.

    Attributes:
        reports_surprisal: Whether the surprisal of each token is its uncertainty.
        hands_on_logprobs: Whether vLLM's own log-prob records travel along.
        row: Where the request's entropies are found, if the engine writes any.
    """

    reports_surprisal: bool
    hands_on_logprobs: bool
    row: EntropyRow | None = None
    _sent: int = field(default=0, init=False)
    _has_told_cached: bool = field(default=False, init=False)
    _held: Chunk | None = field(default=None, init=False)

    def chunk(self, output: Any) -> Chunk:
        """The tokens that one `RequestOutput` adds."""
        completion = output.outputs[0]
        records = completion.logprobs
        logprobs = _drawn(records) if records else ()
        num_cached = None
        if completion.token_ids and not self._has_told_cached:
            num_cached, self._has_told_cached = output.num_cached_tokens, True
        chunk = Chunk(
            completion.token_ids,
            logprobs,
            [-logprob for logprob in logprobs] if self.reports_surprisal else (),
            completion.finish_reason,
            completion.stop_reason,
            num_cached,
            records if records and self.hands_on_logprobs else (),
            [_version(span) for span in completion.weight_versions or ()],
        )
        if self.row is not None:
            chunk = self._with_entropies(chunk, self.row)
        self._sent += len(chunk.token_ids)
        return chunk

    def _with_entropies(self, chunk: Chunk, row: EntropyRow) -> Chunk:
        if self._held is not None:
            chunk, self._held = _joined(self._held, chunk), None
        values = row.read(self._sent, self._sent + len(chunk.token_ids))
        num_late = _num_late(values) if chunk.finish_reason is None else 0
        if num_late:
            chunk, self._held = _split(chunk, len(values) - num_late)
        return replace(chunk, uncertainty=values[: len(chunk.token_ids)])


def _version(span: Any) -> str:
    return "" if span.version == FIRST_VERSION else str(span.version)


def _num_late(values: Sequence[float]) -> int:
    """Values at the end that may still come; where more are missing they are lost."""
    late = next((i for i, value in enumerate(reversed(values)) if not isnan(value)), len(values))
    return late if late <= _MAX_LATE else 0


def _split(chunk: Chunk, count: int) -> tuple[Chunk, Chunk]:
    head = replace(
        chunk,
        token_ids=chunk.token_ids[:count],
        logprobs=chunk.logprobs[:count],
        native_logprobs=chunk.native_logprobs[:count],
    )
    rest = Chunk(
        chunk.token_ids[count:],
        chunk.logprobs[count:],
        native_logprobs=chunk.native_logprobs[count:],
    )
    return head, rest


def _joined(first: Chunk, second: Chunk) -> Chunk:
    return replace(
        second,
        token_ids=[*first.token_ids, *second.token_ids],
        logprobs=[*first.logprobs, *second.logprobs],
        native_logprobs=[*first.native_logprobs, *second.native_logprobs],
    )


def _drawn(records: Any) -> Sequence[float]:
    """The drawn tokens' log-probs; vLLM puts each first among its position's records."""
    values = records.logprobs
    if len(values) == len(records):
        return values  # type: ignore[no-any-return]
    return [values[start] for start in records.start_indices]


def to_error(error: VLLMError) -> EngineError:
    """The same failure as this project's error."""
    if isinstance(error, VllmEngineDeadError):
        return EngineDeadError(f"vLLM's engine has died: {error}")
    is_busy = isinstance(error, GracefulHTTPError) and error.http_status in _BUSY
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    message = f"{error}{cause}" or type(error).__name__
    return EngineError(message, is_retryable=is_busy or isinstance(error, RetryableRequestError))
