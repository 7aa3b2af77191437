"""Batches of a rollout file: what was sampled before, to learn from without an engine.

One job: records as groups with their rewards, in a shuffled order every epoch, after a look at
whether they were drawn as the configuration believes. It knows neither formulas nor the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from treepo.errors import ConfigError
from treepo.rollout.prompts import Prompt, token_ids
from treepo.rollout.record import Rollout
from treepo.train.collect import Batch, Group, request
from treepo.train.config import TrainConfig
from treepo.train.data import Example, draw
from treepo.train.reward_pool import RewardPool


class Stored:
    """Batches of a rollout file, shuffled every epoch; rewards that are missing are computed."""

    def __init__(
        self, config: TrainConfig, groups: Sequence[Group], failures: Counter[str] | None = None
    ) -> None:
        self._config = config
        self._failures = failures or Counter()
        estimator = config.advantages.estimator
        self._groups = [group for group in groups if group.teaches(estimator)]
        if not self._groups:
            raise ConfigError(
                f"{config.trees}: in none of {len(groups)} trees do rewards differ"
                f"{_said(self._failures)}, so there is nothing to learn; sample harder or easier "
                "prompts, or more trajectories, or look at what the reward expects"
            )
        self.cursor = 0

    async def next(self) -> Batch:
        """The next batch."""
        batch, self._failures = Batch(failures=self._failures), Counter()
        count = min(self._config.prompts_per_step, len(self._groups))
        order = range(self.cursor, self.cursor + count)
        drawn = [self._groups[draw(len(self._groups), self._config.seed, at)] for at in order]
        batch.add(drawn, self._config.advantages.estimator)
        self.cursor += count
        return batch


def _said(failures: Counter[str]) -> str:
    counts = ", ".join(f"{count} by {kind}" for kind, count in failures.items())
    return f" ({failures.total()} rewards failed, {counts})" if counts else ""


def check_origin(rollouts: Sequence[Rollout], config: TrainConfig, tokenizer: Any) -> None:
    """See that stored trees were drawn as the configuration says, and with this tokenizer.

    Raises:
        ConfigError: Another temperature, or a nucleus or top-k, whose log-probs are not the
            policy's; or the first prompt that stands in words has other tokens here.
    """
    for rollout in rollouts:
        _check_sampling(rollout, config)
    in_words = (r for r in rollouts if "prompt" in r.columns or "messages" in r.columns)
    first = next(in_words, None)
    if first is not None and _tokens_of(first, tokenizer) != first.tree.prompt_token_ids:
        model = first.origin.get("model")
        raise ConfigError(
            f"{config.trees}: the prompt of tree {first.tree.id!r} has other tokens with the "
            f"tokenizer or chat template of `model`, {config.model_name!r}; name the model that "
            f"the trees were sampled with{f', {model!r}' if model else ''}"
        )


def _check_sampling(rollout: Rollout, config: TrainConfig) -> None:
    wanted = {"temperature": config.sampling.temperature, "top_p": 1.0, "top_k": 0}
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


def _tokens_of(rollout: Rollout, tokenizer: Any) -> tuple[int, ...]:
    name = "prompt" if "prompt" in rollout.columns else "messages"
    prompt = Prompt(rollout.key, rollout.columns[name], rollout.columns)
    return tuple(token_ids(prompt, tokenizer))


def stored_groups(
    rollouts: Sequence[Rollout], tokenizer: object, pool: RewardPool
) -> tuple[list[Group], Counter[str]]:
    """Records as groups, and the rewards that failed, by kind.

    Rewards that a record does not hold are computed from its columns.
    """
    pairs = [(_stored_example(rollout), rollout.tree) for rollout in rollouts]
    todo = [i for i, rollout in enumerate(rollouts) if rollout.rewards is None]
    scores = pool.score([request(*pairs[i], tokenizer) for i in todo])
    computed = dict(zip(todo, scores.rewards, strict=True))
    groups = [
        Group(example, tree, computed[i] if i in computed else list(rollouts[i].rewards or ()))
        for i, (example, tree) in enumerate(pairs)
    ]
    return groups, scores.failures


def _stored_example(rollout: Rollout) -> Example:
    columns = dict(rollout.columns)
    prompt = columns.pop("prompt", None) or columns.pop("messages", "")
    return Example(rollout.key, prompt, rollout.tree.prompt_token_ids, columns)
