"""The search policies on a real model: few-shot sums worked step by step, embedded model.

Every policy answers the same problems on the same engine in the same run. The independent curve
is replayed from one pool of trajectories per problem, and each policy is compared with it at the
tokens that it generated. A small model: what shows is the ranking at matched cost and what each
policy's leaves are worth, not accuracy. `python -m bench.fewshot` writes its result file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from bench.results import make_result, write_result
from treepo.config import TreeConfig
from treepo.engines.base import Engine, Sampling
from treepo.growth.reference import EntropyReference
from treepo.growth.texts import Texts
from treepo.local.backends import VllmBackend
from treepo.sampler import Job, sample_tree
from treepo.tree import Tree
from treepo.votes.evidence import Sharing, effective_samples
from treepo.votes.voting import choose

SHOTS = """Add the numbers from left to right.
Q: 4 + 3 + 2
A: 4 + 3 = 7, 7 + 2 = 9, so the answer is 9
Q: 6 + 1 + 5
A: 6 + 1 = 7, 7 + 5 = 12, so the answer is 12
Q: 2 + 8 + 4
A: 2 + 8 = 10, 10 + 4 = 14, so the answer is 14
"""
WIDTH = 8
POOL = 16
BUDGETS = (1, 2, 3, 4, 6, 8, 12, 16)
INDEPENDENT = {"branching": "even", "branching_factor": 1, "fallback": "none"}
POLICIES: dict[str, dict[str, Any]] = {
    "even, root 2, factor 2": {"branching": "even"},
    "low_prob, root 2, factor 2": {"branching": "low_prob"},
    "high_prob, root 2, factor 2": {"branching": "high_prob"},
    "even, root 4, factor 2": {"branching": "even", "root_branching": 4},
    "entropy": {},
    "entropy, factor 4": {"branching_factor": 4},
    "entropy, root 4": {"root_branching": 4},
    "entropy, start 4, settled": {"start": 4, "until": "settled"},
    "entropy, start 4, until 0.95": {"start": 4, "until": 0.95},
    "entropy, prune": {"prune": "confidence"},
    "independent, start 4, settled": {
        **INDEPENDENT, "root_branching": WIDTH, "start": 4, "until": "settled",
    },
    "independent, start 4, until 0.95": {
        **INDEPENDENT, "root_branching": WIDTH, "start": 4, "until": 0.95,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decoder:
    """The tokenizer, without its special tokens."""

    tokenizer: Any

    def decode(self, token_ids: Sequence[int]) -> str:
        """Plain text."""
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True))


@dataclass(slots=True)
class Bench:
    """One engine and its problems: (prompt tokens, right answer)."""

    engine: Engine
    decoder: Decoder
    problems: list[tuple[list[int], str]]
    temperature: float
    reference: EntropyReference

    async def trees(self, config: TreeConfig) -> list[Tree]:
        """A tree for every problem, all at once."""
        value = self.reference.value(None)

        async def one(prompt: list[int]) -> Tree:
            job = Job(
                prompt_token_ids=prompt,
                sampling=Sampling(64, temperature=self.temperature, stop=("\n",)),
                config=config,
                texts=Texts.from_config(self.decoder, config),
                entropy_reference=value,
            )
            return await sample_tree(self.engine, job)

        trees = await asyncio.gather(*(one(prompt) for prompt, _ in self.problems))
        for tree in trees:
            self.reference.observe(tree)
        return trees

    def judge(self, trees: list[Tree]) -> dict[str, float]:
        """Accuracy of the vote, pass@N, effective samples and tokens, as means."""
        golds = [gold for _, gold in self.problems]
        pairs = list(zip(trees, golds, strict=True))
        winners = [choose(tree, "majority") for tree in trees]
        return {
            "tokens": fmean(tree.stats.generated_tokens for tree in trees),
            "leaves": fmean(len(tree.trajectories) for tree in trees),
            "accuracy": fmean(
                bool(w and w.answer == gold) for w, gold in zip(winners, golds, strict=True)
            ),
            "passed": fmean(
                any(t.answer == gold for t in tree.trajectories) for tree, gold in pairs
            ),
            "single": fmean(
                sum(t.weight for t in tree.trajectories if t.answer == gold) for tree, gold in pairs
            ),
            "effective": fmean(effective_samples(Sharing.of(tree)) for tree in trees),
        }


def make_problems(tokenizer: Any, count: int) -> list[tuple[list[int], str]]:
    """`count` sums of three numbers up to 30, the same ones every time."""
    rng = random.Random(1)
    made = []
    for _ in range(count):
        terms = [rng.randint(2, 30) for _ in range(3)]
        text = f"{SHOTS}Q: {' + '.join(map(str, terms))}\nA:"
        made.append((tokenizer.encode(text), str(sum(terms))))
    return made


def curve_of(bench: Bench, pool: list[Tree], resamples: int = 200) -> dict[int, dict[str, float]]:
    """Accuracy and tokens of independent sampling at every budget, resampled from the pool."""
    rng = np.random.default_rng(0)
    points: dict[int, dict[str, float]] = {}
    for n in BUDGETS:
        right, tokens = [], []
        for tree, (_, gold) in zip(pool, bench.problems, strict=True):
            answers = [t.answer for t in tree.trajectories]
            lengths = [tree.nodes[t.leaf].end for t in tree.trajectories]
            for _ in range(resamples):
                drawn = rng.choice(len(answers), size=n, replace=False)
                given = [answers[i] for i in drawn if answers[i] is not None]
                best = min(given, key=lambda a: (-given.count(a), a)) if given else None
                right.append(best == gold)
                tokens.append(sum(lengths[i] for i in drawn))
        points[n] = {"accuracy": fmean(right), "tokens": fmean(tokens)}
    return points


def report(curve: dict[int, dict[str, float]], rows: dict[str, dict[str, float]]) -> None:
    """The table for docs/log.md."""
    length = curve[1]["tokens"]
    tokens = [point["tokens"] for point in curve.values()]
    right = [point["accuracy"] for point in curve.values()]
    print("independent:", {n: round(p["accuracy"], 3) for n, p in curve.items()})
    print(
        "\n| policy | leaves | paths of tokens | accuracy | independent there | difference |"
        " pass@N | effective per path |\n|---|---|---|---|---|---|---|---|"
    )
    for name, row in rows.items():
        there = float(np.interp(row["tokens"], tokens, right))
        paths = row["tokens"] / length
        print(
            f"| {name} | {row['leaves']:.1f} | {paths:.2f} | {row['accuracy']:.3f} | {there:.3f} |"
            f" {row['accuracy'] - there:+.3f} | {row['passed']:.3f} |"
            f" {row['effective'] / paths:.2f} |"
        )


async def run(bench: Bench) -> list[dict[str, Any]]:
    """The pool, then every policy."""
    pool = await bench.trees(TreeConfig(width=POOL, root_branching=POOL, **INDEPENDENT))
    curve = curve_of(bench, pool)
    print(bench.judge(pool), "entropy reference", round(bench.reference.value(None), 3))
    rows = {}
    for name, fields in POLICIES.items():
        rows[name] = bench.judge(await bench.trees(TreeConfig(width=WIDTH, **fields)))
        print(name, rows[name], flush=True)
    report(curve, rows)
    return [
        *({"independent": n, **point} for n, point in curve.items()),
        *({"policy": name, **row} for name, row in rows.items()),
    ]


def main() -> None:
    """Start the engine, run, write bench/results/fewshot.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--model", default=None)
    args = parser.parse_args()
    backend = VllmBackend(args.model, {"max_model_len": 1024})
    tokenizer = backend.tokenizer()
    with backend.engine() as engine:
        problems = make_problems(tokenizer, args.problems)
        bench = Bench(engine, Decoder(tokenizer), problems, args.temperature, EntropyReference())
        samples = asyncio.run(run(bench))
    config = {**vars(args), "policies": POLICIES, "pool": POOL, "width": WIDTH}
    summary = {row["policy"]: row["accuracy"] for row in samples if "policy" in row}
    write_result(make_result("fewshot", seed=1, config=config, samples=samples, summary=summary))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
