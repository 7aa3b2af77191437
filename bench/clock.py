"""Wall-clock to an answer: trees and independent samples, each alone on one engine.

`bench.quality` shares its engine among all plans, which is right for tokens and wrong for seconds.
Here one plan at a time answers a block of problems, so many at once, and the plans take turns,
block by block. Accuracies are those of `bench.quality`, which has more problems; what is measured
here are seconds, and from both comes the time in which independent sampling is as often right as a
plan. `python -m bench.clock` writes its result file; `--only judge` holds the seconds in it against
the accuracies of today.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.quality import BASE, WIDTH, make_problem
from bench.reasoner.model import prepare_reasoner
from bench.reasoner.problems import BENCH_LEVEL, problems
from bench.report import publish
from bench.results import FOLDER, Result, make_result
from treepo.engines.base import Engine
from treepo.errors import EngineError
from treepo.growth.reference import EntropyReference
from treepo.local.backends import VllmBackend
from treepo.rollout.files import RolloutWriter
from treepo.tree import Tree
from treepo.verdict.collect import LocalSampler, Study, Task
from treepo.verdict.plans import INDEPENDENT, Plan

COUNTS = (1, 2, 4, 8, WIDTH)
BASELINE = f"independent, {WIDTH}"
PLANS = (
    *(Plan(f"independent, {n}", {**INDEPENDENT, "root_branching": n, "width": n}) for n in COUNTS),
    Plan(
        "independent, start 4, until 0.95",
        {**INDEPENDENT, "root_branching": WIDTH, "start": 4, "until": 0.95},
    ),
    Plan("entropy"),
    Plan("entropy, start 4, until 0.95", {"start": 4, "until": 0.95}),
    Plan("even, root 2", {"branching": "even"}),
)
SAMPLING = {"max_tokens": 192, "temperature": 1.0, "wants_logprobs": False}


def turn(block: int) -> Sequence[Plan]:
    """The plans in the order of this block, another one in each."""
    first = block % len(PLANS)
    return PLANS[first:] + PLANS[:first]


async def measure(sampler: LocalSampler, plan: Plan) -> dict[str, Any]:
    """One plan on the sampler's block of problems, all at once."""
    trees: list[Tree] = []

    def told(_: Task, result: Tree | EngineError) -> None:
        if isinstance(result, EngineError):
            raise result
        trees.append(result)

    tasks = [task for task in sampler.study.tasks() if task.plan is plan]
    with tempfile.TemporaryDirectory() as folder, RolloutWriter(Path(folder, "t.jsonl")) as writer:
        started = time.perf_counter()
        await sampler.fill(writer, tasks, told, at_once=len(tasks))
        seconds = time.perf_counter() - started
    return {
        "plan": plan.name,
        "seconds": round(seconds, 3),
        "answer_s": [round(tree.stats.duration_s, 3) for tree in trees],
        "generated_tokens": sum(tree.stats.generated_tokens for tree in trees),
    }


def summarise(samples: Sequence[Mapping[str, Any]], known: Mapping[str, float]) -> list[Any]:
    """For each plan its seconds, and the time of independent sampling at the same accuracy.

    Args:
        samples: What `measure` returned, each with its `block`.
        known: Accuracy by plan, as `accuracies` reads it.
    """
    by_plan = {name: _by_block(samples, name) for name in dict.fromkeys(s["plan"] for s in samples)}
    curve = [(known[name], _seconds(by_plan[name])) for name in _independent() if name in by_plan]
    rows = []
    for name, own in by_plan.items():
        base = by_plan[BASELINE]
        ratios = [base[b]["seconds"] / own[b]["seconds"] for b in sorted(own.keys() & base.keys())]
        waits = [seconds for sample in own.values() for seconds in sample["answer_s"]]
        rows.append(
            {
                "plan": name,
                "blocks": len(own),
                "accuracy": known.get(name),
                "seconds": _seconds(own),
                "p50_s": float(np.quantile(waits, 0.5)),
                "p95_s": float(np.quantile(waits, 0.95)),
                "tokens": sum(s["generated_tokens"] for s in own.values()) / len(waits),
                "speedup": median(ratios),
                "speedup_range": [min(ratios), max(ratios)],
                "same_accuracy_speedup": _same_accuracy(known.get(name), _seconds(own), curve),
            }
        )
    return rows


