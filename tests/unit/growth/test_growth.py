"""The arithmetic of boundaries, prefixes, masses and segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treepo.config import TreeConfig
from treepo.engines.base import Chunk
from treepo.growth.segments import segments
from treepo.growth.state import Branch, Growth, Path
from treepo.tree import Finish


def growth(prompt=1, segment=4, block=4, width=8, max_tokens=100) -> Growth:
    config = TreeConfig(width=width, segment_tokens=segment).resolve(block, max_tokens, 0.5)
    return Growth(range(prompt), config, block)


def rooted(length=12, **options) -> tuple[Growth, Path]:
    """A growth with one root path of `length` tokens 100, 101, ..."""
    grown = growth(**options)
    (root,) = grown.open_wave(grown.config.width, 1)
    root.extend(Chunk(range(100, 100 + length), [-float(i) for i in range(length)]))
    return grown, root


def fork(grown: Growth, path: Path, position: int, children: int = 1, **more) -> list[Path]:
    return grown.open_branch(Branch(path, position, children, **more), path.wave)


@given(
    prompt=st.integers(1, 200),
    block=st.integers(1, 32),
    blocks=st.integers(1, 4),
    depth=st.integers(1, 50),
)
def test_boundaries_are_aligned_and_a_segment_apart(prompt, block, blocks, depth):
    segment = block * blocks
    grown = growth(prompt=prompt, segment=segment, block=block)
    at = grown.boundary(depth)
    assert (prompt + at) % block == 1 % block
    assert grown.boundary(0) == 0
    assert segment - block < grown.boundary(1) <= segment
    assert grown.boundary(depth + 1) - at == segment
    assert [grown.depth_at(at + d) for d in (-1, 0, segment - 1)] == [depth - 1, depth, depth]


def test_a_path_knows_who_generated_each_of_its_tokens():
    grown, root = rooted(12)
    (child,) = fork(grown, root, 5)
    child.extend(Chunk([205, 206, 207]))
    (grandchild,) = fork(grown, child, 7)
    assert [grandchild.owner(p) for p in (0, 1, 5, 6, 7)] == [None, root, root, child, child]
    assert grandchild.prefix(7) == [100, 101, 102, 103, 104, 205, 206]
    assert grandchild.prefix(3) == [100, 101, 102]
    assert grandchild.prefix(0) == []
    assert list(grandchild.ancestry()) == [(grandchild, 7), (child, 7), (root, 5)]


def test_a_fork_of_an_inherited_part_hangs_under_the_path_that_generated_it():
    grown, root = rooted(12)
    (child,) = fork(grown, root, 5)
    child.extend(Chunk([205]))
    (late,) = fork(grown, child, 4, is_late=True)
    assert late.parent is root
    assert root.cuts == [5, 4]


@pytest.mark.parametrize("position", [0, 1, 7])
def test_a_prospective_fork_splits_the_mass_once_from_there_on(position):
    grown, root = rooted(12)
    children = fork(grown, root, position, children=3)
    assert root.mass == 0.25
    assert [child.mass for child in children] == [0.25] * 3
    assert not grown.has_late
    nodes, tips = segments(grown)
    assert [n.mass for n in nodes if n.end <= position] == [1.0] * sum(
        n.end <= position for n in nodes
    )
    assert nodes[tips[root.id]].mass == 0.25


def test_late_children_take_no_mass_and_pass_lateness_on():
    grown, root = rooted(12)
    (late,) = fork(grown, root, 4, is_late=True)
    late.extend(Chunk([1, 2, 3]))
    (heir,) = fork(grown, late, 6)
    heir.extend(Chunk([9]))
    assert root.mass == 1.0
    assert grown.has_late
    nodes, tips = segments(grown)
    for path in (late, heir):
        assert nodes[tips[path.id]].is_late
        assert nodes[tips[path.id]].mass == 0.0


def test_waves_share_the_unit_of_mass_by_their_width():
    grown = growth(width=8)
    first, second = grown.open_wave(6, 3), grown.open_wave(2, 4)
    assert [p.mass for p in first] == [0.25] * 3
    assert [p.mass for p in second] == [0.125] * 2
    assert sum(p.mass for p in grown.paths) == 1.0


def test_every_path_has_a_key_of_its_own_that_says_where_it_forked():
    grown, root = rooted(12)
    one, two = fork(grown, root, 5, children=2)
    (three,) = fork(grown, root, 5, is_late=True)
    (four,) = grown.open_wave(2, 1)
    keys = [p.key for p in (root, one, two, three, four)]
    assert keys == ["/0.0", "/0.0/5.0", "/0.0/5.1", "/0.0/5.2", "/0.1"]


def test_segments_are_cut_at_boundaries_and_forks_and_joined_they_are_the_path():
    grown, root = rooted(12, prompt=2)
    (child,) = fork(grown, root, 5)
    child.extend(Chunk([205, 206, 207, 208, 209, 210, 211]))
    grown.end(child, Finish.EOS, 12)
    nodes, tips = segments(grown)
    # Prompt 2, block 4: boundaries at 3, 7, 11; the fork at 5 cuts once more.
    assert [(n.start, n.end) for n in nodes if n.path == root.id] == [
        (0, 3), (3, 5), (5, 7), (7, 11), (11, 12),
    ]  # fmt: skip
    assert [(n.start, n.end) for n in nodes if n.path == child.id] == [(5, 7), (7, 11), (11, 12)]
    assert nodes[tips[child.id]].finish is Finish.EOS
    first = next(n for n in nodes if n.path == child.id)
    assert nodes[first.parent].end == 5
    assert sum((n.logprobs for n in nodes if n.path == root.id), ()) == tuple(root.logprobs)


def test_an_ended_path_keeps_what_lies_before_its_end():
    grown, root = rooted(12)
    grown.end(root, Finish.ANSWER, 9)
    assert root.token_ids == list(range(100, 109))
    assert len(root.logprobs) == 9
    assert (root.end, root.order, grown.num_finished) == (9, 0, 1)


@pytest.mark.parametrize(
    ("finish", "counted"), [(Finish.PRUNED, 1), (Finish.FAILED, 1), (Finish.UNFINISHED, 0)]
)
def test_paths_that_are_given_up_are_no_trajectories(finish, counted):
    grown, root = rooted(4)
    grown.end(root, finish, 4)
    assert (grown.num_finished, grown.num_failed, root.order) == (0, counted, -1)


def test_a_path_without_tokens_has_no_node():
    grown, root = rooted(4)
    (child,) = fork(grown, root, 4)
    grown.end(child, Finish.FAILED, 4)
    nodes, tips = segments(grown)
    assert child.id not in tips
    assert {n.path for n in nodes} == {root.id}


def test_uncertainty_stays_with_its_tokens_when_chunks_come_without_it():
    grown = growth()
    (path,) = grown.open_wave(8, 1)
    path.extend(Chunk([1, 2]))
    assert path.uncertainty == []
    path.extend(Chunk([3, 4], uncertainty=[0.3, 0.4]))
    path.extend(Chunk([5]))
    (child,) = fork(grown, path, 1)
    child.extend(Chunk([6], uncertainty=[0.6]))
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert path.uncertainty == [nan, nan, 0.3, 0.4, nan]
    assert child.joined_uncertainty() == [nan, 0.6]


def test_joined_log_probs_are_those_of_the_whole_trajectory():
    grown, root = rooted(6)
    (child,) = fork(grown, root, 3)
    child.extend(Chunk([1, 2], [-0.5, -0.25]))
    assert child.joined_logprob() == -(0 + 1 + 2) - 0.75
    child.extend(Chunk([3]))
    assert child.joined_logprob() == float("-inf")
