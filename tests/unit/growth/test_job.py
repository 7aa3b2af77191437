"""What a path asks the engine: its prefix, what is left of its lengths, and its stop strings."""

import pytest

from tests.support.machines import ByteDecoder
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, PathRequest, Sampling
from treepo.errors import FieldError
from treepo.growth.job import Job, caveats, check_length, path_request
from treepo.growth.state import Branch, Growth
from treepo.growth.texts import Texts

TEXTS = Texts(ByteDecoder())


def forked(position: int, text: str = "a€b", *, left: int | None = None, **sampling) -> PathRequest:
    """The request of a child that forks off a path with this text after `position` bytes."""
    job = Job([7, 8], Sampling(**{"max_tokens": 20} | sampling), TreeConfig(), texts=TEXTS)
    growth = Growth(job.prompt_token_ids, job.config.resolve(1, 20, 0.5), 1)
    (trunk,) = growth.open_wave(16, 1)
    trunk.extend(Chunk(ByteDecoder().encode(text)))
    trunk.transcript = TEXTS.transcript(None, 0)
    trunk.transcript.push(trunk.token_ids)
    (child,) = growth.open_branch(Branch(trunk, position, 1), trunk.wave)
    child.transcript = TEXTS.transcript(trunk, position)
    return path_request(job, "t", growth, child, left)


@pytest.mark.parametrize(
    ("position", "stop"), [(0, ("x",)), (1, ("x",)), (2, ()), (3, ()), (4, ("x",))]
)
def test_the_engine_gets_stop_strings_unless_the_path_starts_inside_a_character(position, stop):
    assert forked(position, stop=("x",)).sampling.stop == stop


def test_a_child_inherits_its_prefix_and_what_is_left_of_its_lengths():
    request = forked(4, min_tokens=9)
    assert request.token_ids == [7, 8, *ByteDecoder().encode("a€")]
    assert (request.num_inherited_tokens, request.id, request.tree_id) == (4, "t-1", "t")
    assert (request.sampling.max_tokens, request.sampling.min_tokens) == (16, 5)


@pytest.mark.parametrize(("left", "expected"), [(None, 16), (30, 16), (6, 6), (0, 1), (-5, 1)])
def test_no_path_asks_for_more_than_is_left_of_the_trees_budget(left, expected):
    sampling = forked(4, min_tokens=15, left=left).sampling
    assert sampling.max_tokens == expected
    assert sampling.min_tokens == min(11, expected)


@pytest.mark.parametrize(
    ("width", "children", "is_late", "expected"),
    [(16, 1, False, True), (16, 7, False, True), (16, 15, False, False), (16, 1, True, False)],
)
def test_tokens_are_wanted_soon_where_two_leaves_are_still_to_come(
    width, children, is_late, expected
):
    growth = Growth([7, 8], TreeConfig(width=width).resolve(1, 20, 0.5), 1)
    (trunk,) = growth.open_wave(width, 1)
    trunk.extend(Chunk([1, 2, 3]))
    job = Job([7, 8], Sampling(20), growth.config)
    assert path_request(job, "t", growth, trunk, None).may_branch == (width > 1)
    child = growth.open_branch(Branch(trunk, 2, children, is_late=is_late), trunk.wave)[0]
    assert path_request(job, "t", growth, child, None).may_branch == expected


def test_a_seeded_childs_seed_is_its_place_and_no_seed_stays_none():
    assert forked(4, seed=3).sampling.seed == forked(4, seed=3).sampling.seed
    assert forked(4, seed=3).sampling.seed != forked(1, seed=3).sampling.seed
    assert forked(4).sampling.seed is None


@pytest.mark.parametrize(("temperature", "width", "is_said"), [(0, 4, 1), (0, 1, 0), (0.1, 4, 0)])
def test_a_greedy_tree_says_that_its_trajectories_are_copies(temperature, width, is_said):
    sampling = Sampling(max_tokens=5, temperature=temperature)
    assert len(caveats(Job([7], sampling, TreeConfig(width=width)))) == is_said


@pytest.mark.parametrize("max_tokens", [0, -1, 91])
def test_a_completion_that_does_not_fit_the_model_is_refused_by_its_field(max_tokens):
    with pytest.raises(FieldError, match="1 to 90 beside a prompt of 10") as caught:
        check_length(10, max_tokens, 100, "max_output_tokens")
    assert (caught.value.field, caught.value.value) == ("max_output_tokens", max_tokens)


@pytest.mark.parametrize("max_tokens", [1, 90])
def test_a_completion_that_fits_passes(max_tokens):
    check_length(10, max_tokens, 100)