def _by_block(samples: Iterable[Mapping[str, Any]], plan: str) -> dict[int, Mapping[str, Any]]:
    return {sample["block"]: sample for sample in samples if sample["plan"] == plan}


def _seconds(own: Mapping[int, Mapping[str, Any]]) -> float:
    """Median seconds a problem, where a block's problems share its time."""
    return median(sample["seconds"] / len(sample["answer_s"]) for sample in own.values())


def _independent() -> list[str]:
    return [f"independent, {count}" for count in COUNTS]


def _same_accuracy(
    accuracy: float | None, seconds: float, curve: Sequence[tuple[float, float]]
) -> float | None:
    """Seconds of independent sampling at this accuracy over `seconds`; None beyond the curve."""
    if accuracy is None or not curve[0][0] <= accuracy <= curve[-1][0]:
        return None
    rights, times = zip(*curve, strict=True)
    return float(np.interp(accuracy, np.maximum.accumulate(rights), times)) / seconds


def accuracies(summary: Mapping[str, Any]) -> dict[str, float]:
    """How often each plan is right, from the summary of `bench.quality`."""
    found = {f"independent, {n}": point["accuracy"] for n, point in summary["independent"].items()}
    return found | {row["plan"]: row["majority"]["accuracy"]["value"] for row in summary["rows"]}


async def run(engine: Engine, tokenizer: Any, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure whole blocks, until `--blocks` or `--minutes` are reached.

    A block before them warms the engine, and the entropy reference, as on a server in use.
    """
    started, samples = time.monotonic(), []
    every, reference = problems("test", BENCH_LEVEL), EntropyReference()
    for block in range(-1, args.blocks):
        asked = [await make_problem(problem) for problem in islice(every, args.in_flight)]
        sampler = LocalSampler(engine, tokenizer, Study(asked, PLANS, BASE, SAMPLING), reference)
        for plan in turn(block) if block >= 0 else [p for p in PLANS if p.name == BASELINE]:
            sample = {"block": block, **await measure(sampler, plan)}
            print(f"block {block} {plan.name}: {sample['seconds']:.1f} s", flush=True)
            samples.append(sample)
        if time.monotonic() - started > args.minutes * 60:
            break
    return [sample for sample in samples if sample["block"] >= 0]


def judged(result: Result) -> Result:
    """The result with accuracies as `bench.quality` knows them now; the seconds stay."""
    quality = json.loads((FOLDER / "quality.json").read_text())
    source = {"commit": quality["commit"], "problems": quality["summary"]["problems"]}
    rows = summarise(result.samples, accuracies(quality["summary"]))
    return result.model_copy(
        update={"config": {**result.config, "accuracies": source}, "summary": {"rows": rows}}
    )


def measured(args: argparse.Namespace) -> Result:
    """All plans in turns on an engine of its own."""
    arguments = {"max_model_len": 448, "max_num_seqs": 128}
    backend = VllmBackend(str(prepare_reasoner()), arguments)
    with backend.engine() as engine:
        samples = asyncio.run(run(engine, backend.tokenizer(), args))
    config = {
        "in_flight": args.in_flight, "base": BASE, "sampling": SAMPLING, "vllm": arguments,
        "plans": {plan.name: dict(plan.tree) for plan in PLANS},
    }  # fmt: skip
    return make_result("clock", seed=0, config=config, samples=samples, summary={"rows": []})


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.clock", description=__doc__)
    parser.add_argument("--in-flight", type=int, default=8, help="problems at one time")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no block after that")
    parser.add_argument("--only", choices=("judge",), help="the seconds there are, anew")
    args = parser.parse_args()
    if args.only == "judge":
        result = Result.model_validate_json((FOLDER / "clock.json").read_text())
    else:
        result = measured(args)
    result = judged(result)
    publish(result)
    print(json.dumps(result.summary["rows"]))


if __name__ == "__main__":
    main()
