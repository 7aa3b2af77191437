"""What the sampler needs to see text: a decoder, a way to read answers, and one to spot them.

It joins `transcript.py` and `answers/reader.py` for one tree, so that the loop itself handles
tokens only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from treepo.answers.reader import Answer, AnswerReader, AnswerWatch
from treepo.config import TreeConfig
from treepo.growth.state import Path
from treepo.growth.transcript import Decoder, Transcript


class Reader(Protocol):
    """Reads the answer of a text."""

    async def read(self, text: str) -> Answer | None:
        """The answer, or None where there is none or it cannot be read in time."""
        ...


@dataclass(frozen=True, slots=True)
class Texts:
    """Decoder and reader of one tree.

    Attributes:
        decoder: Token ids to text.
        reader: Reads answers of finished paths; None where answers do not matter.
        find_answer: From a text and a cleared position, the end of its first complete answer;
            None where no kind of answer may end a path early.
        notes: Which answers the reader could not read so far, in words.
    """

    decoder: Decoder
    reader: Reader | None = None
    find_answer: Callable[[str, int], int | None] | None = None
    notes: Callable[[], list[str]] = list

    @classmethod
    def from_config(cls, decoder: Decoder, config: TreeConfig) -> Texts:
        """Texts whose answers are read as `config.answer` says.

        Raises:
            FieldError: `tree.answer` cannot be used.
        """
        watch = AnswerWatch(config.answer)
        reader = AnswerReader.from_config(config.answer)
        return cls(decoder, reader, watch if watch.can_stop else None, reader.notes)

    def transcript(self, trunk: Path | None, start: int) -> Transcript:
        """The transcript of a path that forks off `trunk` after `start` generated tokens."""
        if trunk is None or trunk.transcript is None:
            return Transcript(self.decoder)
        return trunk.transcript.fork(start)

    async def read_answer(self, path: Path) -> None:
        """Fill in a finished path's answer."""
        if self.reader is not None and path.transcript is not None:
            path.answer = await self.reader.read(path.transcript.shown)
