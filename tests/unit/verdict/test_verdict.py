"""The verdict finds what is known of chains whose law is written down."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from bench.search import PROMPT, Choices, Letters, steps
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.scripted import ScriptedEngine
from treepo.errors import ConfigError
from treepo.growth.texts import Texts
from treepo.rollout.prompts import Prompt
from treepo.sampler import Job, sample_tree
from treepo.tree import Tree
from treepo.verdict.collect import Problem
from treepo.verdict.plans import POOL, Plan, pool_plan, replayed_plans
from treepo.verdict.verdict import Verdict, make_verdict

NUM_PROBLEMS = 40
MEAN_NATS = 0.012
BASE = {"width": 16}


async def sample(places: set[int], fields: Mapping[str, Any], seed: int) -> Tree:
    texts = Texts(Letters(), Choices(only_last=False))
    config = TreeConfig(**{**BASE, **fields})
    sampling = Sampling(1200, seed=seed)
    job = Job(PROMPT, sampling, config, texts=texts, entropy_reference=MEAN_NATS)
    return await sample_tree(ScriptedEngine(steps(places).machine), job)


def verdict(places: set[int], fields: Mapping[str, Any], *more: Plan) -> Verdict:
    plans = [pool_plan(16), Plan("tree", fields), *more]
    problems = [Problem(str(i), Prompt("", "", {}), "aaa") for i in range(NUM_PROBLEMS)]
    trees = {
        (plan.name, problem.name): asyncio.run(sample(places, plan.tree, seed + 1000 * rank))
        for rank, plan in enumerate(plans[:2])
        for seed, problem in enumerate(problems)
    }
    return make_verdict(problems, plans, trees)


def test_a_tree_that_forks_before_late_uncertainty_is_found_better() -> None:
    found = verdict({180, 200, 220}, {})
    assert found.sentence("tree").endswith("so the tree is better.")
    assert found.row("tree").comparison.paths < 8


def test_a_tree_that_shares_early_uncertainty_is_found_worse() -> None:
    fields = {"branching": "even", "root_branching": 1, "fallback": "none"}
    found = verdict({8, 24, 40}, fields)
    assert found.sentence("tree").endswith("so independent sampling is better.")


def test_independent_sampling_is_no_better_than_itself() -> None:
    found = verdict({8, 24, 40}, pool_plan(16).tree, *replayed_plans()[:1])
    assert found.sentence("tree").endswith("so no difference can be told.")
    pool = found.row(POOL).comparison
    assert pool.difference.value == pytest.approx(0, abs=1e-9)
    for row in found.rows[2:]:
        assert row.comparison.tokens.value <= pool.tokens.value


def test_without_a_whole_problem_there_is_no_verdict() -> None:
    with pytest.raises(ConfigError, match="run `treepo bench` again"):
        make_verdict([Problem("0", Prompt("", "", {}), "1")], [pool_plan(4)], {})
