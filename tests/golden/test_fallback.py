"""Trees completed by fallback, worked on paper."""

import asyncio

import pytest

from tests.support.machines import coin
from tests.support.scenarios import Sampled, Scenario, Watch, engines, job_of, sample
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.scripted import EOS, Script, TokenMachine
from treepo.sampler import sample_tree
from treepo.tree import Finish

FIVE = TokenMachine(
    {str(i): {i + 1: (1.0, str(i + 1))} for i in range(5)} | {"5": {EOS: (1.0, "0")}}, "0"
)


def scenario_of(machine, seed=1, max_tokens=40, **config) -> Scenario:
    options = {
        "width": 4,
        "segment_tokens": 2,
        "branching": "even",
        "branching_factor": 1,
        "root_branching": 1,
        "fallback": "random",
    }
    return Scenario(
        machine,
        Script(chunk_tokens=3, block_size=2),
        TreeConfig(**options | config),
        Sampling(max_tokens=max_tokens, seed=seed),
        (9,),
    )


def tree_of(machine, seed=1, max_tokens=40, **config) -> Sampled:
    return sample(scenario_of(machine, seed, max_tokens, **config))


@pytest.mark.parametrize("seed", range(12))
def test_a_fallback_tree(seed):
    # N = 1, so nothing branches: the root writes 5 tokens and the end (6). Boundaries at 2, 4.
    # Round 1: one source, one copy from 0, 2 or 4. Round 2: two sources, one copy each, in random
    # order. Then 4 trajectories stand, of 6 tokens each: 24. A copy from p costs 6 - p.
    sampled = tree_of(FIVE, seed)
    tree, paths = sampled.tree, sampled.watch.paths
    starts = [p.start for p in paths]
    assert starts[0] == 0
    assert set(starts) <= {0, 2, 4}
    assert len(paths) == len(tree.trajectories) == 4
    assert [p.is_late for p in paths] == [False, True, True, True]
    assert not tree.weights_exact
    assert tree.stats.generated_tokens == sum(6 - start for start in starts)
    assert tree.stats.reused_tokens == 24 - sum(6 - start for start in starts)
    assert (tree.stats.branches, tree.stats.fallbacks) == (0, 3)
    # One prospective leaf of four: it weighs 1/4, like every late one, and holds all the mass.
    assert [t.weight for t in tree.trajectories] == [0.25] * 4
    assert sum(tree.nodes[t.leaf].mass for t in tree.trajectories) == 1.0
    # Prefix 1 + p is 1 (mod 2): each copy recomputes a single token, a restart the prompt's one.
    assert tree.stats.recomputed_tokens == 3


def test_fallback_waits_until_no_path_is_live():
    class Waiting(Watch):
        def opened(self, path):
            if path.is_late:
                assert all(p.is_late or p.finish is not None for p in self.paths)
            super().opened(path)

    for seed in range(20):
        scenario = scenario_of(coin(stop=0.2), seed, width=8, branching_factor=2)
        _, engine = engines(scenario)
        watch = Waiting(8)
        tree = asyncio.run(sample_tree(engine, job_of(scenario, watch)))
        assert len(tree.trajectories) == 8


def test_the_factor_bounds_the_copies_of_each_source():
    # One source, N = 3, w = 6: the first round copies it 3 times, the second one of the four twice.
    sampled = tree_of(FIVE, width=6, branching_factor=3, segment_tokens=8)
    parents = [p.start for p in sampled.watch.paths[1:]]
    assert parents == [0] * 5
    assert len(sampled.tree.trajectories) == 6
    assert sampled.tree.stats.fallbacks == 5


def test_no_eligible_source_means_a_fresh_path_from_the_prompt():
    # Endless paths end by length, which is no good end: each round starts one path afresh.
    endless = TokenMachine({"s": {1: (1.0, "s")}}, "s")
    sampled = tree_of(endless, max_tokens=5)
    assert [p.start for p in sampled.watch.paths] == [0, 0, 0, 0]
    assert {t.finish for t in sampled.tree.trajectories} == {Finish.LENGTH}
    assert not sampled.tree.weights_exact


def test_late_branches_of_late_paths_stay_late():
    sampled = tree_of(FIVE, width=16, seed=3)
    late = [p for p in sampled.watch.paths if p.parent is not None and p.parent.is_late]
    assert late
    assert all(p.is_late for p in late)
    tree = sampled.tree
    assert all(node.mass == 0.0 for node in tree.nodes if node.is_late)
