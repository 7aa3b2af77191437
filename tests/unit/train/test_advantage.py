"""Laws every estimator keeps, on ragged trees."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treepo.train.advantage import ESTIMATORS, AdvantageConfig, advantages
from treepo.train.estimators import Options
from treepo.train.groups import group
from treepo.tree import Node, Tree

SEEDS = st.integers(0, 400)
NAMES = st.sampled_from(sorted(ESTIMATORS))


def compute(name, tree, rewards, **options):
    [got] = advantages([tree], [rewards], AdvantageConfig(name, allow_inexact=True, **options))
    return got


def cut(tree: Tree, at: int) -> tuple[Tree, list[int]]:
    """The tree with one node stored as two, and where each old node's first half went."""
    nodes: list[Node] = []
    moved: list[int] = []
    for node in tree.nodes:
        parent = None if node.parent is None else moved[node.parent]
        half = len(node.token_ids) // 2 if node.id == at else 0
        if node.id == at:
            first = replace(node, token_ids=node.token_ids[:half], logprobs=node.logprobs[:half])
            nodes.append(replace(first, id=len(nodes), parent=parent, finish=None))
            parent = nodes[-1].id
        rest = replace(node, token_ids=node.token_ids[half:], logprobs=node.logprobs[half:])
        nodes.append(replace(rest, id=len(nodes), parent=parent, start=node.start + half))
        moved.append(len(nodes) - 1)
    ends = tuple(replace(t, leaf=moved[t.leaf]) for t in tree.trajectories)
    return replace(tree, nodes=tuple(nodes), trajectories=ends), moved


@settings(deadline=None)
@given(NAMES, SEEDS, st.integers(0, 1000))
def test_storing_a_segment_as_two_changes_no_advantage(
    make_tree, random_rewards, name, seed, where
):
    tree = make_tree(seed)
    rewards = random_rewards(tree, seed)
    at = where % len(tree.nodes)
    other, moved = cut(tree, at)
    before, after = compute(name, tree, rewards), compute(name, other, rewards)
    np.testing.assert_allclose(after.values[:, moved], before.values, atol=1e-12)
    np.testing.assert_allclose(after.values[:, moved[at] - 1], before.values[:, at], atol=1e-12)
    assert after.divisor == pytest.approx(before.divisor)


@settings(deadline=None)
@given(NAMES, SEEDS)
def test_a_dropped_trajectory_is_as_if_it_had_been_pruned(make_tree, random_rewards, name, seed):
    tree = make_tree(seed)
    rewards = [None, *random_rewards(tree, seed)[1:]] if tree.trajectories else []
    pruned = replace(tree, trajectories=tree.trajectories[1:])
    dropped, absent = compute(name, tree, rewards), compute(name, pruned, rewards[1:])
    np.testing.assert_allclose(dropped.values[1:], absent.values, atol=1e-12)
    assert not dropped.values[:1].any()
    assert not dropped.weights[:1].any()
    assert dropped.divisor == pytest.approx(absent.divisor)


@settings(deadline=None)
@given(NAMES, SEEDS, st.floats(-3, 3))
def test_a_constant_added_to_every_reward_changes_nothing(
    make_tree, random_rewards, name, seed, shift
):
    tree = make_tree(seed)
    rewards = random_rewards(tree, seed)
    before = compute(name, tree, rewards, normalise="none")
    after = compute(name, tree, [r + shift for r in rewards], normalise="none")
    # Where all trajectories pass a node `mass_loo` has no one left to compare with.
    free = before.n_leaves < max(len(rewards), 1) if name == "mass_loo" else slice(None)
    np.testing.assert_allclose(after.values[:, free], before.values[:, free], atol=1e-6)


@settings(deadline=None)
@given(SEEDS)
def test_leaf_counted_group_advantages_are_a_segment_estimator(make_tree, random_rewards, seed):
    # The sum over trajectories of R_l - mean on a shared token is n (V(n) - V(prompt)).
    tree = make_tree(seed)
    rewards = random_rewards(tree, seed)
    if not rewards:
        return
    got = compute("grpo", tree, rewards, options=Options(group_std=False))
    groups = group(tree, rewards)
    sizes = groups.sizes
    means = groups.rewards @ groups.through / np.maximum(sizes, 1)
    expected = np.where(sizes > 0, sizes * (means - groups.rewards.mean()), 0.0)
    if len(rewards) > 1:
        np.testing.assert_allclose(got.positive - got.negative, expected, atol=1e-12)


@settings(deadline=None)
@given(NAMES, SEEDS)
def test_sums_are_split_by_sign_and_only_trajectories_carry_them(
    make_tree, random_rewards, name, seed
):
    tree = make_tree(seed)
    got = compute(name, tree, random_rewards(tree, seed))
    np.testing.assert_allclose(got.positive - got.negative, got.values.sum(0), atol=1e-12)
    np.testing.assert_allclose(got.positive + got.negative, np.abs(got.values).sum(0), atol=1e-12)
    through = tree.leaves_through()
    assert got.n_leaves.tolist() == [len(leaves) for leaves in through]
    lost = np.array([not leaves for leaves in through])
    assert not got.positive[lost].any()
    assert not got.weight[lost].any()


def test_the_baseline_of_a_tree_is_its_own(make_tree):
    trees = [make_tree(5), make_tree(8)]
    rewards = [[1.0] * len(trees[0].trajectories), [0.0] * len(trees[1].trajectories)]
    assert not any(a.values.any() for a in advantages(trees, rewards, AdvantageConfig("rloo")))


def test_a_reward_list_of_the_wrong_length_is_refused(make_tree):
    tree = make_tree(5)
    with pytest.raises(ValueError, match="10 trajectories, but 1 rewards"):
        advantages([tree], [[1.0]], AdvantageConfig())


def test_equal_rewards_stay_zero_under_every_normalisation(make_tree):
    tree = make_tree(5)
    rewards = [1.0] * len(tree.trajectories)
    for mode in ("none", "std", "whiten"):
        assert not compute("treepo", tree, rewards, normalise=mode).values.any()
