"""Responses with a tree, made by hand, as somebody would have saved them."""

from __future__ import annotations

import json
from typing import Any

ANSWERS = {2: "408", 3: "398", 4: "408"}


def report(**fields: Any) -> dict[str, Any]:
    """The `tree` of a response: a trunk, a fork into two, and a late root; one path was pruned."""
    nodes = [
        _node(0, None, 0, 0, 32, "To multiply, ", 0.2, 0.5),
        _node(1, 0, 0, 32, 32, "split 24. ", 0.4, 0.25),
        _node(2, 1, 0, 64, 10, "So 408.", 0.1, 0.25, "eos"),
        _node(3, 0, 1, 32, 20, "guess 398.", 1.9, 0.25, "answer"),
        _node(4, None, 2, 0, 40, "Well, 408.", 0.6, 0.5, "eos", is_late=True),
        _node(5, 4, 3, 40, 5, "hm hm", 2.5, 0.0, "pruned", is_late=True),
    ]
    trajectories = [
        {"leaf": leaf, "finish": nodes[leaf]["finish"], "weight": 1 / 3, "answer": a, "key": a}
        for leaf, a in ANSWERS.items()
    ]
    votes = [
        {"answer": "408", "key": "408", "count": 2, "weight": 2 / 3, "share": 2 / 3},
        {"answer": "398", "key": "398", "count": 1, "weight": 1 / 3, "share": 1 / 3},
    ]
    stats = {"generated_tokens": 139, "trajectory_tokens": 166, "duration_s": 1.5}
    whole = {
        "id": "tree-1",
        "answer": "408",
        "agreement": 2 / 3,
        "effective_samples": 2.6,
        "weights_exact": False,
        "finish": "complete",
        "votes": votes,
        "stats": stats,
        "settings": {},
        "notes": ["one path was lost"],
        "uncertainty": "entropy",
        "trajectories": trajectories,
        "nodes": nodes,
    }
    return {**whole, **fields}


def response(**fields: Any) -> str:
    """A saved response with that tree; `fields` replace some of the tree's."""
    return json.dumps({"object": "chat.completion", "choices": [], "tree": report(**fields)})


def wide(num_leaves: int) -> str:
    """A response whose tree is a trunk with that many leaves, each with a number as its answer."""
    nodes = [_node(0, None, 0, 0, 32, "a", 0.5, 1.0)]
    nodes += [
        _node(i, 0, i, 32, 32, f"leaf {i}", 0.5, 1 / num_leaves, "eos")
        for i in range(1, num_leaves + 1)
    ]
    trajectories = [
        {"leaf": i, "finish": "eos", "weight": 1 / num_leaves, "answer": str(i), "key": str(i)}
        for i in range(1, num_leaves + 1)
    ]
    vote = {"answer": "1", "key": "1", "count": 1, "weight": 0.0, "share": 0.0}
    return response(nodes=nodes, trajectories=trajectories, votes=[vote], answer="1")


def _node(
    number: int,
    parent: int | None,
    path: int,
    start: int,
    num_tokens: int,
    text: str,
    entropy: float,
    mass: float,
    finish: str | None = None,
    *,
    is_late: bool = False,
) -> dict[str, Any]:
    return {
        "id": number,
        "parent": parent,
        "path": path,
        "start": start,
        "num_tokens": num_tokens,
        "mass": mass,
        "is_late": is_late,
        "finish": finish,
        "text": text,
        "entropy": entropy,
        "entropies": [entropy] * num_tokens,
    }
