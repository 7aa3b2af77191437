"""`make soak`: many trees at once for a long time, a fifth of whose callers hang up.

Every response that arrives is checked; at the end nothing may be left in the engine, no token
uncounted and no memory gained. The last line is a JSON object, and the exit code 0 where all holds.
With `--plain` the same callers ask for as many plain choices instead, on the same server: what
memory it gains then is vLLM's own. `tests/contract/test_load.py` runs the trees against its own
server, for a shorter time.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from openai import APIStatusError, AsyncOpenAI

from tests.support.server import SMALL_CACHES, Server, metric_in, serve
from tests.support.tiny_chat import build

HANG_UP_SHARE = 0.2
KV_BYTES = 64 * 1024**2
MOST_GROWTH_BYTES = KV_BYTES + 32 * 1024**2
"""How much more memory a process may hold in the last quarter than in the second; a worker touches
the pages of its KV cache one after another, so its size is allowed for."""
QUIET_S = 30.0
MODEL = "tiny"
MODEL_TOKENS = 4096
QUESTIONS = ("What is 1 + 1?", "Name a colour.", "Count to ten.", "Why?")
TREES = (
    {"width": 4, "branching": "even"},
    {"width": 8, "branching": "entropy", "prune": "confidence"},
    {"width": 4, "branching": "low_prob", "fallback": "random"},
    {"width": 6, "branching": "even", "start": 2, "until": "settled"},
    {"width": 3, "root_branching": 3, "branching_factor": 1},
)


@dataclass(slots=True)
class Report:
    """What happened.

    Attributes:
        seconds: How long it ran.
        outcomes: Requests by outcome: `answered`, `hung_up`, or a status code.
        invalid: What was wrong with answers, at most ten.
        requests_left: Requests that the engine still held.
        kv_left: Part of the KV cache that was still used.
        tokens_unaccounted: The engine's own count of generated tokens, less that of our trees.
        growth_bytes: Memory gained, by process. Without what it shares with others: the ring of
            entropies has a fixed size, and its pages are touched one after another.
        private_bytes: Memory, by process: the median of each twelfth of the run.
    """

    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)
    requests_left: float = 0.0
    kv_left: float = 0.0
    tokens_unaccounted: float = 0.0
    growth_bytes: dict[str, int] = field(default_factory=dict)
    private_bytes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What must not be; empty where all is well."""
        found = [f"{n} x {status}" for status, n in self.outcomes.items() if status.startswith("5")]
        found += self.invalid
        left = (self.requests_left, self.kv_left, self.tokens_unaccounted)
        if any(left):
            found.append(f"left behind (requests, KV, tokens): {left}")
        grown = {n: g for n, g in self.growth_bytes.items() if g > MOST_GROWTH_BYTES}
        return [*found, f"memory grew: {grown}"] if grown else found


