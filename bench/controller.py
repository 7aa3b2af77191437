"""What the controller costs: trees on a scripted engine without latency, against that engine alone.

Each sample grows the same number of trees, some of them at a time, and then runs the very same
engine requests without the sampler; the difference is the controller. CPU time is measured, since
one thread does all the work and the machine may be shared; what others do on it only adds, so that
the cheapest of several samples is the best estimate of a cost. The garbage collector is set as our
commands set it, and for comparison left as Python sets it. To measure another kind of tree, add a
line to `VARIANTS`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.report import publish
from bench.results import make_result
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, EngineInfo, PathRequest, Sampling
from treepo.engines.scripted import Script, ScriptedEngine, TokenMachine
from treepo.errors import EngineError
from treepo.growth.texts import Texts
from treepo.local.garbage import calm_collector
from treepo.rollout.batch import sample_all
from treepo.sampler import Job
from treepo.tree import Tree

TARGET_TOKENS_PER_SECOND = 200_000
TARGET_SPREAD = 1.25
"""Cost per token is flat when the dearest number of trees costs at most this times the cheapest."""

JUDGED_TREES = 256
SIZES = (16, 64, 256, 1024)
TREES_PER_SAMPLE = SIZES[-1]
SEED = 7
WIDTH = 16
PROMPT = tuple(range(1, 101))
MAX_TOKENS = 256
PYTHONS_THRESHOLDS = gc.get_threshold()
SCRIPT = Script(chunk_tokens=16, block_size=16)


@dataclass(frozen=True, slots=True)
class Variant:
    """A kind of tree.

    Attributes:
        tree: Its settings.
        has_text: Whether texts are joined and searched.
        is_calm: Whether the garbage collector is set as our commands set it; only such variants
            are judged.
        sizes: How many trees grow at a time, one sample each.
    """

    tree: TreeConfig
    has_text: bool = False
    is_calm: bool = True
    sizes: tuple[int, ...] = SIZES


ENTROPY = TreeConfig(width=WIDTH, segment_tokens=32, branching_factor=4)
EVEN = TreeConfig(width=WIDTH, segment_tokens=32, branching="even")
VARIANTS = {
    "entropy": Variant(ENTROPY),
    "even": Variant(EVEN),
    "entropy, text": Variant(ENTROPY, has_text=True),
    "even, Python's gc": Variant(EVEN, is_calm=False, sizes=(SIZES[0], SIZES[-1])),
}


def machine(period: int = 61) -> TokenMachine:
    """Every `period` tokens a choice between eight, and nothing to choose in between.

    No path ends before its length, and none repeats itself often enough to count as looping.
    """
    table: dict[str, dict[int, tuple[float, str]]] = {
        str(i): {i: (1.0, str(i + 1) if i + 1 < period else "torn")} for i in range(1, period)
    }
    table["torn"] = dict.fromkeys(range(period, period + 8), (1 / 8, "1"))
    return TokenMachine(table, str(period // 3))


class Letters:
    """A decoder that costs next to nothing: one character per token."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The characters."""
        return bytes(token_ids).decode("latin-1")


class Recorder:
    """An engine that keeps its requests, so that they can be run again."""

    def __init__(self, inner: ScriptedEngine) -> None:
        self.inner = inner
        self.requests: list[PathRequest] = []

    @property
    def info(self) -> EngineInfo:
        """The engine's."""
        return self.inner.info

    def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        """Stream one path."""
        self.requests.append(request)
        return self.inner.generate(request)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests."""
        await self.inner.abort(request_ids)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement; seconds are CPU seconds of this process unless they say otherwise.

    Attributes:
        variant: The kind of tree.
        num_trees: How many grew at a time.
        num_tokens: What the engine generated for all trees of the sample.
        tree_s: For the trees, engine included.
        wall_s: The same by the clock.
        engine_s: For the same requests without the sampler.
    """

    variant: str
    num_trees: int
    num_tokens: int
    tree_s: float
    wall_s: float
    engine_s: float

    @property
    def controller_us(self) -> float:
        """Microseconds of the controller per generated token."""
        return (self.tree_s - self.engine_s) / self.num_tokens * 1e6

    @property
    def engine_us(self) -> float:
        """Microseconds of the engine alone per generated token."""
        return self.engine_s / self.num_tokens * 1e6

    @property
    def tokens_per_second(self) -> float:
        """Through controller and engine, on one core."""
        return self.num_tokens / self.tree_s


def measure(variant: str, num_trees: int) -> Sample:
    """One sample of one kind of tree."""
    kind = VARIANTS[variant]
    texts = Texts.from_config(Letters(), kind.tree) if kind.has_text else None
    engine = Recorder(ScriptedEngine(machine(), SCRIPT))
    jobs = [
        Job(PROMPT, Sampling(MAX_TOKENS, seed=SEED + number), kind.tree, f"t{number}", texts)
        for number in range(TREES_PER_SAMPLE)
    ]
    _set_collector(is_calm=kind.is_calm)
    tree_s, wall_s = _timed(sample_all(engine, jobs, num_trees, _check))
    alone = ScriptedEngine(machine(), SCRIPT)
    engine_s, _ = _timed(_drain_all(alone, engine.requests, num_trees * WIDTH))
    num_tokens = engine.inner.counters.generated_tokens
    if alone.counters.generated_tokens != num_tokens:
        raise RuntimeError("the engine alone generated something else: no baseline")
    return Sample(variant, num_trees, num_tokens, tree_s, wall_s, engine_s)


