"""What comes back: the `tree` object of a response and of its choices, typed.

Fields that a newer server adds are kept as attributes, as everywhere in the SDK.
"""

from __future__ import annotations

from typing import Any

from openai import BaseModel


class Vote(BaseModel):
    """How one answer stands; `share` is its part of the vote, abstentions included."""

    answer: str
    key: str
    count: int
    weight: float
    share: float


class Node(BaseModel):
    """One segment; `text`, `entropy` and `entropies` (nats) only where `include` asked for them."""

    id: int
    parent: int | None
    path: int
    start: int
    num_tokens: int
    mass: float
    is_late: bool
    finish: str | None
    text: str | None = None
    entropy: float | None = None
    entropies: list[float | None] | None = None


class Trajectory(BaseModel):
    """One complete path from the prompt to its end."""

    leaf: int
    finish: str
    weight: float
    answer: str | None
    key: str | None
    text: str | None = None


class ChoiceTree(BaseModel):
    """Which trajectory a choice is; `path` lists its segments from the root on."""

    leaf: int | None = None
    path: list[int] | None = None
    weight: float | None = None
    answer: str | None = None
    finish: str | None = None
    index: int | None = None


class Tree(BaseModel):
    """The tree of a response; `winner` and `choices` only where it was streamed.

    `record` is a line for a rollout file, where `include` asked for it.
    """

    id: str
    answer: str | None
    agreement: float
    effective_samples: float
    weights_exact: bool
    finish: str
    votes: list[Vote]
    stats: dict[str, float]
    settings: dict[str, Any]
    notes: list[str]
    uncertainty: str
    trajectories: list[Trajectory]
    nodes: list[Node] | None = None
    record: dict[str, Any] | None = None
    winner: int | None = None
    choices: list[ChoiceTree] | None = None
