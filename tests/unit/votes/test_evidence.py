"""Laws of effective samples and of the confidence built on them."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish
from treepo.votes.evidence import (
    Sharing,
    beta_above_half,
    confidence,
    effective_samples,
    effective_votes,
    information,
    kish,
)

COUNTS = [effective_samples, effective_votes]


@st.composite
def sharings(draw):
    """Random trees: each segment hangs under an earlier one, some segments end trajectories."""
    size = draw(st.integers(1, 14))
    parents = [draw(st.none() | st.integers(0, i - 1)) if i else None for i in range(size)]
    nats = draw(st.lists(st.floats(0, 20), min_size=size, max_size=size))
    tips = sorted(set(range(size)) - set(parents))
    leaves = draw(st.lists(st.sampled_from(tips), min_size=1, max_size=8, unique=True))
    weights = draw(st.lists(st.floats(0.01, 1), min_size=len(leaves), max_size=len(leaves)))
    return Sharing(parents, nats, leaves, weights)


@given(sharings())
def test_samples_are_at_most_votes_at_most_kish_at_most_leaves(sharing):
    samples, votes = effective_samples(sharing), effective_votes(sharing)
    assert samples <= votes * (1 + 1e-9)
    assert votes <= kish(sharing.weights) * (1 + 1e-9)
    assert kish(sharing.weights) <= len(sharing.leaves) * (1 + 1e-9)
    assert samples > 0


@pytest.mark.parametrize("count", COUNTS)
@given(sharing=sharings(), seed=st.integers(0, 99), scale=st.floats(0.1, 10))
def test_order_and_scale_of_the_weights_do_not_matter(count, sharing, seed, scale):
    order = random.Random(seed).sample(range(len(sharing.leaves)), len(sharing.leaves))
    other = Sharing(
        sharing.parents,
        sharing.nats,
        [sharing.leaves[i] for i in order],
        [scale * sharing.weights[i] for i in order],
    )
    assert count(other) == pytest.approx(count(sharing))


@pytest.mark.parametrize("count", COUNTS)
@given(nats=st.lists(st.floats(0, 50), min_size=1, max_size=20))
def test_equal_independent_leaves_count_one_each(count, nats):
    size = len(nats)
    sharing = Sharing([None] * size, nats, list(range(size)), [1 / size] * size)
    assert count(sharing) == pytest.approx(size)


@pytest.mark.parametrize("count", COUNTS)
@given(weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=20))
def test_independent_leaves_count_as_kish_says(count, weights):
    size = len(weights)
    sharing = Sharing([None] * size, [2.0] * size, list(range(size)), weights)
    assert count(sharing) == pytest.approx(kish(weights))


@pytest.mark.parametrize("count", COUNTS)
@given(size=st.integers(1, 10))
def test_leaves_that_decide_nothing_of_their_own_count_as_one(count, size):
    sharing = Sharing([None] + [0] * size, [5.0] + [0.0] * size, range(1, size + 1), [1.0] * size)
    assert count(sharing) == pytest.approx(1)


@pytest.mark.parametrize("count", COUNTS)
@given(sharing=sharings(), cut=st.floats(0.1, 0.9), data=st.data())
def test_cutting_a_segment_in_two_changes_nothing(count, sharing, cut, data):
    at = data.draw(st.integers(0, len(sharing.parents) - 1))
    shift = [i + (i >= at) for i in range(len(sharing.parents))]
    parents = [None if p is None else shift[p] for p in sharing.parents]
    parents.insert(at, parents[at])
    parents[at + 1] = at
    nats = [*sharing.nats]
    nats[at : at + 1] = [nats[at] * cut, nats[at] * (1 - cut)]
    other = Sharing(parents, nats, [shift[leaf] for leaf in sharing.leaves], sharing.weights)
    assert count(other) == pytest.approx(count(sharing), rel=1e-6)


@pytest.mark.parametrize("count", COUNTS)
def test_more_sharing_is_less_evidence(count):
    def fork(shared):
        return count(Sharing([None, 0, 0], [shared, 10 - shared, 10 - shared], [1, 2], [0.5, 0.5]))

    values = [fork(shared) for shared in (0.0, 1.0, 5.0, 9.0, 10.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(2)
    assert values[-1] == pytest.approx(1)


@pytest.mark.parametrize("count", COUNTS)
def test_without_weight_there_is_no_evidence(count):
    assert count(Sharing([], [], [], [])) == 0
    assert count(Sharing([None], [1.0], [0], [0.0])) == 0


def test_information_is_entropy_and_a_little_per_token():
    node = Node(0, None, 0, 0, (1, 2, 3), uncertainty=(0.5, math.nan, 0.25))
    assert information(node) == pytest.approx(0.75 + 0.03)
    assert information(Node(0, None, 0, 0, (1, 2))) == pytest.approx(0.02)


def test_the_sharing_of_a_tree_takes_complete_trajectories_only():
    nodes = (
        Node(0, None, 0, 0, (1, 2)),
        Node(1, 0, 0, 2, (3,), finish=Finish.EOS),
        Node(2, 0, 1, 2, (4,), finish=Finish.PRUNED),
    )
    tree = Tree(
        "t", (), nodes, (Trajectory(1, Finish.EOS, 1.0),), TreeFinish.COMPLETE, weights_exact=False
    )
    sharing = Sharing.of(tree)
    assert sharing == Sharing([None, 0, 0], [0.02, 0.01, 0.01], [1], [1.0])
    assert effective_samples(sharing) == 1
    assert Sharing.of(tree, [0.5]).weights == [0.5]


@given(st.floats(0.01, 3000), st.floats(0.01, 3000))
def test_the_beta_tail_is_scipys(a, b):
    assert beta_above_half(a, b) == pytest.approx(beta.sf(0.5, a, b), abs=1e-10)


shares = st.tuples(st.floats(0.0, 1), st.floats(0.0, 1)).map(
    lambda pair: (max(pair) / max(1, sum(pair)), min(pair) / max(1, sum(pair)))
)


@given(pair=shares, samples=st.floats(0.1, 64), more=st.floats(0, 64))
def test_confidence_grows_with_evidence(pair, samples, more):
    first, second = pair
    if first == 0:
        assert confidence(pair, samples) == 0
        return
    sure = confidence([second, first], samples)
    assert 0.5 - 1e-9 <= sure <= 1
    assert confidence(pair, samples + more) >= sure - 1e-9
    assert confidence((first, second / 2), samples) >= sure - 1e-9


def test_confidence_without_votes_is_zero_and_with_a_tie_a_half():
    assert confidence([], 16) == 0
    assert confidence([0.5, 0.5], 16) == pytest.approx(0.5)
