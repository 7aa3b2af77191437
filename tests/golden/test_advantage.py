"""Estimators on trees small enough to be worked on paper.

The first tree is Figure 3 of the TreePO paper. Its figure prints +1.125 as the term of group c for
leaf c2,2; Eq. 5 gives +1 - (-1/3) = +1.3333 (the six leaves of c hold two +1 and four -1), and
that is what stands here.
"""

import numpy as np
import pytest
from jaxtyping import install_import_hook

with install_import_hook("treepo.train", "beartype.beartype"):
    from treepo.train import estimators as of
    from treepo.train.advantage import AdvantageConfig, advantages
    from treepo.train.estimators import Options
    from treepo.train.groups import group

from treepo.errors import ConfigError
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish

A, B, C, C1, C2, C3, C11, C12, C21, C22, C23 = range(11)
PARENTS = [None, None, None, C, C, C, C1, C1, C2, C2, C2]
LEAVES = [A, B, C3, C11, C12, C21, C22, C23]
REWARDS = [-1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0]


def tree(parents, leaves, masses=None, *, exact=True, tokens=2):
    starts: list[int] = []
    nodes = []
    for index, parent in enumerate(parents):
        starts.append(0 if parent is None else starts[parent] + tokens)
        nodes.append(
            Node(
                id=index,
                parent=parent,
                path=index,
                start=starts[index],
                token_ids=tuple(range(tokens)),
                logprobs=(-1.0,) * tokens,
                mass=1.0 if masses is None else masses[index],
                finish=Finish.EOS if index in leaves else None,
            )
        )
    weight = 1 / len(leaves)
    return Tree(
        id="golden",
        prompt_token_ids=(1, 2),
        nodes=tuple(nodes),
        trajectories=tuple(Trajectory(leaf, Finish.EOS, weight) for leaf in leaves),
        finish=TreeFinish.COMPLETE,
        weights_exact=exact,
    )


FIGURE_3 = tree(PARENTS, LEAVES)


def of_leaves(function, *, sampled=FIGURE_3, rewards=REWARDS, **options):
    """One number a trajectory, once every node of it has been seen to hold the same."""
    groups = group(sampled, rewards)
    pairs = function(groups, Options(**options))
    column = pairs[np.arange(len(rewards)), groups.leaves]
    assert np.array_equal(pairs, np.where(groups.through, column[:, None], 0.0))
    return column


def of_nodes(function, *, sampled=FIGURE_3, rewards=REWARDS, **options):
    """One number a node, once every trajectory through it has been seen to hold the same."""
    groups = group(sampled, rewards)
    pairs = function(groups, Options(**options))
    row = np.where(groups.through, pairs, -np.inf).max(0)
    assert np.array_equal(pairs, np.where(groups.through, row, 0.0))
    return row


def test_treepo_average_is_equation_5_on_the_papers_figure_3():
    # a: root only, -1 + 1/4. c2,2: root 1 + 1/4, c 1 + 1/3, c2 1 - 1/3; mean 13/12.
    # c1,1: root -3/4, c -1 + 1/3, c1 0; mean -17/36. c3: root -3/4, c -2/3; mean -17/24.
    expected = [-3 / 4, 5 / 4, -17 / 24, -17 / 36, -17 / 36, 13 / 12, 13 / 12, -11 / 12]
    np.testing.assert_allclose(of_leaves(of.treepo), expected, rtol=1e-12)


def test_treepo_by_size_is_equation_6_on_the_papers_figure_3():
    # c2,2: (8 * 5/4 + 6 * 4/3 + 3 * 2/3) / 17 = 20/17. c1,1: (8 * -3/4 + 6 * -2/3 + 0) / 16.
    # c2,3: (8 * -3/4 + 6 * -2/3 + 3 * -4/3) / 17 = -14/17. c3: (8 * -3/4 + 6 * -2/3) / 14.
    expected = [-3 / 4, 5 / 4, -5 / 7, -5 / 8, -5 / 8, 20 / 17, 20 / 17, -14 / 17]
    np.testing.assert_allclose(of_leaves(of.treepo_size), expected, rtol=1e-12)


def test_treepo_without_the_root_group_leaves_root_singletons_at_zero():
    # c2,2: mean of 4/3 and 2/3. c1,1: mean of -2/3 and 0. c3: -2/3.
    expected = [0, 0, -2 / 3, -1 / 3, -1 / 3, 1, 1, -1]
    np.testing.assert_allclose(of_leaves(of.treepo, root_group=False), expected, atol=1e-12)


