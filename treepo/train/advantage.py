"""Advantages: trees and rewards -> two sums a node, ready for the packed loss.

One job: choose an estimator, weigh tokens, normalise over the batch, and fold. It knows no model
and no torch. Formulas of estimators stand in `estimators.py`; how tokens are laid out stands in
`pack.py`. A new token weight, normalisation or aggregation is a branch in the function of its name.

PPO's clip treats positive and negative advantages differently but every trajectory through a
shared token has the same probability ratio there, so two numbers a node are enough for an exact
loss: A+ = sum over trajectories of weight * max(a, 0) and A- = sum of weight * max(-a, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from treepo.errors import ConfigError
from treepo.train import estimators as of
from treepo.train.estimators import Options
from treepo.train.groups import Groups, NodeIds, PerLeaf, PerNode, PerPair, group
from treepo.tree import Tree

EstimatorName = Literal[
    "grpo",
    "rloo",
    "treepo",
    "treepo_size",
    "treepo_segment",
    "spo",
    "treerl",
    "tree_grpo",
    "mass_loo",
]
TokenWeight = Literal["leaf", "once", "sqrt", "mass"]
Normalisation = Literal["none", "std", "whiten"]
Aggregation = Literal["token", "sequence", "tree"]

AnyPair = Float[np.ndarray, "_ _"]
"""A `PerPair` of one tree among trees of other sizes."""

VARIANCE_EPSILON = 1e-8
"""Added to the batch variance, as the released code does."""


@dataclass(frozen=True, slots=True)
class Estimator:
    """A formula with the choices it was published with."""

    function: of.EstimatorFunction
    token_weight: TokenWeight
    normalise: Normalisation
    aggregate: Aggregation


ESTIMATORS: dict[EstimatorName, Estimator] = {
    "grpo": Estimator(of.grpo, "leaf", "none", "token"),
    "rloo": Estimator(of.rloo, "leaf", "none", "token"),
    "treepo": Estimator(of.treepo, "leaf", "std", "token"),
    "treepo_size": Estimator(of.treepo_size, "leaf", "std", "token"),
    "treepo_segment": Estimator(of.treepo_segment, "leaf", "whiten", "token"),
    "spo": Estimator(of.spo, "once", "none", "token"),
    "treerl": Estimator(of.treerl, "sqrt", "none", "sequence"),
    "tree_grpo": Estimator(of.tree_grpo, "leaf", "none", "token"),
    "mass_loo": Estimator(of.mass_loo, "mass", "none", "tree"),
}
"""Every estimator by name; a None in `AdvantageConfig` means the choice that stands here."""


@dataclass(frozen=True, slots=True)
class AdvantageConfig:
    """How rewards become advantages.

    Attributes:
        estimator: A name in `ESTIMATORS`.
        token_weight: What one trajectory counts on a token that n trajectories share: `leaf` 1,
            `once` 1/n, `sqrt` 1/sqrt(n), `mass` the trajectory's probability mass.
        normalise: `none`; `std` divides by the batch's standard deviation and moves no mean;
            `whiten` subtracts the batch's mean first. Both moments run over all (trajectory, token)
            pairs of the batch with their token weights, Bessel-corrected by the number of pairs:
            with weight `leaf` that is the released code's masked whitening.
        aggregate: What the loss is a mean over: `token` (DAPO: divisor is the weighted number of
            tokens), `sequence` (GRPO: each trajectory's tokens are averaged first), `tree` (divisor
            is the number of trees, which no sampled length enters).
        options: What the formula itself may be told.
        allow_inexact: Let `mass_loo` run on trees whose masses are not exact.
    """

    estimator: EstimatorName = "treepo"
    token_weight: TokenWeight | None = None
    normalise: Normalisation | None = None
    aggregate: Aggregation | None = None
    options: Options = field(default_factory=Options)
    allow_inexact: bool = False


@dataclass(frozen=True, slots=True)
class TreeAdvantages:
    """What the trajectories of one tree say about its nodes.

    Rows follow `tree.trajectories`, columns `tree.nodes`; everything is 0 off a trajectory's path
    and in the rows of trajectories that do not count.

    Attributes:
        values: Advantage times `weights`, signed.
        weights: What a trajectory's loss on one token of the node is multiplied by: the token
            weight, divided by the trajectory's length under `sequence`.
        divisor: This tree's share of the batch's divisor.
    """

    values: PerPair
    weights: PerPair
    divisor: float

    @property
    def positive(self) -> PerNode:
        """A+ of each node: the positive parts of `values`, summed over trajectories; >= 0."""
        return np.asarray(np.maximum(self.values, 0.0).sum(0))

    @property
    def negative(self) -> PerNode:
        """A- of each node: the negative parts of `values`, summed over trajectories; >= 0."""
        return np.asarray(np.maximum(-self.values, 0.0).sum(0))

    @property
    def weight(self) -> PerNode:
        """What a term common to all trajectories (KL) is multiplied by; n_leaves under `leaf`."""
        return np.asarray(self.weights.sum(0))

    @property
    def n_leaves(self) -> NodeIds:
        """How many trajectories that count pass through each node; 0: the node has no gradient."""
        return np.asarray((self.weights > 0).sum(0))


def advantages(
    trees: Sequence[Tree],
    rewards: Sequence[Sequence[float | None]],
    config: AdvantageConfig,
) -> list[TreeAdvantages]:
    """The advantages of one batch; normalisation runs over all of it, so pass the global batch.

    Every tree is its prompt's only one: where a prompt comes twice, neither tree sees the other.

    Args:
        trees: The records.
        rewards: For each tree one reward for each trajectory; None leaves the trajectory out.
        config: See there.

    Raises:
        ConfigError: `mass_loo` was asked for where it cannot be unbiased.
    """
    chosen = ESTIMATORS[config.estimator]
    batch = [group(*pair) for pair in zip(trees, rewards, strict=True)]
    if config.estimator == "mass_loo":
        _check_exact(trees, batch, config)
    weights = [token_weights(g, config.token_weight or chosen.token_weight) for g in batch]
    values = [chosen.function(g, config.options) for g in batch]
    values = normalise(config.normalise or chosen.normalise, batch, values, weights)
    mode = config.aggregate or chosen.aggregate
    return [_fold(mode, g, v, w) for g, v, w in zip(batch, values, weights, strict=True)]


def token_weights(groups: Groups, kind: TokenWeight) -> PerPair:
    """What each trajectory counts on a token of each of its nodes; see `AdvantageConfig`."""
    sizes = np.maximum(groups.sizes, 1)
    row: PerLeaf | PerNode
    match kind:
        case "leaf":
            row = np.ones(sizes.size)
        case "once":
            row = 1.0 / sizes
        case "sqrt":
            row = 1.0 / np.sqrt(sizes)
        case "mass":
            row = groups.masses[:, None]
    return np.where(groups.through, row, 0.0)


def normalise(
    mode: Normalisation, batch: Sequence[Groups], values: list[AnyPair], weights: list[AnyPair]
) -> list[AnyPair]:
    """Advantages on the batch's scale; see `AdvantageConfig.normalise`."""
    if mode == "none":
        return values
    tokens = [w * g.lengths for g, w in zip(batch, weights, strict=True)]
    total = sum(float(t.sum()) for t in tokens)
    pairs = sum(float((g.through @ g.lengths).sum()) for g in batch)
    if pairs < 2:
        return values
    mean = sum(float((t * v).sum()) for t, v in zip(tokens, values, strict=True)) / total
    spread = sum(float((t * (v - mean) ** 2).sum()) for t, v in zip(tokens, values, strict=True))
    scale = 1.0 / np.sqrt(spread / total * pairs / (pairs - 1) + VARIANCE_EPSILON)
    shift = mean if mode == "whiten" else 0.0
    return [
        np.where(g.through, (v - shift) * scale, 0.0) for g, v in zip(batch, values, strict=True)
    ]


