"""Accuracy against generated tokens: every branching policy against independent sampling.

The problems are the reasoner's test problems; the trees stand in one file that a later run goes
on with, and whatever a pool of independent trajectories can answer is replayed from it. It says
its verdict and ends with 0 whichever way that falls. `python -m bench.quality` writes its result
file; `--only judge` judges the trees there are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.reasoner import problems as reasoner
from bench.reasoner.model import prepare_reasoner
from bench.reasoner.problems import BENCH_LEVEL, problems
from bench.report import publish
from bench.results import FOLDER, make_result
from treepo.errors import EngineError
from treepo.local.backends import VllmBackend
from treepo.rollout.files import RolloutWriter, read
from treepo.rollout.prompts import Prompt
from treepo.tree import Tree
from treepo.verdict.collect import LocalSampler, Problem, Study, Task, known
from treepo.verdict.outcomes import gold_key
from treepo.verdict.plans import Plan, pool_plan, replayed_plans
from treepo.verdict.plots import plot_accuracy, plot_branches
from treepo.verdict.report import report
from treepo.verdict.verdict import Verdict, make_verdict

WIDTH = 16
TREE = "entropy"
SAMPLED = (
    pool_plan(WIDTH),
    Plan(TREE, {"root_branching": 1}),
    Plan("entropy, root 4", {"root_branching": 4}),
    Plan("entropy, start 4, until 0.95", {"start": 4, "until": 0.95}),
    Plan("even, root 2", {"branching": "even"}),
    Plan("even, root 8", {"branching": "even", "root_branching": 8}),
    Plan("low_prob, root 2", {"branching": "low_prob"}),
    Plan("high_prob, root 2", {"branching": "high_prob"}),
    Plan(
        "even, root 1, no fallback", {"branching": "even", "root_branching": 1, "fallback": "none"}
    ),
)
REPLAYED = (*replayed_plans(), Plan("entropy, settled", {"until": "settled"}, TREE))
BASE = {"width": WIDTH, "segment_tokens": 16, "stop_on_answer": False, "answer": "boxed"}


def chosen(names: Sequence[str]) -> list[Plan]:
    """The plans of these names, and those that can be replayed from them; the pool is always in."""
    sampled = [plan for plan in SAMPLED if plan is SAMPLED[0] or plan.name in names]
    sources = {plan.name for plan in sampled}
    return sampled + [plan for plan in REPLAYED if plan.source in sources]


async def make_problem(problem: reasoner.Problem) -> Problem:
    """A problem of the reasoner, with the key of its right answer."""
    turns = [{"role": "user", "content": problem.question}]
    columns = {"id": problem.id, "messages": turns, "answer": problem.answer}
    return Problem(problem.id, Prompt(problem.id, turns, columns), await gold_key(problem.answer))


def study(args: argparse.Namespace, plans: Sequence[Plan], model: str) -> Study:
    """The first test problems under these plans."""
    chosen_problems = islice(problems("test", BENCH_LEVEL), args.problems)
    found = [asyncio.run(make_problem(problem)) for problem in chosen_problems]
    sampled = [plan for plan in plans if plan.source is None]
    sampling = {"max_tokens": args.max_tokens, "temperature": args.temperature}
    settings = {**sampling, "wants_logprobs": False}
    return Study(found, sampled, BASE, settings, {"model": Path(model).name})


def fill(work: Study, model: str, path: Path, args: argparse.Namespace) -> None:
    """Sample what is missing in the file, for at most `--minutes`."""
    backend = VllmBackend(
        model, {"max_model_len": args.max_tokens + 256, "max_num_seqs": 128, "dtype": args.dtype}
    )
    with RolloutWriter(path) as writer:
        missing = [task for task in work.tasks() if task.key not in writer.keys]
        if not missing:
            return
        with backend.engine() as engine:
            sampler = LocalSampler(engine, backend.tokenizer(), work)
            for rollout in read(path):
                sampler.reference.observe(rollout.tree)
            limit = args.minutes * 60 if args.minutes else None
            with suppress(TimeoutError):
                asyncio.run(_fill(sampler, writer, missing, limit))


async def _fill(
    sampler: LocalSampler, writer: RolloutWriter, missing: list[Task], limit: float | None
) -> None:
    started, tokens, done = time.monotonic(), 0, 0

    def told(task: Task, result: Tree | EngineError) -> None:
        nonlocal tokens, done
        done += 1
        tokens += result.stats.generated_tokens if isinstance(result, Tree) else 0
        speed = tokens / (time.monotonic() - started)
        print(f"{done}/{len(missing)} {task.plan.name}: {speed:.0f} tokens/s", flush=True)

    async with asyncio.timeout(limit):
        await sampler.fill(writer, missing, told, at_once=8)


def conclude(verdict: Verdict, config: dict[str, Any], name: str) -> None:
    """Write the result file."""
    curve = verdict.curve
    samples = [asdict(outcome) for row in verdict.rows for outcome in row.outcomes]
    independent = {
        str(n): {"accuracy": curve.at(n), "passed": float(curve.passed[:, n - 1].mean())}
        for n in range(1, curve.num_samples + 1)
    }
    summary = {
        "problems": len(verdict.problems),
        "path_tokens": float(curve.lengths.mean()),
        "independent": independent,
        "rows": [row.summary() for row in verdict.rows],
        "verdicts": {r.plan: verdict.sentence(r.plan) for r in verdict.rows[1:]},
    }
    publish(make_result(name, seed=1, config=config, samples=samples, summary=summary))


def judge(work: Study, plans: Sequence[Plan], model: str, args: argparse.Namespace) -> None:
    """Compare the trees there are, say it, and write the result file and plots."""
    trees = known(args.trees, work)
    verdict = make_verdict(work.problems, plans, trees)
    Console(width=160).print(report(verdict, plans[1].name if plans[1:] else plans[0].name))
    config = {
        "width": WIDTH, "base": BASE, "sampling": dict(work.sampling), "level": asdict(BENCH_LEVEL),
        "plans": {plan.name: {**plan.tree, "source": plan.source} for plan in plans},
        "model": Path(model).name, "dtype": args.dtype,
    }  # fmt: skip
    conclude(verdict, config, args.name)
    plot_accuracy(verdict, FOLDER / f"{args.name}-accuracy.png")
    plot_branches(
        [tree for (plan, _), tree in trees.items() if plan == TREE],
        FOLDER / f"{args.name}-branches.png",
    )
    print(json.dumps({row.plan: row.comparison.difference.value for row in verdict.rows}))


def main() -> None:
    """Sample, judge, say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--plans", nargs="*", default=[p.name for p in SAMPLED], metavar="NAME")
    parser.add_argument("--trees", type=Path, default=Path("quality-trees.jsonl"))
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--model", help="folder or hub name; default: the committed reasoner")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--minutes", type=float, help="stop sampling then; a later run goes on")
    parser.add_argument("--only", choices=("sample", "judge"), help="default: both")
    parser.add_argument("--name", default="quality", help="of the result file")
    args = parser.parse_args()
    model = args.model or str(prepare_reasoner())
    plans = chosen(args.plans)
    work = study(args, plans, model)
    if args.only != "judge":
        fill(work, model, args.trees, args)
    if args.only != "sample":
        judge(work, plans, model, args)


if __name__ == "__main__":
    main()
