"""mean@k, pass@k and maj@k on counts worked by hand."""

from itertools import combinations
from types import SimpleNamespace

import pytest

from treepo.train.evaluate import majority_reward, pass_at_k


def test_pass_at_k_is_the_share_of_draws_with_a_solved_sample():
    solved = [True, True, False, False, False]
    for k in range(1, 6):
        draws = list(combinations(solved, k))
        assert pass_at_k(5, 2, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def group(*pairs):
    trajectories = [SimpleNamespace(answer=None, text=text) for text, _ in pairs]
    return SimpleNamespace(
        tree=SimpleNamespace(trajectories=trajectories), rewards=[reward for _, reward in pairs]
    )


def test_the_commonest_answer_counts_and_the_earliest_among_equals():
    assert majority_reward(group((" 7", 1.0), ("8", 0.0), ("7\n", 1.0))) == 1.0
    assert majority_reward(group(("8", 0.0), ("7", 1.0))) == 0.0
    assert majority_reward(group()) == 0.0
