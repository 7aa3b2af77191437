"""A tree while it grows: its paths, their forks and their masses.

A path is one engine request; it knows its parent and where it forked off, and stores only its
own tokens. Here is the arithmetic of boundaries, prefixes, masses and counts; who forks when is
decided by the policies (`branching.py`, `fallback.py`), what ends a path by `stopping.py`;
`record.py` makes the record of what has grown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from treepo.config import TreeConfig
from treepo.engines.base import Chunk
from treepo.tree import Finish

if TYPE_CHECKING:
    from treepo.answers.reader import Answer
    from treepo.growth.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Branch:
    """Open `children` more paths that share `path` up to `position` generated tokens.

    `path` None means the prompt. `is_late` says that tokens behind the position were used to
    decide it, so that the children's weights cannot be exact.
    """

    path: Path | None
    position: int
    children: int
    is_late: bool = False


@dataclass(slots=True, eq=False)
class Path:
    """One engine request of the tree; positions count generated tokens from the prompt's end.

    Attributes:
        id: Index into `Growth.paths`, in the order in which paths were opened.
        key: Its place in the tree, whatever order paths were opened in: where it and those above it
            forked off.
        wave: The wave it was opened in.
        parent: The path it forked off; None at the prompt.
        start: Where it forked off.
        is_late: Whether it, or a path above it, was opened knowing tokens behind its start.
        masses: (position, probability mass from there on), the latest last.
        token_ids: The tokens it adds.
        logprobs: Log-prob of each, in nats; or empty.
        uncertainty: Entropy or surprisal of each, in nats, nan where the engine lost it; or empty.
        cuts: Positions at which others fork off it.
        finish: Why it ended; None while it runs.
        request_id: The engine's name for it.
        is_cache_counted: Whether what the prefix cache saved it is in the totals.
        worst_window: Highest mean uncertainty of `prune_window` tokens so far, in nats.
        transcript: Its text; None where only tokens matter.
        cleared: Characters of the text that were searched for stops.
        answer: What was read from its text, once it has ended.
        is_answered: Whether its answer has been looked for; it votes from then on.
        order: 0 for the trajectory that finished first; -1 for what is none.
    """

    id: int
    key: str
    wave: Wave
    parent: Path | None
    start: int
    is_late: bool
    masses: list[tuple[int, float]]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    uncertainty: list[float] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    finish: Finish | None = None
    request_id: str = ""
    is_cache_counted: bool = False
    worst_window: float = 0.0
    transcript: Transcript | None = None
    cleared: int = 0
    answer: Answer | None = None
    is_answered: bool = False
    order: int = -1

    @property
    def end(self) -> int:
        """Generated tokens of the trajectory so far, with the inherited ones."""
        return self.start + len(self.token_ids)

    @property
    def mass(self) -> float:
        """Probability mass at the tip."""
        return self.masses[-1][1]

    @property
    def is_trajectory(self) -> bool:
        """Whether it ended as a complete trajectory."""
        return self.finish is not None and self.finish.is_trajectory

    @property
    def is_natural(self) -> bool:
        """Whether it ended by itself, at an answer, the end of sequence or a stop."""
        return self.finish is not None and self.finish.is_natural

    def extend(self, chunk: Chunk) -> None:
        """Add a chunk's tokens; positions whose uncertainty the engine lost read nan."""
        self.token_ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        if chunk.uncertainty or self.uncertainty:
            known = len(self.token_ids) - len(chunk.uncertainty)
            self.uncertainty.extend([math.nan] * (known - len(self.uncertainty)))
            self.uncertainty.extend(chunk.uncertainty)

    def owner(self, position: int) -> Path | None:
        """The path that generated the token before `position`; None for the prompt."""
        path: Path | None = self
        while path is not None and path.start >= position:
            path = path.parent
        return path

    def ancestry(self) -> Iterator[tuple[Path, int]]:
        """From this path to its root path, each with the end of the part that is shared."""
        path: Path | None = self
        end = self.end
        while path is not None:
            yield path, end
            end, path = path.start, path.parent

    def prefix(self, position: int) -> list[int]:
        """Generated tokens up to `position`, inherited ones included."""
        parts: list[Sequence[int]] = []
        end = position
        for path, _ in self.ancestry():
            if end > path.start:
                parts.append(path.token_ids[: end - path.start])
                end = path.start
        return [token for part in reversed(parts) for token in part]

    def joined_uncertainty(self) -> list[float]:
        """Uncertainty of every position of the trajectory, inherited ones included, in nats.

        Empty where the engine gave none, nan at positions it lost.
        """
        parts = [(owner.uncertainty, end - owner.start) for owner, end in self.ancestry()]
        if not any(part for part, _ in parts):
            return []
        known = [part[:length] or [math.nan] * length for part, length in reversed(parts)]
        return list(chain.from_iterable(known))

    def joined_logprob(self) -> float:
        """Summed log-prob of the trajectory, in nats; -inf where the engine gave none."""
        total = 0.0
        for owner, end in self.ancestry():
            known = owner.logprobs[: end - owner.start]
            if len(known) < end - owner.start:
                return -math.inf
            total += math.fsum(known)
        return total


