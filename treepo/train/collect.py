"""A batch to learn from: sampled while the policy learns, or read from a rollout file.

One job: trees with their rewards, of prompts whose rewards differ, since equal rewards teach
nothing. `Online` samples and fills up; `Stored` reads. It knows neither estimators nor the model.
Both remember nothing but a cursor, so that a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from treepo.engines.base import Sampling
from treepo.errors import ConfigError, EngineError
from treepo.rollout.record import Rollout
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


@dataclass(slots=True)
class Batch:
    """What one step learns from.

    Attributes:
        groups: Prompts whose rewards differ.
        num_sampled: Prompts that were sampled or read for it.
        num_failed: Prompts the engine gave no tree for.
        rewards: Of all trajectories, also of prompts that were left out.
        generated_tokens: Tokens the engine generated for it.
        empty_trajectories: Trajectories without a token before the end of sequence.
        failures: Rewards that failed, by kind.
        shown: A tree to show: the first one, with or without variance.
    """

    groups: list[Group] = field(default_factory=list)
    num_sampled: int = 0
    num_failed: int = 0
    rewards: list[float] = field(default_factory=list)
    generated_tokens: int = 0
    empty_trajectories: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    shown: Group | None = None

    def add(self, groups: Sequence[Group]) -> None:
        """Take in sampled groups; those without variance are counted and left out."""
        self.num_sampled += len(groups)
        for group in groups:
            self.shown = self.shown or group
            self.rewards += group.known
            self.generated_tokens += group.tree.stats.generated_tokens
            self.empty_trajectories += _num_empty(group.tree)
        self.groups += [group for group in groups if group.has_variance]

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
        """The next batch, empty where no prompt's rewards differ."""
        ...


async def sample_groups(
    rollouts: Rollouts, rewards: RewardPool, asks: Sequence[Ask], examples: Sequence[Example]
) -> tuple[list[Group], Counter[str], list[EngineError]]:
    """Sampled and rewarded groups in order, failed rewards by kind, and why others are missing."""
    results = await rollouts.sample(asks)
    pairs = [(e, t) for e, t in zip(examples, results, strict=True) if isinstance(t, Tree)]
    errors = [result for result in results if isinstance(result, EngineError)]
    scores = rewards.score([_request(example, tree) for example, tree in pairs])
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
            batch.add(kept)
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


class Stored:
    """Batches of a rollout file, shuffled every epoch; rewards that are missing are computed."""

    def __init__(self, config: TrainConfig, groups: Sequence[Group]) -> None:
        self._config = config
        self._groups = [group for group in groups if group.has_variance]
        if not self._groups:
            raise ConfigError(
                f"{config.trees}: in none of {len(groups)} trees do rewards differ, so there is "
                "nothing to learn; sample harder or easier prompts, or more trajectories"
            )
        self.cursor = 0

    async def next(self) -> Batch:
        """The next batch."""
        batch = Batch()
        count = min(self._config.prompts_per_step, len(self._groups))
        order = range(self.cursor, self.cursor + count)
        batch.add([self._groups[draw(len(self._groups), self._config.seed, at)] for at in order])
        self.cursor += count
        return batch


def check_origin(rollouts: Sequence[Rollout], config: TrainConfig) -> None:
    """See that stored trees were drawn as the configuration says their log-probs were.

    Raises:
        ConfigError: Another temperature, or a nucleus or top-k, whose log-probs are not the
            policy's.
    """
    wanted = {"temperature": config.sampling.temperature, "top_p": 1.0, "top_k": 0}
    for rollout in rollouts:
        drawn = rollout.origin.get("sampling") or {}
        for name, value in wanted.items():
            found = drawn.get(name, value)
            if found != value and not (name == "top_k" and found == -1):
                remedy = (
                    f"set `sampling.temperature={found}`"
                    if name == "temperature"
                    else f"sample again without `{name}`"
                )
                raise ConfigError(
                    f"{config.trees}: tree {rollout.tree.id!r} was sampled with {name} {found}; "
                    f"its log-probabilities are compared with {name} {value}: {remedy}"
                )


def stored_groups(rollouts: Sequence[Rollout], tokenizer: object, pool: RewardPool) -> list[Group]:
    """Records as groups; rewards that a record does not hold are computed from its columns."""
    pairs = [(_stored_example(rollout), rollout.tree) for rollout in rollouts]
    todo = [i for i, rollout in enumerate(rollouts) if rollout.rewards is None]
    scores = pool.score([_request(*pairs[i], tokenizer) for i in todo]).rewards if todo else []
    computed = dict(zip(todo, scores, strict=True))
    return [
        Group(example, tree, computed[i] if i in computed else list(rollouts[i].rewards or ()))
        for i, (example, tree) in enumerate(pairs)
    ]


def sampling(config: TrainConfig, id_: str) -> Sampling:
    """How the tokens of one tree are drawn; its seed depends on the run's and the tree's name."""
    digest = hashlib.blake2b(f"{config.seed}/{id_}".encode(), digest_size=8).digest()
    return Sampling(
        max_tokens=config.sampling.max_tokens,
        temperature=config.sampling.temperature,
        stop=config.sampling.stop,
        seed=int.from_bytes(digest) >> 1,
    )


def _request(example: Example, tree: Tree, tokenizer: object = None) -> RewardRequest:
    ids = tuple(tuple(tree.token_ids(t)) for t in tree.trajectories)
    decode = getattr(tokenizer, "decode", lambda _, **__: "")
    texts = tuple(
        decode(list(i), skip_special_tokens=True) if t.text is None else t.text
        for t, i in zip(tree.trajectories, ids, strict=True)
    )
    return RewardRequest(example.prompt, texts, ids, example.columns)


def _stored_example(rollout: Rollout) -> Example:
    columns = dict(rollout.columns)
    prompt = columns.pop("prompt", None) or columns.pop("messages", "")
    return Example(rollout.key, prompt, rollout.tree.prompt_token_ids, columns)


def _num_empty(tree: Tree) -> int:
    return sum(t.finish is Finish.EOS and len(tree.token_ids(t)) <= 1 for t in tree.trajectories)
