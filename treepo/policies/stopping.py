"""What ends a path.

A path is judged on its joined text, so an answer, a stop string or a loop that crosses a
boundary is seen. Everything here is a function of the path or of the finished trajectories; it
starts and aborts nothing, and when the whole tree may end is for `until.py`. A new reason to stop
is one more `_…` function in `PathStops.check`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from treepo.config import TreeConfig
from treepo.engines.base import Chunk, Sampling
from treepo.growth.state import Growth, Path
from treepo.tree import Finish
from treepo.votes.voting import worst_mean

LOOP_CHARS = 32
LOOP_COUNT = 8
_LOOP_WINDOW = LOOP_CHARS * LOOP_COUNT * 8
_EQUAL = 1e-9  # means of the same values, summed in another order, differ by less

FindAnswer = Callable[[str, int], int | None]
"""From a text and a position that was cleared before, the end of its first complete answer."""


@dataclass(frozen=True, slots=True)
class PathEnd:
    """A path ends: why, after how many generated tokens, and where its text ends.

    `text_end` is None where the text ends with the last token.
    """

    finish: Finish
    at: int
    text_end: int | None = None


def is_looping(text: str) -> bool:
    """Whether the text ends in a loop: its last 32 characters stand 8 times near its end.

    TreePO §2.2 ends paths with flawed sub-strings; its code counts every 32-character window of
    one segment. Here the last window is looked for in the last 2,048 characters of the joined
    text, so a loop longer than a segment is seen and a path that has left its loop goes on.
    Occurrences do not overlap: a run of one character counts once per 32.
    """
    if len(text) < LOOP_CHARS * LOOP_COUNT:
        return False
    return text.count(text[-LOOP_CHARS:], -min(len(text), _LOOP_WINDOW)) >= LOOP_COUNT


@dataclass(slots=True)
class PathStops:
    """Judges the paths of one tree.

    Args:
        config: Resolved tree settings.
        sampling: The caller's stop strings and `min_tokens`.
        growth: For the positions of boundaries.
        find_answer: Sees complete answers; None where no kind of answer can end a path.
    """

    config: TreeConfig
    sampling: Sampling
    growth: Growth
    find_answer: FindAnswer | None
    _last: int = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.growth.boundary(self.config.max_depth or 1)

    def check(self, path: Path, chunk: Chunk, seen: int) -> PathEnd | None:
        """Why the path ends within the tokens after position `seen`, if it does.

        The earliest reason holds; at one position a stop or an answer goes before the engine's
        own end, then depth, and a loop last (the released code's order). What the host looks for
        counts behind the first `min_tokens` tokens, as vLLM's own stops do.
        """
        found = [self._stop_string(path, seen), self._answer(path, seen), self._loop(path, seen)]
        least = self.sampling.min_tokens
        stop, answer, loop = (v if v is not None and v.at > least else None for v in found)
        ranked = [stop, answer, self._engine(path, chunk), self._depth(path), loop]
        ends = [end for end in ranked if end is not None]
        return min(ends, key=lambda end: end.at, default=None)

    def _engine(self, path: Path, chunk: Chunk) -> PathEnd | None:
        reason = chunk.finish_reason
        if reason is None or reason == "abort":
            return None
        if reason == "stop":
            finish = Finish.EOS if chunk.stop_reason is None else Finish.STOP
            return PathEnd(finish, path.end)
        if reason == "length" and self._last <= path.end < self.sampling.max_tokens:
            return None
        if reason == "repetition":
            return PathEnd(Finish.REPETITION, path.end)
        is_full = path.end >= min(self.sampling.max_tokens, self._last)
        # Less is what was left of the whole tree's budget, and no complete trajectory.
        return PathEnd(Finish.LENGTH if is_full else Finish.UNFINISHED, path.end)

    def _depth(self, path: Path) -> PathEnd | None:
        return PathEnd(Finish.DEPTH, self._last) if path.end >= self._last else None

    def _stop_string(self, path: Path, seen: int) -> PathEnd | None:
        if path.transcript is None or not self.sampling.stop:
            return None
        text, since = path.transcript.text, self._since(path, seen)
        ends = [(text.find(s, max(0, since - len(s) + 1)), s) for s in self.sampling.stop]
        hits = [(at + len(s), at) for at, s in ends if at >= 0]
        if not hits:
            return None
        end, at = min(hits, key=lambda hit: hit[0])
        position = max(path.transcript.tokens_until(end), seen + 1)
        return PathEnd(Finish.STOP, position, end if self.sampling.include_stop else at)

    def _answer(self, path: Path, seen: int) -> PathEnd | None:
        if path.transcript is None or self.find_answer is None or not self.config.stop_on_answer:
            return None
        end = self.find_answer(path.transcript.text, self._since(path, seen))
        if end is None:
            return None
        return PathEnd(Finish.ANSWER, max(path.transcript.tokens_until(end), seen + 1))

    def _since(self, path: Path, seen: int) -> int:
        """Length of the text that cannot end the path: searched before, or of too few tokens."""
        least = self.sampling.min_tokens
        if path.transcript is None or not seen < least <= path.end:
            return path.cleared
        return max(path.cleared, len(path.transcript.fork(least).text))

    def _loop(self, path: Path, seen: int) -> PathEnd | None:
        if path.transcript is None or not self.config.repetition:
            return None
        if self.growth.depth_at(path.end) == self.growth.depth_at(seen):
            return None
        is_loop = is_looping(path.transcript.text)
        return PathEnd(Finish.REPETITION, path.end) if is_loop else None


def worst_window(
    uncertainty: Sequence[float], since: int, window: int, *, is_ended: bool = False
) -> float:
    """Highest mean uncertainty of `window` tokens that end at or after position `since`, in nats.

    While fewer than `window` tokens are known it is 0.0, and the mean of all where there will be
    no more: a short path must not make those look bad that are merely longer.
    """
    recent = uncertainty[max(0, since - window) :]
    return worst_mean(recent, min(window, len(recent)) if is_ended else window)


def is_hopeless(growth: Growth, path: Path) -> bool:
    """Whether the path's worst window is beyond the finished trajectories' quantile.

    A heuristic after DeepConf: a path far less certain than those that finished rarely ends in
    the winning answer. It is not lossless, and a tree that pruned has no exact weights.
    """
    config = growth.config
    if config.prune != "confidence" or growth.num_finished < config.prune_warmup:
        return False
    finished = [p.worst_window for p in growth.paths if p.is_trajectory]
    limit = float(np.quantile(finished, config.prune_quantile))
    return path.worst_window > limit * (1 + _EQUAL) > 0
