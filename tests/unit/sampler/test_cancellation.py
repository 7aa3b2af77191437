"""A tree whose caller goes away leaves nothing in the engine, whenever that happens."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.machines import CharDecoder, chain, endless
from tests.support.scenarios import HANG_S, engines, job_of, plain, scenarios
from treepo.engines.scripted import Script, ScriptedEngine
from treepo.growth.texts import Texts
from treepo.sampler import sample_tree

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(st.data())
def test_a_cancelled_tree_leaves_no_request_behind(data):
    scenario = data.draw(scenarios())
    turns = data.draw(st.integers(0, 40))
    inner, engine = engines(scenario)

    async def cancel() -> None:
        task = asyncio.create_task(sample_tree(engine, job_of(scenario)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, HANG_S)
        assert task.done()
        assert inner.counters.running == 0
        assert not engine.running

    asyncio.run(cancel())


def test_a_tree_that_is_cancelled_again_and_again_still_ends_its_requests_first():
    # Frameworks deliver a cancellation on every turn until the task is gone.
    scenario = plain(endless(), max_tokens=10**6)
    scenario = replace(scenario, script=Script(chunk_tokens=4, block_size=4, delay=lambda _: 9))
    inner, engine = engines(scenario)

    async def cancel() -> None:
        task = asyncio.create_task(sample_tree(engine, job_of(scenario)))
        for _ in range(20):
            await asyncio.sleep(0)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        assert inner.counters.running == 0
        assert not engine.running

    asyncio.run(asyncio.wait_for(cancel(), HANG_S))


class Slow(ScriptedEngine):
    """Registers a request only after some turns and, as allowed, forgets aborts before that."""

    def __init__(self, machine, script, turns):
        super().__init__(machine, script)
        self.turns = turns
        self.known = set()

    async def abort(self, request_ids):
        await super().abort([name for name in request_ids if name in self.known])

    async def generate(self, request):
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.known.add(request.id)
        async for chunk in super().generate(request):
            yield chunk


@pytest.mark.parametrize("turns", [0, 1, 5])
@pytest.mark.parametrize("cancel_after", [1, 2, 3, 4, 8])
def test_a_request_aborted_before_the_engine_knew_it_still_ends(turns, cancel_after):
    engine = Slow(endless(), Script(chunk_tokens=4, block_size=4), turns)

    async def cancel() -> None:
        scenario = plain(endless(), max_tokens=100_000)
        task = asyncio.create_task(sample_tree(engine, job_of(scenario)))
        for _ in range(cancel_after):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, HANG_S)

    asyncio.run(cancel())
    assert engine.counters.running == 0
    assert engine.counters.generated_tokens < 200


@pytest.mark.parametrize("seed", range(5))
def test_cancelling_while_answers_are_read_ends_the_readers(seed):
    rng = random.Random(seed)

    class Sleepy:
        async def read(self, text):
            await asyncio.get_running_loop().create_future()

    engine = ScriptedEngine(chain("abc"), Script(chunk_tokens=4, block_size=4))
    texts = Texts(CharDecoder(), Sleepy(), None)

    async def cancel() -> None:
        task = asyncio.create_task(sample_tree(engine, replace(job_of(plain()), texts=texts)))
        for _ in range(20 + rng.randrange(20)):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 2)
        assert task.done()

    asyncio.run(cancel())
