"""Checks on one real engine with the reasoner: speed, entropies, and what answers cost."""

from __future__ import annotations

import asyncio
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from bench import entropy, overhead, quality
from bench.quick.check import Check, committed
from bench.reasoner.model import prepare_reasoner
from bench.reasoner.problems import BENCH_LEVEL, problems
from bench.throughput.cells import BASELINE, Cell, run, summarise
from treepo.local.backends import VllmBackend
from treepo.rollout.files import RolloutWriter
from treepo.verdict.collect import LocalSampler, Study, known
from treepo.verdict.verdict import make_verdict

_SIDE = "tree, even"
_LOAD = ("fixed", 8)
_ROUNDS = 3
_TOKENS = 32
_PROBLEMS = 12


def engine_checks() -> Iterator[Check]:
    """All checks of this module, on one engine."""
    backend = VllmBackend(str(prepare_reasoner()), {"max_model_len": 512, "max_num_seqs": 128})
    # One event loop for all: vLLM's client is dead once the loop that it first ran in has ended.
    with backend.engine() as engine, asyncio.Runner() as loop:
        yield from _throughput(loop, engine, backend.tokenizer())
        yield from _overhead(loop, engine, backend.tokenizer())
        yield _entropy(loop, engine)
        yield from _quality(loop, engine, backend.tokenizer())


def _throughput(loop: asyncio.Runner, engine: Any, tokenizer: Any) -> Iterator[Check]:
    """A tree against `n=16`: trajectories a second, and generated tokens."""
    rows = committed("throughput")["summary"]["rows"]
    like = [r for r in rows if (r["side"], r["kind"], r["in_flight"]) == (_SIDE, *_LOAD)]
    then = min(like, key=lambda row: row["max_tokens"])
    load = (*_LOAD, then["max_tokens"], then["segment_tokens"])
    cells, samples = [Cell(*load, 0, name) for name in (BASELINE, _SIDE)], list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        loop.run(run(engine, tokenizer, cells, samples, Path(folder, "samples.jsonl")))
    now = next(row for row in summarise(samples) if row["side"] == _SIDE)
    yield Check(f"{_SIDE}: speed over n=16", now["speedup"], then["speedup"], 1.5, is_cost=False)
    yield Check(f"{_SIDE}: tokens over n=16", now["tokens_ratio"], then["tokens_ratio"], 1.1)


def _overhead(loop: asyncio.Runner, engine: Any, tokenizer: Any) -> Iterator[Check]:
    """A tree that never branches, over a plain request."""
    args = Namespace(requests=16, prompt_tokens=64, tokens=_TOKENS, rounds=_ROUNDS, seed=11)
    samples = loop.run(overhead.Overhead(engine, tokenizer, args).rounds())
    now, then = overhead.summarise(samples), committed("overhead")["summary"]
    yield Check("one path: speed over plain", now["ratio"], then["ratio"], 1.15, is_cost=False)


def _entropy(loop: asyncio.Runner, engine: Any) -> Check:
    """Requests whose entropies are measured, over plain ones."""
    samples = loop.run(entropy.measure(engine.client, 32, _TOKENS, _ROUNDS))
    now = entropy.summarise(samples)["throughput_ratio"]
    then = committed("entropy")["summary"]["throughput_ratio"]
    return Check("entropies: speed over plain", now, then, 1.15, is_cost=False)


def _quality(loop: asyncio.Runner, engine: Any, tokenizer: Any) -> Iterator[Check]:
    """The default tree on some problems: its tokens, and what its leaves are worth."""
    plans = quality.chosen([quality.TREE])[:2]
    some = list(islice(problems("test", BENCH_LEVEL), _PROBLEMS))
    asked = [loop.run(quality.make_problem(problem)) for problem in some]
    study = Study(asked, plans, quality.BASE, {"max_tokens": 192, "wants_logprobs": False})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trees.jsonl")
        with RolloutWriter(path) as writer:
            sampler = LocalSampler(engine, tokenizer, study)
            loop.run(sampler.fill(writer, study.tasks(), lambda task, result: None, at_once=8))
        verdict = make_verdict(asked, plans, known(path, study))
    row = verdict.row(quality.TREE)
    names = {problem.name for problem in asked}
    then = [s for s in committed("quality")["samples"] if s["problem"] in names]
    before = {plan: [s for s in then if s["plan"] == plan] for plan in (plans[0].name, row.plan)}
    paths = _mean(before[row.plan], "tokens") / _mean(before[plans[0].name], "tokens")
    worth = _mean(before[row.plan], "effective") / paths
    now_paths = row.comparison.paths / len(verdict.curve.accuracy[0])
    yield Check(f"{row.plan}: tokens over independent", now_paths, paths, 1.15)
    now_worth = row.mean("effective") / now_paths
    yield Check(f"{row.plan}: effective over tokens", now_worth, worth, 1.25, is_cost=False)


def _mean(samples: list[dict[str, float]], name: str) -> float:
    return fmean(sample[name] for sample in samples)
