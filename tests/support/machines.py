"""Token machines, toy decoders and readers for the sampler's tests.

Machines with a law small enough to enumerate; random ones for property tests stand in
`scenarios.py`. A new machine is a function here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treepo.engines.scripted import EOS, TokenMachine
from treepo.growth.texts import Texts


@dataclass(frozen=True)
class ToyAnswer:
    """What `treepo.answers.reader.Answer` carries, as far as the sampler looks at it."""

    key: str
    text: str


class CharDecoder:
    """One character per token; the end of sequence has no text."""

    def __init__(self, alphabet: str = " abcdefghijklmnopqrstuvwxyz") -> None:
        self.alphabet = alphabet

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self.alphabet[t % len(self.alphabet)] for t in token_ids if t != EOS)

    def encode(self, text: str) -> list[int]:
        return [self.alphabet.index(character) for character in text]


class ByteDecoder:
    """One UTF-8 byte per token, shifted by one so that 0 stays the end of sequence."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(t - 1 for t in token_ids if t != EOS).decode("utf-8", errors="replace")

    def encode(self, text: str) -> list[int]:
        return [byte + 1 for byte in text.encode()]


class WordReader:
    """The answer is the word behind the last `mark`; None where there is none."""

    def __init__(self, mark: str = "z") -> None:
        self.mark = mark

    async def read(self, text: str) -> ToyAnswer | None:
        _, mark, word = text.rpartition(self.mark)
        return ToyAnswer(word, word) if mark else None


class LastLetter:
    """The answer is the last letter; None where there is none."""

    async def read(self, text: str) -> ToyAnswer | None:
        return ToyAnswer(text[-1], text[-1]) if text else None


def find_word(mark: str = "z", length: int = 2) -> Callable[[str, int], int | None]:
    """A finder for answers of `length` characters behind `mark`."""

    def find(text: str, cleared: int) -> int | None:
        at = text.find(mark, max(0, cleared - length))
        while at >= 0:
            end = at + len(mark) + length
            if end > len(text):
                return None
            if end > cleared:
                return end
            at = text.find(mark, at + 1)
        return None

    return find


def toy_texts(*, mark: str = "z", length: int = 2) -> Texts:
    """Char-level texts whose answers are `length` characters behind `mark`."""
    return Texts(CharDecoder(), WordReader(mark), find_word(mark, length))


def chain(text: str, decoder: CharDecoder | ByteDecoder | None = None) -> TokenMachine:
    """A machine that writes `text` and then ends."""
    tokens = [*(decoder or CharDecoder()).encode(text), EOS]
    return TokenMachine({str(i): {token: (1.0, str(i + 1))} for i, token in enumerate(tokens)}, "0")


def endless(token: int = 1) -> TokenMachine:
    """A machine that repeats one token for ever."""
    return TokenMachine({"s": {token: (1.0, "s")}}, "s")


def coin(tokens: Sequence[int] = (1, 2), stop: float = 0.0) -> TokenMachine:
    """Every token drawn uniformly from `tokens`; the path ends with probability `stop`."""
    each = (1.0 - stop) / len(tokens)
    row = dict.fromkeys(tokens, (each, "s"))
    return TokenMachine({"s": row | ({EOS: (stop, "s")} if stop else {})}, "s")
