"""A deterministic engine over a token machine whose law is known.

Tests, documentation and controller benchmarks run on it in milliseconds, and statistical laws
can be checked against it because every probability is written down. It counts prefix-cache hits
the way vLLM does, can be slow, late or failing on demand, and knows no trees. Of a `Sampling` it
honours lengths, seed and what ends a path; temperature and the like would be another law. A new
law is a new `TokenMachine`; a new kind of trouble is a field of `Script`.
"""

from __future__ import annotations

import asyncio
import math
import random
from bisect import bisect
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from treepo.engines.base import Chunk, EngineInfo, PathRequest, Uncertainty
from treepo.errors import EngineError

EOS = 0


@dataclass(frozen=True, slots=True)
class _State:
    tokens: tuple[int, ...]
    cumulative: tuple[float, ...]
    targets: tuple[str, ...]
    logprobs: tuple[float, ...]
    entropy: float


class TokenMachine:
    """A finite automaton that emits tokens: in each state, a distribution over (token, state).

    Args:
        table: For each state, `{token: (probability, next state)}`. Token 0 ends the path.
        start: The state before the first generated token.

    Raises:
        ValueError: A state's probabilities do not sum to 1 or a state is missing.

    """

    def __init__(self, table: Mapping[str, Mapping[int, tuple[float, str]]], start: str) -> None:
        self.start = start
        self._table = table
        self._states = {name: self._compile(name, row, table) for name, row in table.items()}

    @staticmethod
    def _compile(
        name: str,
        row: Mapping[int, tuple[float, str]],
        table: Mapping[str, Mapping[int, tuple[float, str]]],
    ) -> _State:
        probabilities = [p for p, _ in row.values()]
        if not math.isclose(sum(probabilities), 1.0, abs_tol=1e-9):
            raise ValueError(f"state {name!r}: probabilities sum to {sum(probabilities)}, not 1")
        missing = [s for t, (_, s) in row.items() if t != EOS and s not in table]
        if missing:
            raise ValueError(f"state {name!r} leads to unknown state {missing[0]!r}")
        logprobs = [math.log(p) if p > 0 else -math.inf for p in probabilities]
        entropy = -sum(p * q for p, q in zip(probabilities, logprobs, strict=True) if p > 0)
        return _State(
            tokens=tuple(row),
            cumulative=tuple(accumulate(probabilities)),
            targets=tuple(state for _, state in row.values()),
            logprobs=tuple(logprobs),
            entropy=entropy,
        )

    @cached_property
    def unending(self) -> TokenMachine:
        """The same machine without the end of sequence, where a state has any other token."""
        table = {}
        for name, row in self._table.items():
            others = {token: entry for token, entry in row.items() if token != EOS}
            total = math.fsum(p for p, _ in others.values())
            table[name] = {t: (p / total, s) for t, (p, s) in others.items()} if total else row
        return TokenMachine(table, self.start)

    def state_after(self, token_ids: Sequence[int]) -> str:
        """The state reached by reading these generated tokens from the start."""
        state = self.start
        for token in token_ids:
            row = self._states[state]
            state = row.targets[row.tokens.index(token)]
        return state

    def draw(
        self, state: str, count: int, rng: random.Random, ends: Container[int] = ()
    ) -> tuple[str, list[int], list[float], list[float]]:
        """Up to `count` tokens from `state`: the new state, tokens, log-probs and entropies.

        The tokens end with the first of `ends`.
        """
        tokens: list[int] = []
        logprobs: list[float] = []
        entropies: list[float] = []
        for _ in range(count):
            row = self._states[state]
            index = min(bisect(row.cumulative, rng.random()), len(row.tokens) - 1)
            tokens.append(row.tokens[index])
            logprobs.append(row.logprobs[index])
            entropies.append(row.entropy)
            state = row.targets[index]
            if tokens[-1] in ends:
                break
        return state, tokens, logprobs, entropies

    def distribution(self, state: str) -> dict[int, tuple[float, str]]:
        """The row of a state, as given to the constructor."""
        row = self._states[state]
        triples = zip(row.tokens, row.logprobs, row.targets, strict=True)
        return {token: (math.exp(logprob), target) for token, logprob, target in triples}


def _no_delay(_: Sequence[int]) -> int:
    return 0


def _no_failure(_: PathRequest) -> EngineError | None:
    return None


@dataclass(frozen=True, slots=True)
class Script:
    """How the engine behaves around its law.

    Attributes:
        chunk_tokens: Tokens per chunk.
        block_size: KV block, in tokens.
        overrun_tokens: Tokens still generated after an abort.
        delay: From a chunk's tokens, how many turns of the event loop it is held back.
        failure: An error to raise for a request, or None.
        uncertainty: What is reported per token.
        seed: Base of the randomness of requests without a seed.

    """

    chunk_tokens: int = 16
    block_size: int = 16
    overrun_tokens: int = 0
    max_model_len: int = 1 << 20
    max_live_paths: int = 1 << 20
    delay: Callable[[Sequence[int]], int] = _no_delay
    failure: Callable[[PathRequest], EngineError | None] = _no_failure
    uncertainty: Uncertainty = Uncertainty.ENTROPY
    seed: int = 0


