"""What a response needs to know of a tree's paths beyond the record: an observer of the sampler.

It keeps the paths themselves, the engine's own log-prob records, why a path stopped, and how far
each had come with every chunk, so that a stream can be replayed in its original pieces. It says
when something has changed and knows neither choices nor vLLM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from treepo.engines.base import Chunk, Sampling
from treepo.growth.state import Path
from treepo.tree import Finish

_ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a trajectory had come: generated tokens, and characters of its shown text."""

    num_tokens: int
    num_chars: int


@dataclass(frozen=True, slots=True)
class _Inherited:
    """Tokens of a path's trunk up to the fork, and the engine's log-prob records of them."""

    path_id: int | None = None
    token_ids: list[int] = field(default_factory=list)
    native_logprobs: list[Any] = field(default_factory=list)


class Journal:
    """An `Observer` that remembers; see the module docstring.

    Attributes:
        paths: Every path, by its id.
        num_tokens: Tokens on paths so far, each once, without overrun.
        changed: Called with each path that was opened, has grown or has ended.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.paths: list[Path] = []
        self.num_tokens = 0
        self.changed: Callable[[Path], None] = _ignore
        self._sampling = sampling
        self._native: dict[int, list[Any]] = {}
        self._marks: dict[int, list[Mark]] = {}
        self._stops: dict[int, int | str | None] = {}
        self._texts: dict[int, str] = {}
        self._over: set[int] = set()
        self._inherited = _Inherited()

    # the sampler tells

    def opened(self, path: Path) -> None:
        """Remember a new path."""
        self.paths.append(path)
        self._native[path.id] = []
        self._marks[path.id] = self._shared_marks(path)
        self.changed(path)

    def extended(self, path: Path, chunk: Chunk, num_kept: int) -> None:
        """Remember what a chunk added."""
        self.num_tokens += num_kept
        self._native[path.id].extend(chunk.native_logprobs[:num_kept])
        if path.finish is not None:
            self._stopped(path, chunk, is_whole=num_kept == len(chunk.token_ids))
        self._marks[path.id].append(Mark(path.end, self._num_shown(path)))
        self.changed(path)

    def ended(self, path: Path) -> None:
        """Remember that nothing more comes of it."""
        self._over.add(path.id)
        self.changed(path)

    # the response asks

    @property
    def num_live(self) -> int:
        """Paths that still run."""
        return sum(path.finish is None for path in self.paths)

    @property
    def num_finished(self) -> int:
        """Complete trajectories."""
        return sum(path.is_trajectory for path in self.paths)

    def is_over(self, path: Path) -> bool:
        """Whether a path has ended and its answer, where one was looked for, is known."""
        return path.id in self._over

    def text(self, path: Path) -> str:
        """The text of a trajectory from the prompt's end, as a caller sees it."""
        if path.id in self._texts:
            return self._texts[path.id]
        return path.transcript.shown if path.transcript else ""

    def token_ids(self, path: Path, part: slice = _ALL) -> list[int]:
        """Generated tokens of a trajectory, or some of them by position."""
        if part.start is not None and part.start >= path.start:
            return path.token_ids[_behind(part, path.start)]
        return _joined(self._shared(path).token_ids, path.token_ids, part)

    def native_logprobs(self, path: Path, part: slice = _ALL) -> list[Any]:
        """The engine's log-prob records of those tokens; empty if none were kept."""
        if part.start is not None and part.start >= path.start:
            return self._native[path.id][_behind(part, path.start)]
        own = self._native[path.id][: path.end - path.start]
        return _joined(self._shared(path).native_logprobs, own, part)

    def stop_reason(self, path: Path) -> int | str | None:
        """The stop string or stop token that ended a trajectory; None for any other end."""
        return self._stops.get(path.id)

    def marks(self, path: Path, since: int = 0) -> list[Mark]:
        """Where each piece of a trajectory ended so far, inherited pieces first.

        Those of a path never change, so a reader may go on `since` as many as it has seen.
        """
        return self._marks[path.id][since:]

    # what a path shares with its trunk

    def _shared_marks(self, path: Path) -> list[Mark]:
        if path.parent is None:
            return []
        return [mark for mark in self._marks[path.parent.id] if mark.num_tokens <= path.start]

    def _shared(self, path: Path) -> _Inherited:
        """What a path inherited; pieces are read one path after the other, so one is kept."""
        if self._inherited.path_id != path.id:
            owners = [(p, end) for p, end in path.ancestry() if p is not path]
            native = [self._native[p.id][: end - p.start] for p, end in reversed(owners)]
            self._inherited = _Inherited(
                path.id, path.prefix(path.start), [record for part in native for record in part]
            )
        return self._inherited

    # how a path's end shows

    def _num_shown(self, path: Path) -> int:
        """Characters that no stop string can take back any more."""
        length = len(self.text(path))
        if path.finish is not None or self._sampling.include_stop:
            return length
        return max(0, length - max((len(s) - 1 for s in self._sampling.stop), default=0))

    def _stopped(self, path: Path, chunk: Chunk, *, is_whole: bool) -> None:
        if path.transcript is None or path.finish not in (Finish.STOP, Finish.EOS):
            return
        if path.transcript.cut is not None:
            self._stops[path.id] = self._stop_string(path.transcript.text, path.transcript.cut)
        elif is_whole:
            self._stops[path.id] = chunk.stop_reason
            if not self._sampling.include_stop:
                # vLLM does not show the token that stops, whatever it says.
                before = path.transcript.fork(path.end - 1)
                before.flush()
                self._texts[path.id] = before.text

    def _stop_string(self, text: str, cut: int) -> str | None:
        is_here = text[:cut].endswith if self._sampling.include_stop else text[cut:].startswith
        return next((string for string in self._sampling.stop if is_here(string)), None)


def _joined(shared: list[Any], own: list[Any], part: slice) -> list[Any]:
    """A part of two lists behind each other that begins in the first, or all of them."""
    if part.stop is None:
        return shared + own
    return shared[part] + own[: max(0, part.stop - len(shared))]


def _behind(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)


def _ignore(path: Path) -> None:
    """Nobody listens."""
