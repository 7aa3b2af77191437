"""Batches: who is left out, who ends the run, and what stored trees must have been drawn with."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.unit.train.conftest import ragged_tree
from treepo.engines.scripted import ScriptedEngine, TokenMachine
from treepo.errors import ConfigError, EngineError
from treepo.rollout.record import Rollout
from treepo.train.advantage import AdvantageConfig
from treepo.train.collect import Online, check_origin, sampling
from treepo.train.config import TrainConfig
from treepo.train.config_file import build
from treepo.train.data import Example
from treepo.train.rollouts import Ask, EngineRollouts
from treepo.tree import Tree

TREES = [replace(ragged_tree(seed, lost=False), weights_exact=True) for seed in (2, 3, 4)]


def config(**changes) -> TrainConfig:
    return build({"output_dir": "run", "data": {"train": "x"}, "prompts_per_step": 2, **changes})


class Told:
    """Rollouts that answer what they are told, one batch after the other."""

    def __init__(self, *batches) -> None:
        self.batches = list(batches)

    async def sample(self, asks):
        return self.batches.pop(0)[: len(asks)]


class Rewards:
    """Alternating rewards; None first for trees in `failing`."""

    def __init__(self, *failing: Tree) -> None:
        self.failing = {tree.id for tree in failing}

    def score(self, requests):
        scores = []
        for request, tree in zip(requests, self.trees, strict=False):
            values = [float(i % 2) for i in range(len(request.completions))]
            scores.append([None, *values[1:]] if tree.id in self.failing else values)
        return SimpleNamespace(rewards=scores, failures={})


def online(rollouts, rewards, **changes):
    examples = [Example(str(i), "p", (1,), {}) for i in range(4)]
    rewards.trees = [t for batch in rollouts.batches for t in batch if isinstance(t, Tree)]
    return Online(config(**changes), examples, rollouts, rewards)


def test_a_refused_prompt_among_replacements_is_counted_and_ends_nothing():
    rollouts = Told([TREES[0], EngineError("full")], [EngineError("full")], [EngineError("full")])
    batch = asyncio.run(online(rollouts, Rewards(), max_top_ups=2).next())
    assert [group.tree for group in batch.groups] == TREES[:1]
    assert batch.num_failed == 3


def test_without_any_tree_the_reason_is_raised():
    with pytest.raises(EngineError, match="full"):
        asyncio.run(online(Told([EngineError("full")] * 2), Rewards()).next())


def test_a_tree_with_a_lost_reward_is_left_out_where_the_estimator_needs_whole_ones():
    exact = {"advantages": AdvantageConfig(estimator="mass_loo"), "max_top_ups": 0}
    stream = online(Told(TREES[:2]), Rewards(TREES[0]), **exact)
    batch = asyncio.run(stream.next())
    assert [group.tree for group in batch.groups] == TREES[1:2]
    assert batch.num_failed == 1
    stream = online(Told(TREES[:2]), Rewards(TREES[0]), max_top_ups=0)
    assert len(asyncio.run(stream.next()).groups) == 2


def test_a_prompt_too_long_for_the_engine_is_the_error_of_its_own_ask():
    engine = ScriptedEngine(TokenMachine({"a": {0: (1.0, "a")}}, "a"))
    limit = engine.info.max_model_len
    rollouts = EngineRollouts(engine, None, SimpleNamespace(decode=lambda ids, **_: ""))
    asks = [
        Ask(name, (1,) * length, config().tree, sampling(config(), name))
        for name, length in (("short", 3), ("long", limit))
    ]
    short, long = asyncio.run(rollouts.sample(asks))
    assert isinstance(short, Tree)
    assert isinstance(long, EngineError)


@pytest.mark.parametrize(
    ("drawn", "named"), [({"temperature": 0.6}, "temperature=0.6"), ({"top_p": 0.9}, "top_p")]
)
def test_stored_trees_of_another_sampling_are_refused(drawn, named):
    fitting = Rollout("a", TREES[0], origin={"sampling": {"temperature": 1.0, "top_k": -1}})
    other = Rollout("b", TREES[0], origin={"sampling": drawn})
    check_origin([fitting, Rollout("c", TREES[0])], config())
    with pytest.raises(ConfigError, match=named):
        check_origin([fitting, other], config())
