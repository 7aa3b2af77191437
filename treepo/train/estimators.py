"""Estimators: the rewards of a tree's trajectories -> an advantage for every (trajectory, node).

Every published tree estimator is one map a(l, n): what trajectory l says about the tokens of
node n. Some give all nodes of a trajectory the same number (GRPO, RLOO, Tree-GRPO, TreePO), some
give all trajectories through a node the same number (TreePO segment, SPO, TreeRL), and `mass_loo`
does neither. This module knows formulas only: who shares what is `groups.py`; token weights,
normalisation over a batch and folding into a loss stand in `advantage.py`. A new estimator is a
function here and a line in `advantage.ESTIMATORS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from treepo.train.groups import Groups, NodeValues, PerLeaf, PerNode, PerPair

STD_EPSILON = 1e-6
"""Added to a group's standard deviation, as GRPO does."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an estimator may be told.

    Attributes:
        root_group: TreePO: whether the group of all trajectories of the prompt is one of the terms.
        reject_flat: TreePO: whether sub-groups whose rewards are all equal are left out (Eq. 7)
            instead of counting as a term of 0.
        group_std: GRPO and Tree-GRPO: whether to divide by the group's standard deviation.
    """

    root_group: bool = True
    reject_flat: bool = False
    group_std: bool = True


EstimatorFunction = Callable[[Groups, Options], PerPair]


def grpo(groups: Groups, options: Options) -> PerPair:
    """GRPO: (R_l - mean) / (std + 1e-6) over the prompt, Bessel's std; TreePO Eq. 1 and 2.

    A group of one has no baseline and gets 0 (the released code gives it R_l).
    """
    known = groups.known
    if known.size < 2:
        return _of_trajectory(groups, np.zeros_like(groups.rewards))
    centred = groups.rewards - known.mean()
    scale = known.std(ddof=1) + STD_EPSILON if options.group_std else 1.0
    return _of_trajectory(groups, centred / scale)


def rloo(groups: Groups, options: Options) -> PerPair:
    """RLOO: R_l minus the mean of the prompt's other trajectories."""
    del options
    return _of_trajectory(groups, _left_out(groups))


def tree_grpo(groups: Groups, options: Options) -> PerPair:
    """Tree-GRPO: the z-score within the prompt plus the z-score within the tree.

    A prompt has one tree here, so that the two are the same number: twice GRPO's.
    """
    return 2.0 * grpo(groups, options)


def treepo(groups: Groups, options: Options) -> PerPair:
    """TreePO Eq. 5 before its division by a std: the plain mean of R_l - mean(R over G_j).

    The root group comes first, then each sub-group on the path with more than one trajectory,
    as in the released code. See `groups.py` for what a sub-group is.
    """
    return _of_trajectory(groups, _aggregated(groups, options, by_size=False))


def treepo_size(groups: Groups, options: Options) -> PerPair:
    """TreePO Eq. 6: as `treepo`, each term weighted by the size of its group."""
    return _of_trajectory(groups, _aggregated(groups, options, by_size=True))


def treepo_segment(groups: Groups, options: Options) -> PerPair:
    """The released code's segment estimator, with no discount: A(n) = V(n) - V(above n).

    A trajectory is worth the size-weighted mean of R_l - mean(R over G_j) over all its groups, its
    own singleton included; a node is worth the mean of its children; the prompt is worth 0.
    The code spreads a value over a fixed number of tokens; here it is spread over the node.
    """
    worth = _aggregated(groups, options, by_size=True, with_self=True)
    values = _child_means(groups, worth)
    values[-1] = 0.0
    return _of_node(groups, values[:-1] - values[groups.above])


def spo(groups: Groups, options: Options) -> PerPair:
    """SPO-tree: A(n) = V(n) - V(above n), where V is the mean over children.

    The segment after the last fork is one edge here, in however many nodes it is stored.
    """
    del options
    values = _child_means(groups, groups.rewards)
    return _of_node(groups, values[:-1] - values[groups.above])


def treerl(groups: Groups, options: Options) -> PerPair:
    """TreeRL: A(n) = (V(n) - V(prompt)) + (V(n) - V(above n)), a global and a local term.

    V is the mean over leaves of the rewards centred leave-one-out, so that V(prompt) is 0.
    """
    del options
    centred = _left_out(groups)
    sums = groups.through.T @ np.where(groups.kept, centred, 0.0)
    values = np.append(sums / np.maximum(groups.sizes, 1), 0.0)
    return _of_node(groups, 2.0 * values[:-1] - values[groups.above])


def mass_loo(groups: Groups, options: Options) -> PerPair:
    """R_l minus the mass-weighted mean reward of the trajectories that do not pass node n.

    With mass as the token weight and a constant divisor the gradient is unbiased when every
    branch was decided without the tokens behind it; that baseline cannot depend on the node's
    tokens. Where every trajectory passes the node the baseline is 0.
    """
    del options
    mass = np.where(groups.kept, groups.masses, 0.0)
    outside = np.where(groups.through, 0.0, mass[:, None])
    total = outside.sum(0)
    baseline = (groups.rewards @ outside) / np.where(total > 0, total, 1.0)
    return np.where(groups.through, groups.rewards[:, None] - baseline, 0.0)


def _of_trajectory(groups: Groups, values: PerLeaf) -> PerPair:
    return np.where(groups.through, values[:, None], 0.0)


def _of_node(groups: Groups, values: PerNode) -> PerPair:
    return np.where(groups.through, values, 0.0)


def _left_out(groups: Groups) -> PerLeaf:
    count = groups.known.size
    if count < 2:
        return np.zeros_like(groups.rewards)
    return np.asarray((groups.rewards - groups.known.mean()) * (count / (count - 1)))


def _aggregated(
    groups: Groups, options: Options, *, by_size: bool, with_self: bool = False
) -> PerLeaf:
    """TreePO Eq. 5 or 6: one number a trajectory, 0 where no group is left."""
    sizes, known = groups.sizes, groups.known
    counts = groups.opens & (sizes > (0 if with_self else 1)) & (sizes < known.size)
    if options.reject_flat:
        counts &= (sizes == 1) | ~_flat(groups)
    means = (groups.rewards @ groups.through) / np.maximum(sizes, 1)
    weight = np.where(counts, sizes if by_size else 1, 0)
    total = groups.through @ weight
    summed = total * groups.rewards - groups.through @ (weight * means)
    if options.root_group and known.size:
        root = known.size if by_size else 1
        summed = summed + root * (groups.rewards - known.mean())
        total = total + root
    return np.asarray(summed / np.maximum(total, 1))


def _flat(groups: Groups) -> npt.NDArray[np.bool_]:
    rewards = groups.rewards[:, None]
    highest = np.where(groups.through, rewards, -np.inf).max(0, initial=-np.inf)
    lowest = np.where(groups.through, rewards, np.inf).min(0, initial=np.inf)
    return np.asarray(highest == lowest)


def _child_means(groups: Groups, leaf_values: PerLeaf) -> NodeValues:
    """Values bottom-up, each the mean over children; the last entry is the prompt's."""
    count = np.zeros(groups.parents.size + 1)
    total = np.zeros(groups.parents.size + 1)
    np.add.at(count, groups.leaves[groups.kept], 1.0)
    np.add.at(total, groups.leaves[groups.kept], leaf_values[groups.kept])
    for node in range(groups.parents.size - 1, -1, -1):
        if count[node]:
            total[node] /= count[node]
            count[groups.parents[node]] += 1.0
            total[groups.parents[node]] += total[node]
    total[-1] /= max(count[-1], 1.0)
    return total
