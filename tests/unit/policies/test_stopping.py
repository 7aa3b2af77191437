"""What ends a path: on its joined text, across boundaries and forks, in a fixed order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.machines import CharDecoder, chain, find_word
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, Sampling
from treepo.growth.state import Branch, Growth, Path
from treepo.growth.transcript import Transcript
from treepo.policies.stopping import PathEnd, PathStops, is_hopeless, is_looping, worst_window
from treepo.tree import Finish

DECODER = CharDecoder()


class Judge:
    """One path fed with text; path ends as the sampler would get them."""

    def __init__(self, *, max_tokens=10_000, max_depth=None, find=None, segment=4, **sampling):
        config = TreeConfig(segment_tokens=segment, max_depth=max_depth).resolve(1, max_tokens, 0.5)
        self.growth = Growth([1], config, 1)
        (self.path,) = self.growth.open_wave(config.width, 1)
        self.path.transcript = Transcript(DECODER)
        self.stops = PathStops(
            config, Sampling(max_tokens=max_tokens, **sampling), self.growth, find
        )

    def feed(self, text: str, finish: str | None = None, reason=None) -> PathEnd | None:
        chunk = Chunk(DECODER.encode(text), finish_reason=finish, stop_reason=reason)
        seen = self.path.end
        self.path.extend(chunk)
        self.path.transcript.push(chunk.token_ids)
        end = self.stops.check(self.path, chunk, seen)
        if end is None:
            self.path.cleared = len(self.path.transcript.text)
        return end

    def fork(self, position: int) -> Path:
        (child,) = self.growth.open_branch(Branch(self.path, position, 1), self.path.wave)
        child.transcript = self.path.transcript.fork(position)
        child.cleared = len(child.transcript.text)
        self.path = child
        return child


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_stop_string_is_found_wherever_chunks_cut_it(cut):
    judge = Judge(stop=("cde",))
    text = "abcdef"
    assert judge.feed(text[:cut]) == (PathEnd(Finish.STOP, 5, 2) if cut == 5 else None)
    if cut < 5:
        assert judge.feed(text[cut:]) == PathEnd(Finish.STOP, 5, 2)


@pytest.mark.parametrize("fork", range(1, 5))
def test_a_stop_string_is_found_across_a_fork(fork):
    judge = Judge(stop=("cde",))
    assert judge.feed("abcd") is None
    judge.fork(fork)
    assert judge.feed("abcdex"[fork:]) == PathEnd(Finish.STOP, 5, 2)


def test_a_stop_string_stays_when_it_is_included():
    judge = Judge(stop=("cd",), include_stop=True)
    assert judge.feed("abcdef") == PathEnd(Finish.STOP, 4, 4)


def test_the_stop_string_that_ends_first_wins():
    assert Judge(stop=("bcdef", "cd")).feed("abcdefg") == PathEnd(Finish.STOP, 4, 2)


@pytest.mark.parametrize(("stop", "shown"), [(("cd", "d"), 2), (("d", "cd"), 3)])
def test_of_stop_strings_that_end_together_the_first_in_the_list_wins_as_in_vllm(stop, shown):
    assert Judge(stop=("bcdef", *stop)).feed("abcdefg") == PathEnd(Finish.STOP, 4, shown)


@pytest.mark.parametrize("cut", range(1, 6))
def test_an_answer_is_found_wherever_chunks_cut_it(cut):
    judge = Judge(find=find_word("z", 2))
    first = judge.feed("abzcdef"[:cut])
    assert (first or judge.feed("abzcdef"[cut:])) == PathEnd(Finish.ANSWER, 5)


@pytest.mark.parametrize("fork", range(1, 5))
def test_an_answer_is_found_across_a_fork_and_an_older_one_is_not_found_again(fork):
    judge = Judge(find=find_word("z", 2), min_tokens=5)
    assert judge.feed("zabc") is None
    judge.fork(fork)
    rest = "zabczde"[fork:]
    assert judge.feed(rest) == PathEnd(Finish.ANSWER, 7) if fork >= 3 else True


def test_answers_do_not_stop_where_that_is_not_asked_for():
    judge = Judge(find=find_word())
    judge.stops.config = judge.stops.config.model_copy(update={"stop_on_answer": False})
    assert judge.feed("zabcdef") is None


def test_stop_strings_and_answers_wait_for_min_tokens_and_the_engine_does_not():
    for find, stop in ((find_word("z", 2), ()), (None, ("zab",))):
        judge = Judge(find=find, stop=stop, min_tokens=4)
        assert judge.feed("zab") is None
        assert judge.feed("zab").at == 6
        assert Judge(find=find, stop=stop, min_tokens=4).feed("zabzab").at == 6
        assert Judge(find=find, stop=stop, min_tokens=5).feed("zabzab").at == 6
        assert Judge(find=find, stop=stop, min_tokens=6).feed("zabzab") is None
    assert Judge(min_tokens=4).feed("ab", "stop") == PathEnd(Finish.EOS, 2)


@pytest.mark.parametrize(
    ("finish", "reason", "expected"),
    [
        ("stop", None, Finish.EOS),
        ("stop", 7, Finish.STOP),
        ("stop", "xyz", Finish.STOP),
        ("length", None, Finish.LENGTH),
        ("repetition", None, Finish.REPETITION),
    ],
)
def test_the_engines_own_end_is_taken_as_it_is(finish, reason, expected):
    assert Judge(max_tokens=3).feed("abc", finish, reason) == PathEnd(expected, 3)


def test_a_path_cut_by_the_trees_budget_is_unfinished():
    assert Judge(max_tokens=4).feed("abc", "length") == PathEnd(Finish.UNFINISHED, 3)


def test_an_end_of_sequence_that_is_a_segments_only_token_ends_the_path():
    judge = Judge(segment=4)
    assert judge.feed("abcd") is None
    seen = judge.path.end
    chunk = Chunk([0], finish_reason="stop")
    judge.path.extend(chunk)
    assert judge.stops.check(judge.path, chunk, seen) == PathEnd(Finish.EOS, 5)


def test_an_abort_is_no_end_of_its_own():
    assert Judge().feed("abc", "abort") is None


@pytest.mark.parametrize(
    ("end", "max_tokens", "expected"),
    [
        ("stop", 100, Finish.EOS),
        ("length", 100, Finish.DEPTH),
        ("length", 8, Finish.LENGTH),
        (None, 100, Finish.DEPTH),
    ],
)
def test_at_the_last_depth_the_model_goes_first_then_length_then_depth(end, max_tokens, expected):
    judge = Judge(segment=4, max_depth=2, max_tokens=max_tokens)
    assert judge.feed("abcdefgh", end) == PathEnd(expected, 8)


def test_the_earliest_reason_in_a_chunk_holds_and_text_goes_first_at_one_place():
    judge = Judge(find=find_word("z", 2), stop=("f",))
    assert judge.feed("zabcdef", "stop") == PathEnd(Finish.ANSWER, 3)
    judge = Judge(find=find_word("z", 2), stop=("b",))
    assert judge.feed("zab", "stop") == PathEnd(Finish.STOP, 3, 2)
    assert Judge(find=find_word("z", 2)).feed("zab", "length") == PathEnd(Finish.ANSWER, 3)


@pytest.mark.parametrize("period", [1, 2, 7, 32, 33, 200])
def test_a_loop_is_seen_whatever_its_period_up_to_an_eighth_of_the_window(period):
    unit = (("abcdefghijklmnopqrstuvwxy" * 9)[: period - 1] + "z") if period > 1 else "z"
    assert is_looping("other text " + unit * (2048 // period))
    assert not is_looping("other text " + unit * (2048 // period) + "and it goes on here as text")


def test_seven_repeats_are_no_loop_and_eight_are():
    sentence = "the same forty characters are said again"
    assert len(sentence) == 40
    assert not is_looping(sentence * 7)
    assert is_looping(sentence * 8)


@given(st.text("ab", max_size=300), st.text("abcdefghijklmnopqrstuvwxyz", min_size=32, max_size=32))
def test_text_whose_last_words_are_new_is_no_loop(before, last):
    if last not in before:
        assert not is_looping(before + last)


def test_a_loop_longer_than_a_segment_ends_the_path_at_a_boundary_check():
    judge = Judge(segment=16)
    unit = "abcdefghijklmnopqrstuvwxyzabcdefghijklmn"
    ends = [judge.feed(unit[i : i + 8]) for _ in range(12) for i in range(0, 40, 8)]
    first = next(v for v in ends if v is not None)
    assert first.finish is Finish.REPETITION
    assert 8 * 40 <= first.at <= 8 * 40 + 16


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(0, 60), st.integers(1, 12))
def test_the_worst_window_is_the_worst_of_those_that_end_behind_the_position(values, since, window):
    naive = [
        sum(values[end - window : end]) / window
        for end in range(max(window, since), len(values) + 1)
    ]
    known = len(values) >= window and len(values) - max(0, since - window) >= window
    expected = max(naive, default=0.0) if known else 0.0
    assert worst_window(values, since, window) == pytest.approx(expected, abs=1e-9)


def test_a_path_that_ended_within_the_window_shows_the_mean_of_all_it_has():
    assert worst_window([1.0, 3.0], 0, 8) == 0.0
    assert worst_window([1.0, 3.0], 0, 8, is_ended=True) == pytest.approx(2.0)
    assert worst_window([1.0, 3.0, 5.0], 0, 2, is_ended=True) == pytest.approx(4.0)
    assert worst_window([], 0, 8, is_ended=True) == 0.0


def test_lost_uncertainty_counts_as_certain():
    assert worst_window([math.nan, 2.0, 4.0], 0, 3) == pytest.approx(2.0)


@pytest.mark.parametrize(("worst", "is_pruned"), [(0.9, False), (1.0, False), (1.01, True)])
def test_a_path_is_hopeless_beyond_what_the_finished_ones_showed(worst, is_pruned):
    config = TreeConfig(prune="confidence", prune_warmup=3, prune_quantile=1.0)
    growth = Growth([1], config.resolve(1, 100, 0.5), 1)
    *done, path = growth.open_wave(16, 4)
    path.worst_window = worst
    for finished, own in zip(done, (0.2, 1.0, 0.5), strict=True):
        assert not is_hopeless(growth, path)
        finished.worst_window = own
        growth.end(finished, Finish.EOS, 0)
    assert is_hopeless(growth, path) == is_pruned


def test_a_chain_machine_writes_its_text():
    assert DECODER.decode(chain("abz").state_after([]) and DECODER.encode("abz")) == "abz"
