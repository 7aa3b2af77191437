"""Where the next trajectories are worth most: at the prompt, or at boundaries of known paths.

The measure is effective samples per generated token (`votes/evidence.py`): a child of an earlier
boundary costs only the tail behind it, and is worth only what that tail decides. What is opened
here was chosen knowing the tokens behind the boundary, so it is late and the tree's weights are
not exact. It opens nothing itself: `sampler.py` asks it for the next wave and for the slot of a
pruned path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from treepo.growth.segments import segments
from treepo.growth.state import Branch, Growth, Path
from treepo.votes.evidence import TOKEN_NATS, Sharing, common_nats

MOST_SOURCES = 64
"""Paths looked at, the first by place: the work grows with their square."""


Floats = npt.NDArray[np.float64]
Place = tuple[int, int]
"""A known leaf, by its index, and the boundary up to which it is copied; 0 is the prompt."""

Prefix = tuple[int, int]
"""What a place is called by all leaves that share it: who generated its last token, and where."""


def next_wave(growth: Growth, width: int) -> list[Branch]:
    """Late branches that open the next `width` trajectories, or nothing: open them at the prompt.

    A wave at the prompt is expected to be worth, and to cost, what the tree was so far.
    """
    factor = growth.config.branching_factor or width
    crowd = _Crowd.of(growth, [path for path in growth.paths if path.is_natural])
    if crowd is None or factor == 1:
        return []
    at_prompt = crowd.worth_of_more_like_this(width)
    places: Counter[Place] = Counter()
    children: Counter[Prefix] = Counter()
    for _ in range(width):
        place = crowd.best({prefix for prefix, count in children.items() if count == factor})
        crowd.add(place)
        places[place] += 1
        children[crowd.prefix(place)] += 1
    is_shared = any(position for _, position in places)
    return _branches(crowd, places) if is_shared and crowd.worth() > at_prompt else []


def better_place(growth: Growth) -> list[Branch]:
    """One late branch for a slot that became free; none where nothing has finished yet.

    Where paths may not branch it starts at the prompt, whatever has finished.
    """
    if growth.config.branching_factor == 1:
        return [Branch(None, 0, 1, is_late=True)]
    sources = [p for p in growth.paths if p.finish is None or p.is_natural]
    crowd = _Crowd.of(growth, sources)
    return [] if crowd is None else _branches(crowd, Counter([crowd.best()]))


def _branches(crowd: _Crowd, places: Counter[Place]) -> list[Branch]:
    return [
        Branch(crowd.paths[source] if position else None, position, count, is_late=True)
        for (source, position), count in places.items()
    ]


@dataclass(slots=True)
class _Crowd:
    """Leaves, known and planned, with what they cost and what each two of them share.

    A planned leaf copies a known one up to a boundary and is as informative and as long.

    Attributes:
        paths: The known leaves, which planned ones may copy.
        boundaries: Of each path: the prompt's end and the boundaries inside it, in tokens.
        nats: Information of each path up to each of its boundaries.
        lengths: Length of each path in tokens; of a running one, what is expected.
        common: Information that each two leaves share, in nats; shape (leaves, leaves).
        tokens: Generated tokens, shared ones once; of more leaves than are looked at, their part.
    """

    paths: list[Path]
    boundaries: list[list[int]]
    nats: list[Floats]
    lengths: Floats
    common: Floats
    tokens: float

    @classmethod
    def of(cls, growth: Growth, paths: list[Path]) -> _Crowd | None:
        """The crowd of a growing tree; None where none of these paths has ended."""
        nodes, tips = segments(growth)
        # By place, not by the order in which they were opened: that depends on the engine's timing.
        eligible = sorted((p for p in paths if p.id in tips), key=lambda p: p.key)
        paths = eligible[:MOST_SOURCES]
        ended = [i for i, path in enumerate(paths) if path.finish is not None]
        if not ended:
            return None
        leaves = [tips[path.id] for path in paths]
        common = common_nats(Sharing.of_nodes(nodes, leaves, [1.0] * len(paths)))
        lengths = np.array([path.end for path in paths], dtype=np.float64)
        for i in set(range(len(paths))).difference(ended):
            common[i, i] = max(common[i, i], np.diagonal(common)[ended].mean())
            lengths[i] = max(lengths[i], lengths[ended].mean())
        boundaries = [growth.boundaries(path) for path in paths]
        nats = [_nats_up_to(p, at) for p, at in zip(paths, boundaries, strict=True)]
        tokens = sum(len(path.token_ids) for path in growth.paths) * len(paths) / len(eligible)
        return cls(paths, boundaries, nats, lengths, common, tokens)

    def worth(self) -> float:
        """Effective samples per generated token."""
        return float(_worth(len(self.common), self._shared(), self.tokens))

    def worth_of_more_like_this(self, num: int) -> float:
        """The same with `num` more leaves that share with each other, and cost, what these do."""
        leaves = len(self.common)
        times = 1 + num / leaves
        return float(_worth(leaves * times, self._shared() * times, self.tokens * times))

    def _shared(self) -> float:
        """Sum of the correlations of each two leaves, those of a leaf with itself included."""
        scale = np.sqrt(np.diagonal(self.common))
        return float((self.common / np.outer(scale, scale)).sum())

    def prefix(self, place: Place) -> Prefix:
        """The place under the name that all leaves have for it."""
        source, position = place
        owner = self.paths[source].owner(position)
        return owner.id if owner else -1, position

    def best(self, full: Collection[Prefix] = ()) -> Place:
        """Where one more leaf raises the worth most; ties go to the earlier path and boundary.

        Places in `full` take no more, but for the prompt.
        """
        scale = np.sqrt(np.diagonal(self.common))
        shared = self._shared()
        found: list[tuple[float, int, int]] = []
        for i, nats in enumerate(self.nats):
            with_all = np.minimum(self.common[i], nats[:, None]) @ (1 / scale) / scale[i]
            tails = self.lengths[i] - np.asarray(self.boundaries[i])
            worth = _worth(len(scale) + 1, shared + 1 + 2 * with_all, self.tokens + tails)
            worth[[at > 0 and self.prefix((i, at)) in full for at in self.boundaries[i]]] = 0.0
            at = int(np.argmax(worth))
            found.append((float(worth[at]), -i, self.boundaries[i][at]))
        _, source, position = max(found, key=lambda place: place[:2])
        return -source, position

    def add(self, place: Place) -> None:
        """Count a leaf planned there."""
        source, position = place
        until = self.nats[source][self.boundaries[source].index(position)]
        row = np.minimum(self.common[source], until)
        corner = self.common[source, source]
        self.common = np.block([[self.common, row[:, None]], [row[None, :], np.array([[corner]])]])
        self.tokens += self.lengths[source] - position


def _worth(num: float, shared: float | Floats, tokens: float | Floats) -> Floats:
    """Effective samples per token of `num` equal leaves whose correlations sum to `shared`."""
    return np.asarray(num**2 / shared / tokens)


def _nats_up_to(path: Path, positions: list[int]) -> Floats:
    """Information of the path up to each position (`evidence.information`), in nats."""
    steps = np.full(path.end, TOKEN_NATS)
    known = path.joined_uncertainty()
    steps[: len(known)] += np.nan_to_num(np.asarray(known, dtype=np.float64))
    return np.concatenate(([0.0], np.cumsum(steps)))[positions]
