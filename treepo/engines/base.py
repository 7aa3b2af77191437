"""What the sampler asks of an engine: token ids in, token ids out, several paths at once.

An engine runs one request per path and knows no trees and no text. `scripted.py` is the one for
tests and laws, `vllm.py` the real one; another engine is another module beside them that has
these two methods.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class Uncertainty(StrEnum):
    """Which per-token figure an engine reports; both are in nats and have the same mean."""

    ENTROPY = "entropy"  # of the next-token distribution, before the token is drawn
    SURPRISAL = "surprisal"  # -log p of the token that was drawn
    NONE = "none"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a tree has to know about its engine.

    `block_size` is in tokens: a branch recomputes one token where its prefix length is
    1 (mod block_size). `max_model_len` bounds prompt plus completion, in tokens.
    `max_live_paths` is how many requests run at once before one waits.
    """

    block_size: int
    max_model_len: int
    max_live_paths: int
    uncertainty: Uncertainty = Uncertainty.NONE
    weight_version: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; the fields mean what vLLM's `SamplingParams` fields mean.

    `stop` holds strings that the host looks for in a path's joined text, since an engine sees
    only its own request; an engine may end a path at one by itself, which saves what the host
    would see too late. `logprobs` is how many alternatives a caller wants per token (None: not
    asked for); `wants_logprobs` asks for the drawn tokens' own, which cost the host time, so an
    engine may leave them out without it. `native` is an engine's own parameter object, used as
    the template of every path: an engine that gets one takes everything from it except lengths,
    seed and `stop`.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    wants_logprobs: bool = True
    native: Any = None


@dataclass(frozen=True, slots=True)
class PathRequest:
    """One path to run: the prompt, what it inherits, and how to go on.

    `token_ids` is the prompt followed by `num_inherited_tokens` tokens that ancestors generated;
    the sequence belongs to the request and is not changed by anybody. `sampling` is already
    reduced to what is left of this path. Where it `may_branch`, its tokens are wanted soon: until
    they are seen, no child can start.
    """

    id: str
    tree_id: str
    token_ids: Sequence[int]
    num_inherited_tokens: int
    sampling: Sampling
    may_branch: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some newly generated tokens of one path, in order.

    `logprobs` are those of the drawn tokens (nats) and `uncertainty` is the engine's per-token
    figure; both are as long as `token_ids` or empty. `finish_reason` stands in the last chunk:
    `stop`, `length`, `repetition` or `abort`, with vLLM's `stop_reason` (None for the end of
    sequence token). `num_cached_tokens` counts the request's prompt tokens found in the prefix
    cache and may stand in any chunk. `native_logprobs` holds the engine's own records where the
    caller asked for log-probs, one per token. `weight_versions` stands in the last chunk of an
    engine whose weights may change: the versions that drew the path's tokens.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float] = ()
    uncertainty: Sequence[float] = ()
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    num_cached_tokens: int | None = None
    native_logprobs: Sequence[Any] = field(default=())
    weight_versions: Sequence[str] = ()


class Engine(Protocol):
    """Runs paths. Both methods may be called for many paths at once."""

    @property
    def info(self) -> EngineInfo:
        """What the engine can do; constant while a tree grows."""
        ...

    def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        """Stream one path until its last chunk, which has a `finish_reason`.

        An aborted path still ends with a chunk (`finish_reason="abort"`) that holds whatever
        the engine generated meanwhile, so that no token goes uncounted.

        Raises:
            EngineError: The engine refused or failed this request.

        """
        ...

    async def abort(self, request_ids: Sequence[str]) -> None:
        """Ask the engine to end these requests; unknown and finished ids are ignored."""
        ...
