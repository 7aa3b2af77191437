"""Laws of weights, tallies and winners."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treepo.config import Vote
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish
from treepo.votes.voting import (
    Ballot,
    ballot_weights,
    ballots_of,
    choose,
    leaf_confidence,
    leaf_weights,
    mean_logprobs,
    tally,
)

VOTES: tuple[Vote, ...] = ("majority", "weighted", "confidence", "likelihood", "none")

ballots = st.lists(
    st.builds(
        Ballot,
        answer=st.sampled_from([None, "a", "b", "c"]),
        text=st.sampled_from(["x", "X"]),
        mass=st.floats(0, 1),
        is_late=st.booleans(),
        confidence=st.floats(0, 1),
        logprob=st.floats(-2000, 0) | st.just(-math.inf),
    ),
    min_size=1,
    max_size=12,
)


def flat_tree(answers, *, logprobs=None, finishes=None, kind="none", uncertainty=None, tokens=None):
    """Independent trajectories of three tokens each."""
    size = len(answers)
    logprobs = logprobs or [None] * size
    tokens = tokens or [(i, i + 1, i + 2) for i in range(size)]
    nodes = tuple(
        Node(
            id=i,
            parent=None,
            path=i,
            start=0,
            token_ids=tokens[i],
            logprobs=() if logprobs[i] is None else (logprobs[i],) * 3,
            uncertainty=() if uncertainty is None else (uncertainty[i],) * 3,
        )
        for i in range(size)
    )
    finishes = finishes or [Finish.EOS] * size
    trajectories = tuple(
        Trajectory(
            leaf=i, finish=finishes[i], weight=1 / size, answer=a, answer_text=a and f"<{a}>"
        )
        for i, a in enumerate(answers)
    )
    return Tree("t", (), nodes, trajectories, TreeFinish.COMPLETE, True, uncertainty_kind=kind)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20))
def test_leaf_weights_sum_to_one_and_a_late_leaf_weighs_one_part(leaves):
    masses, is_late = zip(*leaves, strict=True)
    weights = leaf_weights(masses, is_late)
    assert math.fsum(weights) == pytest.approx(1)
    if math.fsum(m for m, late in leaves if not late) > 0:
        late_weights = [w for w, late in zip(weights, is_late, strict=True) if late]
        assert all(w == 1 / len(leaves) for w in late_weights)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_without_late_or_lost_leaves_the_weights_are_the_masses(ways):
    masses = [1 / len(ways) / way for way in ways for _ in range(way)]
    assert leaf_weights(masses, [False] * len(masses)) == pytest.approx(masses)


@pytest.mark.parametrize("vote", VOTES)
@given(ballots=ballots)
def test_ballots_of_every_vote_sum_to_one(vote, ballots):
    weights = ballot_weights(ballots, vote)
    assert math.fsum(weights) == pytest.approx(1)
    assert min(weights) >= 0


@pytest.mark.parametrize("vote", VOTES)
@given(ballots=ballots, seed=st.integers(0, 99))
def test_the_order_of_the_ballots_changes_nothing(vote, ballots, seed):
    shuffled = random.Random(seed).sample(ballots, len(ballots))
    assert tally(shuffled, vote) == tally(ballots, vote)


@pytest.mark.parametrize("vote", VOTES)
@given(ballots=ballots)
def test_shares_and_abstentions_are_the_whole_vote(vote, ballots):
    votes = tally(ballots, vote)
    abstained = sum(b.answer is None for b in ballots)
    assert sum(v.count for v in votes) + abstained == len(ballots)
    assert math.fsum(v.share for v in votes) <= 1 + 1e-9
    assert [round(v.share, 9) for v in votes] == sorted(
        (round(v.share, 9) for v in votes), reverse=True
    )
    if not abstained:
        assert math.fsum(v.share for v in votes) == pytest.approx(1)


@pytest.mark.parametrize("order", [("b", "a"), ("a", "b")])
def test_ties_go_to_the_smaller_key_not_to_the_first(order):
    assert [v.answer for v in tally([Ballot(a) for a in order], "majority")] == ["a", "b"]


def test_equal_weights_go_to_the_larger_count():
    cast = [Ballot("a", mass=0.5), Ballot("b", mass=0.25), Ballot("b", mass=0.25)]
    assert [v.answer for v in tally(cast, "weighted")] == ["b", "a"]
    assert tally([*cast[:2], Ballot("c", mass=0.3)], "weighted")[0].answer == "a"


def test_the_text_of_an_answer_is_its_usual_one():
    cast = [Ballot("1/2", text) for text in ("0.5", "1/2", "0.5")]
    assert tally(cast, "majority")[0].text == "0.5"


@pytest.mark.parametrize("vote", VOTES)
@given(
    answers=st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=8),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_the_winner_does_not_depend_on_the_order_of_trajectories(vote, answers, seed, data):
    logprobs = data.draw(
        st.lists(st.sampled_from([-0.1, -0.2, -3.0]), min_size=len(answers), max_size=len(answers))
    )
    order = random.Random(seed).sample(range(len(answers)), len(answers))
    tokens = [(i, 7, 7) for i in range(len(answers))]
    tree = flat_tree(answers, logprobs=logprobs, tokens=tokens)
    other = flat_tree(
        [answers[i] for i in order],
        logprobs=[logprobs[i] for i in order],
        tokens=[tokens[i] for i in order],
    )
    one, two = choose(tree, vote), choose(other, vote)
    assert tree.token_ids(tree.trajectories[one.trajectory]) == other.token_ids(
        other.trajectories[two.trajectory]
    )
    assert (one.answer, one.text, one.fail_soft, one.votes) == (
        two.answer,
        two.text,
        two.fail_soft,
        two.votes,
    )


def test_the_likeliest_trajectory_speaks_for_the_answer():
    tree = flat_tree(["a", "b", "a", "a"], logprobs=[-0.5, -0.01, -0.1, -0.3])
    winner = choose(tree, "majority")
    assert (winner.trajectory, winner.answer, winner.text) == (2, "a", "<a>")
    assert winner.agreement == pytest.approx(3 / 4)


def test_a_loop_does_not_speak_for_an_answer_that_another_finished():
    finishes = [Finish.REPETITION, Finish.EOS, Finish.LENGTH]
    tree = flat_tree(["a", "a", "a"], logprobs=[-0.01, -0.9, -0.02], finishes=finishes)
    assert choose(tree, "majority").trajectory == 1


@pytest.mark.parametrize("vote", VOTES)
def test_no_answer_anywhere_returns_the_likeliest_trajectory_and_says_so(vote):
    winner = choose(flat_tree([None, None], logprobs=[-0.5, -0.1]), vote)
    assert (winner.trajectory, winner.answer, winner.fail_soft) == (1, None, True)
    assert winner.agreement == 0


def test_without_a_vote_the_likeliest_trajectory_wins():
    winner = choose(flat_tree(["a", "a", "b"], logprobs=[-0.5, -0.4, -0.1]), "none")
    assert (winner.trajectory, winner.answer, winner.fail_soft) == (2, "b", False)


def test_a_tree_without_trajectories_has_no_winner():
    tree = Tree("t", (), (), (), TreeFinish.DEADLINE, False)
    assert choose(tree, "majority") is None


def test_likelihood_counts_each_sequence_once():
    # p(a) = e^-3 twice the same tokens, p(b) = e^-2.7: the copy must not make a the winner.
    tree = flat_tree(
        ["a", "a", "b"],
        logprobs=[-1.0, -1.0, -0.9],
        tokens=[(1, 2, 3), (1, 2, 3), (4, 5, 6)],
    )
    winner = choose(tree, "likelihood")
    assert winner.answer == "b"
    assert winner.agreement == pytest.approx(math.exp(-2.7) / (math.exp(-2.7) + math.exp(-3)))


def test_likelihood_of_long_trajectories_does_not_underflow():
    cast = [Ballot("a", logprob=-5000.0), Ballot("b", logprob=-5001.0)]
    votes = tally(cast, "likelihood")
    assert [v.answer for v in votes] == ["a", "b"]
    assert votes[0].share == pytest.approx(1 / (1 + math.exp(-1)))


def test_surprisals_stand_in_for_missing_log_probs_and_entropies_do_not():
    surprisal = flat_tree(["a", "b"], kind="surprisal", uncertainty=[1.0, 2.0])
    assert [b.logprob for b in ballots_of(surprisal, "likelihood")] == pytest.approx([-3, -6])
    entropy = flat_tree(["a", "b"], kind="entropy", uncertainty=[1.0, 2.0])
    assert ballot_weights(ballots_of(entropy, "likelihood"), "likelihood") == [0.5, 0.5]
    assert mean_logprobs(entropy) == pytest.approx([-1, -2])


@given(
    st.lists(st.floats(0, 12), max_size=200),
    st.integers(1, 64),
)
def test_confidence_lies_above_zero_up_to_one_and_is_set_by_the_worst_window(values, window):
    sure = leaf_confidence(values, window)
    assert 0 < sure <= 1
    width = min(window, len(values))
    sums = [sum(values[i : i + width]) for i in range(len(values) - width + 1)]
    assert sure == pytest.approx(math.exp(-max(sums) / width) if values else 1)


def test_votes_by_confidence_weigh_a_certain_leaf_more():
    tree = flat_tree(["a", "b", "b"], kind="entropy", uncertainty=[0.01, 2.0, 2.0])
    winner = choose(tree, "confidence")
    assert winner.answer == "a"
    sure, unsure = math.exp(-0.01), math.exp(-2)
    assert winner.agreement == pytest.approx(sure / (sure + 2 * unsure))


def test_a_leaf_is_as_sure_in_the_record_as_it_was_while_the_tree_grew():
    # The trunk's uncertainty is known and the child's is not: 2 uncertain tokens of a window of 4.
    nodes = (
        Node(0, None, 0, 0, (1, 2), uncertainty=(1.0, 1.0)),
        Node(1, 0, 1, 2, (3, 4), finish=Finish.EOS),
    )
    leaves = (Trajectory(1, Finish.EOS, 1.0, answer="a"),)
    settings = {"prune_window": 4}
    tree = Tree("t", (), nodes, leaves, TreeFinish.COMPLETE, True, "entropy", settings=settings)
    (ballot,) = ballots_of(tree, "confidence")
    growing = leaf_confidence([1.0, 1.0, math.nan, math.nan], 4)
    assert ballot.confidence == growing == pytest.approx(math.exp(-0.5))
