"""A replay is what the sampler would have done, from trajectories that are already there."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.machines import CharDecoder, LastLetter, ToyAnswer
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.scripted import EOS, Script, ScriptedEngine, TokenMachine
from treepo.errors import EngineError
from treepo.growth.texts import Texts
from treepo.sampler import Job, sample_tree
from treepo.tree import Tree, TreeFinish
from treepo.verdict.plans import INDEPENDENT
from treepo.verdict.replay import replay

MACHINE = TokenMachine(
    {
        "s": {1: (0.6, "s"), 2: (0.3, "t"), EOS: (0.1, "s")},
        "t": {3: (0.7, "t"), 1: (0.15, "s"), EOS: (0.15, "t")},
    },
    "s",
)
POOL = {**INDEPENDENT, "width": 8, "root_branching": 8}


def sample(fields: Mapping[str, Any], seed: int = 3, chunk_tokens: int = 4) -> Tree:
    engine = ScriptedEngine(MACHINE, Script(chunk_tokens=chunk_tokens, seed=seed))
    texts = Texts(CharDecoder(), LastLetter())
    job = Job([9] * 17, Sampling(64), TreeConfig(**fields), "tree", texts)
    return asyncio.run(sample_tree(engine, job))


def again(tree: Tree, seed: int = 0, **changes: Any) -> Tree:
    return asyncio.run(replay(tree, changes, seed, chunk_tokens=4))


def paths(tree: Tree) -> set[tuple[tuple[int, ...], str | None]]:
    return {(tuple(tree.token_ids(t)), t.answer) for t in tree.trajectories}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fields", [POOL, {"width": 8}, {"width": 8, "branching_factor": 2}])
def test_without_a_change_a_replay_is_the_same_tree(fields: dict[str, Any], seed: int) -> None:
    tree = sample(fields, seed)
    same = again(tree)
    assert paths(same) == paths(tree)
    assert same.stats.generated_tokens == tree.stats.trajectory_tokens - tree.stats.reused_tokens
    assert sorted(t.weight for t in same.trajectories) == pytest.approx(
        sorted(t.weight for t in tree.trajectories)
    )


@pytest.mark.parametrize("fields", [POOL, {"width": 8}])
def test_a_settled_replay_costs_no_more_and_keeps_the_leader(fields: dict[str, Any]) -> None:
    for seed in range(20):
        tree = sample(fields, seed)
        early = again(tree, until="settled")
        assert early.stats.generated_tokens <= again(tree).stats.generated_tokens
        assert leader(early) == leader(tree)


def leader(tree: Tree) -> str | None:
    given = [t.answer for t in tree.trajectories if t.answer is not None]
    return min(given, key=lambda answer: (-given.count(answer), answer), default=None)


def test_a_start_opens_waves_of_so_many_known_trajectories() -> None:
    tree = sample(POOL)
    early = again(tree, start=2, until=0.6)
    assert early.finish is TreeFinish.CONFIDENT
    assert len(early.trajectories) < len(tree.trajectories)
    assert paths(early) <= paths(tree)


def test_the_order_of_the_known_paths_is_drawn_by_the_seed() -> None:
    tree = sample(POOL)
    firsts = {min(paths(again(tree, seed, start=1, until=0.6))) for seed in range(20)}
    assert len(firsts) > 1


def test_a_replay_that_needs_an_unknown_path_says_so() -> None:
    with pytest.raises(EngineError, match="lacks"):
        again(sample(POOL), width=12, root_branching=12)


@pytest.mark.parametrize("seed", range(4))
def test_among_equal_answers_a_settled_replay_stops_within_a_chunk_of_the_ninth(seed: int) -> None:
    lengths = random.Random(seed).sample(range(60, 120), 16)
    machine = TokenMachine(
        {
            "s": {i + 1: (1 / 16, f"{i}.1") for i in range(16)},
            **{
                f"{i}.{at}": {20 if at < end else EOS: (1.0, f"{i}.{at + 1}" if at < end else "s")}
                for i, end in enumerate(lengths)
                for at in range(1, end + 1)
            },
        },
        "s",
    )

    class Same:
        async def read(self, text: str) -> ToyAnswer | None:
            return ToyAnswer("1", "1")

    fields = {**INDEPENDENT, "width": 16, "root_branching": 16}
    job = Job([9] * 17, Sampling(200), TreeConfig(**fields), "t", Texts(CharDecoder(), Same()))
    tree = asyncio.run(sample_tree(ScriptedEngine(machine, Script(seed=seed)), job))
    early = asyncio.run(replay(tree, {"until": "settled"}, seed, chunk_tokens=1))
    assert early.finish is TreeFinish.SETTLED
    ends = sorted(tree.nodes[t.leaf].end for t in tree.trajectories)
    assert 9 <= len(early.trajectories) <= 9 + ends[9:].count(ends[8])
