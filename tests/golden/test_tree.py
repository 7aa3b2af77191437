"""Whole trees worked on paper."""

import asyncio

import pytest

from tests.support.machines import chain
from tests.support.recording import RecordingEngine
from tests.support.scenarios import Scenario, sample
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.scripted import EOS, Script, ScriptedEngine, TokenMachine
from treepo.sampler import Job, sample_tree
from treepo.tree import Finish


def line(length: int) -> TokenMachine:
    """Tokens 1, 2, ... `length`, then the end."""
    steps = {str(i): {i + 1: (1.0, str(i + 1))} for i in range(length)}
    return TokenMachine(steps | {str(length): {EOS: (1.0, "0")}}, "0")


def tree_of(machine, *, max_tokens=100, chunk=3, block=2, prompt=(9,), **config):
    options = {"width": 4, "segment_tokens": 2, "branching": "even", "fallback": "none"}
    return sample(
        Scenario(
            machine,
            Script(chunk_tokens=chunk, block_size=block),
            TreeConfig(**options | config),
            Sampling(max_tokens=max_tokens, seed=1),
            tuple(prompt),
        )
    )


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 9])
def test_an_even_tree(chunk):
    # w = 4, N = 2, one root, six tokens and the end; prompt 1, block 2, segment 2, so boundaries
    # at 2, 4, 6.
    #   at 2: A = 1, F = f = 0: T = max(1, min(4, 2)) = 2: the root forks once.
    #   at 4: A = 2: T = max(2, min(4, 4)) = 4: both fork once.
    #   at 6: A = 4: T = max(4, min(4, 8)) = 4: full.
    # So 4 leaves of mass 1/4. Generated: root 7, child at 2: 5, two children at 4: 3 each = 18.
    # Trajectories 4 * 7 = 28, so 10 reused, nothing discarded.
    sampled = tree_of(line(6), chunk=chunk, root_branching=1)
    tree = sampled.tree
    assert sorted(p.start for p in sampled.watch.paths) == [0, 2, 4, 4]
    assert [t.weight for t in tree.trajectories] == [0.25] * 4
    assert all(tree.token_ids(t) == [1, 2, 3, 4, 5, 6, EOS] for t in tree.trajectories)
    stats = tree.stats
    assert (stats.generated_tokens, stats.trajectory_tokens) == (18, 28)
    assert (stats.reused_tokens, stats.discarded_tokens) == (10, 0)
    # Prefixes 1 + 2 and twice 1 + 4: each recomputes one token, the rest is cached.
    assert (stats.branches, stats.recomputed_tokens, stats.cached_tokens) == (3, 3, 2 + 4 + 4)
    masses = {(n.path, n.start): n.mass for n in tree.nodes}
    assert masses[0, 0] == 1.0
    assert masses[0, 2] == 0.5
    assert masses[0, 4] == masses[0, 6] == 0.25


def test_the_budget_of_paths_that_finished_is_passed_on():
    # A path that draws 1 ends with its second token, before the boundary at 2 is passed; one that
    # draws 2 goes on for ever. w = 8, N = 2, four roots, of which A live and F = f = 4 - A ended:
    # T = max(A, min(8 - F, 2 F + 2 A)) = 8 - F paths run behind 2, and with the F ended it is 8.
    machine = TokenMachine(
        {"s": {1: (0.5, "end"), 2: (0.5, "go")}, "end": {EOS: (1.0, "s")}, "go": {3: (1.0, "go")}},
        "s",
    )
    sampled = tree_of(machine, width=8, root_branching=4, max_tokens=6, max_depth=2)
    live = [p for p in sampled.watch.paths if p.start == 0 and p.token_ids[0] == 2]
    assert 0 < len(live) < 4
    assert sum(p.start == 2 for p in sampled.watch.paths) == 4
    assert len(sampled.tree.trajectories) == 8
    # The live share their forks evenly: each root of mass 1/4 ends up in equal parts.
    forks = [1 + sum(p.parent is root for p in sampled.watch.paths) for root in live]
    assert sum(forks) == 4 + len(live)
    assert max(forks) - min(forks) <= 1
    assert [root.mass for root in live] == [0.25 / fork for fork in forks]


def test_the_rest_of_a_division_is_spread_and_not_given_to_the_last_path():
    # w = 7, four roots, N = 2: T = max(4, min(7, 8)) = 7 over 4 paths: 2, 2, 2, 1.
    sampled = tree_of(line(4), width=7, root_branching=4, max_depth=2)
    forks = [sum(p.parent is root for p in sampled.watch.paths) for root in sampled.watch.paths[:4]]
    assert forks == [1, 1, 1, 0]


