"""Running paths on an engine and asking vLLM what it holds: what the engine tests share."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from prometheus_client import REGISTRY

from treepo.engines.base import Chunk, PathRequest, Sampling
from treepo.engines.vllm import VllmEngine

_numbers = itertools.count()


@dataclass(frozen=True)
class Run:
    """What one path produced."""

    chunks: list[Chunk]

    @property
    def token_ids(self) -> list[int]:
        """All tokens, in order."""
        return [token for chunk in self.chunks for token in chunk.token_ids]

    @property
    def logprobs(self) -> list[float]:
        """Of the drawn tokens, in nats."""
        return [logprob for chunk in self.chunks for logprob in chunk.logprobs]

    @property
    def uncertainty(self) -> list[float]:
        """Of each token, in nats."""
        return [value for chunk in self.chunks for value in chunk.uncertainty]

    @property
    def records(self) -> list[dict[int, Any]]:
        """What vLLM itself says of each token."""
        return [record for chunk in self.chunks for record in chunk.native_logprobs]

    @property
    def finish_reason(self) -> str | None:
        """What the last chunk says."""
        return self.chunks[-1].finish_reason

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens found in the prefix cache."""
        return next(c.num_cached_tokens for c in self.chunks if c.num_cached_tokens is not None)


def prompt(length: int, seed: int) -> list[int]:
    """Random bytes as token ids; a seed of its own keeps a test apart from the others' cache."""
    return np.random.default_rng(seed).integers(0, 256, length).tolist()


def request(
    token_ids: Sequence[int], num_inherited_tokens: int = 0, **sampling: Any
) -> PathRequest:
    """A request with a new id; greedy and past the end of sequence unless said otherwise."""
    options: dict[str, Any] = {"max_tokens": 64, "temperature": 0.0, "ignore_eos": True}
    number = next(_numbers)
    return PathRequest(
        f"path-{number}", "tree", token_ids, num_inherited_tokens, Sampling(**options | sampling)
    )


async def run(engine: VllmEngine, path: PathRequest) -> Run:
    """One path to its end."""
    return Run([chunk async for chunk in engine.generate(path)])


async def read_until(stream: AsyncIterator[Chunk], num_tokens: int) -> list[Chunk]:
    """Chunks up to the one with which the stream has given that many tokens."""
    chunks: list[Chunk] = []
    while sum(len(chunk.token_ids) for chunk in chunks) < num_tokens:
        chunks.append(await anext(stream))
    return chunks


async def has_requests(engine: VllmEngine) -> bool:
    """Whether vLLM's scheduler has requests to run, waiting or to clear away."""
    return bool(await engine.client.engine_core.call_utility_async("has_work"))


async def holds_blocks(engine: VllmEngine) -> bool:
    """Whether any KV block is in use; vLLM clears its prefix cache only when none is."""
    return not await engine.client.reset_prefix_cache()


async def is_left_empty(engine: VllmEngine) -> bool:
    """Whether the engine gets rid of every request, and then holds no block."""
    async with asyncio.timeout(30):
        await engine.drain()
        # An aborted request is cleared away with the step after its abort.
        while await has_requests(engine):
            pass
    return not await holds_blocks(engine)


def num_generated_tokens() -> float:
    """How many tokens vLLM says it has generated so far."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "vllm:generation_tokens_total"
    )
