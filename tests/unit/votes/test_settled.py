"""The law of `until: settled`: no completion of the tree changes the winner."""

import math
import random
from itertools import combinations_with_replacement

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treepo.votes.settled import Outstanding, is_settled
from treepo.votes.voting import Ballot, tally

FUTURE = [None, "a", "b", "c", "0 unseen"]


def leader(ballots, vote):
    votes = tally(ballots, vote)
    return votes[0].answer if votes else None


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_majority_is_settled_exactly_where_no_completion_catches_up(seed):
    rng = random.Random(seed)
    for _ in range(20):
        cast = [Ballot(rng.choice(["a", "a", "b", "c", None])) for _ in range(rng.randint(1, 9))]
        slots = rng.randint(0, 3)
        ends = [
            tally([*cast, *map(Ballot, future)], "majority")
            for number in range(slots + 1)
            for future in combinations_with_replacement(FUTURE, number)
        ]
        winner = leader(cast, "majority")
        is_safe = winner is not None and all(is_ahead(votes, winner) for votes in ends)
        assert is_settled(cast, Outstanding(slots), "majority") == is_safe


def is_ahead(votes, winner):
    """Whether the winner leads without the help of the rule for ties."""
    return votes[0].answer == winner and all(v.count < votes[0].count for v in votes[1:])


def unfinished(rng):
    """Ballots of a tree in the middle, and what is outstanding."""
    parts = [rng.random() ** 2 for _ in range(rng.randint(1, 7))]
    masses = [part / math.fsum(parts) for part in parts]
    done = rng.randint(1, len(masses))
    cast = [Ballot(rng.choice(["a", "a", "a", "b", None]), mass=mass) for mass in masses[:done]]
    may_open_late = rng.random() < 0.5
    if may_open_late:
        late = rng.choices(["a", "a", "a", "b", None], k=rng.randint(0, 5))
        cast += [Ballot(answer, mass=0.0, is_late=True) for answer in late]
    slots = len(masses) - done + rng.randint(0, 2)
    return cast, masses[done:], Outstanding(slots, math.fsum(masses[done:]), may_open_late)


def some_end(rng, left, outstanding):
    """Live paths that end, split or are pruned; late ones that may come."""
    future = []
    for mass in left:
        ways = rng.randint(0, min(2, outstanding.slots - len(future)))
        future += [Ballot(rng.choice(FUTURE), mass=mass / ways) for _ in range(ways)]
    room = outstanding.slots - len(future) if outstanding.may_open_late else 0
    answers = rng.choices(FUTURE, k=rng.randint(0, room))
    return future + [Ballot(answer, mass=0.0, is_late=True) for answer in answers]


def worst_ends(outstanding, winner):
    """All outstanding mass and every late slot for one rival, in every division."""
    for rival in {"a", "b", "0 unseen"} - {winner}:
        for ways in range(outstanding.slots + 1):
            late = outstanding.slots - ways if outstanding.may_open_late else 0
            yield [
                *(Ballot(rival, mass=outstanding.mass / ways) for _ in range(ways)),
                *(Ballot(rival, mass=0.0, is_late=True) for _ in range(late)),
            ]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_settled_weighted_vote_survives_every_end(seed):
    rng = random.Random(seed)
    num_settled = 0
    for _ in range(60):
        cast, left, outstanding = unfinished(rng)
        if not is_settled(cast, outstanding, "weighted"):
            continue
        num_settled += 1
        winner = leader(cast, "weighted")
        ends = [some_end(rng, left, outstanding) for _ in range(10)]
        for future in [*ends, *worst_ends(outstanding, winner)]:
            assert leader(cast + future, "weighted") == winner
    assert num_settled > 0


@pytest.mark.parametrize(("second", "settled"), [(0.3, False), (0.25, False), (0.2, True)])
def test_without_late_nodes_the_lead_must_exceed_the_outstanding_mass(second, settled):
    cast = [Ballot("a", mass=0.5), Ballot("b", mass=second)]
    outstanding = Outstanding(slots=9, mass=0.25, may_open_late=False)
    assert is_settled(cast, outstanding, "weighted") == settled


def test_late_leaves_that_may_come_delay_a_weighted_vote():
    cast = [Ballot("a", mass=0.5), Ballot("b", mass=0.2)]
    assert is_settled(cast, Outstanding(2, 0.25, may_open_late=False), "weighted")
    assert not is_settled(cast, Outstanding(2, 0.25, may_open_late=True), "weighted")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_settled_vote_by_confidence_survives_any_completion(seed):
    rng = random.Random(seed)
    num_settled = 0
    for _ in range(60):
        slots = rng.randint(0, 2)
        cast = [Ballot(rng.choice(["a", "a", "b"]), confidence=rng.random()) for _ in range(9)]
        if not is_settled(cast, Outstanding(slots), "confidence"):
            continue
        num_settled += 1
        for rival in FUTURE:
            future = [Ballot(rival, confidence=rng.choice([1.0, rng.random()]))] * slots
            assert leader(cast + future, "confidence") == leader(cast, "confidence")
    assert num_settled > 0


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_settled_vote_by_likelihood_survives_any_continuation(seed):
    rng = random.Random(seed)
    num_settled = 0
    for _ in range(60):
        base = rng.choice([-5.0, -4000.0])
        cast = [
            Ballot(rng.choice(["a", "b", None]), logprob=base - rng.uniform(0, 6)) for _ in range(4)
        ]
        live = [base - rng.uniform(0, 6) for _ in range(rng.randint(0, 3))]
        prefixes = base + math.log(math.fsum(math.exp(q - base) for q in live) or math.exp(-99))
        if not is_settled(cast, Outstanding(len(live), logprob=prefixes), "likelihood"):
            continue
        num_settled += 1
        for rival in FUTURE:
            future = [Ballot(rival, logprob=q - rng.choice([0.0, rng.uniform(0, 9)])) for q in live]
            assert leader(cast + future, "likelihood") == leader(cast, "likelihood")
    assert num_settled > 0


def test_likelihood_is_not_settled_while_sequences_may_start_elsewhere():
    cast = [Ballot("a", logprob=-0.1)]
    assert not is_settled(cast, Outstanding(1), "likelihood")
    assert is_settled(cast, Outstanding(1, logprob=-9.0), "likelihood")


@pytest.mark.parametrize("vote", ["majority", "weighted", "confidence", "likelihood", "none"])
def test_nothing_is_settled_without_an_answer(vote):
    assert not is_settled([], Outstanding(3), vote)
    assert not is_settled([Ballot(None)] * 9, Outstanding(1), vote)


def test_a_choice_without_a_vote_is_never_settled():
    assert not is_settled([Ballot("a")] * 9, Outstanding(0), "none")
