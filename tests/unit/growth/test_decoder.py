"""Pieces of text join to the whole, for tokenizers that split characters or drop spaces."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from treepo.growth.decoder import PromptDecoder


class Bytes:
    """A tokenizer of single bytes whose first token id past them is special."""

    special = 256

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        names = {self.special: b"" if skip_special_tokens else b"<end>"}
        raw = b"".join(names.get(t, bytes([t % 256])) for t in token_ids)
        return raw.decode("utf-8", errors="replace")


class Words:
    """A tokenizer that drops the space before the first word, as SentencePiece does."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return " ".join("abcdefghij"[t] for t in token_ids)


def decoder(prompt: Sequence[int] = tuple(b"Hi: "), *, skip: bool = True) -> PromptDecoder:
    return PromptDecoder(Bytes(), prompt, skip_special_tokens=skip)


def test_the_space_before_the_first_word_is_kept():
    after_prompt = PromptDecoder(Words(), [0, 1], skip_special_tokens=True)
    assert after_prompt.decode([2, 3]) == " c d"


def test_special_tokens_show_only_where_asked_for():
    assert decoder().decode([*b"ab", Bytes.special]) == "ab"
    assert decoder(skip=False).decode([*b"ab", Bytes.special]) == "ab<end>"


def test_nothing_has_no_text():
    assert decoder().decode([]) == ""


@settings(max_examples=400, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=30), st.data())
def test_segments_of_a_path_join_to_its_text(text, data):
    token_ids = list(text.encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(token_ids)), max_size=5)))
    edges = [0, *cuts, len(token_ids)]
    pieces = [
        decoder().continuation(token_ids[:start], token_ids[start:end])
        for start, end in pairwise(edges)
    ]
    assert "".join(pieces) == text