@pytest.mark.parametrize("root_branching", [(2, 8), (3, 3), 5, 8])
def test_init_divergence_is_used(root_branching):
    low, high = root_branching if isinstance(root_branching, tuple) else (root_branching,) * 2
    seen = set()
    for seed in range(40):
        scenario = Scenario(
            line(3),
            Script(chunk_tokens=4, block_size=2),
            TreeConfig(width=16, branching="even", fallback="none", root_branching=root_branching),
            Sampling(max_tokens=10, seed=seed),
            (9,),
        )
        seen.add(sum(p.parent is None for p in sample(scenario).watch.paths))
    assert seen == set(range(low, high + 1))


def test_requests_are_never_longer_than_what_is_left_of_max_tokens():
    # Segments of 4 and depth 3 from a prompt of 1: depth ends at 12, max_tokens at 10.
    sampled = tree_of(line(50), max_tokens=10, block=4, segment_tokens=4, max_depth=3)
    asked = [(s.request.num_inherited_tokens, s.request.sampling.max_tokens)
             for s in sampled.engine.sent.values()]  # fmt: skip
    assert set(asked) == {(0, 10), (4, 6)}
    assert {t.finish for t in sampled.tree.trajectories} == {Finish.LENGTH}
    assert sampled.tree.stats.discarded_tokens == 0


def test_a_segment_that_is_only_the_end_of_sequence_finishes_the_path():
    # Four tokens and the end; boundaries at 2 and 4: the end stands alone behind 4.
    tree = tree_of(line(4), width=1, root_branching=1).tree
    assert [n.token_ids for n in tree.nodes] == [(1, 2), (3, 4), (EOS,)]
    assert [t.finish for t in tree.trajectories] == [Finish.EOS]


def test_the_callers_prompt_is_never_aliased_and_requests_own_their_tokens():
    prompt = [9, 9, 9]
    engine = RecordingEngine(ScriptedEngine(line(6), Script(chunk_tokens=2, block_size=2)))
    config = TreeConfig(width=4, segment_tokens=2, branching="even", fallback="none")

    async def run():
        return await sample_tree(engine, Job(prompt, Sampling(max_tokens=20, seed=1), config))

    tree = asyncio.run(run())
    asked = [sent.request.token_ids for sent in engine.sent.values()]
    assert all(tokens is not prompt for tokens in asked)
    assert len({id(tokens) for tokens in asked}) == len(asked)
    prompt.append(5)
    assert tree.prompt_token_ids == (9, 9, 9)


def test_paths_of_a_seeded_tree_have_seeds_of_their_own_that_repeat():
    def seeds():
        sampled = tree_of(line(6), root_branching=2)
        return [sent.request.sampling.seed for sent in sampled.engine.sent.values()]

    first = seeds()
    assert len(set(first)) == len(first) == 4
    assert seeds() == first


def test_an_unseeded_tree_asks_for_unseeded_paths():
    scenario = Scenario(
        line(6),
        Script(chunk_tokens=3, block_size=2),
        TreeConfig(width=4, segment_tokens=2, branching="even", fallback="none"),
        Sampling(max_tokens=20),
        (9,),
    )
    sent = sample(scenario).engine.sent.values()
    assert {s.request.sampling.seed for s in sent} == {None}


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
def test_an_answer_across_a_boundary_ends_every_path_at_its_last_token(chunk):
    # "abzcdef": the answer "zcd" spans tokens 2 to 4; prompt 1, segment 4: the boundary at 4 cuts
    # it. One root forks there in two, and both find it at token 5.
    scenario = Scenario(
        chain("abzcdef"),
        Script(chunk_tokens=chunk, block_size=4),
        TreeConfig(width=2, segment_tokens=4, branching="even", root_branching=1, fallback="none"),
        Sampling(max_tokens=20, seed=1),
        (9,),
        has_texts=True,
    )
    sampled = sample(scenario)
    assert [p.start for p in sampled.watch.paths] == [0, 4]
    for trajectory in sampled.tree.trajectories:
        assert (trajectory.text, trajectory.answer) == ("abzcd", "cd")
        assert trajectory.finish is Finish.ANSWER
        assert len(sampled.tree.token_ids(trajectory)) == 5
