"""What one sampled tree says about one problem, as figures that can be averaged over problems.

It joins trees with right answers and knows neither how trees were sampled nor how plans are
compared (`curve.py`). Another figure is a field of `Outcome`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from treepo.answers.reader import AnswerReader
from treepo.errors import ConfigError
from treepo.tree import Tree
from treepo.verdict.curve import Curve, majority_curve, pass_curve
from treepo.votes.evidence import Sharing, effective_samples
from treepo.votes.voting import choose


@dataclass(frozen=True, slots=True)
class Outcome:
    """One tree against the right answer.

    Attributes:
        problem: Its name.
        plan: The settings' name.
        tokens: Generated tokens, each once.
        trajectory_tokens: Sum of the lengths of complete trajectories.
        leaves: Complete trajectories.
        majority: 1 where the majority's answer is right, or a mean over replays.
        weighted: The same of the vote by mass.
        passed: 1 where any trajectory is right.
        single: Share of the trajectories' weight that is right.
        effective: Effective samples.
        recomputed: Prompt tokens that the engine computed again for forks; 0 where it was replayed.
        seconds: Wall-clock of the tree beside whatever ran at the time; 0 where it was replayed.
    """

    problem: str
    plan: str
    tokens: float
    trajectory_tokens: float
    leaves: float
    majority: float
    weighted: float
    passed: float
    single: float
    effective: float
    recomputed: float = 0.0
    seconds: float = 0.0


def judge(tree: Tree, problem: str, plan: str, gold: str, *, is_replay: bool = False) -> Outcome:
    """The outcome of a tree.

    Args:
        tree: The tree.
        problem: The problem's name.
        plan: The plan's name.
        gold: The right answer's key, see `gold_key`.
        is_replay: Whether no time passed for it.
    """
    majority, weighted = (choose(tree, vote) for vote in ("majority", "weighted"))
    return Outcome(
        problem=problem,
        plan=plan,
        tokens=tree.stats.generated_tokens,
        trajectory_tokens=tree.stats.trajectory_tokens,
        leaves=len(tree.trajectories),
        majority=float(majority is not None and majority.answer == gold),
        weighted=float(weighted is not None and weighted.answer == gold),
        passed=float(any(t.answer == gold for t in tree.trajectories)),
        single=sum(t.weight for t in tree.trajectories if t.answer == gold),
        effective=effective_samples(Sharing.of(tree)),
        recomputed=0.0 if is_replay else tree.stats.recomputed_tokens,
        seconds=0.0 if is_replay else round(tree.stats.duration_s, 3),
    )


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """The mean over repeats of one problem and plan."""
    first = outcomes[0]
    names = [name for name in Outcome.__dataclass_fields__ if name not in ("problem", "plan")]
    means = {name: fmean(getattr(outcome, name) for outcome in outcomes) for name in names}
    return Outcome(first.problem, first.plan, **means)


async def gold_key(answer: object) -> str:
    r"""A right answer as the key under which trajectories vote.

    Written as in a data set: bare, in a `\boxed{...}`, or behind `####`.

    Raises:
        ConfigError: It cannot be read as one.
    """
    text = str(answer).rpartition("####")[2].strip()
    boxed = text if "\\boxed" in text else f"\\boxed{{{text}}}"
    found = await AnswerReader.from_config("boxed").read(boxed)
    if found is None:
        raise ConfigError(f"the right answer {answer!r} cannot be read")
    return found.key


def curve_of(pools: Mapping[str, Tree], golds: Mapping[str, str]) -> Curve:
    """The curve of independent sampling from each problem's pool, problems in order.

    A trajectory costs its own tokens, as in plain sampling that stops where its text ends.
    """
    size = min(len(tree.trajectories) for tree in pools.values())
    accuracy, passed, lengths = [], [], []
    for name, tree in pools.items():
        answers = [trajectory.answer for trajectory in tree.trajectories][:size]
        accuracy.append(majority_curve(answers, golds[name]))
        passed.append(pass_curve(answers.count(golds[name]), size))
        lengths.append(fmean(tree.nodes[t.leaf].end for t in tree.trajectories))
    return Curve(np.array(accuracy), np.array(passed), np.array(lengths))


def column(outcomes: Sequence[Outcome], read: Callable[[Outcome], float]) -> np.ndarray:
    """One figure of each outcome, `[P]`."""
    return np.array([read(outcome) for outcome in outcomes], dtype=np.float64)