@dataclass(slots=True, eq=False)
class Wave:
    """Paths that were opened together, and everything that grew from them."""

    width: int
    num_roots: int
    paths: list[Path] = field(default_factory=list)

    @property
    def num_finished(self) -> int:
        """Complete trajectories."""
        return sum(path.is_trajectory for path in self.paths)


class Growth:
    """All paths of one tree, and the arithmetic on them.

    Args:
        prompt_token_ids: The prompt.
        config: Resolved settings (`TreeConfig.resolve`).
        block_size: The engine's KV block, in tokens.
    """

    def __init__(
        self, prompt_token_ids: Sequence[int], config: TreeConfig, block_size: int
    ) -> None:
        self.prompt_token_ids = tuple(prompt_token_ids)
        self.config = config
        self.paths: list[Path] = []
        self.waves: list[Wave] = []
        self.num_finished = 0
        self.num_failed = 0
        self.has_late = False
        segment = config.segment_tokens
        self._first = segment - (len(self.prompt_token_ids) + segment - 1) % block_size

    def boundary(self, depth: int) -> int:
        """Position of the boundary after `depth` segments; a branch there recomputes one token.

        The first segment is up to a block shorter than the others, so that prompt plus
        completion is 1 (mod block size) at every boundary.
        """
        return 0 if depth == 0 else self._first + (depth - 1) * self.config.segment_tokens

    def depth_at(self, position: int) -> int:
        """Number of boundaries at or before `position`, the prompt's end not counted."""
        if position < self._first:
            return 0
        return (position - self._first) // self.config.segment_tokens + 1

    def boundaries(self, path: Path) -> list[int]:
        """Where a path may be cut: the prompt's end and every boundary before its last token."""
        return [self.boundary(depth) for depth in range(self.depth_at(path.end - 1) + 1)]

    def open_wave(self, width: int, num_roots: int) -> list[Path]:
        """Open `num_roots` paths at the prompt that may grow to `width` trajectories.

        Without roots, late branches of earlier waves are opened in it.
        """
        wave = Wave(width, min(num_roots, width))
        self.waves.append(wave)
        mass = width / self.config.width / max(1, wave.num_roots)
        return [self._open(wave, None, 0, mass, is_late=False) for _ in range(wave.num_roots)]

    def open_branch(self, branch: Branch, wave: Wave) -> list[Path]:
        """Open the children of `branch`; the mass at a prospective fork is split once.

        A late child starts with mass 1 / width, so that it never forks under a weight window.
        """
        trunk, position = branch.path, branch.position
        is_late = branch.is_late or trunk is None
        mass = 1 / self.config.width
        if trunk is not None and not is_late:
            mass = trunk.mass / (branch.children + 1)
            trunk.masses.append((position, mass))
        self.has_late |= is_late
        owner = trunk.owner(position) if trunk else None
        if owner is not None:
            owner.cuts.append(position)
        return [
            self._open(wave, owner, position, mass, is_late=is_late) for _ in range(branch.children)
        ]

    def _open(
        self, wave: Wave, parent: Path | None, start: int, mass: float, *, is_late: bool
    ) -> Path:
        number = sum(path.parent is parent and path.start == start for path in self.paths)
        path = Path(
            id=len(self.paths),
            key=f"{parent.key if parent else ''}/{start}.{number}",
            wave=wave,
            parent=parent,
            start=start,
            is_late=is_late or (parent is not None and parent.is_late),
            masses=[(start, mass)],
        )
        self.paths.append(path)
        wave.paths.append(path)
        return path

    def end(self, path: Path, finish: Finish, at: int) -> None:
        """End a path after `at` generated tokens; what lies behind is overrun and dropped."""
        for values in (path.token_ids, path.logprobs, path.uncertainty):
            del values[at - path.start :]
        path.finish = finish
        if finish.is_trajectory:
            path.order = self.num_finished
            self.num_finished += 1
        elif finish is not Finish.UNFINISHED:
            self.num_failed += 1
