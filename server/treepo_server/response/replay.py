"""A choice as a stream of pieces: what was sent already, and what may be sent now.

A forked choice begins with the text it inherits, in the pieces in which its ancestors wrote it,
since parsers of tools and reasoning expect small pieces. The same code streams paths as they grow
and replays finished ones. It knows nothing of vLLM or of server-sent events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from treepo.growth.state import Path
from treepo_server.request.journal import Journal, Mark
from treepo_server.response.choices import finish_reason


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of one choice, with its tokens and, where asked for, their log-prob records.

    `context_ids` are the last few tokens before it, which log-prob records of half characters
    need to be read.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    native_logprobs: list[Any] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    context_ids: list[int] = field(default_factory=list)


START = Mark(0, 0)
_CONTEXT_TOKENS = 4


@dataclass(slots=True)
class Replay:
    """One choice on its way to the caller.

    Attributes:
        index: The choice's index.
        path: The path it shows.
        journal: Where the path's pieces are found.
        has_logprobs: Whether the caller asked for log-probs.
        is_finished: Whether its last piece was sent.
    """

    index: int
    path: Path
    journal: Journal
    has_logprobs: bool = False
    is_finished: bool = False
    _sent: Mark = START
    _num_marks: int = 0

    def pieces(self) -> Iterator[Piece]:
        """Everything that is known and was not sent yet.

        A finished path's last piece waits until its answer is known, so that the piece with the
        finish reason has tokens wherever possible.
        """
        if self.is_finished:
            return
        fresh = self.journal.marks(self.path, self._num_marks)
        if self.path.finish is not None and fresh:
            fresh.pop()
        self._num_marks += len(fresh)
        for mark in fresh:
            yield self._piece(mark)
        if self.journal.is_over(self.path):
            self.is_finished = True
            reason = finish_reason(self.path)
            yield self._piece(self._end(), reason, self.journal.stop_reason(self.path))

    def _end(self) -> Mark:
        return Mark(self.path.end, len(self.journal.text(self.path)))

    def _piece(
        self, until: Mark, finish: str | None = None, stop_reason: int | str | None = None
    ) -> Piece:
        since, self._sent = self._sent, until
        tokens = slice(since.num_tokens, until.num_tokens)
        return Piece(
            index=self.index,
            text=self.journal.text(self.path)[since.num_chars : until.num_chars],
            token_ids=self.journal.token_ids(self.path, tokens),
            native_logprobs=(
                self.journal.native_logprobs(self.path, tokens) if self.has_logprobs else None
            ),
            finish_reason=finish,
            stop_reason=stop_reason,
            context_ids=self._before(since.num_tokens) if self.has_logprobs else [],
        )

    def _before(self, num_tokens: int) -> list[int]:
        part = slice(max(0, num_tokens - _CONTEXT_TOKENS), num_tokens)
        return self.journal.token_ids(self.path, part)


def whole(index: int, path: Path | None, journal: Journal, *, has_logprobs: bool) -> Piece:
    """A finished choice in one piece."""
    if path is None:
        return Piece(index, native_logprobs=[] if has_logprobs else None, finish_reason="stop")
    return Piece(
        index=index,
        text=journal.text(path),
        token_ids=journal.token_ids(path),
        native_logprobs=journal.native_logprobs(path) if has_logprobs else None,
        finish_reason=finish_reason(path),
        stop_reason=journal.stop_reason(path),
    )