def _fold(mode: Aggregation, groups: Groups, values: PerPair, weights: PerPair) -> TreeAdvantages:
    if mode == "sequence":
        lengths = np.maximum(groups.through @ groups.lengths, 1)
        weights = weights / lengths[:, None]
        divisor = float(groups.kept.sum())
    else:
        divisor = 1.0 if mode == "tree" else float((weights @ groups.lengths).sum())
    return TreeAdvantages(values=values * weights, weights=weights, divisor=divisor)


def _check_exact(trees: Sequence[Tree], batch: list[Groups], config: AdvantageConfig) -> None:
    if config.token_weight not in (None, "mass"):
        raise ConfigError(
            f"`advantages.token_weight` is {config.token_weight!r} with estimator `mass_loo`; "
            "allowed: `mass`. Leave it out or choose another estimator."
        )
    inexact = [tree.id for tree, g in zip(trees, batch, strict=True) if not g.is_exact]
    if inexact and not config.allow_inexact:
        raise ConfigError(
            f"estimator `mass_loo` needs exact masses, but {len(inexact)} of {len(trees)} trees do "
            f"not have them (first: {inexact[0]!r}): they hold late branches, or lost "
            "trajectories. Sample with `tree.fallback=none`, `tree.prune=none` and "
            "`tree.until=complete`, give failed rewards a value with `rewards.missing_reward`, or "
            "set `advantages.allow_inexact=true` and accept a bias."
        )
