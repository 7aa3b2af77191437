"""A tree stays on one data-parallel rank, and trees spread over the ranks."""

from types import SimpleNamespace

from treepo_server.load.ranks import Ranks


def test_a_single_rank_is_left_to_the_engine():
    assert Ranks(1).take(None) is None


def test_trees_spread_over_the_ranks():
    ranks = Ranks(3)
    assert [ranks.take(None) for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    ranks.give_back(1)
    assert ranks.take(None) == 1


def test_a_rank_that_was_asked_for_is_taken_and_counts():
    ranks = Ranks(2)
    assert ranks.take(1) == 1
    assert [ranks.take(None) for _ in range(2)] == [0, 0]


def test_only_reachable_ranks_are_used():
    parallel = SimpleNamespace(
        local_engines_only=True, data_parallel_size_local=1, data_parallel_size=8
    )
    assert Ranks.of(parallel).take(None) is None
    parallel.local_engines_only = False
    assert [Ranks.of(parallel).take(None)] == [0]
