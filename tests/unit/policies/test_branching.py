"""Where paths branch: budgets, divisions, and the rules on scripted trees."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.machines import coin
from tests.support.scenarios import Sampled, Scenario, sample
from treepo.config import TreeConfig
from treepo.engines.base import Sampling, Uncertainty
from treepo.engines.scripted import EOS, Script, TokenMachine
from treepo.policies.branching import branching_budget, largest_remainder, softmax

weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=12)


@given(
    width=st.integers(1, 64),
    finished=st.integers(0, 64),
    new=st.integers(0, 64),
    live=st.integers(0, 64),
    factor=st.integers(1, 8),
)
def test_the_budget_keeps_every_live_path_and_never_overfills_the_width(
    width, finished, new, live, factor
):
    budget = branching_budget(
        width=width, num_finished=finished, num_new=new, num_live=live, factor=factor
    )
    assert budget >= live
    assert budget <= max(live, factor * (live + new))
    if live + finished <= width:
        assert budget + finished <= width or budget == live


@given(weights, st.integers(0, 40))
def test_the_largest_remainder_spreads_everything_and_is_off_by_less_than_one(shares, spare):
    counts = largest_remainder(len(shares) + spare, shares)
    assert sum(counts) == len(shares) + spare
    for count, share in zip(counts, shares, strict=True):
        exact = spare * share / sum(shares)
        assert 1 + math.floor(exact - 1e-9) <= count <= 1 + math.ceil(exact + 1e-9)


@given(st.integers(1, 20), st.integers(0, 60))
def test_equal_weights_divide_evenly_and_the_earlier_paths_get_the_rest(num, spare):
    counts = largest_remainder(num + spare, [1.0] * num)
    assert max(counts) - min(counts) <= 1
    assert counts == sorted(counts, reverse=True)


@given(st.lists(st.floats(-500, 0), min_size=1, max_size=8), st.floats(0.1, 10))
def test_softmax_is_a_distribution_that_keeps_the_order_and_ignores_shifts(values, temperature):
    powers = softmax(values, temperature)
    assert sum(powers) == pytest.approx(1.0)
    assert all(
        (p >= q) or (a < b)
        for a, p in zip(values, powers, strict=True)
        for b, q in zip(values, powers, strict=True)
    )
    shifted = softmax([value - 1000 for value in values], temperature)
    assert shifted == pytest.approx(powers, abs=1e-9)


def certain_but(uncertain: set[int], length: int, ways: int = 3) -> TokenMachine:
    """A path of `length` tokens whose draws are uncertain at the given positions only."""
    table = {
        str(i): {
            token: (1.0 / (ways if i in uncertain else 1), str(i + 1))
            for token in range(1, (ways if i in uncertain else 1) + 1)
        }
        for i in range(length)
    }
    return TokenMachine(table | {str(length): {EOS: (1.0, "0")}}, "0")


def grown(machine, *, kind=Uncertainty.ENTROPY, chunk=5, block=4, prompt=(7,), **config) -> Sampled:
    return sample(
        Scenario(
            machine,
            Script(chunk_tokens=chunk, block_size=block, uncertainty=kind),
            TreeConfig(**{"width": 8, "segment_tokens": 4} | config),
            Sampling(max_tokens=60, seed=3),
            prompt,
        )
    )


@pytest.mark.parametrize("chunk", [1, 3, 50])
@pytest.mark.parametrize("at", [0, 1, 4, 13])
def test_children_start_exactly_before_the_one_uncertain_token(chunk, at):
    sampled = grown(certain_but({at}, 20), chunk=chunk, entropy_threshold=0.5)
    forked = sampled.watch.paths[1:]
    assert [path.start for path in forked] == [at] * 7
    assert sampled.tree.weights_exact
    assert [t.weight for t in sampled.tree.trajectories] == pytest.approx([1 / 8] * 8)


def test_a_fork_before_the_first_token_is_used_once():
    # The root of mass 1 forks in 2 before its first token and, in each half, the second uncertain
    # token in 2 again: 4 leaves of mass 1/4. A child that forked at the prompt once more would
    # leave masses of 1/2, 1/4, 1/8, 1/8.
    sampled = grown(certain_but({0, 6}, 10), width=4, branching_factor=2, entropy_threshold=0.5)
    assert sorted(path.start for path in sampled.watch.paths) == [0, 0, 6, 6]
    assert [t.weight for t in sampled.tree.trajectories] == pytest.approx([1 / 4] * 4)


def test_certain_text_is_never_forked():
    sampled = grown(certain_but(set(), 30), entropy_threshold=0.5)
    assert len(sampled.tree.trajectories) == 1


def test_paths_that_may_not_fork_start_at_the_prompt():
    sampled = grown(coin(stop=0.1), branching_factor=1, entropy_threshold=0.1)
    assert [path.start for path in sampled.watch.paths] == [0] * 8
    assert sampled.tree.weights_exact


@pytest.mark.parametrize("block", [1, 4, 8, 16])
def test_a_fork_before_an_uncertain_token_recomputes_at_most_a_block(block):
    starts, recomputed = set(), set()
    for at in range(1, 40):
        uncertain = certain_but({at}, 41)
        sampled = grown(uncertain, chunk=3, block=block, entropy_threshold=0.5, width=2)
        (child,) = sampled.watch.paths[1:]
        starts.add((1 + child.start) % block)
        recomputed.add(sampled.tree.stats.recomputed_tokens)
    assert starts == set(range(block))
    assert recomputed == set(range(1, block + 1))


def test_without_any_uncertainty_entropy_branching_opens_its_roots_alone():
    sampled = grown(coin(stop=0.1), kind=Uncertainty.NONE, root_branching=3)
    assert len(sampled.tree.trajectories) == 3
    assert sampled.tree.weights_exact


def test_by_surprisal_children_start_at_the_boundary_behind_the_uncertain_segment():
    sampled = grown(certain_but({9, 10, 11}, 30), kind=Uncertainty.SURPRISAL, entropy_threshold=0.5)
    # Prompt 1 and block 4: boundaries at 4, 8, 12; the tokens at 9, 10, 11 end before 12.
    assert {path.start for path in sampled.watch.paths} == {0, 12}


@pytest.mark.parametrize("branching", ["even", "low_prob", "high_prob"])
@pytest.mark.parametrize("prompt", [1, 2, 5, 8])
def test_an_aligned_branch_recomputes_one_token(branching, prompt):
    sampled = grown(
        coin(stop=0.05),
        branching=branching,
        fallback="none",
        root_branching=1,
        prompt=tuple(range(1, prompt + 1)),
    )
    assert sampled.tree.stats.branches > 0
    assert sampled.tree.stats.recomputed_tokens == sampled.tree.stats.branches


def test_a_branch_goes_ahead_even_if_its_trunk_has_ended_in_the_same_chunk():
    # 6 tokens and the end in one chunk of 16: the boundary at 4 lies inside it.
    sampled = grown(
        certain_but({5}, 6), chunk=16, branching="even", root_branching=1, fallback="none", width=2
    )
    assert sorted(path.start for path in sampled.watch.paths) == [0, 4]
    assert [t.weight for t in sampled.tree.trajectories] == pytest.approx([0.5, 0.5])


def test_no_branch_behind_the_last_depth_or_the_last_token():
    sampled = grown(
        coin(), branching="even", fallback="none", root_branching=1, max_depth=2, width=8
    )
    # Depth 2 is the last: the boundary at 4 doubles the paths, the one at 8 ends them.
    assert len(sampled.tree.trajectories) == 2
    assert {t.finish for t in sampled.tree.trajectories} == {"depth"}


def test_low_prob_gives_more_children_to_the_less_likely_segment():
    # From the first token on, a path is either certain (token 1) or uncertain (token 2).
    machine = TokenMachine(
        {
            "s": {1: (0.5, "sure"), 2: (0.5, "unsure")},
            "sure": {3: (1.0, "sure")},
            "unsure": {4: (0.5, "unsure"), 5: (0.5, "unsure")},
        },
        "s",
    )
    for branching, favoured in (("low_prob", 2), ("high_prob", 1)):
        sampled = grown(
            machine,
            branching=branching,
            branching_temperature=0.05,
            root_branching=8,
            branching_factor=2,
            width=12,
            max_depth=2,
            fallback="none",
        )
        forked = [path.parent.token_ids[0] for path in sampled.watch.paths if path.parent]
        assert len(forked) == 4
        assert set(forked) == {favoured}
