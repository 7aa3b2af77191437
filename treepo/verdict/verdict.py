"""From outcomes to rows of a table and one sentence: does a tree pay for these prompts?

It joins replays, outcomes and the curve; it samples nothing. How rows are shown stands in
`report.py` and `plots.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from treepo.errors import ConfigError
from treepo.tree import Tree
from treepo.verdict.collect import Problem
from treepo.verdict.curve import Comparison, Curve, compare
from treepo.verdict.outcomes import Outcome, column, curve_of, judge, mean_outcome
from treepo.verdict.plans import POOL, Plan
from treepo.verdict.replay import replay

_NUM_REPLAYS = 4

Trees = Mapping[tuple[str, str], Tree]
"""Trees by the names of plan and problem."""


@dataclass(frozen=True, slots=True)
class Row:
    """One plan: its outcomes, problem by problem, and how it compares."""

    plan: str
    outcomes: list[Outcome]
    comparison: Comparison
    weighted: Comparison

    def mean(self, name: str) -> float:
        """The mean of a field of `Outcome`."""
        return float(np.mean([getattr(outcome, name) for outcome in self.outcomes]))

    def summary(self) -> dict[str, Any]:
        """Everything but the single outcomes, as JSON values."""
        names = [n for n in Outcome.__dataclass_fields__ if n not in ("problem", "plan")]
        return {
            "plan": self.plan,
            "mean": {name: self.mean(name) for name in names},
            "majority": asdict(self.comparison),
            "weighted": asdict(self.weighted),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison of all plans on the problems that every plan has a tree of.

    Attributes:
        problems: Names of those problems.
        curve: Independent sampling.
        rows: The plans, in their order.
    """

    problems: list[str]
    curve: Curve
    rows: list[Row]

    def row(self, plan: str) -> Row:
        """A plan's row."""
        return next(row for row in self.rows if row.plan == plan)

    def sentence(self, plan: str) -> str:
        """What is to be said of a plan, with the interval."""
        row = self.row(plan)
        found, gap = row.comparison, row.comparison.difference
        meaning = "no difference can be told"
        if found.is_beyond and gap.low > 0:
            meaning = "it costs more than the samples it is held against, and nothing can be told"
        elif gap.low > 0:
            meaning = "the tree is better"
        elif gap.high < 0:
            meaning = "independent sampling is better"
        beyond = " (its whole pool)" if found.is_beyond else ""
        return (
            f"On {len(self.problems)} problems, at the {found.tokens.value:.0f} generated tokens a "
            f"problem that `{plan}` takes ({found.paths:.1f} independent trajectories' worth), its "
            f"majority is right on {found.accuracy.value:.1%} and that of independent sampling"
            f"{beyond} on {found.independent:.1%}: {100 * gap.value:+.1f} points "
            f"(95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}), so {meaning}."
        )


def make_verdict(problems: Sequence[Problem], plans: Sequence[Plan], trees: Trees) -> Verdict:
    """Judge and compare, replaying the plans that need no sampling.

    Raises:
        ConfigError: No problem has been sampled under every plan yet.
    """
    sampled = [plan.name for plan in plans if plan.source is None]
    whole = [p for p in problems if all((name, p.name) in trees for name in sampled)]
    pools = {p.name: trees[POOL, p.name] for p in whole if trees[POOL, p.name].trajectories}
    whole = [p for p in whole if p.name in pools]
    if not whole:
        raise ConfigError("no problem has a tree of every plan yet; run `treepo bench` again")
    curve = curve_of(pools, {p.name: p.gold for p in whole})
    rows = [_row(plan, whole, trees, curve) for plan in plans]
    return Verdict([p.name for p in whole], curve, rows)


def _row(plan: Plan, problems: Sequence[Problem], trees: Trees, curve: Curve) -> Row:
    if plan.source is None:
        outcomes = [judge(trees[plan.name, p.name], p.name, plan.name, p.gold) for p in problems]
    else:
        outcomes = asyncio.run(_replayed(plan, plan.source, problems, trees))
    tokens = column(outcomes, lambda outcome: outcome.tokens)
    if plan.name == POOL:  # plain sampling stops where the text does
        tokens = column(outcomes, lambda outcome: outcome.trajectory_tokens)
    return Row(
        plan=plan.name,
        outcomes=outcomes,
        comparison=compare(curve, tokens, column(outcomes, lambda outcome: outcome.majority)),
        weighted=compare(curve, tokens, column(outcomes, lambda outcome: outcome.weighted)),
    )


async def _replayed(
    plan: Plan, source: str, problems: Sequence[Problem], trees: Trees
) -> list[Outcome]:
    changes, found = dict(plan.tree), []
    for problem in problems:
        tree = trees[source, problem.name]
        repeats = [
            judge(
                await replay(tree, changes, seed),
                problem.name,
                plan.name,
                problem.gold,
                is_replay=True,
            )
            for seed in range(_NUM_REPLAYS)
        ]
        found.append(mean_outcome(repeats))
    return found
