"""The segments of a growing tree: its paths, cut at boundaries and forks.

Who grows and who forks is the business of `state.py`; this is a view of what is there, for the
final record and for whoever judges the tree while it grows.
"""

from __future__ import annotations

from collections.abc import Iterator

from treepo.growth.state import Growth, Path
from treepo.tree import Node


def segments(growth: Growth) -> tuple[list[Node], dict[int, int]]:
    """The segments of all paths, parents first, and the last one of each path that has any."""
    nodes: list[Node] = []
    ends: dict[tuple[int, int], int] = {}
    tips: dict[int, int] = {}
    for path in growth.paths:
        parent = ends.get((path.parent.id, path.start)) if path.parent else None
        for start, stop in _pieces(growth, path):
            node = _node(len(nodes), parent, path, start, stop)
            nodes.append(node)
            parent = ends[path.id, stop] = node.id
        if path.token_ids and parent is not None:
            tips[path.id] = parent
    return nodes, tips


def _pieces(growth: Growth, path: Path) -> Iterator[tuple[int, int]]:
    depth = growth.depth_at(path.start) + 1
    last = growth.depth_at(path.end)
    cuts = {growth.boundary(d) for d in range(depth, last + 1)} | set(path.cuts) | {path.end}
    start = path.start
    for stop in sorted(cut for cut in cuts if path.start < cut <= path.end):
        yield start, stop
        start = stop


def _node(number: int, parent: int | None, path: Path, start: int, stop: int) -> Node:
    part = slice(start - path.start, stop - path.start)
    mass = next(mass for position, mass in reversed(path.masses) if position <= start)
    return Node(
        id=number,
        parent=parent,
        path=path.id,
        start=start,
        token_ids=tuple(path.token_ids[part]),
        logprobs=tuple(path.logprobs[part]),
        uncertainty=tuple(path.uncertainty[part]),
        mass=0.0 if path.is_late else mass,
        is_late=path.is_late,
        finish=path.finish if stop == path.end else None,
    )
