"""The ways to get 16 trajectories of each of several prompts from one running vLLM.

`plain` is vLLM's own `n`. A tree is `sample_tree`. `lockstep` is how the paper runs: every path of
every prompt generates one segment, all wait for the slowest, then each goes on as a new request.
They measure and compare nothing (`cells.py`). Another way is another function in `SIDES`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from treepo.config import TreeConfig
from treepo.engines.base import PathRequest, Sampling
from treepo.sampler import Job, sample_tree

WIDTH = 16
ROOTS = 2
EVEN = {"branching": "even", "root_branching": ROOTS, "branching_factor": 2}


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for.

    Attributes:
        prompts: Token ids of each prompt; all are asked at once.
        max_tokens: Longest trajectory.
        segment_tokens: Tokens between boundaries.
        is_fixed: Whether every trajectory has exactly `max_tokens` tokens.
        name: Unique, for request ids.
    """

    prompts: Sequence[list[int]]
    max_tokens: int
    segment_tokens: int
    is_fixed: bool
    name: str

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        return Sampling(self.max_tokens, ignore_eos=self.is_fixed, wants_logprobs=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one prompt got.

    Attributes:
        trajectories: Complete ones.
        trajectory_tokens: Sum of their lengths.
        generated_tokens: Tokens the engine generated for them.
        seconds: From the question to the last trajectory.
    """

    trajectories: int
    trajectory_tokens: int
    generated_tokens: int
    seconds: float


Side = Callable[[Any, Load], Awaitable[list[Answer]]]


async def plain(engine: Any, load: Load) -> list[Answer]:
    """One request with `n` for each prompt, as vLLM runs it; the prefix cache is on."""
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    params = SamplingParams(
        n=WIDTH,
        max_tokens=load.max_tokens,
        ignore_eos=load.is_fixed,
        output_kind=RequestOutputKind.FINAL_ONLY,
        detokenize=False,
    )

    async def one(number: int, prompt: list[int]) -> Answer:
        started, lengths = time.perf_counter(), {}
        name = f"plain-{load.name}-{number}"
        async for output in engine.client.generate(tokens_input(prompt), params.clone(), name):
            lengths |= {part.index: len(part.token_ids) for part in output.outputs}
        tokens = sum(lengths.values())
        return Answer(len(lengths), tokens, tokens, time.perf_counter() - started)

    return await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(load.prompts)))


def tree(fields: Mapping[str, Any]) -> Side:
    """Trees with these settings, each path a running request."""

    async def run(engine: Any, load: Load) -> list[Answer]:
        config = TreeConfig(width=WIDTH, segment_tokens=load.segment_tokens, **fields)

        async def one(prompt: list[int]) -> Answer:
            started = time.perf_counter()
            found = await sample_tree(engine, Job(prompt, load.sampling, config))
            seconds, stats = time.perf_counter() - started, found.stats
            complete = len(found.trajectories)
            return Answer(complete, stats.trajectory_tokens, stats.generated_tokens, seconds)

        return await asyncio.gather(*(one(prompt) for prompt in load.prompts))

    return run


@dataclass(slots=True)
class _Front:
    """One prompt of the lockstep run: its live paths and its finished ones, as token lists."""

    prompt: list[int]
    live: list[list[int]] = field(default_factory=lambda: [[] for _ in range(ROOTS)])
    done: list[list[int]] = field(default_factory=list)
    generated: int = 0
    ended: float = 0.0

    def branch(self, rng: random.Random, segment_tokens: int) -> None:
        """Two children for every live path while slots are free; else fall back at random."""
        room = WIDTH - len(self.live) - len(self.done)
        self.live += [list(path) for path in self.live[:room]]
        if not self.live and len(self.done) < WIDTH:
            for _ in range(WIDTH - len(self.done)):
                path = rng.choice(self.done)
                cut = segment_tokens * rng.randrange(max(1, -(-len(path) // segment_tokens)))
                self.live.append(path[:cut])


async def lockstep(engine: Any, load: Load) -> list[Answer]:
    """The paper's way: one segment of every path of every prompt, then all wait and branch."""
    started, rng, number = time.perf_counter(), random.Random(load.name), 0
    fronts = [_Front(prompt) for prompt in load.prompts]
    while any(front.live for front in fronts):
        work = [(front, path) for front in fronts for path in front.live]
        names = [f"lockstep-{load.name}-{number + i}" for i in range(len(work))]
        number += len(work)
        steps = (_step(engine, load, *pair, name) for pair, name in zip(work, names, strict=True))
        results = await asyncio.gather(*steps)
        for front in fronts:
            front.live = []
        for (front, path), (tokens, is_done) in zip(work, results, strict=True):
            front.generated += len(tokens)
            (front.done if is_done else front.live).append(path + tokens)
        for front in fronts:
            front.branch(rng, load.segment_tokens)
            if not front.live and not front.ended:
                front.ended = time.perf_counter()
    return [
        Answer(len(f.done), sum(map(len, f.done)), f.generated, f.ended - started) for f in fronts
    ]


async def _step(
    engine: Any, load: Load, front: _Front, path: list[int], name: str
) -> tuple[list[int], bool]:
    """One segment more, and whether the path has ended with it."""
    left = load.max_tokens - len(path)
    segment = min(load.segment_tokens, left)
    sampling = Sampling(segment, ignore_eos=load.is_fixed, wants_logprobs=False)
    request = PathRequest(name, name, [*front.prompt, *path], len(path), sampling)
    tokens, reason = [], None
    async for chunk in engine.generate(request):
        tokens += chunk.token_ids
        reason = chunk.finish_reason
    return tokens, reason == "stop" or segment == left


SIDES: dict[str, Side] = {
    "n=16": plain,
    "tree, entropy": tree({}),
    "tree, even": tree(EVEN),
    "tree, even, root 1": tree(EVEN | {"root_branching": 1}),
    "lockstep, even": lockstep,
}
