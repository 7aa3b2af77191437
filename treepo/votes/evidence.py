"""How much evidence a tree's leaves are: effective samples, and a confidence built on them.

Leaves that share a beginning are not independent opinions. This module turns sharing into a number
of independent samples that would say as much, and that number into the probability that the leader
is the model's most frequent answer; whether the model is right is another question. It knows
neither answers nor how weights came about (`voting.py`). Another measure of what a segment decides
goes into `information`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from treepo.tree import Node, Tree

TOKEN_NATS: Final = 0.01
"""Information of a token beyond its entropy; keeps near-certain segments from weighing nothing."""


_LEAST_NATS: Final = 1e-9
_MOST_TERMS: Final = 10_000


def information(node: Node) -> float:
    """What a segment decides, in nats: its summed entropy plus 0.01 per token.

    Without entropies (or surprisals, which have the same mean) tokens alone count.
    """
    return float(np.nansum(node.uncertainty)) + TOKEN_NATS * len(node.token_ids)


def kish(weights: Iterable[float]) -> float:
    """Kish's effective number: how many equal weights are as many as these."""
    values = list(weights)
    squares = math.fsum(w * w for w in values)
    return math.fsum(values) ** 2 / squares if squares > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Sharing:
    """What weighted leaves have in common: the tree's shape without its tokens.

    Attributes:
        parents: Index of each segment's parent, None for a root segment; parents come first.
        nats: Information of each segment (`information`).
        leaves: Last segment of each complete trajectory.
        weights: What each trajectory weighs in the vote in question, in the same order.
    """

    parents: Sequence[int | None]
    nats: Sequence[float]
    leaves: Sequence[int]
    weights: Sequence[float]

    @classmethod
    def of(cls, tree: Tree, weights: Sequence[float] | None = None) -> Sharing:
        """The sharing of a tree's trajectories; by default each weighs its `weight`."""
        leaves = [trajectory.leaf for trajectory in tree.trajectories]
        own = [trajectory.weight for trajectory in tree.trajectories]
        return cls.of_nodes(tree.nodes, leaves, own if weights is None else weights)

    @classmethod
    def of_nodes(
        cls, nodes: Sequence[Node], leaves: Sequence[int], weights: Sequence[float]
    ) -> Sharing:
        """The sharing of leaves, each named by its last segment, in a tree that may still grow."""
        parents = [node.parent for node in nodes]
        return cls(parents, [information(node) for node in nodes], leaves, weights)

    def shares(self) -> list[float]:
        """The weights, scaled to sum to 1; empty where they sum to 0."""
        total = math.fsum(self.weights)
        return [weight / total for weight in self.weights] if total > 0 else []

    def path_nats(self) -> list[float]:
        """Information from the prompt to the end of each segment."""
        path: list[float] = []
        for nats, parent in zip(self.nats, self.parents, strict=True):
            path.append(nats + (0.0 if parent is None else path[parent]))
        return path


def effective_samples(sharing: Sharing) -> float:
    """How many independent samples weighted leaves with shared beginnings are worth.

    With h_n the information of segment n, H_l its sum along the path to leaf l and U_n the sum of
    w_l / sqrt(H_l) over the leaves under n, it is 1 / sum(h_n * U_n ** 2) for weights that sum to
    1: the variance of a mean of leaves, each of which adds up independent noise along its path.
    Never above Kish's number; the number of leaves where they share nothing and weigh the same.
    """
    path = sharing.path_nats()
    pull = [0.0] * len(path)
    variance = 0.0
    for leaf, weight in zip(sharing.leaves, sharing.shares(), strict=False):
        if path[leaf] > _LEAST_NATS:
            pull[leaf] += weight / math.sqrt(path[leaf])
        else:
            variance += weight * weight
    for node in range(len(path) - 1, -1, -1):
        parent = sharing.parents[node]
        variance += sharing.nats[node] * pull[node] ** 2
        if parent is not None:
            pull[parent] += pull[node]
    return min(1 / variance, kish(sharing.weights)) if variance > 0 else 0.0


def effective_votes(sharing: Sharing) -> float:
    """How many independent votes between two near-equal answers the leaves are worth.

    `effective_samples` counts what the leaves have in common; a vote sees only on which side of a
    line each falls, and two leaves with a share r of their information in common agree less often
    than that: the correlation of their votes is (2 / pi) * arcsin(r) (Sheppard). So this lies
    between `effective_samples` and Kish's number, and is what `confidence` is calibrated with.
    """
    shares = np.asarray(sharing.shares())
    if not len(shares):
        return 0.0
    common = common_nats(sharing)
    own = np.sqrt(np.diagonal(common))
    scale = np.outer(own, own)
    ratio = np.divide(common, scale, out=np.zeros_like(common), where=scale > _LEAST_NATS)
    np.fill_diagonal(ratio, 1.0)
    correlation = np.arcsin(np.clip(ratio, 0.0, 1.0)) * (2 / np.pi)
    return min(1 / float(shares @ correlation @ shares), kish(sharing.weights))


def common_nats(sharing: Sharing) -> npt.NDArray[np.float64]:
    """Information that each two leaves share, in nats; shape (leaves, leaves)."""
    through: list[list[int]] = [[] for _ in sharing.parents]
    for index, leaf in enumerate(sharing.leaves):
        through[leaf].append(index)
    # Segments of one unforked stretch have the same leaves under them and are added up first.
    stretches: dict[tuple[int, int], tuple[list[int], float]] = {}
    for node in range(len(through) - 1, -1, -1):
        under, parent = through[node], sharing.parents[node]
        if under:
            key = min(under), len(under)
            stretches[key] = under, stretches.get(key, (under, 0.0))[1] + sharing.nats[node]
            if parent is not None:
                through[parent].extend(under)
    common = np.zeros((len(sharing.leaves), len(sharing.leaves)))
    for under, nats in stretches.values():
        common[np.ix_(under, under)] += nats
    return common


def confidence(shares: Iterable[float], num_effective: float) -> float:
    """The probability that the leader is the model's most frequent answer.

    P[Beta(1 + n s1, 1 + n s2) > 1/2] with the two largest shares and n effective votes: a uniform
    prior. Calibrated where two answers compete and problems are ties as rarely as it says. Where
    three or more are close it is not: it then says too little for clear leaders and too much for
    narrow ones.

    Args:
        shares: Vote shares of the answers; 0.0 is returned without any.
        num_effective: `effective_votes`, abstentions included.
    """
    first, second = sorted([*shares, 0.0, 0.0], reverse=True)[:2]
    if first <= 0:
        return 0.0
    return beta_above_half(1 + num_effective * first, 1 + num_effective * second)


def beta_above_half(a: float, b: float) -> float:
    """P[Beta(a, b) > 1/2] for positive a and b."""
    return 1 - _beta_below_half(a, b) if a >= b else _beta_below_half(b, a)


def _beta_below_half(a: float, b: float) -> float:
    """The incomplete beta function at 1/2 for a >= b, where its continued fraction is quick."""
    return math.exp(-_log_beta(a, b) - (a + b) * math.log(2)) / a * _fraction(a, b)


def _fraction(a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function at 1/2 (DLMF 8.17.22), by Lentz."""
    numerator, denominator = 1.0, 1 / _nonzero(1 - (a + b) / (2 * a + 2))
    value = denominator
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) / (2 * (a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) / (2 * (a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator = 1 / _nonzero(1 + term * denominator)
            numerator = _nonzero(1 + term / numerator)
            value *= denominator * numerator
        if abs(denominator * numerator - 1) < 1e-14:
            break
    return value


def _nonzero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
