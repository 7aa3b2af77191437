"""A client that plays vLLM's to the server's service.

Its requests go to their full length, a chunk at each turn of the loop. It says which ones run, and
loses those that it is told to lose.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from vllm.logprobs import FlatLogprobs, Logprob

from treepo.engines.entropy_link import EntropyLink
from treepo_server.request.tree_request import TreeRequest
from treepo_server.settings.capacity import Capacity
from treepo_server.settings.limits import Limits
from treepo_server.trees.service import TreeService

BLOCK = 4
CHUNK = 4
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PROMPT = {"type": "token", "prompt_token_ids": [1, 2, 3, 4, 5]}

Lose = Callable[[str, int], BaseException | None]
"""From the id of a request and the chunks it has sent, what to raise now, or None."""


class Letters:
    """A tokenizer whose tokens are letters."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return "".join(LETTERS[token_id % len(LETTERS)] for token_id in token_ids)


class PlayedVllm:
    """See the module docstring.

    Attributes:
        asked: Ids and further arguments of all requests, in their order.
        running: Ids of those that have not ended.
        generated: Tokens that were sent.
    """

    def __init__(self, *, num_seqs: int = 8, policy: str = "fcfs", lose: Lose | None = None):
        scheduler = SimpleNamespace(
            max_num_seqs=num_seqs,
            max_num_active_seqs=None,
            max_num_queued_reqs=None,
            policy=policy,
            enable_chunked_prefill=False,
        )
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(block_size=BLOCK, effective_attention_block_size=BLOCK),
            model_config=SimpleNamespace(max_model_len=4096),
            scheduler_config=scheduler,
            parallel_config=SimpleNamespace(local_engines_only=False, data_parallel_size=1),
            observability_config=SimpleNamespace(otlp_traces_endpoint=None),
        )
        self.renderer = SimpleNamespace(tokenizer=Letters())
        self.input_processor = SimpleNamespace(process_inputs=lambda *_, **__: None)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.running: set[str] = set()
        self.generated = 0
        self._lose = lose
        self._aborted: set[str] = set()

    async def generate(
        self, prompt: Any, params: Any, request_id: str, **options: Any
    ) -> AsyncIterator[Any]:
        self.asked.append((request_id, options))
        self.running.add(request_id)
        try:
            async for output in self._outputs(request_id, params):
                yield output
        finally:
            self.running.discard(request_id)

    async def _outputs(self, request_id: str, params: Any) -> AsyncIterator[Any]:
        length = params.max_tokens
        for number, start in enumerate(range(0, length, CHUNK)):
            await asyncio.sleep(0)
            error = self._lose(request_id, number) if self._lose else None
            if error is not None:
                raise error
            if request_id in self._aborted:
                yield _output([], "abort", params)
                return
            count = min(CHUNK, length - start)
            self.generated += count
            yield _output([7] * count, "length" if start + count == length else None, params)

    async def abort(self, request_ids: list[str]) -> None:
        self._aborted.update(request_ids)


def _output(token_ids: list[int], finish_reason: str | None, params: Any) -> Any:
    logprobs = FlatLogprobs()
    for token_id in token_ids:
        logprobs.append({token_id: Logprob(-1.0)})
    completion = SimpleNamespace(
        token_ids=token_ids,
        logprobs=None if params.logprobs is None else logprobs,
        finish_reason=finish_reason,
        stop_reason=None,
        weight_versions=None,
    )
    return SimpleNamespace(outputs=[completion], num_cached_tokens=0)


def service(client: PlayedVllm, **capacity: Any) -> TreeService:
    """A service on such a client."""
    link = EntropyLink(None, "played")
    return TreeService(client, ("generate",), Limits(), link, Capacity(**capacity), 1)


def asked(**options: Any) -> TreeRequest:
    """What a caller asks for: a tree of four that shares its beginning."""
    from treepo.config import TreeConfig

    tree = {"width": 4, "branching": "even", "segment_tokens": BLOCK, "root_branching": 2}
    config = TreeConfig(**{**tree, **options.pop("tree", {})})
    return TreeRequest(config, **options)
