"""A batch to learn from, sampled while the policy learns.

One job: trees with their rewards, of prompts whose rewards differ, since equal rewards teach
nothing; `Online` samples and fills up. Batches of a rollout file are `stored.py`. It knows neither
formulas nor the model. A stream remembers nothing but a cursor, so that a resumed run draws what
it would have drawn.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from treepo.engines.base import Sampling
from treepo.errors import EngineError
from treepo.growth.job import seed_of
from treepo.train.advantage import EstimatorName
from treepo.train.config import TrainConfig
from treepo.train.data import Example, draw
from treepo.train.reward_pool import RewardPool, RewardRequest
from treepo.train.rollouts import Ask, Rollouts
from treepo.tree import Finish, Tree

Rewards = list[float | None]


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt's tree and the rewards of its trajectories."""

    example: Example
    tree: Tree
    rewards: Rewards

    @property
    def known(self) -> list[float]:
        """The rewards there are."""
        return [reward for reward in self.rewards if reward is not None]

    @property
    def has_variance(self) -> bool:
        """Whether its trajectories differ in reward."""
        return len(set(self.known)) > 1

    def teaches(self, estimator: EstimatorName) -> bool:
        """Whether some advantage is not 0: rewards differ, or a baseline is not their mean.

        `mass_loo` has no baseline on tokens that all trajectories share; leaving out trees whose
        rewards are all equal would bias it there.
        """
        if self.has_variance or estimator != "mass_loo":
            return self.has_variance
        roots = sum(node.parent is None for node in self.tree.nodes)
        return roots == 1 and any(self.known)


@dataclass(slots=True)
class Batch:
    """What one step learns from.

    Attributes:
        groups: Prompts that teach something, mostly those whose rewards differ.
        num_sampled: Prompts that were sampled or read for it.
        num_failed: Prompts without a tree, or with one that the estimator cannot do with.
        rewards: Of all trajectories, also of prompts that were left out.
        generated_tokens: Tokens the engine generated for it.
        num_trajectories: Trajectories of all prompts.
        empty_trajectories: Those without a token before the end of sequence.
        failures: Rewards that failed, by kind.
        reasons: Why prompts got no tree.
        first: The first group, also where it teaches nothing.
    """

    groups: list[Group] = field(default_factory=list)
    num_sampled: int = 0
    num_failed: int = 0
    rewards: list[float] = field(default_factory=list)
    generated_tokens: int = 0
    num_trajectories: int = 0
    empty_trajectories: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    first: Group | None = None

    def add(self, groups: Sequence[Group], estimator: EstimatorName) -> None:
        """Take in sampled groups; those that teach nothing are counted and left out."""
        self.num_sampled += len(groups)
        for group in groups:
            self.first = self.first or group
            self.rewards += group.known
            self.generated_tokens += group.tree.stats.generated_tokens
            self.num_trajectories += len(group.tree.trajectories)
            self.empty_trajectories += _num_empty(group.tree)
        self.groups += [group for group in groups if group.teaches(estimator)]

    @property
    def shown(self) -> Group | None:
        """The tree to show: one that teaches something, where there is one."""
        return self.groups[0] if self.groups else self.first

    @property
    def metrics(self) -> dict[str, float]:
        """Figures for the log."""
        return {
            "reward": statistics.fmean(self.rewards) if self.rewards else 0.0,
            "prompts_sampled": self.num_sampled,
            "prompts_kept": len(self.groups),
            "prompts_failed": self.num_failed,
            "rewards_failed": self.failures.total(),
            "generated_tokens": self.generated_tokens,
            "empty_trajectories": self.empty_trajectories,
        }


class Stream(Protocol):
    """Batches, one after the other; `cursor` is all it remembers."""

    cursor: int

    async def next(self) -> Batch:
        """The next batch, empty where no prompt teaches anything."""
        ...


async def sample_groups(
    rollouts: Rollouts, rewards: RewardPool, asks: Sequence[Ask], examples: Sequence[Example]
) -> tuple[list[Group], Counter[str], list[EngineError]]:
    """Sampled and rewarded groups in order, failed rewards by kind, and why others are missing."""
    results = await rollouts.sample(asks)
    pairs = [(e, t) for e, t in zip(examples, results, strict=True) if isinstance(t, Tree)]
    errors = [result for result in results if isinstance(result, EngineError)]
    scores = rewards.score([request(example, tree) for example, tree in pairs])
    groups = [
        Group(example, tree, tree_rewards)
        for (example, tree), tree_rewards in zip(pairs, scores.rewards, strict=True)
    ]
    return groups, scores.failures, errors


class Online:
    """Batches that are sampled: prompts without reward variance are replaced, a few times."""

    def __init__(
        self,
        config: TrainConfig,
        examples: Sequence[Example],
        rollouts: Rollouts,
        rewards: RewardPool,
    ) -> None:
        self._config = config
        self._examples = examples
        self._rollouts = rollouts
        self._rewards = rewards
        self.cursor = 0

    async def next(self) -> Batch:
        """The next batch.

        Raises:
            EngineError: The engine gave no tree at all.
        """
        batch = Batch()
        for _ in range(1 + self._config.max_top_ups):
            missing = self._config.prompts_per_step - len(batch.groups)
            if not missing:
                break
            asks, examples = self._ask(missing)
            groups, failures, errors = await sample_groups(
                self._rollouts, self._rewards, asks, examples
            )
            if not groups and not batch.num_sampled:
                raise errors[0]
            kept = self._usable(groups)
            batch.num_failed += len(errors) + len(groups) - len(kept)
            batch.failures += failures
            batch.reasons += map(str, errors)
            batch.add(kept, self._config.advantages.estimator)
        return batch

    def _usable(self, groups: list[Group]) -> list[Group]:
        """Without trees that lost a path or a reward, where the estimator needs whole ones.

        Where none is whole it is the settings' fault, which the estimator says.
        """
        config = self._config.advantages
        if config.estimator != "mass_loo" or config.allow_inexact:
            return groups
        whole = [g for g in groups if g.tree.weights_exact and None not in g.rewards]
        return whole or groups

    def _ask(self, count: int) -> tuple[list[Ask], list[Example]]:
        config, asks, examples = self._config, [], []
        for cursor in range(self.cursor, self.cursor + count):
            example = self._examples[draw(len(self._examples), config.seed, cursor)]
            id_ = f"train-{cursor}"
            asks.append(Ask(id_, example.token_ids, config.tree, sampling(config, id_)))
            examples.append(example)
        self.cursor += count
        return asks, examples


def sampling(config: TrainConfig, id_: str) -> Sampling:
    """How the tokens of one tree are drawn; its seed depends on the run's and the tree's name."""
    return Sampling(
        max_tokens=config.sampling.max_tokens,
        temperature=config.sampling.temperature,
        stop=config.sampling.stop,
        seed=seed_of(f"{config.seed}/{id_}"),
    )


def request(example: Example, tree: Tree, tokenizer: object = None) -> RewardRequest:
    """What rewards get of one tree; the tokenizer reads trajectories that carry no text."""
    ids = tuple(tuple(tree.token_ids(t)) for t in tree.trajectories)
    decode = getattr(tokenizer, "decode", lambda _, **__: "")
    texts = tuple(
        decode(list(i), skip_special_tokens=True) if t.text is None else t.text
        for t, i in zip(tree.trajectories, ids, strict=True)
    )
    return RewardRequest(example.prompt, texts, ids, example.columns)


def _num_empty(tree: Tree) -> int:
    return sum(t.finish is Finish.EOS and len(tree.token_ids(t)) <= 1 for t in tree.trajectories)
