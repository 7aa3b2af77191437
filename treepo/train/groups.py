"""Which trajectories of a tree share which nodes: what every estimator is written in.

One job: a tree and its rewards -> arrays over (trajectory, node). It knows no formula.

**Sub-groups.** The paper groups trajectories by their ancestor at depth j, and the released code
counts every inference round as a depth, so a stretch without a fork repeats its sub-group once a
round and weighs more the longer it is. Here a sub-group is a distinct set of trajectories along a
path: a stretch between two forks counts once however many nodes it is stored in, and cutting a
node in two changes no estimator. Forks whose other branches were all dropped are no forks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int

from treepo.tree import Tree

PerLeaf = Float[np.ndarray, " leaves"]
PerKept = Float[np.ndarray, " kept"]
PerPair = Float[np.ndarray, "leaves nodes"]
PerNode = Float[np.ndarray, " nodes"]
NodeValues = Float[np.ndarray, " nodes_and_prompt"]
NodeIds = Int[np.ndarray, " nodes"]
LeafIds = Int[np.ndarray, " leaves"]
Members = Bool[np.ndarray, "leaves nodes"]
Kept = Bool[np.ndarray, " leaves"]


@dataclass(frozen=True, slots=True)
class Groups:
    """Which trajectories of one tree share which nodes, and their rewards.

    Attributes:
        through: Whether a trajectory that counts passes through a node.
        parents: Each node's parent, -1 for the prompt.
        above: Nearest ancestor with more trajectories than the node, -1 for the prompt.
        lengths: Tokens of each node.
        leaves: Each trajectory's last node.
        masses: Each trajectory's share of the prompt's unit of probability mass.
        rewards: Each trajectory's reward, 0 where it does not count.
        kept: Whether the trajectory counts.
        is_exact: Whether mass-weighted means over these trajectories are unbiased.
    """

    through: Members
    parents: NodeIds
    above: NodeIds
    lengths: NodeIds
    leaves: LeafIds
    masses: PerLeaf
    rewards: PerLeaf
    kept: Kept
    is_exact: bool

    @property
    def known(self) -> PerKept:
        """Rewards of the trajectories that count."""
        return np.asarray(self.rewards[self.kept])

    @property
    def sizes(self) -> NodeIds:
        """How many trajectories pass through each node."""
        return np.asarray(self.through.sum(0))

    @property
    def opens(self) -> npt.NDArray[np.bool_]:
        """Whether a node is the first of its sub-group along the path."""
        sizes = np.append(self.sizes, 0)
        return np.asarray((sizes[:-1] > 0) & (sizes[:-1] != sizes[self.parents]))


def group(tree: Tree, rewards: Sequence[float | None]) -> Groups:
    """The groups of one tree; a trajectory whose reward is None does not count.

    Args:
        tree: The record.
        rewards: One for each of `tree.trajectories`.

    Raises:
        ValueError: There is not one reward for each trajectory.
    """
    if len(rewards) != len(tree.trajectories):
        raise ValueError(
            f"tree {tree.id!r}: {len(tree.trajectories)} trajectories, but {len(rewards)} rewards"
        )
    kept = np.array([reward is not None for reward in rewards], dtype=bool)
    through = np.zeros((len(rewards), len(tree.nodes)), dtype=bool)
    for node, indices in enumerate(tree.leaves_through()):
        through[indices, node] = True
    through &= kept[:, None]
    parents = np.array([-1 if n.parent is None else n.parent for n in tree.nodes], dtype=np.int64)
    leaves = np.array([t.leaf for t in tree.trajectories], dtype=np.int64)
    masses = np.array([tree.nodes[leaf].mass for leaf in leaves], dtype=np.float64)
    whole = bool(kept.all()) and abs(float(masses.sum()) - 1.0) < 1e-6
    return Groups(
        through=through,
        parents=parents,
        above=_above(parents, through.sum(0)),
        lengths=np.array([len(n.token_ids) for n in tree.nodes], dtype=np.int64),
        leaves=leaves,
        masses=masses,
        rewards=np.array([reward or 0.0 for reward in rewards], dtype=np.float64),
        kept=kept,
        is_exact=tree.weights_exact and whole,
    )


def _above(parents: NodeIds, sizes: NodeIds) -> NodeIds:
    above = np.full_like(parents, -1)
    for node, parent in enumerate(parents):
        if parent >= 0:
            above[node] = parent if sizes[parent] > sizes[node] else above[parent]
    return above
