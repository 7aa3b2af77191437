"""`until: settled` against the same tree run to its end, with the same randomness."""

import asyncio
import random
from collections import Counter

import pytest

from tests.support.machines import CharDecoder, LastLetter
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.scripted import Script, ScriptedEngine, TokenMachine
from treepo.growth.texts import Texts
from treepo.sampler import Job, sample_tree
from treepo.tree import Tree, TreeFinish
from treepo.votes.voting import choose

NUM_PAIRS = 20_000
BATCH = 250
PRUNED = {"prune": "confidence", "prune_window": 8, "prune_warmup": 1, "prune_quantile": 0.5}
POLICIES = [
    {"branching": "entropy", "vote": "majority", "entropy_threshold": 0.5},
    {"branching": "entropy", "vote": "weighted", "branching_factor": 3},
    {"branching": "entropy", "vote": "majority", "start": 3},
    {"branching": "entropy", "vote": "weighted", "start": 2, "root_branching": 2},
    {"branching": "entropy", "vote": "confidence", "root_branching": 2},
    {"branching": "entropy", "vote": "likelihood"},
    {"branching": "entropy", "vote": "weighted", "root_branching": 3} | PRUNED,
    {"branching": "even", "vote": "majority", "fallback": "none"},
    {"branching": "even", "vote": "weighted", "fallback": "none"},
    {"branching": "low_prob", "vote": "weighted", "root_branching": 3, "fallback": "none"},
]


def machine(rng: random.Random) -> TokenMachine:
    """Two states with random chances for three letters and an end."""
    table = {}
    for state in ("s", "t"):
        raw = [rng.random() ** 2 + 0.01 for _ in range(4)]
        total = sum(raw)
        states = ["s", "s", "t", "t"]
        table[state] = {
            token: (value / total, target)
            for token, value, target in zip((0, 1, 2, 3), raw, states, strict=True)
        }
    return TokenMachine(table, "s")


async def pairs(numbers: range, fields: dict) -> list[tuple[Tree, Tree]]:
    async def one(number: int, until: str) -> Tree:
        engine = ScriptedEngine(
            machine(random.Random(number)),
            Script(chunk_tokens=2, block_size=2, delay=lambda ids: sum(ids) % 3),
        )
        config = TreeConfig(width=6, segment_tokens=2, until=until, **fields)
        longest = Sampling(24 if "prune" in fields else 8, seed=number)
        job = Job([7], longest, config, texts=Texts(CharDecoder(), LastLetter()))
        return await sample_tree(engine, job)

    trees = await asyncio.gather(
        *(one(number, until) for number in numbers for until in ("complete", "settled"))
    )
    return list(zip(trees[::2], trees[1::2], strict=True))


@pytest.mark.parametrize("fields", POLICIES, ids=lambda f: "-".join(map(str, f.values())))
def test_settled_never_changes_the_winner(fields):
    vote, finishes = fields["vote"], Counter()
    share = NUM_PAIRS // len(POLICIES)
    for start in range(0, share, BATCH):
        numbers = range(start, min(start + BATCH, share))
        for full, settled in asyncio.run(pairs(numbers, fields)):
            assert full.finish is TreeFinish.COMPLETE
            finishes[settled.finish] += 1
            assert choose(full, vote).answer == choose(settled, vote).answer
            assert settled.stats.generated_tokens <= full.stats.generated_tokens
    assert finishes[TreeFinish.SETTLED] > share / 50, finishes
