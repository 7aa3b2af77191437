"""What a tree does when its engine, its reader or its caller gives up."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.laws import (
    assert_counts,
    assert_joins,
    assert_late_cuts,
    assert_weights,
)
from tests.support.machines import CharDecoder, chain, coin, endless, find_word
from tests.support.recording import RecordingEngine
from tests.support.scenarios import (
    HANG_S,
    Sampled,
    Watch,
    engines,
    job_of,
    plain,
    sample,
    scenarios,
)
from treepo.answers import reader
from treepo.answers.pool import WorkerError
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, Sampling
from treepo.engines.scripted import Script, ScriptedEngine
from treepo.errors import EngineDeadError, EngineError, FieldError
from treepo.growth.texts import Texts
from treepo.sampler import Job, sample_tree
from treepo.tree import Finish, TreeFinish

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(st.data())
def test_failing_requests_end_the_tree_with_what_is_left_and_it_says_so(data):
    scenario = data.draw(scenarios(with_faults=True))
    inner, engine = engines(scenario)
    watch = Watch(scenario.config.width)
    job = job_of(scenario, watch)
    try:
        tree = asyncio.run(asyncio.wait_for(sample_tree(engine, job), HANG_S))
    except EngineError:
        assert not any(path.is_trajectory for path in watch.paths)
    else:
        sampled = Sampled(tree, engine, inner, watch, scenario)
        assert_joins(sampled)
        assert_counts(sampled)
        assert_weights(sampled)
        assert_late_cuts(sampled)
        lost = [path for path in watch.paths if path.finish is Finish.FAILED]
        assert len(tree.notes) >= len(lost)
        assert tree.weights_exact <= (not lost)
        is_short = len(tree.trajectories) < scenario.config.width
        assert not is_short or lost or tree.settings["fallback"] == "none"
    assert all(path.finish is not None for path in watch.paths)
    assert inner.counters.running == 0
    assert not engine.running


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("fallback", ["random", "none"])
def test_an_error_no_engine_should_raise_surfaces_at_once(at, fallback):
    bug = RuntimeError("a bug in the engine")
    scenario = plain(
        fallback=fallback, max_tokens=400, fault=lambda request, n: bug if n == at else None
    )
    inner, engine = engines(scenario)
    with pytest.raises(RuntimeError, match="a bug in the engine"):
        asyncio.run(asyncio.wait_for(sample_tree(engine, job_of(scenario)), HANG_S))
    assert inner.counters.running == 0
    assert len(engine.sent) <= 4


def test_one_requests_bug_ends_the_whole_tree():
    scenario = plain(
        endless(),
        max_tokens=100_000,
        fault=lambda request, n: RuntimeError("bug") if request.id == "t-1" and n == 2 else None,
    )
    inner, engine = engines(scenario)
    with pytest.raises(RuntimeError, match="bug"):
        asyncio.run(asyncio.wait_for(sample_tree(engine, job_of(scenario)), HANG_S))
    assert inner.counters.running == 0
    assert inner.counters.generated_tokens < 1000


def test_a_dead_engine_raises_even_if_some_trajectories_were_finished():
    def fault(request, n):
        return EngineDeadError("gone") if request.id == "t-1" and n == 1 else None

    with pytest.raises(EngineDeadError):
        sample(plain(fault=fault))


def test_a_dead_engine_ends_the_other_paths():
    scenario = plain(
        endless(),
        max_tokens=100_000,
        fault=lambda request, n: EngineDeadError("gone") if (request.id, n) == ("t-1", 2) else None,
    )
    inner, engine = engines(scenario)
    with pytest.raises(EngineDeadError):
        asyncio.run(asyncio.wait_for(sample_tree(engine, job_of(scenario)), HANG_S))
    assert inner.counters.generated_tokens < 1000


def test_a_tree_whose_every_request_fails_gives_up_after_width_losses():
    scenario = plain(fault=lambda request, n: EngineError("full", is_retryable=True))
    _, engine = engines(scenario)
    with pytest.raises(EngineError, match="full"):
        asyncio.run(asyncio.wait_for(sample_tree(engine, job_of(scenario)), HANG_S))
    assert len(engine.sent) <= 2 * scenario.config.width + 1


def test_a_failed_first_request_is_replaced():
    sampled = sample(
        plain(fault=lambda request, n: EngineError("no") if request.id == "t-0" else None)
    )
    assert len(sampled.tree.trajectories) == 4
    assert not sampled.tree.weights_exact
    assert "path 0 was lost: no" in sampled.tree.notes


class SelfAborting(ScriptedEngine):
    """Ends every request by itself after its first chunk, as a server that drains does."""

    async def generate(self, request):
        async for chunk in super().generate(request):
            yield Chunk(chunk.token_ids, finish_reason="abort")
            return


@pytest.mark.parametrize("fallback", ["random", "none"])
def test_requests_the_engine_aborts_by_itself_are_lost_paths(fallback):
    engine = SelfAborting(coin(), Script(chunk_tokens=4, block_size=4))
    watch = Watch(4)
    with pytest.raises(EngineError, match="abort"):
        asyncio.run(
            asyncio.wait_for(sample_tree(engine, job_of(plain(fallback=fallback), watch)), HANG_S)
        )
    assert {path.finish for path in watch.paths} == {Finish.FAILED}


def test_a_budget_met_while_branches_open_does_not_run_them():
    scenario = plain(endless(), max_tokens=100_000, max_total_tokens=14, width=8)
    engine = RecordingEngine(ScriptedEngine(scenario.machine, scenario.script))
    tree = asyncio.run(asyncio.wait_for(sample_tree(engine, job_of(scenario)), HANG_S))
    assert tree.finish is TreeFinish.MAX_TOTAL_TOKENS
    assert tree.stats.generated_tokens < 14 + 8 * 4


class Broken:
    """A reader with a bug."""

    async def read(self, text):
        raise RuntimeError("a bug in the reader")


def test_a_reader_with_a_bug_surfaces_instead_of_hanging():
    engine = ScriptedEngine(chain("abc"), Script(chunk_tokens=4, block_size=4))
    job = Job(
        prompt_token_ids=[1],
        sampling=Sampling(max_tokens=10),
        config=TreeConfig(width=2, branching="even"),
        texts=Texts(CharDecoder(), Broken(), find_word()),
    )
    with pytest.raises(RuntimeError, match="a bug in the reader"):
        asyncio.run(asyncio.wait_for(sample_tree(engine, job), HANG_S))
    assert engine.counters.running == 0


class Stuck:
    """A pool whose children never answer in time."""

    async def ask(self, job, limit_s):
        raise WorkerError("timeout")


def test_a_tree_says_which_answers_could_not_be_read(monkeypatch):
    monkeypatch.setattr(reader, "shared_pool", Stuck)
    scenario = plain(chain("abc"), width=3, answer={"regex": "a"})
    texts = Texts.from_config(CharDecoder(), scenario.config)
    _, engine = engines(scenario)
    tree = asyncio.run(sample_tree(engine, replace(job_of(scenario), texts=texts)))
    assert [trajectory.answer for trajectory in tree.trajectories] == [None] * 3
    assert tree.notes == ("the answer of 3 trajectories could not be read (timeout)",)


class Deaf(ScriptedEngine):
    """An engine whose `abort` fails because it is gone; its streams never end."""

    async def abort(self, request_ids):
        raise EngineDeadError("nobody listens")

    async def generate(self, request):
        yield Chunk([1])
        await asyncio.get_running_loop().create_future()


def test_a_failing_abort_does_not_hang_the_tree():
    engine = Deaf(endless(), Script(chunk_tokens=1, block_size=1))
    job = job_of(plain(max_total_tokens=2))

    async def sampled() -> None:
        with pytest.raises(EngineDeadError, match="nobody listens"):
            async with asyncio.timeout(HANG_S):
                await sample_tree(engine, job)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(sampled())


def test_a_prompt_that_leaves_no_room_is_the_callers_error():
    scenario = plain(script=Script(max_model_len=20), max_tokens=18)
    with pytest.raises(FieldError, match=r"max_tokens.*1 to 17"):
        sample(scenario)