def test_rejecting_flat_subgroups_drops_their_zero_term_and_nothing_else():
    # c1 holds two equal rewards: c1,1 becomes the mean of -3/4 and -2/3.
    expected = [-3 / 4, 5 / 4, -17 / 24, -17 / 24, -17 / 24, 13 / 12, 13 / 12, -11 / 12]
    np.testing.assert_allclose(of_leaves(of.treepo, reject_flat=True), expected, rtol=1e-12)


def test_treepo_segment_is_the_difference_of_child_means_of_size_weighted_values():
    # With its own singleton each leaf below the root divides by one more than Eq. 6:
    # a -6/9, b 10/9, c3 -10/15, c1,i -10/17, c2,1 = c2,2 20/18, c2,3 -14/18.
    c1, c2, c3 = -10 / 17, (20 / 18 + 20 / 18 - 14 / 18) / 3, -10 / 15
    c = (c1 + c2 + c3) / 3
    expected = [-6 / 9, 10 / 9, c, c1 - c, c2 - c, c3 - c, 0, 0]
    expected += [20 / 18 - c2, 20 / 18 - c2, -14 / 18 - c2]
    np.testing.assert_allclose(of_nodes(of.treepo_segment), expected, atol=1e-12)


def test_spo_is_the_difference_of_child_means_of_rewards():
    # c1 -1, c2 1/3, c3 -1; c their mean -5/9; prompt (-1 + 1 - 5/9) / 3 = -5/27.
    c, prompt = -5 / 9, -5 / 27
    expected = [-1 - prompt, 1 - prompt, c - prompt, -1 - c, 1 / 3 - c, -1 - c]
    expected += [0, 0, 2 / 3, 2 / 3, -4 / 3]
    np.testing.assert_allclose(of_nodes(of.spo), expected, atol=1e-12)


def test_treerl_adds_the_global_and_the_local_difference_of_leave_one_out_rewards():
    # Centred rewards 8/7 (R + 1/4): -6/7 and 10/7. c: (2 * 10/7 - 4 * 6/7) / 6 = -2/21.
    low, high, c = -6 / 7, 10 / 7, -2 / 21
    c2 = (2 * high + low) / 3
    expected = [2 * low, 2 * high, 2 * c, 2 * low - c, 2 * c2 - c, 2 * low - c]
    expected += [low, low, 2 * high - c2, 2 * high - c2, 2 * low - c2]
    np.testing.assert_allclose(of_nodes(of.treerl), expected, atol=1e-12)


def test_grpo_and_rloo_see_one_flat_group():
    std = np.sqrt((5 * 0.75**2 + 3 * 1.25**2) / 7)
    centred = np.array(REWARDS) + 0.25
    np.testing.assert_allclose(of_leaves(of.grpo), centred / (std + 1e-6), rtol=1e-12)
    np.testing.assert_allclose(of_leaves(of.grpo, group_std=False), centred, rtol=1e-12)
    np.testing.assert_allclose(of_leaves(of.rloo), centred * 8 / 7, rtol=1e-12)


def test_tree_grpo_adds_the_z_scores_of_prompt_and_tree_which_are_one_here():
    pairs = of.tree_grpo(group(tree([None, None], [0, 1]), [1.0, 0.0]), Options())
    # Mean 1/2, std sqrt(1/2), and both once more.
    z = 0.5 / np.sqrt(0.5)
    np.testing.assert_allclose(pairs.diagonal(), [z + z, -z - z], rtol=1e-5)


def test_mass_loo_subtracts_the_mass_weighted_mean_of_the_leaves_elsewhere():
    # a (mass 1/2) and c (1/2), which forks into d and e (1/4 each).
    sampled = tree([None, None, 1, 1], [0, 2, 3], [0.5, 0.5, 0.25, 0.25])
    pairs = of.mass_loo(group(sampled, [1.0, 1.0, 0.0]), Options())
    b_a, b_c = (0.25 * 1 + 0.25 * 0) / 0.5, 1.0
    b_d, b_e = (0.5 * 1 + 0.25 * 0) / 0.75, (0.5 * 1 + 0.25 * 1) / 0.75
    expected = [[1 - b_a, 0, 0, 0], [0, 1 - b_c, 1 - b_d, 0], [0, 0 - b_c, 0, 0 - b_e]]
    np.testing.assert_allclose(pairs, expected, atol=1e-12)


def test_sums_of_positive_and_negative_parts_carry_the_token_weight():
    # Node c: leaves c3, c1,1, c1,2, c2,3 are negative, c2,1 and c2,2 positive.
    low, high = -0.75, 1.25
    config = {"estimator": "grpo", "options": Options(group_std=False)}
    for weight, factor in [("leaf", 1.0), ("once", 1 / 6), ("sqrt", 1 / np.sqrt(6))]:
        [got] = advantages([FIGURE_3], [REWARDS], AdvantageConfig(**config, token_weight=weight))
        assert got.positive[C] == pytest.approx(2 * high * factor)
        assert got.negative[C] == pytest.approx(-4 * low * factor)
        assert got.weight[C] == pytest.approx(6 * factor)
        assert got.n_leaves[C] == 6


