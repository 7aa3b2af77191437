"""How good the policy is: mean@k, pass@k and maj@k over held-out prompts.

Samples are independent (a tree that forks at its root only), drawn by the sampler that also
trains, with the same seeds in every evaluation of a run. A new figure is a line in `_figures`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from treepo.train.collect import Group, sample_groups, sampling
from treepo.train.config import TrainConfig
from treepo.train.data import Example
from treepo.train.reward_pool import RewardPool
from treepo.train.rollouts import Ask, Rollouts


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found, and what it lacks.

    Attributes:
        figures: See `_figures`; over the prompts that have a reward.
        failures: Rewards that failed, by kind.
        reasons: Why prompts got no samples.
    """

    figures: dict[str, float]
    failures: Counter[str]
    reasons: list[str]


async def evaluate(
    rollouts: Rollouts, rewards: RewardPool, examples: Sequence[Example], config: TrainConfig
) -> Evaluation:
    """Sample `eval.samples` for every example and look at their rewards.

    Raises:
        EngineError: The engine gave no tree at all.
    """
    count = config.eval.samples
    tree = config.tree.whole_samples(count)
    names = [f"eval-{number}" for number in range(len(examples))]
    asks = [
        Ask(name, example.token_ids, tree, sampling(config, name))
        for name, example in zip(names, examples, strict=True)
    ]
    groups, failures, errors = await sample_groups(rollouts, rewards, asks, examples)
    if not groups:
        raise errors[0]
    known = [group for group in groups if group.known]
    figures = _figures(known, config.eval.pass_at or count)
    return Evaluation(figures, failures, [str(error) for error in errors])


def _figures(groups: Sequence[Group], k: int) -> dict[str, float]:
    """Means over prompts, and how many those are; a reward above 0 counts as solved.

    `mean` is the mean reward of a sample (mean@k), `pass_at` the probability that one of k samples
    is solved, `maj` the mean reward of the commonest answer. Without prompts there is no mean.
    """
    if not groups:
        return {"num_prompts": 0}
    return {
        "mean": statistics.fmean(statistics.fmean(group.known) for group in groups),
        "pass_at": statistics.fmean(_pass(group.known, k) for group in groups),
        "maj": statistics.fmean(majority_reward(group) for group in groups),
        "num_prompts": len(groups),
    }


def pass_at_k(num_samples: int, num_solved: int, k: int) -> float:
    """Unbiased probability that at least one of k samples is solved (Chen et al. 2021, Eq. 1)."""
    return 1.0 - math.comb(num_samples - num_solved, k) / math.comb(num_samples, k)


def _pass(rewards: Sequence[float], k: int) -> float:
    solved = sum(reward > 0 for reward in rewards)
    return pass_at_k(len(rewards), solved, min(k, len(rewards)))


def majority_reward(group: Group) -> float:
    """Reward of the commonest answer, the earliest among equals.

    An answer is what `tree.answer` reads; with `none` it is the whole text.
    """
    answers = [t.answer or (t.text or "").strip() for t in group.tree.trajectories]
    winner = Counter(answers).most_common(1)[0][0] if answers else ""
    rewards = dict(zip(reversed(answers), reversed(group.rewards), strict=True))
    return rewards.get(winner) or 0.0
