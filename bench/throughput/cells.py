"""One measurement at a time: what a cell is, how it is measured and kept, what its ratios are.

Which cells are wanted it does not know (`__main__.py`), nor how trajectories are had (`sides.py`).
Another figure of a row is a line in `_figures`.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.reasoner.problems import BENCH_LEVEL, make
from bench.throughput.sides import SIDES, Load
from treepo.rollout.prompts import Prompt, token_ids

BASELINE = "n=16"


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement.

    Attributes:
        kind: `fixed` or `natural` lengths.
        in_flight: Prompts asked at once.
        max_tokens: Longest trajectory; with `fixed`, the length of all.
        segment_tokens: Tokens between boundaries.
        round: Sides of one round are compared.
        side: Which.
    """

    kind: str
    in_flight: int
    max_tokens: int
    segment_tokens: int
    round: int
    side: str

    @property
    def load(self) -> tuple[Any, ...]:
        """What it shares with the cells that it is compared with."""
        return (self.kind, self.in_flight, self.max_tokens, self.segment_tokens)


def prompts(cell: Cell, tokenizer: Any) -> list[list[int]]:
    """Prompts that no other cell has asked, so that nothing of them is in the prefix cache."""
    rng = random.Random(json.dumps(asdict(cell)))
    found = []
    for _ in range(cell.in_flight):
        question = make("test", rng.randrange(10_000_000), BENCH_LEVEL).question
        turns: list[dict[str, Any]] = [
            {"role": "system", "content": f"Session {rng.randrange(1 << 40)}."},
            {"role": "user", "content": question},
        ]
        found.append(token_ids(Prompt("", turns, {}), tokenizer))
    return found


async def measure(engine: Any, tokenizer: Any, cell: Cell) -> dict[str, Any]:
    """One cell."""
    name = "-".join(str(value) for value in asdict(cell).values()).replace(" ", "")
    asked = prompts(cell, tokenizer)
    load = Load(asked, cell.max_tokens, cell.segment_tokens, cell.kind == "fixed", name)
    started = time.perf_counter()
    answers = await SIDES[cell.side](engine, load)
    seconds = time.perf_counter() - started
    return {
        **asdict(cell),
        "seconds": round(seconds, 4),
        "trajectories": sum(answer.trajectories for answer in answers),
        "trajectory_tokens": sum(answer.trajectory_tokens for answer in answers),
        "generated_tokens": sum(answer.generated_tokens for answer in answers),
        "answer_s": [round(answer.seconds, 4) for answer in answers],
    }


def summarise(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each load and side the figures, and its ratios to `n=16` of the same round."""
    by_cell = {(Cell(**{n: s[n] for n in Cell.__dataclass_fields__})): s for s in samples}
    kinds = dict.fromkeys((cell.load, cell.side) for cell in by_cell)
    rows = []
    for load, side in kinds:
        own = {c.round: s for c, s in by_cell.items() if (c.load, c.side) == (load, side)}
        base = {c.round: s for c, s in by_cell.items() if (c.load, c.side) == (load, BASELINE)}
        both = sorted(own.keys() & base.keys())
        if both:
            pairs = [(own[number], base[number]) for number in both]
            rows.append({**_load(load), "side": side, "rounds": len(both), **_figures(pairs)})
    return rows


def _load(load: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("kind", "in_flight", "max_tokens", "segment_tokens"), load, strict=True))


def _figures(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    own = [sample for sample, _ in pairs]
    latencies = [seconds for sample in own for seconds in sample["answer_s"]]
    ratios = [_per_s(mine, "trajectories") / _per_s(base, "trajectories") for mine, base in pairs]
    waits = [median(base["answer_s"]) / median(mine["answer_s"]) for mine, base in pairs]
    return {
        "trajectories_per_s": median(_per_s(sample, "trajectories") for sample in own),
        "tokens_per_s": median(_per_s(sample, "generated_tokens") for sample in own),
        "p50_s": float(np.quantile(latencies, 0.5)),
        "p95_s": float(np.quantile(latencies, 0.95)),
        "speedup": median(ratios),
        "speedup_range": [min(ratios), max(ratios)],
        "answer_speedup": median(waits),
        "tokens_ratio": median(
            mine["generated_tokens"] / base["generated_tokens"] for mine, base in pairs
        ),
        "limit": median(s["trajectory_tokens"] / s["generated_tokens"] for s in own),
    }


def _per_s(sample: dict[str, Any], name: str) -> float:
    return float(sample[name] / sample["seconds"])


async def run(
    engine: Any,
    tokenizer: Any,
    wanted: Iterable[Cell],
    samples: list[dict[str, Any]],
    file: Path,
    limit_s: float = math.inf,
) -> None:
    """Measure the cells that are missing in `samples`, adding to it and to the file.

    No cell is begun more than `limit_s` seconds after the first.
    """
    started = time.monotonic()
    names = list(Cell.__dataclass_fields__)
    known = {tuple(sample[name] for name in names) for sample in samples}
    await measure(engine, tokenizer, Cell("fixed", 2, 16, 16, -1, BASELINE))
    with file.open("a") as stream:
        for cell in wanted:
            if tuple(getattr(cell, name) for name in names) in known:
                continue
            if time.monotonic() - started > limit_s:
                return
            sample = await measure(engine, tokenizer, cell)
            samples.append(sample)
            stream.write(json.dumps(sample) + "\n")
            stream.flush()
            speed = f"{_per_s(sample, 'generated_tokens'):.0f} tokens/s"
            print(f"{cell.side}, {cell.load}: {sample['seconds']:.1f} s, {speed}", flush=True)
