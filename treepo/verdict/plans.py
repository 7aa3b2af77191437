"""What is compared: named tree settings, and independent sampling, which all are held against.

A plan is settings only; `collect.py` samples it and `curve.py` judges it. A plan that can be had
from another one's trajectories without a new token names it in `source`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from treepo.config import TreeConfig, parse_tree_config

INDEPENDENT: Mapping[str, Any] = {
    "branching": "even",
    "branching_factor": 1,
    "fallback": "none",
}
"""Settings under which no path ever branches; with `root_branching` equal to `width`."""

POOL = "independent"
"""The plan whose trajectories give the whole curve of independent sampling."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to sample a problem.

    Attributes:
        name: How tables call it.
        tree: Fields of `TreeConfig`.
        source: The plan whose finished trees are replayed with these settings on top; None where
            it has to be sampled.
    """

    name: str
    tree: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    def config(self, base: Mapping[str, Any]) -> TreeConfig:
        """Its configuration.

        Args:
            base: Settings that all plans share, such as `width` and `answer`.

        Raises:
            FieldError: A setting is unknown or out of range.
        """
        return parse_tree_config({**base, **self.tree})


def pool_plan(width: int) -> Plan:
    """`width` independent trajectories of every problem."""
    return Plan(POOL, {**INDEPENDENT, "root_branching": width})


def replayed_plans(source: str = POOL) -> list[Plan]:
    """Independent sampling that stops early: the strongest simple baselines, at no cost."""
    return [
        Plan(f"{source}, settled", {"until": "settled"}, source),
        Plan(f"{source}, start 4, settled", {"until": "settled", "start": 4}, source),
        Plan(f"{source}, start 4, until 0.95", {"until": 0.95, "start": 4}, source),
    ]
