"""mean@k, pass@k and maj@k on counts worked by hand, and what an evaluation says it lacks."""

import asyncio
from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import pytest

from tests.unit.train.conftest import ragged_tree
from treepo.errors import EngineError
from treepo.train.config_file import build
from treepo.train.data import Example
from treepo.train.evaluate import evaluate, majority_reward, pass_at_k


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


def evaluated(rewards, failures, *errors):
    """The evaluation of a prompt for each list of rewards, and for each error."""
    trees = [ragged_tree(seed, lost=False) for seed in range(len(rewards))]
    wide = [list(r) * len(t.trajectories) for r, t in zip(rewards, trees, strict=True)]

    async def sample(asks):
        return [*trees, *errors]

    pool = SimpleNamespace(score=lambda _: SimpleNamespace(rewards=wide, failures=failures))
    examples = [Example("x", "p", (1,), {})] * (len(trees) + len(errors))
    config = build({"output_dir": "run", "data": {"train": "x"}, "eval": {"samples": 1}})
    return asyncio.run(evaluate(SimpleNamespace(sample=sample), pool, examples, config))


def test_an_evaluation_counts_the_prompts_with_a_reward_and_names_what_is_missing():
    found = evaluated([[1.0], [None], [0.5]], Counter(raised=2), EngineError("full"))
    assert found.figures == {"mean": 0.75, "pass_at": 1.0, "maj": 0.75, "num_prompts": 2}
    assert found.failures == {"raised": 2}
    assert found.reasons == ["full"]


def test_an_evaluation_without_any_reward_has_no_mean():
    assert evaluated([[None], [None]], Counter(crash=2)).figures == {"num_prompts": 0}
