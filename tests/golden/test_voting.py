"""Answers, ledgers and effective numbers worked out by hand."""

import math

import pytest

from treepo.answers.reader import AnswerReader
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish
from treepo.votes.evidence import Sharing, confidence, effective_samples, effective_votes, kish
from treepo.votes.settled import Outstanding, is_settled
from treepo.votes.voting import Ballot, choose, leaf_weights, tally


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (r"Hence $\boxed{\frac{1}{2}}$.", "1/2"),
        (r"\boxed{\dfrac12}", "1/2"),
        (r"\boxed{ 0.50 }", "1/2"),
        (r"\boxed{1/2}", "1/2"),
        (r"\boxed{\text{(C)}}", "c"),
        (r"\boxed{x = 1{,}000}", "1000"),
        (r"first \boxed{1}, rather \boxed{\frac{\frac{6}{3}}{4}}", "1/2"),
        (r"The total is $1,234.50.", "2469/2"),
    ],
)
async def test_an_answer_has_this_key(text, key):
    assert (await AnswerReader.from_config("auto", limit_s=30).read(text)).key == key


# The ledger. The prompt forks in two, each with mass 1/2. The left path ends as leaf A. The right
# one forks in three, each with mass 1/6: leaves B and C, and one path that is pruned. Then two late
# leaves D and E are opened. So F = 5 leaves, 3 prospective and 2 late.
#   resolved mass M = 1/2 + 1/6 + 1/6 = 5/6; the pruned 1/6 is lost
#   late leaves:         D = E = 1/5
#   prospective leaves:  A = (1/2) / (5/6) * 3/5 = 9/25,  B = C = (1/6) / (5/6) * 3/5 = 3/25
#   and 9 + 3 + 3 + 5 + 5 parts are the whole 25
MASSES = [1 / 2, 1 / 6, 1 / 6, 0.0, 0.0]
IS_LATE = [False, False, False, True, True]
ANSWERS = ["x", "y", "y", "y", None]


def test_the_ledger():
    assert leaf_weights(MASSES, IS_LATE) == pytest.approx([9 / 25, 3 / 25, 3 / 25, 5 / 25, 5 / 25])


def test_the_ledgers_vote():
    # x: 9/25. y: 3/25 + 3/25 + 5/25 = 11/25. The late leaf without an answer keeps its 5/25.
    cast = [
        Ballot(answer, mass=mass, is_late=late)
        for answer, mass, late in zip(ANSWERS, MASSES, IS_LATE, strict=True)
    ]
    votes = tally(cast, "weighted")
    assert [(v.answer, v.count) for v in votes] == [("y", 3), ("x", 1)]
    assert [v.share for v in votes] == pytest.approx([11 / 25, 9 / 25])


def test_when_the_ledger_is_settled():
    # Leader x with mass 1/2, y with 1/8; mass 1/4 is live and 1/8 is lost: of 7/8 that is
    # D = (1/2 - 1/8 - 1/4) / (7/8) = 1/7. Two prospective leaves are finished, no late ones.
    # Without late nodes D > 0 settles it. With one slot that may be late: at worst it goes to the
    # rival, and 2 * 1/7 - 1 < 0. Seven late leaves for x more: 2/7 + 7 - 1 > 0.
    cast = [Ballot("x", mass=1 / 2), Ballot("y", mass=1 / 8)]
    late = [Ballot("x", mass=0.0, is_late=True)] * 7
    assert is_settled(cast, Outstanding(1, 1 / 4, may_open_late=False), "weighted")
    assert not is_settled(cast, Outstanding(1, 1 / 4, may_open_late=True), "weighted")
    assert is_settled(cast + late, Outstanding(1, 1 / 4, may_open_late=True), "weighted")


# A trunk of 4 nats with two leaves of 5 nats each, and an independent leaf of 9 nats; each weighs
# 1/3 and has H = 9 nats on its path, so that w / sqrt(H) = 1/9.
#   trunk:        U = 2/9, h U^2 = 4 * 4/81 = 16/81
#   its leaves:   U = 1/9, h U^2 = 5 / 81 each
#   third leaf:   U = 1/9, h U^2 = 9 / 81
#   samples = 81 / (16 + 5 + 5 + 9) = 81/35
# The two leaves share r = 4/9 of their information, so their votes correlate by 2/pi asin(4/9), and
#   votes = 9 / (3 + 2 * 2/pi asin(4/9))
TREE = Tree(
    "t",
    (),
    tuple(
        Node(i, parent, 0, 0, (i,), logprobs=(logprob,), uncertainty=(nats - 0.01,))
        for i, (parent, nats, logprob) in enumerate(
            [(None, 4.0, -0.5), (0, 5.0, -0.1), (0, 5.0, -0.2), (None, 9.0, -0.3)]
        )
    ),
    tuple(
        Trajectory(leaf, Finish.EOS, 1 / 3, answer=answer, answer_text=answer)
        for leaf, answer in [(1, "x"), (2, "x"), (3, "y")]
    ),
    TreeFinish.COMPLETE,
    weights_exact=True,
    uncertainty_kind="entropy",
)


def test_effective_numbers():
    sharing = Sharing.of(TREE)
    assert kish(sharing.weights) == pytest.approx(3)
    assert effective_samples(sharing) == pytest.approx(81 / 35)
    assert effective_votes(sharing) == pytest.approx(9 / (3 + 4 / math.pi * math.asin(4 / 9)))


def test_the_winner_of_a_small_tree():
    # x has two of three votes; its trajectories have log-probs of -0.6 and -0.7 in all.
    winner = choose(TREE, "majority")
    assert (winner.trajectory, winner.answer) == (0, "x")
    assert winner.agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("shares", "number", "stated"),
    [
        ([1.0], 1, 3 / 4),  # Beta(2, 1): 1 - (1/2)^2
        ([1.0], 3, 15 / 16),  # Beta(4, 1): 1 - (1/2)^4
        ([2 / 3, 1 / 3], 3, 11 / 16),  # Beta(3, 2): (6 + 4 + 1) / 16
        ([0.5, 0.5], 8, 1 / 2),
    ],
)
def test_confidence_with_the_uniform_prior(shares, number, stated):
    assert confidence(shares, number) == pytest.approx(stated)
