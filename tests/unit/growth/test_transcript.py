"""The joined text of a path is the text of its tokens, however they arrive and fork."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.machines import ByteDecoder, CharDecoder
from treepo.growth.transcript import Transcript

BYTES = ByteDecoder()
texts = st.text(st.sampled_from("ab é€𝄞\n"), max_size=30)


class SpaceDecoder:
    """Words with a leading space that is dropped at the very beginning, as sentencepiece does."""

    def decode(self, token_ids):
        return "".join(f" w{t}" for t in token_ids)[1:]


@st.composite
def pieces(draw, tokens):
    cuts = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=8)))
    return [tokens[a:b] for a, b in zip([0, *cuts], [*cuts, len(tokens)], strict=True)]


@given(texts, st.data())
def test_any_chunking_gives_the_text_of_all_tokens_without_half_characters(text, data):
    tokens = BYTES.encode(text)
    transcript = Transcript(BYTES)
    added = []
    read = 0
    for piece in data.draw(pieces(tokens)):
        added.append(transcript.push(piece))
        read += len(piece)
        assert text.startswith(transcript.text)
        assert "\ufffd" not in transcript.text
        whole = BYTES.decode(tokens[:read])
        assert transcript.text == whole.rstrip("\ufffd") or not piece
    assert "".join(added) == transcript.text == text
    assert transcript.flush() == ""


@given(texts, texts, st.data())
def test_a_fork_goes_on_from_the_shared_tokens_even_amid_a_character(text, other, data):
    tokens = BYTES.encode(text)
    trunk = Transcript(BYTES)
    for piece in data.draw(pieces(tokens)):
        trunk.push(piece)
    at = data.draw(st.integers(0, len(tokens)))
    child = trunk.fork(at)
    child.push(tokens[at:])
    assert child.text == text
    again = child.fork(len(tokens))
    again.push(BYTES.encode(other))
    assert again.text == text + other
    assert trunk.text == text, "a fork leaves its trunk alone"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.data())
def test_decoders_that_drop_the_first_space_lose_none_inside(tokens, data):
    transcript = Transcript(SpaceDecoder())
    for piece in data.draw(pieces(tokens)):
        transcript.push(piece)
    assert transcript.text == SpaceDecoder().decode(tokens)
    at = data.draw(st.integers(0, len(tokens)))
    child = transcript.fork(at)
    child.push(tokens[at:])
    assert child.text == SpaceDecoder().decode(tokens)


@given(texts, st.data())
def test_tokens_until_is_the_fewest_tokens_that_show_so_much_text(text, data):
    tokens = BYTES.encode(text)
    transcript = Transcript(BYTES)
    for piece in data.draw(pieces(tokens)):
        transcript.push(piece)
    for length in range(len(text) + 1):
        fewest = len(BYTES.encode(text[:length]))
        assert transcript.tokens_until(length) == fewest


@given(texts, st.data())
def test_finish_cuts_tokens_and_shows_no_more_than_asked_for(text, data):
    tokens = BYTES.encode(text)
    transcript = Transcript(BYTES)
    for piece in data.draw(pieces(tokens)):
        transcript.push(piece)
    at = data.draw(st.integers(0, len(tokens)))
    length = data.draw(st.none() | st.integers(0, len(text)))
    transcript.finish(at, length)
    assert transcript.text == BYTES.decode(tokens[:at])
    assert transcript.shown == transcript.text[:length]


def test_a_path_that_ends_amid_a_character_shows_that():
    transcript = Transcript(BYTES)
    transcript.push(BYTES.encode("a€")[:-1])
    assert transcript.text == "a"
    assert transcript.flush() == "\ufffd"


def test_tokens_without_text_change_nothing():
    transcript = Transcript(CharDecoder())
    transcript.push([1, 2])
    assert transcript.push([0]) == ""
    assert transcript.push([3]) == "c"
    assert transcript.text == "abc"
    assert transcript.tokens_until(3) == 4


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_decoding_costs_about_two_chunks_a_push_however_long_the_path(chunk):
    class Counting(CharDecoder):
        decoded = 0

        def decode(self, token_ids):
            self.decoded += len(token_ids)
            return super().decode(token_ids)

    decoder = Counting()
    transcript = Transcript(decoder)
    for _ in range(1024 // chunk):
        transcript.push([1] * chunk)
    assert decoder.decoded <= 3 * 1024


@pytest.mark.parametrize(
    ("cut", "is_whole"), [(0, True), (1, True), (2, False), (3, False), (4, True)]
)
def test_a_fork_inside_a_character_is_not_whole(cut, is_whole):
    trunk = Transcript(BYTES)
    trunk.push(BYTES.encode("a€b"))
    assert trunk.fork(cut).is_whole is is_whole
    assert trunk.is_whole
