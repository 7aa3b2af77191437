"""Batches: who is left out, who ends the run, and what stored trees must have been drawn with."""

import asyncio
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.unit.train.conftest import ragged_tree
from treepo.engines.scripted import ScriptedEngine, TokenMachine
from treepo.errors import ConfigError, EngineError
from treepo.rollout.record import Rollout
from treepo.train.advantage import ESTIMATORS, AdvantageConfig, advantages
from treepo.train.collect import Group, Online, sampling
from treepo.train.config import TrainConfig
from treepo.train.config_file import build
from treepo.train.data import Example
from treepo.train.rollouts import Ask, EngineRollouts
from treepo.train.stored import Stored, check_origin, stored_groups
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


def with_roots(count: int) -> Tree:
    """Whole trees whose trajectories share their first tokens, or not."""
    seeds = range(50)
    trees = (ragged_tree(seed, lost=False) for seed in seeds)
    tree = next(
        t
        for t in trees
        if len(t.trajectories) > 2 and sum(n.parent is None for n in t.nodes) == count
    )
    return replace(tree, weights_exact=True)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("roots", [1, 2])
@pytest.mark.parametrize("reward", [0.0, 1.0, None])
def test_a_prompt_of_equal_rewards_is_left_out_only_where_it_teaches_nothing(
    estimator, roots, reward
):
    tree = with_roots(roots)
    rewards = [reward] * len(tree.trajectories)
    config = AdvantageConfig(estimator, normalise="none", allow_inexact=True)
    [found] = advantages([tree], [rewards], config)
    group = Group(Example("a", "p", (1,), {}), tree, rewards)
    assert group.teaches(estimator) == (abs(found.values).max() > 1e-9)


LETTERS = SimpleNamespace(encode=lambda text: [ord(letter) for letter in text])


def in_words(text: str, *ids: int) -> Rollout:
    tree = replace(TREES[0], prompt_token_ids=ids)
    return Rollout("a", tree, columns={"prompt": text}, origin={"model": "other/model"})


@pytest.mark.parametrize(
    ("drawn", "named"), [({"temperature": 0.6}, "temperature=0.6"), ({"top_p": 0.9}, "top_p")]
)
def test_stored_trees_of_another_sampling_are_refused(drawn, named):
    fitting = Rollout("a", TREES[0], origin={"sampling": {"temperature": 1.0, "top_k": -1}})
    other = Rollout("b", TREES[0], origin={"sampling": drawn})
    check_origin([fitting, Rollout("c", TREES[0])], config(), LETTERS)
    with pytest.raises(ConfigError, match=named):
        check_origin([fitting, other], config(), LETTERS)


def test_stored_trees_of_another_tokenizer_are_refused():
    check_origin([in_words("ab", 97, 98)], config(), LETTERS)
    with pytest.raises(ConfigError, match=r"other tokens.* sampled with, 'other/model'"):
        check_origin([in_words("ab", 5)], config(), LETTERS)


def test_rewards_that_fail_on_stored_trees_are_counted():
    class Failing:
        def score(self, requests):
            rewards = [[None] * len(r.completions) for r in requests]
            return SimpleNamespace(rewards=rewards, failures=Counter(raised=3))

    tokenizer = SimpleNamespace(decode=lambda ids, **_: "")
    groups, failures = stored_groups([Rollout("a", TREES[0])], tokenizer, Failing())
    assert failures == {"raised": 3}
    with pytest.raises(
        ConfigError, match=r"in none of 1 trees .*\(3 rewards failed, 3 by raised\)"
    ):
        Stored(config(), groups, failures)
