"""The joined text of one path, kept up to date as tokens arrive.

Decoding is incremental: a chunk costs the decoding of two chunks, however long the path is. A
child starts from the newest mark of its trunk before the fork, so no text is decoded twice. It
knows text and tokens only; what the text means is for `reader.py` and `stopping.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

_UNFINISHED = "�"  # what decoders show for the first bytes of a character
_LONGEST = 3  # tokens that can stand for the first bytes of a character of four


class Decoder(Protocol):
    """Token ids to text; special tokens show or not as the request wants it."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens."""
        ...


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the decoder stood: tokens read, start of the window decoded again, text length."""

    read: int
    window: int
    length: int


@dataclass(slots=True)
class Transcript:
    """Text of a path from the prompt's end on.

    Attributes:
        text: All text so far; a character whose bytes are incomplete is held back.
        cut: Where a stop string ended the text, in characters.
    """

    decoder: Decoder
    text: str = ""
    cut: int | None = field(default=None, kw_only=True)
    _token_ids: list[int] = field(default_factory=list)
    _marks: list[_Mark] = field(default_factory=lambda: [_Mark(0, 0, 0)])

    @property
    def shown(self) -> str:
        """The text a caller sees: up to the stop string, where one ended it."""
        return self.text[: self.cut]

    @property
    def is_whole(self) -> bool:
        """Whether no text is held back behind the last token."""
        return self._marks[-1].read == len(self._token_ids)

    def push(self, token_ids: Sequence[int]) -> str:
        """Add generated tokens; returns the text they add."""
        self._token_ids.extend(token_ids)
        last, end = self._marks[-1], len(self._token_ids)
        least = max(last.read, end - _LONGEST)
        longer = self.decoder.decode(self._token_ids[last.window :])
        while longer.endswith(_UNFINISHED) and end > least:
            end -= 1
            longer = self.decoder.decode(self._token_ids[last.window : end])
        known = self.decoder.decode(self._token_ids[last.window : last.read])
        if longer.endswith(_UNFINISHED) or len(longer) <= len(known):
            return ""
        added = longer[len(known) :]
        self.text += added
        self._marks.append(_Mark(end, last.read, len(self.text)))
        return added

    def flush(self) -> str:
        """Text held back because its last character is incomplete; call it at a path's end."""
        last = self._marks[-1]
        known = self.decoder.decode(self._token_ids[last.window : last.read])
        added = self.decoder.decode(self._token_ids[last.window :])[len(known) :]
        self.text += added
        self._marks.append(_Mark(len(self._token_ids), last.read, len(self.text)))
        return added

    def fork(self, num_tokens: int) -> Transcript:
        """The transcript of a child that shares the first `num_tokens` tokens."""
        marks = [mark for mark in self._marks if mark.read <= num_tokens]
        last = marks[-1]
        child = Transcript(
            self.decoder, self.text[: last.length], self._token_ids[: last.read], marks
        )
        child.push(self._token_ids[last.read : num_tokens])
        return child

    def finish(self, num_tokens: int, length: int | None) -> None:
        """End the text after `num_tokens` tokens, or after `length` characters where given."""
        if num_tokens < len(self._token_ids):
            ended = self.fork(num_tokens)
            self.text, self._token_ids, self._marks = ended.text, ended._token_ids, ended._marks
        self.flush()
        self.cut = length

    def tokens_until(self, length: int) -> int:
        """Fewest tokens whose text reaches `length` characters."""
        index = next(i for i, mark in enumerate(self._marks) if mark.length >= length)
        if index == 0:
            return 0
        mark, goal = self._marks[index - 1], self._marks[index]
        known = len(self.decoder.decode(self._token_ids[mark.window : mark.read]))
        for end in range(mark.read + 1, goal.read):
            text = self.decoder.decode(self._token_ids[mark.window : end])
            if not text.endswith(_UNFINISHED) and mark.length + len(text) - known >= length:
                return end
        return goal.read
