"""Which search policy gives most per generated token, where the law is known.

Every configuration answers the same problems on scripted chains; each is compared with
independent sampling at the same number of generated tokens, by interpolating the independent
curve. `python -m bench.search` prints the table that docs/log.md keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.report import publish
from bench.results import make_result
from treepo.answers.reader import Answer
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.scripted import ScriptedEngine, TokenMachine
from treepo.growth.texts import Texts
from treepo.sampler import Job, sample_tree
from treepo.tree import Tree
from treepo.verdict.plans import INDEPENDENT
from treepo.votes.evidence import Sharing, effective_samples

LETTERS = ".-abcdxy"  # the text of tokens 0 to 7; answers are made of a, b, c and d
LENGTH = 240
PROMPT = [9] * 17


@dataclass(frozen=True, slots=True)
class Problem:
    """A chain with a known law and its modal answer."""

    machine: TokenMachine
    gold: str


class Letters:
    """Decodes a token to one letter."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """One letter per token."""
        return "".join(LETTERS[token] for token in token_ids)


@dataclass(frozen=True, slots=True)
class Choices:
    """Reads an answer: the letters chosen at uncertain steps, or only the last of them."""

    only_last: bool

    async def read(self, text: str) -> Answer | None:
        """All choices of a path, as one key."""
        chosen = "".join(letter for letter in text if letter in "abcd")
        key = chosen[-1:] if self.only_last else chosen
        return Answer(key, key)


def steps(places: set[int], right: float = 0.7, noise: float = 0.0) -> Problem:
    """A chain of `LENGTH` tokens, uncertain at `places`; right only if every choice is `a`.

    `noise` is the probability of the rarer letter at every fourth token that decides nothing.
    """
    wrong = (1 - right) / 3
    table: dict[str, dict[int, tuple[float, str]]] = {}
    for i in range(LENGTH):
        after = str(i + 1)
        if i == LENGTH - 1:
            table[str(i)] = {0: (1.0, "0")}
        elif i in places:
            chances = {2: right, 3: wrong, 4: wrong, 5: wrong}
            table[str(i)] = {token: (p, after) for token, p in chances.items()}
        elif noise and i % 4 == 1:
            table[str(i)] = {6: (1 - noise, after), 7: (noise, after)}
        else:
            table[str(i)] = {1: (1.0, after)}
    return Problem(TokenMachine(table, "0"), "a" * len(places))


def memoryless(stop: float = 0.01, flip: float = 0.02) -> Problem:
    """Two states that flip and stop at every token alike; the answer is the last state."""
    back = flip * 1.45
    a = {2: (1 - stop - flip, "a"), 3: (flip, "b"), 0: (stop, "a")}
    b = {3: (1 - stop - back, "b"), 2: (back, "a"), 0: (stop, "b")}
    return Problem(TokenMachine({"a": a, "b": b}, "a"), "a")


def problems(chain: str, count: int) -> Iterator[Problem]:
    """`count` problems of a chain, the same ones every time."""
    rng = random.Random(0)
    for _ in range(count):
        match chain:
            case "early":
                yield steps({8, 24, 40})
            case "late":
                yield steps({180, 200, 220})
            case "late, noisy":
                yield steps({180, 200, 220}, noise=0.3)
            case "three random steps":
                yield steps(set(rng.sample(range(5, LENGTH - 2), 3)))
            case "memoryless":
                yield memoryless()


CHAINS = ("early", "late", "late, noisy", "three random steps", "memoryless")
BUDGETS = (1, 2, 4, 8, 12, 16, 24, 32)
POLICIES: dict[str, dict[str, Any]] = {
    "even, root 2, factor 2": {"branching": "even"},
    "even, root 8, factor 2": {"branching": "even", "root_branching": 8},
    "even, root 1, no fallback": {"branching": "even", "root_branching": 1, "fallback": "none"},
    "low_prob, root 2, factor 2": {"branching": "low_prob"},
    "high_prob, root 2, factor 2": {"branching": "high_prob"},
    "entropy": {},
    "entropy, factor 4": {"branching_factor": 4},
    "entropy, factor 2": {"branching_factor": 2},
    "entropy, root 4": {"root_branching": 4},
    "entropy, settled": {"until": "settled"},
    "entropy, start 4, settled": {"until": "settled", "start": 4},
    "entropy, start 4, until 0.95": {"until": 0.95, "start": 4},
    "entropy, root 4, start 4, settled": {"until": "settled", "start": 4, "root_branching": 4},
    "entropy, prune": {"prune": "confidence"},
    "independent, settled": {**INDEPENDENT, "root_branching": 16, "until": "settled"},
    "independent, start 4, settled": {
        **INDEPENDENT,
        "root_branching": 16,
        "until": "settled",
        "start": 4,
    },
    "independent, start 4, until 0.95": {
        **INDEPENDENT,
        "root_branching": 16,
        "until": 0.95,
        "start": 4,
    },
}


@dataclass(frozen=True, slots=True)
class Row:
    """Means over the problems of one configuration; `paths` is tokens over one path's length."""

    tokens: float
    leaves: float
    accuracy: float
    passed: float
    effective: float
    true_effective: float