def _set_collector(*, is_calm: bool) -> None:
    gc.unfreeze()
    gc.set_threshold(*PYTHONS_THRESHOLDS)
    if is_calm:
        calm_collector()


def _check(job: Job, result: Tree | EngineError) -> None:
    if isinstance(result, EngineError) or len(result.trajectories) != WIDTH:
        raise RuntimeError(f"{job.id} is no tree of width {WIDTH}: {result}")


async def _drain_all(
    engine: ScriptedEngine, requests: Sequence[PathRequest], concurrency: int
) -> None:
    free = asyncio.Semaphore(concurrency)

    async def drain(request: PathRequest) -> None:
        async for _ in engine.generate(request):
            pass
        free.release()

    async with asyncio.TaskGroup() as group:
        for request in requests:
            await free.acquire()
            group.create_task(drain(request))


def _timed(work: Coroutine[Any, Any, None]) -> tuple[float, float]:
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    asyncio.run(work)
    return time.process_time() - cpu, time.perf_counter() - wall


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Speed (median) and cost (least) by kind and number of trees, and whether targets are met."""
    kinds = {
        variant: _summarise_kind([s for s in samples if s.variant == variant])
        for variant in dict.fromkeys(sample.variant for sample in samples)
    }
    judged = [kind for variant, kind in kinds.items() if VARIANTS[variant].is_calm]
    slowest = min(kind["tokens_per_second"][str(JUDGED_TREES)] for kind in judged)
    spread = max(kind["spread"] for kind in judged)
    return {
        "tokens_per_second": slowest,
        "spread": spread,
        "is_fast": slowest >= TARGET_TOKENS_PER_SECOND,
        "is_flat": spread <= TARGET_SPREAD,
        "variants": kinds,
    }


def _summarise_kind(samples: Sequence[Sample]) -> dict[str, Any]:
    sizes = sorted({sample.num_trees for sample in samples})
    by_size = {size: [s for s in samples if s.num_trees == size] for size in sizes}
    cost = {size: min(s.controller_us for s in by_size[size]) for size in sizes}
    return {
        "tokens_per_second": {
            str(size): round(median(s.tokens_per_second for s in by_size[size])) for size in sizes
        },
        "controller_us_per_token": {str(size): round(cost[size], 3) for size in sizes},
        "engine_us_per_token": {
            str(size): round(min(s.engine_us for s in by_size[size]), 3) for size in sizes
        },
        "spread": round(max(cost.values()) / min(cost.values()), 3),
    }


def measure_all(repeats: int) -> list[Sample]:
    """Every kind of tree at every size, `repeats` times, printed as they come."""
    measure("entropy", SIZES[0])  # imports and caches, not counted
    samples = []
    for repeat in range(repeats):
        for variant, kind in VARIANTS.items():
            # Every other round backwards, so that a drift of the machine is no trend.
            for size in kind.sizes if repeat % 2 == 0 else kind.sizes[::-1]:
                samples.append(sample := measure(variant, size))
                speed, cost = sample.tokens_per_second, sample.controller_us
                print(f"{variant:18} {size:5} trees {speed:10,.0f} tokens/s {cost:6.3f} us/token")
    return samples


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes everything; returns 0 where both targets are met, else 1."""
    parser = ArgumentParser(prog="python -m bench.controller", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each kind")
    repeats = parser.parse_args(argv).repeats
    samples = measure_all(repeats)
    summary = summarise(samples)
    result = make_result(
        "controller",
        seed=SEED,
        config=configuration(repeats),
        samples=[asdict(sample) for sample in samples],
        summary=summary,
    )
    publish(result)
    print(json.dumps(summary))
    return 0 if summary["is_fast"] and summary["is_flat"] else 1


def configuration(repeats: int) -> dict[str, Any]:
    """Everything that the samples depend on."""
    return {
        "repeats": repeats,
        "trees_per_sample": TREES_PER_SAMPLE,
        "num_prompt_tokens": len(PROMPT),
        "max_tokens": MAX_TOKENS,
        "chunk_tokens": SCRIPT.chunk_tokens,
        "block_size": SCRIPT.block_size,
        "judged_trees": JUDGED_TREES,
        "target_tokens_per_second": TARGET_TOKENS_PER_SECOND,
        "target_spread": TARGET_SPREAD,
        "variants": {
            name: {
                "tree": kind.tree.model_dump(mode="json"),
                "has_text": kind.has_text,
                "is_calm": kind.is_calm,
                "sizes": kind.sizes,
            }
            for name, kind in VARIANTS.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
