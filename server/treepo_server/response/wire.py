"""What a response says about its tree: the `tree` object of the answer and of each choice.

These models are the contract with clients. They are filled from an `Outcome` and know nothing of
how it is sent. Answers stand as they were written; `key` says which are the same. A new figure
is a field here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from treepo.config import TreeConfig
from treepo.growth.decoder import PromptDecoder
from treepo.rollout.record import VERSION, tree_values
from treepo.tree import Finish, Node, Trajectory, Tree
from treepo_server.request.journal import Journal
from treepo_server.response.choices import Choice, Outcome


class VoteReport(BaseModel):
    """How one answer stands; `share` is its part of the vote, abstentions included."""

    answer: str
    key: str
    count: int
    weight: float
    share: float


class NodeReport(BaseModel):
    """One segment; `text`, `entropy` (mean, nats) and `entropies` only where included."""

    id: int
    parent: int | None
    path: int
    start: int
    num_tokens: int
    mass: float
    is_late: bool
    finish: Finish | None
    text: str | None = None
    entropy: float | None = None
    entropies: list[float | None] | None = None


class TrajectoryReport(BaseModel):
    """One complete leaf; `text` only where included."""

    leaf: int
    finish: Finish
    weight: float
    answer: str | None
    key: str | None
    text: str | None = None


class ChoiceReport(BaseModel):
    """The `tree` of a choice; `path` lists the ids of its nodes from the root on."""

    leaf: int | None = None
    path: list[int] | None = None
    weight: float | None = None
    answer: str | None = None
    finish: Finish | None = None


class IndexedChoiceReport(ChoiceReport):
    """A choice that cannot carry its own report: in a stream, or in `/v1/responses`."""

    index: int


class OpenedReport(BaseModel):
    """A choice that begins to stream: `start` tokens are those of choice `parent`."""

    index: int
    parent: int | None
    start: int
    is_late: bool


class TreeReport(BaseModel):
    """The `tree` of a response; `winner` and `choices` only where choices cannot carry theirs."""

    id: str
    answer: str | None
    agreement: float
    effective_samples: float
    weights_exact: bool
    finish: str
    votes: list[VoteReport]
    stats: dict[str, int | float]
    settings: dict[str, Any]
    notes: list[str]
    uncertainty: str
    trajectories: list[TrajectoryReport]
    nodes: list[NodeReport] | None = None
    record: dict[str, Any] | None = None
    winner: int | None = None
    choices: list[IndexedChoiceReport] | None = None


def tree_report(
    outcome: Outcome, config: TreeConfig, decoder: PromptDecoder, notes: Sequence[str]
) -> TreeReport:
    """The report of a finished tree, with the detail that `config.include` asks for."""
    tree, winner = outcome.tree, outcome.winner
    report = TreeReport(
        id=tree.id,
        answer=winner.text if winner else None,
        agreement=winner.agreement if winner else 0.0,
        effective_samples=outcome.effective_samples,
        weights_exact=tree.weights_exact,
        finish=tree.finish,
        votes=[_vote(share) for share in (winner.votes if winner else ())],
        stats=asdict(tree.stats),
        settings=dict(tree.settings),
        notes=[*notes, *tree.notes],
        uncertainty=tree.uncertainty_kind,
        trajectories=[_trajectory(outcome, t, config) for t in tree.trajectories],
    )
    if "record" in config.include:
        report.record = {"rollout": VERSION, "key": tree.id, "tree": tree_values(tree)}
    if set(config.include) - {"record"}:
        report.nodes = [_node(tree, node, config, decoder) for node in tree.nodes]
    return report


def choice_report(choice: Choice, tree: Tree) -> ChoiceReport:
    """The report of one choice of a finished tree."""
    lineage = [] if choice.leaf is None else tree.lineage(choice.leaf)
    trajectory = choice.trajectory
    return ChoiceReport(
        leaf=choice.leaf,
        path=[node.id for node in lineage],
        weight=trajectory.weight if trajectory else 0.0,
        answer=trajectory.answer_text if trajectory else None,
        finish=Finish.UNFINISHED if choice.path is None else choice.path.finish,
    )


def progress_report(
    tree_id: str, journal: Journal, opened: Sequence[OpenedReport] = ()
) -> dict[str, Any]:
    """What is known of a tree that still grows, and the choices opened since the last report."""
    progress: dict[str, Any] = {
        "live_paths": journal.num_live,
        "finished": journal.num_finished,
        "generated_tokens": journal.num_tokens,
    }
    if opened:
        progress["opened"] = [dumped(choice) for choice in opened]
    return {"id": tree_id, "progress": progress}


def dumped(report: BaseModel) -> dict[str, Any]:
    """A report as JSON values; detail that was not asked for is left out."""
    return report.model_dump(mode="json", exclude_unset=True)


def _vote(share: Any) -> VoteReport:
    return VoteReport(
        answer=share.text,
        key=share.answer,
        count=share.count,
        weight=share.weight,
        share=share.share,
    )


def _trajectory(outcome: Outcome, own: Trajectory, config: TreeConfig) -> TrajectoryReport:
    report = TrajectoryReport(
        leaf=own.leaf,
        finish=own.finish,
        weight=own.weight,
        answer=own.answer_text,
        key=own.answer,
    )
    if "texts" in config.include:
        path = outcome.journal.paths[outcome.tree.nodes[own.leaf].path]
        report.text = outcome.journal.text(path)
    return report


def _node(tree: Tree, node: Node, config: TreeConfig, decoder: PromptDecoder) -> NodeReport:
    report = NodeReport(
        id=node.id,
        parent=node.parent,
        path=node.path,
        start=node.start,
        num_tokens=len(node.token_ids),
        mass=node.mass,
        is_late=node.is_late,
        finish=node.finish,
    )
    if "texts" in config.include:
        before = tree.nodes[node.parent].token_ids if node.parent is not None else ()
        report.text = decoder.continuation(before, node.token_ids)
    if "entropies" in config.include:
        known = [value for value in node.uncertainty if math.isfinite(value)]
        report.entropy = sum(known) / len(known) if known else None
        report.entropies = [v if math.isfinite(v) else None for v in node.uncertainty]
    return report