@dataclass(slots=True)
class Counters:
    """What the engine did since it was made, in tokens and requests."""

    requests: int = 0
    running: int = 0
    most_running: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    aborted: int = 0


class _BlockCache:
    """Which full blocks are cached; a block is known by the hash of everything up to its end."""

    def __init__(self, block_size: int) -> None:
        self._size = block_size
        self._known: set[int] = set()

    def hit_tokens(self, token_ids: Sequence[int]) -> int:
        """Cached tokens of a request's prompt; the last token is always computed."""
        hits, parent = 0, 0
        for end in range(self._size, len(token_ids), self._size):
            parent = hash((parent, tuple(token_ids[end - self._size : end])))
            if parent not in self._known:
                break
            hits += self._size
        return hits

    def extend(self, parent: int, pending: list[int], token_ids: Sequence[int]) -> int:
        """Cache the blocks that `token_ids` complete; `pending` keeps the partial one."""
        pending.extend(token_ids)
        while len(pending) >= self._size:
            parent = hash((parent, tuple(pending[: self._size])))
            self._known.add(parent)
            del pending[: self._size]
        return parent


@dataclass(slots=True)
class ScriptedEngine:
    """An `Engine` over a `TokenMachine`; see the module docstring."""

    machine: TokenMachine
    script: Script = field(default_factory=Script)
    counters: Counters = field(default_factory=Counters)
    _running: set[str] = field(default_factory=set)
    _aborted: set[str] = field(default_factory=set)
    _cache: _BlockCache = field(init=False)

    def __post_init__(self) -> None:
        self._cache = _BlockCache(self.script.block_size)

    @property
    def info(self) -> EngineInfo:
        """Block size, lengths and what is reported per token."""
        script = self.script
        return EngineInfo(
            script.block_size, script.max_model_len, script.max_live_paths, script.uncertainty
        )

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests at their next chunk; others, also future ones, are not affected."""
        self._aborted.update(self._running.intersection(request_ids))

    async def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        """Stream one path; its randomness depends on its seed alone."""
        failure = self.script.failure(request)
        if failure is not None:
            raise failure
        counters = self.counters
        counters.requests += 1
        counters.running += 1
        counters.most_running = max(counters.most_running, counters.running)
        self._running.add(request.id)
        try:
            async for chunk in self._stream(request):
                yield chunk
        finally:
            counters.running -= 1
            self._running.discard(request.id)
            self._aborted.discard(request.id)

    async def _stream(self, request: PathRequest) -> AsyncIterator[Chunk]:
        sampling = request.sampling
        seed = sampling.seed
        if seed is None:
            seed = self.script.seed * 1_000_003 + self.counters.requests
        rng = random.Random(seed)
        first = len(request.token_ids) - request.num_inherited_tokens
        state = self.machine.state_after(request.token_ids[first:])
        cached: int | None = self._admit(request.token_ids)
        pending: list[int] = []
        parent = self._cache.extend(0, pending, request.token_ids)
        left, barred = sampling.max_tokens, sampling.min_tokens
        ends = frozenset(sampling.stop_token_ids) | (set() if sampling.ignore_eos else {EOS})
        finish: str | None = None
        while finish is None:
            is_aborted = request.id in self._aborted
            count = self.script.overrun_tokens if is_aborted else self.script.chunk_tokens
            machine = self.machine.unending if barred > 0 else self.machine
            state, tokens, logprobs, entropies = machine.draw(
                state, min(count, left, barred if barred > 0 else count), rng, ends
            )
            left -= len(tokens)
            barred -= len(tokens)
            parent = self._cache.extend(parent, pending, tokens)
            self.counters.generated_tokens += len(tokens)
            for _ in range(1 + self.script.delay(tokens)):
                await asyncio.sleep(0)
            stopped_by = tokens[-1] if tokens and tokens[-1] in ends else None
            finish = self._finish(stopped_by, left, is_aborted)
            yield Chunk(
                tokens,
                logprobs,
                self._uncertainty(logprobs, entropies),
                finish,
                None if stopped_by == EOS else stopped_by,
                cached,
            )
            cached = None

    def _admit(self, token_ids: Sequence[int]) -> int:
        cached = self._cache.hit_tokens(token_ids)
        self.counters.prompt_tokens += len(token_ids)
        self.counters.cached_tokens += cached
        return cached

    def _finish(self, stopped_by: int | None, left: int, is_aborted: bool) -> str | None:
        if stopped_by is not None:
            return "stop"
        if is_aborted:
            self.counters.aborted += 1
            return "abort"
        return "length" if left == 0 else None

    def _uncertainty(self, logprobs: list[float], entropies: list[float]) -> list[float]:
        if self.script.uncertainty is Uncertainty.ENTROPY:
            return entropies
        if self.script.uncertainty is Uncertainty.SURPRISAL:
            return [-value for value in logprobs]
        return []
