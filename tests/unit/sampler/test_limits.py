"""Budgets, deadlines, waves, settled votes, pruning: each ends a tree early, and it says so."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.laws import (
    assert_counts,
    assert_joins,
    assert_late_cuts,
    assert_lengths,
    assert_weights,
)
from tests.support.machines import CharDecoder, ToyAnswer, chain, coin, endless, toy_texts
from tests.support.scenarios import HANG_S, Watch, engines, job_of, plain, sample, scenarios
from treepo import sampler
from treepo.engines.scripted import EOS, Script, ScriptedEngine, TokenMachine
from treepo.growth.texts import Texts
from treepo.sampler import sample_tree
from treepo.tree import Finish, TreeFinish

SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(st.data())
def test_a_tree_that_ends_early_keeps_every_law_and_says_why(data):
    scenario = data.draw(
        scenarios(
            until=data.draw(st.sampled_from(["complete", "settled", 0.7])),
            max_total_tokens=data.draw(st.none() | st.integers(1, 150)),
            prune=data.draw(st.sampled_from(["none", "confidence"])),
            prune_window=8,
            prune_warmup=data.draw(st.integers(1, 3)),
            prune_quantile=0.5,
        )
    )
    sampled = sample(scenario)
    tree, config = sampled.tree, scenario.config
    assert_joins(sampled)
    assert_counts(sampled)
    assert_weights(sampled)
    assert_late_cuts(sampled)
    assert sampled.inner.counters.running == 0
    assert_lengths(sampled)
    assert sorted(sampled.watch.ended_ids) == [p.id for p in sampled.watch.paths]
    pruned = [p for p in sampled.watch.paths if p.finish is Finish.PRUNED]
    unfinished = [p for p in sampled.watch.paths if p.finish is Finish.UNFINISHED]
    assert tree.stats.prunes == len(pruned)
    assert tree.weights_exact <= (tree.finish is TreeFinish.COMPLETE and not pruned)
    match tree.finish:
        case TreeFinish.COMPLETE:
            assert not unfinished
            is_short = len(tree.trajectories) < config.width
            assert not is_short or pruned or tree.settings["fallback"] == "none"
        case TreeFinish.SETTLED:
            assert config.until == "settled"
        case TreeFinish.CONFIDENT:
            assert config.until == 0.7
        case TreeFinish.MAX_TOTAL_TOKENS:
            assert tree.stats.generated_tokens >= config.max_total_tokens
    if config.max_total_tokens is not None:
        # Of each path one chunk may stand in line and one may be under way.
        most = config.width * (2 * scenario.script.chunk_tokens + scenario.script.overrun_tokens)
        assert tree.stats.generated_tokens < config.max_total_tokens + most


def test_a_deadline_ends_the_tree_with_what_is_finished():
    def delay(tokens):
        return 0 if 2 in tokens else 1

    machine = TokenMachine(
        {
            "a": {1: (0.5, "long"), 2: (0.5, "end")},
            "long": {1: (1.0, "long")},
            "end": {0: (1, "a")},
        },
        "a",
    )
    script = Script(chunk_tokens=4, block_size=4, delay=delay)
    scenario = plain(machine, max_tokens=10**6, script=script, deadline_ms=30, root_branching=4)
    sampled = sample(scenario)
    assert sampled.tree.finish is TreeFinish.DEADLINE
    assert {t.finish for t in sampled.tree.trajectories} == {Finish.EOS}
    assert sampled.inner.counters.running == 0
    assert not sampled.tree.weights_exact


def test_no_trajectory_at_all_is_still_a_tree():
    tree = sample(plain(endless(), max_tokens=10**6, max_total_tokens=30)).tree
    assert tree.finish is TreeFinish.MAX_TOTAL_TOKENS
    assert tree.trajectories == ()
    assert tree.stats.discarded_tokens == tree.stats.generated_tokens


def test_the_last_path_of_a_spent_budget_is_no_trajectory():
    tree = sample(plain(endless(), width=1, max_tokens=100, max_total_tokens=10)).tree
    assert tree.finish is TreeFinish.MAX_TOTAL_TOKENS
    assert tree.stats.generated_tokens == 10
    assert tree.trajectories == ()
    assert tree.nodes[-1].finish is Finish.UNFINISHED


def test_waves_open_start_trajectories_at_a_time():
    sampled = sample(plain(coin(stop=0.1), width=7, start=3))
    waves = list({id(p.wave): p.wave for p in sampled.watch.paths}.values())
    assert [wave.width for wave in waves] == [3, 3, 1]
    assert sampled.watch.most <= 7
    assert sampled.tree.stats.max_live_paths <= 3
    assert len(sampled.tree.trajectories) == 7


def test_later_waves_open_only_while_the_vote_is_open():
    scenario = plain(chain("zab"), width=8, start=3, until="settled", root_branching=8)
    sampled = sample(replace(scenario, has_texts=True))
    assert sampled.tree.finish is TreeFinish.SETTLED
    assert 5 <= len(sampled.tree.trajectories) <= 6
    assert not sampled.tree.weights_exact


@pytest.mark.parametrize("branching", ["even", "entropy"])
def test_a_pruned_path_is_aborted_and_its_slot_is_used_again(branching):
    machine = TokenMachine(
        {
            "a": {1: (0.5, "sure"), 2: (0.5, "lost")},
            "sure": {3: (0.9, "sure"), EOS: (0.1, "a")},
            "lost": dict.fromkeys(range(4, 14), (0.1, "lost")),
        },
        "a",
    )
    sampled = sample(
        plain(
            machine,
            branching=branching,
            max_tokens=400,
            width=8,
            root_branching=8,
            prune="confidence",
            prune_window=8,
            prune_warmup=1,
            prune_quantile=1.0,
        )
    )
    pruned = [p for p in sampled.watch.paths if p.finish is Finish.PRUNED]
    assert pruned
    assert all(p.prefix(1) == [2] for p in pruned)
    assert all(sampled.engine.sent[p.request_id].has_ended for p in pruned)
    assert len(sampled.tree.trajectories) == 8
    assert not sampled.tree.weights_exact


def test_a_path_is_not_pruned_for_being_long():
    # Every position is equally uncertain; some paths end within the window and some far behind it.
    machine = coin((1, 2), stop=0.05)
    fields = {"width": 16, "root_branching": 16, "branching_factor": 1, "prune_window": 16}
    scenario = plain(machine, max_tokens=300, prune="confidence", prune_warmup=4, **fields)
    tree = sample(scenario).tree
    lengths = sorted(tree.nodes[t.leaf].end for t in tree.trajectories)
    assert lengths[4] < 16 < 32 < lengths[-1]
    assert tree.stats.prunes == 0


def test_an_early_end_aborts_the_rest_within_a_chunk():
    scenario = replace(
        plain(endless(), max_tokens=10**6, max_total_tokens=64), script=Script(8, 4, 3)
    )
    sampled = sample(scenario)
    assert sampled.tree.stats.generated_tokens <= 64 + 4 * (8 + 3)
    assert set(sampled.engine.aborted) <= set(sampled.engine.sent)


@pytest.mark.parametrize("reading_turns", [0, 7])
def test_a_tree_waits_for_answers_that_are_still_being_read(reading_turns):
    class Patient:
        async def read(self, text):
            for _ in range(reading_turns):
                await asyncio.sleep(0)
            return await toy_texts().reader.read(text)

    scenario = plain(chain("abzde"), width=3)
    _, engine = engines(scenario)
    job = replace(job_of(scenario, Watch(3)), texts=replace(toy_texts(), reader=Patient()))
    tree = asyncio.run(sample_tree(engine, job))
    assert [t.answer for t in tree.trajectories] == ["de"] * 3
    assert [t.text for t in tree.trajectories] == ["abzde"] * 3
    assert {t.finish for t in tree.trajectories} == {Finish.ANSWER}


class Leisurely:
    """Reads the first answer some turns after the tree was told to end, and the others never."""

    def __init__(self, ending):
        self.ending = ending
        self.num_asked = 0

    async def read(self, text):
        self.num_asked += 1
        if self.num_asked > 1:
            await asyncio.get_running_loop().create_future()
        if self.ending is not None:
            self.ending.set_result(TreeFinish.CANCELLED)
        for _ in range(7):
            await asyncio.sleep(0)
        return ToyAnswer("x", "x")


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({"deadline_ms": 30}, TreeFinish.DEADLINE),
        ({"deadline_ms": 30, "max_total_tokens": 12}, TreeFinish.MAX_TOTAL_TOKENS),
        ({}, TreeFinish.CANCELLED),
    ],
    ids=["deadline", "spent before its deadline", "told to end"],
)
async def test_a_tree_that_has_to_end_waits_a_moment_for_answers_and_no_longer(
    monkeypatch, fields, finish
):
    monkeypatch.setattr(sampler, "_GRACE_S", 0.1)
    scenario = plain(chain("abc"), root_branching=4, branching_factor=1, **fields)
    _, engine = engines(scenario)
    ending = None if fields else asyncio.get_running_loop().create_future()
    texts = Texts(CharDecoder(), Leisurely(ending))
    job = replace(job_of(scenario, ending=ending), texts=texts)
    tree = await asyncio.wait_for(sample_tree(engine, job), HANG_S)
    first, *others = [trajectory.answer for trajectory in tree.trajectories]
    assert (first, set(others)) == ("x", {None})
    assert tree.finish is finish
    note = f"the answer of {len(others)} trajectories could not be read (time was up)"
    assert tree.notes == (note,)


class Forgetful(ScriptedEngine):
    """Loses the uncertainty of every first chunk."""

    async def generate(self, request):
        is_first = True
        async for chunk in super().generate(request):
            yield replace(chunk, uncertainty=()) if is_first else chunk
            is_first = False


def test_lost_uncertainty_does_not_shift_what_is_known():
    machine = TokenMachine(
        {str(i): {3: (1.0, str(i + 1))} for i in range(9)}
        | {"9": {1: (0.5, "10"), 2: (0.5, "10")}, "10": {EOS: (1.0, "10")}},
        "0",
    )
    engine = Forgetful(machine, Script(chunk_tokens=4, block_size=4))
    watch = Watch(4)
    scenario = plain(machine, branching="entropy", entropy_threshold=0.5)
    tree = asyncio.run(sample_tree(engine, job_of(scenario, watch)))
    assert {path.start for path in watch.paths} == {0, 9}
    for node in tree.nodes:
        assert len(node.uncertainty) in (0, len(node.token_ids))
    assert tree.notes == ()


class Mute(ScriptedEngine):
    """Promises uncertainties and stops reporting them after each request's first chunk."""

    async def generate(self, request):
        seen = 0
        async for chunk in super().generate(request):
            yield replace(chunk, uncertainty=()) if seen else chunk
            seen += 1


def test_a_tree_whose_engine_stopped_reporting_uncertainty_says_so():
    engine = Mute(coin(stop=0.01), Script(chunk_tokens=4, block_size=4))
    scenario = plain(branching="entropy", entropy_threshold=0.01, max_tokens=30)
    tree = asyncio.run(sample_tree(engine, job_of(scenario, Watch(4))))
    total = sum(len(node.token_ids) for node in tree.nodes)
    (note,) = tree.notes
    assert f"of {total} tokens came without entropy" in note