class Soak:
    """A running soak.

    Args:
        server: What is soaked; nothing else may use it meanwhile.
        seconds: For how long.
        num_callers: Trees at one time.
        seed: Of what is asked and who hangs up.
        is_plain: Ask for `n` choices without a tree.
    """

    def __init__(
        self,
        server: Server,
        seconds: float,
        num_callers: int,
        seed: int,
        is_plain: bool = False,
    ) -> None:
        self.report = Report()
        self._server = server
        self._seconds = seconds
        self._num_callers = num_callers
        self._seed = seed
        self._is_plain = is_plain
        self._memory: dict[str, list[int]] = {}

    async def run(self) -> Report:
        """Soak, wait until the server is quiet, and say how it went."""
        before = await self._metrics()
        start = time.monotonic()
        # A connection of its own for each request: one that was idle may be closed by the server in
        # the moment in which it is used again, which only a retry would hide, and errors with it.
        sdk = AsyncOpenAI(
            base_url=f"{self._server.url}/v1",
            api_key="none",
            max_retries=0,
            timeout=300,
            default_headers={"Connection": "close"},
        )
        async with sdk:
            watch = asyncio.create_task(self._watch_memory())
            rngs = [random.Random(f"{self._seed} {caller}") for caller in range(self._num_callers)]
            await asyncio.gather(*(self._call(sdk, rng, start + self._seconds) for rng in rngs))
            watch.cancel()
        self.report.seconds = round(time.monotonic() - start, 1)
        await self._look_at_the_end(before)
        return self.report

    async def _call(self, sdk: AsyncOpenAI, rng: random.Random, deadline: float) -> None:
        while time.monotonic() < deadline:
            patience = rng.expovariate(1.0) if rng.random() < HANG_UP_SHARE else None
            outcome = await self._ask(sdk, rng, patience)
            self.report.outcomes[outcome] = self.report.outcomes.get(outcome, 0) + 1

    async def _ask(self, sdk: AsyncOpenAI, rng: random.Random, patience: float | None) -> str:
        tree, stream = rng.choice(TREES), rng.random() < 0.5
        width = int(str(tree["width"]))
        num_choices = width if self._is_plain else rng.choice([1, 2, width])
        try:
            async with asyncio.timeout(patience):
                answer = await sdk.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": rng.choice(QUESTIONS)}],
                    n=num_choices,
                    max_tokens=rng.choice([16, 64, 200]),
                    stream=stream,
                    extra_body={} if self._is_plain else {"tree": tree},
                )
                chunks = [chunk async for chunk in answer] if stream else []
        except TimeoutError:
            return "hung_up"
        except APIStatusError as error:
            return str(error.status_code)
        if self._is_plain:
            return "answered"
        wrong = wrong_stream(chunks, num_choices) if stream else wrong_whole(answer, num_choices)
        if wrong and len(self.report.invalid) < 10:
            self.report.invalid.append(wrong)
        return "answered"

    async def _watch_memory(self) -> None:
        below = psutil.Process(self._server.process.pid).children(recursive=True)
        while True:
            for process in below:
                if process.is_running():
                    name = f"{process.name()} {process.pid}"
                    memory = process.memory_info()
                    self._memory.setdefault(name, []).append(memory.rss - memory.shared)
            await asyncio.sleep(self._seconds / 120)

    async def _look_at_the_end(self, before: str) -> None:
        deadline = time.monotonic() + QUIET_S
        while True:
            after, report = await self._metrics(), self.report
            report.requests_left = metric_in(after, "vllm:num_requests_running")
            report.requests_left += metric_in(after, "vllm:num_requests_waiting")
            report.requests_left += metric_in(after, "treepo_running_trees")
            if not report.requests_left or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        report.kv_left = metric_in(after, "vllm:kv_cache_usage_perc")
        engine, ours = (
            metric_in(after, name, labels) - metric_in(before, name, labels)
            for name, labels in (
                ("vllm:generation_tokens_total", ""),
                ("treepo_tokens_total", 'kind="generated"'),
            )
        )
        report.tokens_unaccounted = 0.0 if self._is_plain else engine - ours
        for name, values in self._memory.items():
            quarter = len(values) // 4
            report.private_bytes[name] = _twelfths(values)
            report.growth_bytes[name] = int(
                median(values[-quarter:]) - median(values[quarter : 2 * quarter])
            )

    async def _metrics(self) -> str:
        return await asyncio.to_thread(self._server.read, "/metrics")


def _twelfths(values: Sequence[int]) -> list[int]:
    """The median of each twelfth, in order."""
    size = len(values) / 12
    parts = [values[int(i * size) : int((i + 1) * size)] for i in range(12)]
    return [int(median(part)) for part in parts if part]


def wrong_whole(answer: Any, num_choices: int) -> str | None:
    """What is wrong with a whole response, if anything."""
    if len(answer.choices) > num_choices or not answer.choices:
        return f"{len(answer.choices)} choices of {num_choices}"
    if any(choice.finish_reason not in ("stop", "length") for choice in answer.choices):
        return "a choice without an end"
    if answer.usage.completion_tokens != answer.tree["stats"]["generated_tokens"]:
        return "usage is not what was generated"
    return wrong_counts(answer.tree["stats"])


def wrong_stream(chunks: Sequence[Any], num_choices: int) -> str | None:
    """What is wrong with a stream, if anything."""
    begun = {choice.index for chunk in chunks for choice in chunk.choices}
    ended = [c.index for chunk in chunks for c in chunk.choices if c.finish_reason]
    if sorted(ended) != sorted(begun):
        return f"choices {sorted(begun)} began and {sorted(ended)} ended"
    trees = [t for chunk in chunks if (t := getattr(chunk, "tree", None)) and t.get("stats")]
    if len(trees) != 1:
        return f"{len(trees)} chunks with the whole tree among {len(chunks)} for n={num_choices}"
    return wrong_counts(trees[0]["stats"])


def wrong_counts(stats: dict[str, int]) -> str | None:
    """Whether a tree's counts contradict each other."""
    kept = stats["trajectory_tokens"] + stats["discarded_tokens"]
    is_right = kept == stats["generated_tokens"] + stats["reused_tokens"]
    return None if is_right else f"counts do not add up: {stats}"


def main(argv: Sequence[str] | None = None) -> int:
    """Soaks a server of its own; 0 where nothing is wrong."""
    parser = ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="as many plain choices, no tree")
    parser.add_argument("--large-caches", action="store_true", help="oneDNN's as they are")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        model = build(Path(folder, "model"), max_length=MODEL_TOKENS)
        flags = ["--served-model-name", MODEL, "--kv-cache-memory-bytes", str(KV_BYTES)]
        caches = {} if args.large_caches else SMALL_CACHES
        with serve(model, Path(folder, "log"), *flags, **caches) as server:
            soak = Soak(server, args.seconds, args.callers, args.seed, args.plain)
            report = asyncio.run(soak.run())
    for problem in report.problems:
        print(problem, file=sys.stderr)
    settings = {"benchmark": "soak", "callers": args.callers, "is_plain": args.plain}
    print(json.dumps({**settings, **asdict(report)}))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
