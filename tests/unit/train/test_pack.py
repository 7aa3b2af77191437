"""Rows hold every token once, in an order in which masks are intervals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treepo.errors import ConfigError
from treepo.train.advantage import AdvantageConfig, TreeAdvantages, advantages
from treepo.train.pack import Row, bins, join, pack, padding_row, unpack

SEEDS = st.integers(0, 400)


def flat_advantages(tree) -> TreeAdvantages:
    """Each trajectory's advantage is its own number, so that a sum says who is in it."""
    rewards = [float(2**index) for index in range(len(tree.trajectories))]
    config = AdvantageConfig("rloo", aggregate="tree")
    [advantage] = advantages([tree], [rewards], config)
    return advantage


def path_of(row: Row, index: int) -> list[int]:
    path = []
    while index >= 0:
        path.append(index)
        index = int(row.parents[index])
    return path[::-1]


def endings(row: Row) -> list[tuple[int, ...]]:
    """The token strings from a prompt to every token that is nobody's parent."""
    inner = set(row.parents.tolist())
    ends = [index for index in range(len(row)) if index not in inner]
    return [tuple(row.token_ids[path_of(row, end)].tolist()) for end in ends]


def whole(tree, trajectory) -> tuple[int, ...]:
    return (*tree.prompt_token_ids, *tree.token_ids(trajectory))


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_paths_of_a_row_are_the_trajectories_of_its_tree(make_tree, seed):
    tree = make_tree(seed)
    rows = pack([tree], [flat_advantages(tree)], 100_000)
    wanted = {whole(tree, trajectory) for trajectory in tree.trajectories}
    found = {path for row in rows for path in endings(row)}
    prefixes = {path[:size] for path in wanted for size in range(len(path) + 1)}
    assert found <= prefixes
    assert {path for path in wanted if not _is_inner(path, wanted)} <= found


def _is_inner(path, others) -> bool:
    return any(len(other) > len(path) and other[: len(path)] == path for other in others)


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_positions_and_subtree_ends_are_those_of_the_parents(make_tree, seed):
    tree = make_tree(seed)
    for row in pack([tree], [flat_advantages(tree)], 100_000):
        paths = [path_of(row, index) for index in range(len(row))]
        assert row.positions.tolist() == [len(path) - 1 for path in paths]
        ends = [max(i for i, path in enumerate(paths) if k in path) + 1 for k in range(len(row))]
        assert row.subtree_ends.tolist() == ends


@settings(deadline=None, max_examples=40)
@given(st.lists(SEEDS, min_size=1, max_size=4), st.integers(0, 30))
def test_every_token_has_its_loss_in_one_row_and_no_row_is_too_long(make_tree, seeds, slack):
    trees = [make_tree(seed) for seed in seeds]
    advs = [flat_advantages(tree) for tree in trees]
    single = unpack(trees, advs, torch.float64)
    limit = max([len(row) for row in single], default=1) + slack
    rows = pack(trees, advs, limit, torch.float64)
    assert all(len(row) <= limit for row in rows)
    used = [
        len(node.token_ids)
        for tree, adv in zip(trees, advs, strict=True)
        for node, n in zip(tree.nodes, adv.n_leaves, strict=True)
        if n
    ]
    assert sum(int(row.loss_mask.sum()) for row in rows) == sum(used)
    for name in ("positive", "negative", "weights"):
        packed = sum(float(getattr(row, name)[row.loss_mask].sum()) for row in rows)
        apart = sum(float(getattr(row, name)[row.loss_mask].sum()) for row in single)
        assert packed == pytest.approx(apart, rel=1e-9, abs=1e-9)


def test_joined_rows_keep_their_own_parents_and_intervals(make_tree):
    trees = [make_tree(seed) for seed in (3, 4)]
    rows = [row for tree in trees for row in pack([tree], [flat_advantages(tree)], 9999)]
    joined = join(rows)
    assert len(joined) == sum(map(len, rows))
    assert sorted(endings(joined)) == sorted(e for row in rows for e in endings(row))
    start = len(rows[0])
    assert int(joined.parents[start]) == -1
    assert int(joined.subtree_ends[start]) == start + int(rows[1].subtree_ends[0])


def test_bins_take_the_largest_first_and_fill_gaps():
    def row(size):
        return join([padding_row()] * size)

    groups = bins([row(2), row(5), row(3), row(4)], 7)
    assert [[len(r) for r in group] for group in groups] == [[5, 2], [4, 3]]


def test_unpacked_rows_are_chains_in_which_only_the_prompt_has_no_loss(make_tree):
    tree = make_tree(7)
    rows = unpack([tree], [flat_advantages(tree)])
    assert len(rows) == len(tree.trajectories)
    for row, trajectory in zip(rows, tree.trajectories, strict=True):
        assert row.token_ids.tolist() == list(whole(tree, trajectory))
        assert row.parents.tolist() == list(range(-1, len(row) - 1))
        assert row.loss_mask.tolist() == [i >= len(tree.prompt_token_ids) for i in range(len(row))]
        prompt = len(tree.prompt_token_ids)
        assert row.sampling_logprobs[prompt:].tolist() == pytest.approx(tree.logprobs(trajectory))


def test_a_row_shorter_than_a_trajectory_is_refused_with_both_numbers(make_tree):
    tree = make_tree(7)
    longest = max(len(whole(tree, t)) for t in tree.trajectories)
    numbers = rf"`update\.row_tokens` is {longest - 1}, but .* has {longest} tokens"
    with pytest.raises(ConfigError, match=numbers):
        pack([tree], [flat_advantages(tree)], longest - 1)


def test_trees_without_sampling_logprobs_or_prompt_are_refused(make_tree):
    tree = make_tree(7)
    advantage = flat_advantages(tree)
    silent = replace(tree, nodes=tuple(replace(n, logprobs=()) for n in tree.nodes))
    with pytest.raises(ConfigError, match="sample with log-probabilities"):
        pack([silent], [advantage], 9999)
    with pytest.raises(ConfigError, match="empty prompt"):
        pack([replace(tree, prompt_token_ids=())], [advantage], 9999)


def test_a_tree_in_which_nothing_counts_gives_no_row(make_tree):
    tree = make_tree(7)
    config = AdvantageConfig("rloo")
    none = advantages([tree], [[None] * len(tree.trajectories)], config)
    assert pack([tree], none, 9999) == pack([tree], none, 1) == []
    assert unpack([tree], none) == []
    assert np.all(none[0].n_leaves == 0)
