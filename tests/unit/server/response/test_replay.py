"""A streamed choice says what the whole one says, in pieces that are never taken back."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tests.support.machines import ByteDecoder, CharDecoder, chain, coin, toy_texts
from tests.support.scenarios import Scenario, engines, job_of, scenarios
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, Sampling
from treepo.engines.scripted import Script, TokenMachine
from treepo.errors import EngineError
from treepo.growth.state import Path
from treepo.growth.texts import Texts
from treepo.sampler import sample_tree
from treepo.tree import Finish, Tree
from treepo_server.request.journal import Journal
from treepo_server.response.choices import Outcome, finish_reason
from treepo_server.response.replay import Piece, Replay, whole

LAWS = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


class Live:
    """Streams every path as it grows, as the proxy does."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.replays: dict[int, Replay] = {}
        self.pieces: dict[int, list[Piece]] = defaultdict(list)
        journal.changed = self.take

    def take(self, path: Path) -> None:
        replay = self.replays.setdefault(path.id, Replay(path.id, path, self.journal))
        self.pieces[path.id].extend(replay.pieces())


def grow(scenario: Scenario, **job_fields: Any) -> tuple[Tree, Journal, Live]:
    _, engine = engines(scenario)
    journal = Journal(scenario.sampling)
    live = Live(journal)
    job = replace(job_of(scenario), observer=journal, **job_fields)
    return asyncio.run(asyncio.wait_for(sample_tree(engine, job), 4)), journal, live


def joined(pieces: list[Piece]) -> tuple[str, list[int]]:
    return "".join(p.text for p in pieces), [t for p in pieces for t in p.token_ids]


@LAWS
@given(scenarios(with_faults=True))
def test_pieces_join_to_the_whole_choice(scenario):
    try:
        _, journal, live = grow(scenario)
    except EngineError:
        reject()
    for path in journal.paths:
        complete = whole(path.id, path, journal, has_logprobs=False)
        for pieces in (live.pieces[path.id], list(Replay(path.id, path, journal).pieces())):
            assert joined(pieces) == (complete.text, complete.token_ids)
            assert [p.finish_reason for p in pieces[:-1]] == [None] * (len(pieces) - 1)
            assert pieces[-1].finish_reason == finish_reason(path)


@LAWS
@given(scenarios())
def test_a_choice_is_what_the_record_says(scenario):
    tree, journal, _ = grow(scenario)
    outcome = Outcome(tree, journal, tree.settings["vote"])
    for trajectory in tree.trajectories:
        choice = outcome.choice(trajectory)
        assert journal.token_ids(choice.path) == tree.token_ids(trajectory)
        assert choice.path.finish is trajectory.finish
        if scenario.has_texts:
            assert journal.text(choice.path) == trajectory.text


@LAWS
@given(scenarios())
def test_the_winner_comes_first_and_nothing_twice(scenario):
    tree, journal, _ = grow(scenario)
    outcome = Outcome(tree, journal, tree.settings["vote"])
    choices = outcome.choices(scenario.config.width)
    assert len(choices) == max(1, len(tree.trajectories))
    assert len({choice.leaf for choice in choices}) == len(choices)
    if outcome.winner is not None:
        assert choices[0].trajectory is tree.trajectories[outcome.winner.trajectory]
    assert outcome.choices(1) == choices[:1]


def test_a_fork_begins_with_the_pieces_it_inherits():
    scenario = Scenario(
        machine=coin((1, 2, 3)),
        script=Script(chunk_tokens=4, block_size=4),
        config=TreeConfig(width=4, branching="even", segment_tokens=8, root_branching=1),
        sampling=Sampling(max_tokens=24, seed=3),
        prompt=(1, 2, 3),
        has_texts=True,
    )
    _, journal, live = grow(scenario)
    fork = next(path for path in journal.paths if path.parent is not None)
    lengths = [len(piece.token_ids) for piece in live.pieces[fork.id]]
    assert fork.start == 6
    assert lengths[:2] == [4, 4 + 2]
    assert joined(live.pieces[fork.id])[0][:6] == journal.text(fork.parent)[:6]


def test_what_a_fork_inherits_is_walked_once_however_many_pieces_it_has(monkeypatch):
    scenario = Scenario(
        machine=coin((1, 2, 3)),
        script=Script(chunk_tokens=1, block_size=4),
        config=TreeConfig(width=2, branching="even", segment_tokens=200, root_branching=1),
        sampling=Sampling(max_tokens=400, seed=3),
        prompt=(1, 2, 3),
        has_texts=True,
    )
    _, journal, _ = grow(scenario)
    fork = next(path for path in journal.paths if path.parent is not None)
    walks, prefix = [], Path.prefix
    monkeypatch.setattr(Path, "prefix", lambda *a: walks.append(a) or prefix(*a))
    pieces = list(Replay(0, fork, journal).pieces())
    assert fork.start > 100
    assert len(pieces) >= fork.end
    assert len(walks) <= 1