def test_divisors_count_weighted_tokens_trajectories_or_trees():
    # Two tokens a node; path lengths in nodes: a 1, b 1, c3 2, the others 3.
    for aggregate, divisor in [("token", 2 * (1 + 1 + 2 + 5 * 3)), ("sequence", 8), ("tree", 1)]:
        [got] = advantages(
            [FIGURE_3], [REWARDS], AdvantageConfig(estimator="rloo", aggregate=aggregate)
        )
        assert got.divisor == divisor
    [once] = advantages([FIGURE_3], [REWARDS], AdvantageConfig(estimator="spo"))
    assert once.divisor == pytest.approx(2 * 11)


def test_sequence_aggregation_divides_by_each_trajectorys_own_length():
    [by_token] = advantages([FIGURE_3], [REWARDS], AdvantageConfig(estimator="rloo"))
    [by_sequence] = advantages(
        [FIGURE_3], [REWARDS], AdvantageConfig(estimator="rloo", aggregate="sequence")
    )
    lengths = np.array([2, 2, 4, 6, 6, 6, 6, 6])[:, None]
    np.testing.assert_allclose(by_sequence.values, by_token.values / lengths, rtol=1e-12)


def test_std_divides_and_whitening_also_shifts_over_all_trajectory_tokens_of_the_batch():
    # Two trees of two leaves, one and three tokens long: token moments of +-1/2 are hand sums.
    short, long = tree([None, None], [0, 1], tokens=1), tree([None, None], [0, 1], tokens=3)
    lopsided = tree([None, None, 1], [0, 2], tokens=1)  # R = 1 on one token, 0 on two
    raw = AdvantageConfig(estimator="rloo")
    got = advantages([short, long, lopsided], [[1.0, 0.0]] * 3, raw)
    values = np.array([1, -1] + [1] * 3 + [-1] * 3 + [1, -1, -1], dtype=float)
    mean, std = values.mean(), np.sqrt(values.var(ddof=1) + 1e-8)
    for mode, shift in [("std", 0.0), ("whiten", mean)]:
        scaled = advantages(
            [short, long, lopsided],
            [[1.0, 0.0]] * 3,
            AdvantageConfig(estimator="rloo", normalise=mode),
        )
        for before, after in zip(got, scaled, strict=True):
            expected = np.where(before.weights > 0, (before.values - shift) / std, 0.0)
            np.testing.assert_allclose(after.values, expected, rtol=1e-12)


def test_a_trajectory_without_a_reward_is_as_if_it_had_not_been_sampled():
    rewards = [None if leaf in (A, C23) else r for leaf, r in zip(LEAVES, REWARDS, strict=True)]
    # Six leaves are left, three +1 and three -1, and c2 is flat.
    kept = of_leaves(of.treepo, rewards=rewards)
    assert kept[0] == kept[7] == 0.0
    # c2,1: root 1, c (five leaves, mean -1/5) 6/5, c2 0; mean 11/15.
    assert kept[5] == pytest.approx(11 / 15)
    [got] = advantages([FIGURE_3], [rewards], AdvantageConfig())
    assert got.n_leaves[[A, C, C2, C23]].tolist() == [0, 5, 2, 0]


def test_mass_loo_refuses_trees_whose_masses_are_not_exact():
    masses = [0.5, 0.5]
    exact = tree([None, None], [0, 1], masses)
    late = tree([None, None], [0, 1], masses, exact=False)
    config = AdvantageConfig(estimator="mass_loo")
    assert len(advantages([exact], [[1.0, 0.0]], config)) == 1
    with pytest.raises(
        ConfigError, match=r"`tree\.fallback=none`.*`advantages\.allow_inexact=true`"
    ):
        advantages([exact, late], [[1.0, 0.0]] * 2, config)
    with pytest.raises(ConfigError, match="1 of 1 trees"):
        advantages([exact], [[1.0, None]], config)
    with pytest.raises(ConfigError, match=r"`advantages\.token_weight` is 'leaf'.*allowed: `mass`"):
        advantages([exact], [[1.0, 0.0]], AdvantageConfig("mass_loo", token_weight="leaf"))
    allowed = AdvantageConfig(estimator="mass_loo", allow_inexact=True)
    assert len(advantages([late], [[1.0, 0.0]], allowed)) == 1