async def run(chain: str, count: int, config: TreeConfig, reference: float) -> Row:
    """Sample a tree for every problem and judge it."""
    reader = Choices(only_last=chain == "memoryless")
    texts = Texts(Letters(), reader)
    trees, golds = [], []
    for start in range(0, count, 100):
        batch = list(problems(chain, count))[start : start + 100]
        jobs = [
            Job(PROMPT, Sampling(1200, seed=start + i), config, texts=texts,
                entropy_reference=reference)
            for i, problem in enumerate(batch)
        ]  # fmt: skip
        engines = [ScriptedEngine(problem.machine) for problem in batch]
        pairs = zip(engines, jobs, strict=True)
        trees += await asyncio.gather(*(sample_tree(engine, job) for engine, job in pairs))
        golds += [problem.gold for problem in batch]
    return _judge(trees, golds)


def _judge(trees: list[Tree], golds: list[str]) -> Row:
    right, passed, shares = [], [], []
    for tree, gold in zip(trees, golds, strict=True):
        counts = Counter(t.answer for t in tree.trajectories)
        best = max(counts.values())
        winners = [answer for answer, n in counts.items() if n == best]
        right.append((gold in winners) / len(winners))
        passed.append(gold in counts)
        shares.append(sum(t.weight for t in tree.trajectories if t.answer == gold))
    mean = float(np.mean(shares))
    return Row(
        tokens=float(np.mean([t.stats.generated_tokens for t in trees])),
        leaves=float(np.mean([len(t.trajectories) for t in trees])),
        accuracy=float(np.mean(right)),
        passed=float(np.mean(passed)),
        effective=float(np.mean([effective_samples(Sharing.of(t)) for t in trees])),
        true_effective=mean * (1 - mean) / max(float(np.var(shares)), 1e-9),
    )


def mean_entropy(chain: str) -> float:
    """Mean next-token entropy of a chain, in nats: what an engine's running reference finds."""
    engine = ScriptedEngine(next(problems(chain, 1)).machine)
    job = Job(PROMPT, Sampling(1200, seed=0), independent(64))
    tree = asyncio.run(sample_tree(engine, job))
    values = [value for node in tree.nodes for value in node.uncertainty]
    return float(np.mean(values))


def independent(width: int) -> TreeConfig:
    """`width` paths of which none branches."""
    return TreeConfig(width=width, root_branching=width, **INDEPENDENT)


def compare(chain: str, count: int) -> dict[str, Any]:
    """All configurations on one chain, beside the independent curve."""
    reference = mean_entropy(chain)
    curve = {n: asyncio.run(run(chain, count, independent(n), reference)) for n in BUDGETS}
    rows = {
        name: asyncio.run(run(chain, count, TreeConfig(width=16, **fields), reference))
        for name, fields in POLICIES.items()
    }
    length = curve[1].tokens
    print(f"\n### {chain} (mean entropy {reference:.3f} nats, path {length:.0f} tokens)\n")
    print("| policy | leaves | paths of tokens | accuracy | independent there | difference |"
          " pass@N | effective per path: estimate, true |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    tokens = [row.tokens for row in curve.values()]
    right = [row.accuracy for row in curve.values()]
    for name, row in [("independent, 16", curve[16]), *rows.items()]:
        there = float(np.interp(row.tokens, tokens, right))
        paths = row.tokens / length
        print(
            f"| {name} | {row.leaves:.1f} | {paths:.2f} | {row.accuracy:.3f} | {there:.3f} | "
            f"{row.accuracy - there:+.3f} | {row.passed:.3f} | {row.effective / paths:.2f}, "
            f"{row.true_effective / paths:.2f} |"
        )
    return {
        "reference": reference,
        "independent": {str(n): asdict(row) for n, row in curve.items()},
        "policies": {name: asdict(row) for name, row in rows.items()},
    }


def main() -> None:
    """Run every chain and write bench/results/search.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=1000)
    args = parser.parse_args()
    samples = [{"chain": chain, **compare(chain, args.problems)} for chain in CHAINS]
    config = {"problems": args.problems, "width": 16, "policies": POLICIES}
    summary = {
        sample["chain"]: {
            name: row["true_effective"] / row["tokens"] * sample["independent"]["1"]["tokens"]
            for name, row in sample["policies"].items()
        }
        for sample in samples
    }
    publish(make_result("search", seed=0, config=config, samples=samples, summary=summary))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