@pytest.mark.parametrize("chunk_tokens", [1, 2, 3, 5])
@pytest.mark.parametrize("segment_tokens", [1, 2, 3])
def test_forks_amid_a_character_each_stream_it_whole(chunk_tokens, segment_tokens):
    (lead, acute), (_, grave) = (ByteDecoder().encode(letter) for letter in "éè")
    letters = {"s": {lead: (1.0, "c")}, "c": {acute: (0.5, "s"), grave: (0.5, "s")}}
    scenario = Scenario(
        machine=TokenMachine(letters, "s"),
        script=Script(chunk_tokens=chunk_tokens, block_size=1),
        config=TreeConfig(width=8, branching="even", segment_tokens=segment_tokens),
        sampling=Sampling(max_tokens=24, seed=3),
        prompt=(1, 2),
    )
    _, journal, live = grow(scenario, texts=Texts(ByteDecoder()))
    assert {path.start % 2 for path in journal.paths} == {0, 1} or segment_tokens == 2
    for path in journal.paths:
        text, token_ids = joined(live.pieces[path.id])
        assert text == ByteDecoder().decode(token_ids) == journal.text(path)
        assert set(text) <= {"é", "è"}


def test_text_that_a_stop_string_may_take_back_waits():
    decoder = CharDecoder()
    scenario = Scenario(
        machine=chain("abcabd"),
        script=Script(chunk_tokens=1, block_size=4),
        config=TreeConfig(width=1, segment_tokens=8),
        sampling=Sampling(max_tokens=20, stop=("abd",)),
        prompt=(1,),
        has_texts=True,
    )
    _, journal, live = grow(scenario)
    assert decoder.decode([1, 2]) == "ab"
    assert [piece.text for piece in live.pieces[0]] == ["", "", "a", "b", "c", ""]
    assert journal.text(journal.paths[0]) == "abc"
    assert journal.stop_reason(journal.paths[0]) == "abd"
    assert live.pieces[0][-1].stop_reason == "abd"


def stopped_by_token(sampling: Sampling) -> Journal:
    """A path of the text `ab` whose second token is a stop token."""
    journal = Journal(sampling)
    path = Path(0, "/0.0", None, None, 0, is_late=False, masses=[(0, 1.0)])
    path.transcript = toy_texts().transcript(None, 0)
    journal.opened(path)
    path.token_ids.extend([1, 2])
    path.transcript.push([1, 2])
    path.finish = Finish.STOP
    path.transcript.finish(2, None)
    journal.extended(path, Chunk([1, 2], finish_reason="stop", stop_reason=2), 2)
    journal.ended(path)
    return journal


def test_a_stop_token_shows_only_where_stops_are_included():
    hidden = stopped_by_token(Sampling(max_tokens=9, stop_token_ids=(2,)))
    shown = stopped_by_token(Sampling(max_tokens=9, stop_token_ids=(2,), include_stop=True))
    assert [journal.text(journal.paths[0]) for journal in (hidden, shown)] == ["a", "ab"]
    assert hidden.stop_reason(hidden.paths[0]) == 2
    assert whole(0, hidden.paths[0], hidden, has_logprobs=False).token_ids == [1, 2]


def test_without_any_trajectory_the_longest_path_stands_in():
    scenario = Scenario(
        machine=coin((1, 2)),
        script=Script(chunk_tokens=4, block_size=4),
        config=TreeConfig(width=3, root_branching=3, branching="even", max_total_tokens=9),
        sampling=Sampling(max_tokens=64, seed=1),
        prompt=(1,),
    )
    tree, journal, _ = grow(scenario)
    assert tree.trajectories == ()
    choices = Outcome(tree, journal, "majority").choices(3)
    assert len(choices) == 1
    assert choices[0].path.end == max(path.end for path in journal.paths)
    assert choices[0].path.finish is Finish.UNFINISHED
    assert finish_reason(choices[0].path) == "stop"


@LAWS
@given(st.lists(st.text("ab", min_size=2, max_size=4), min_size=1, max_size=3), st.data())
def test_a_stop_string_never_shows(stops, data):
    scenario = Scenario(
        machine=coin((1, 2), stop=0.02),
        script=Script(chunk_tokens=data.draw(st.integers(1, 5)), block_size=4),
        config=TreeConfig(width=4, branching="even", segment_tokens=4),
        sampling=Sampling(max_tokens=20, seed=data.draw(st.integers(0, 99)), stop=tuple(stops)),
        prompt=(1,),
        has_texts=True,
    )
    _, journal, live = grow(scenario)
    for path in journal.paths:
        text, _ = joined(live.pieces[path.id])
        assert text == journal.text(path)
        assert not any(stop in text for stop in stops)
