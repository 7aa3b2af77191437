"""A tree while it grows, from the chunks of a stream: what `treepo chat` draws meanwhile.

`progress.opened` says where each path forked off, the choices bring texts and, where the request
has `return_token_ids`, the number of tokens. The result has the shape that `treepo.drawing`
draws. When the tree has ended its own report is the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from treepo.tree import GIVEN_UP


@dataclass(slots=True)
class _Path:
    """A streamed choice; pieces are (token at which it begins, text), inherited ones included."""

    parent: int | None
    start: int
    is_late: bool
    length: int = 0
    pieces: list[tuple[int, str]] = field(default_factory=list)
    finish: str | None = None
    answer: str | None = None


class Growing:
    """What is known of a tree so far.

    Attributes:
        report: The `tree` of the last chunk; None before it came.
    """

    def __init__(self) -> None:
        self.report: dict[str, Any] | None = None
        self._paths: dict[int, _Path] = {}

    def take(self, chunk: Mapping[str, Any]) -> None:
        """Take a chunk of the stream, as a JSON object."""
        told = chunk.get("tree") or {}
        if "trajectories" in told:
            self.report = told
        for path in (told.get("progress") or {}).get("opened", ()):
            self._paths[path["index"]] = _Path(path["parent"], path["start"], path["is_late"])
        for choice in chunk.get("choices", ()):
            if choice["index"] in self._paths:
                self._hear(self._paths[choice["index"]], choice)

    def tree(self) -> dict[str, Any]:
        """The tree so far, with `nodes` and `trajectories`."""
        nodes: list[dict[str, Any]] = []
        leaves = []
        for index, path in self._paths.items():
            added = list(self._segments(index, path, nodes))
            nodes += added
            if added and path.finish is not None:
                added[-1]["finish"] = path.finish
                leaves.append({"leaf": added[-1]["id"], "answer": path.answer, "weight": 0.0})
                leaves[-1]["finish"] = path.finish
                if path.finish in GIVEN_UP:
                    leaves.pop()
        return {"nodes": nodes, "trajectories": leaves, "answer": None, "finish": "growing"}

    def text(self, index: int) -> str:
        """The text of a choice so far."""
        return "".join(text for _, text in self._paths[index].pieces)

    @staticmethod
    def _hear(path: _Path, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta") or {}
        text = (delta.get("reasoning") or "") + (delta.get("content") or "")
        path.pieces.append((path.length, text))
        path.length += len(choice.get("token_ids") or ()) or (1 if text else 0)
        if choice.get("finish_reason"):
            own = choice.get("tree") or {}
            path.finish = own.get("finish") or choice["finish_reason"]
            path.answer = own.get("answer")

    def _segments(
        self, index: int, path: _Path, nodes: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """The segments of one path, cut where others fork off it."""
        forks = {other.start for other in self._paths.values() if other.parent == index}
        inside = {at for at in forks if path.start < at < path.length}
        cuts = sorted({path.start, *inside, max(path.start, path.length)})
        before = (n["id"] for n in nodes if n["path"] == path.parent and n["start"] < path.start)
        parent = max(before, default=None)
        for number, (start, end) in enumerate(pairwise(cuts), len(nodes)):
            yield {
                "id": number,
                "parent": parent,
                "path": index,
                "start": start,
                "num_tokens": end - start,
                "is_late": path.is_late,
                "finish": None,
                "text": "".join(text for at, text in path.pieces if start <= at < end),
            }
            parent = number
