"""One stream of events from many requests, and nothing left behind."""

import asyncio

import pytest

from tests.support.machines import endless
from tests.support.recording import RecordingEngine
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, PathRequest, Sampling
from treepo.engines.scripted import Script, ScriptedEngine
from treepo.errors import EngineError
from treepo.growth.requests import Answered, Arrived, Closed, Expired, Lost, Requests
from treepo.growth.state import Growth, Path
from treepo.tree import TreeFinish


def paths(num: int) -> list[Path]:
    config = TreeConfig(width=16).resolve(1, 100, 0.5)
    return Growth([1], config, 1).open_wave(16, num)


def request(path: Path, max_tokens: int = 10**6) -> PathRequest:
    return PathRequest(f"r-{path.id}", "r", [1], 0, Sampling(max_tokens=max_tokens, seed=path.id))


def engine(fault=None) -> RecordingEngine:
    inner = ScriptedEngine(endless(), Script(chunk_tokens=2, block_size=1, overrun_tokens=1))
    return RecordingEngine(inner, fault) if fault else RecordingEngine(inner)


async def drain(requests: Requests, num_closed: int) -> list:
    events = []
    while sum(isinstance(e, Closed) for e in events) < num_closed:
        events.append(await asyncio.wait_for(requests.next(), 5))
    return events


async def test_chunks_come_in_order_and_closed_comes_last():
    running = engine()
    requests = Requests(running)
    (path,) = paths(1)
    requests.start(path, request(path, max_tokens=5))
    events = await drain(requests, 1)
    assert [type(e) for e in events] == [Arrived, Arrived, Arrived, Closed]
    assert [len(e.chunk.token_ids) for e in events[:-1]] == [2, 2, 1]
    assert events[-2].chunk.finish_reason == "length"
    await requests.close()


async def test_an_abort_reads_on_to_the_last_chunk():
    running = engine()
    requests = Requests(running)
    first, second = paths(2)
    for path in (first, second):
        requests.start(path, request(path, max_tokens=9 if path is second else 10**6))
    await requests.next()
    await requests.abort([first])
    events = await drain(requests, 2)
    last = [e.chunk for e in events if isinstance(e, Arrived) and e.path is first][-1]
    assert last.finish_reason == "abort"
    assert len(last.token_ids) == 1
    assert sum(isinstance(e, Arrived) and e.path is second for e in events) >= 4
    assert running.aborted == [first.request_id]
    await requests.abort([first, second])
    assert running.aborted == [first.request_id], "requests that have ended are not aborted"


async def test_an_aborted_request_that_never_started_closes_without_reaching_the_engine():
    running = engine()
    requests = Requests(running)
    (path,) = paths(1)
    requests.start(path, request(path))
    await requests.abort([path])
    assert [type(e) for e in await drain(requests, 1)] == [Closed]
    assert running.sent == {}


async def test_an_engine_error_is_a_lost_path_and_no_more():
    running = engine(lambda r, n: EngineError("no") if r.id == "r-0" and n == 1 else None)
    requests = Requests(running)
    first, second = paths(2)
    for path in (first, second):
        requests.start(path, request(path, max_tokens=6))
    events = await drain(requests, 2)
    assert [e.path for e in events if isinstance(e, Lost)] == [first]
    assert [e.path for e in events if isinstance(e, Closed)] == [first, second]
    await requests.close()


async def test_a_stream_that_just_stops_is_a_lost_path():
    class Silent(ScriptedEngine):
        async def generate(self, request):
            yield Chunk([1])

    requests = Requests(Silent(endless()))
    (path,) = paths(1)
    requests.start(path, request(path))
    events = await drain(requests, 1)
    assert [type(e) for e in events] == [Arrived, Lost, Closed]


async def test_an_error_nobody_raises_on_purpose_comes_out_of_next_and_of_close():
    running = engine(lambda r, n: ZeroDivisionError("bug") if r.id == "r-0" else None)
    requests = Requests(running)
    for path in paths(3):
        requests.start(path, request(path, max_tokens=2000))
    with pytest.raises(ZeroDivisionError):
        await drain(requests, 3)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(requests.close(), 5)
    assert not running.running


async def test_answers_are_read_beside_the_paths():
    requests = Requests(engine())
    (path,) = paths(1)

    async def reading() -> None:
        await asyncio.sleep(0)

    requests.read_answer(path, reading())
    assert not requests.is_idle
    assert await requests.next() == Answered(path)


async def test_close_ends_requests_and_readings_and_may_be_called_again():
    running = engine()
    requests = Requests(running)
    for path in paths(4):
        requests.start(path, request(path))
        requests.read_answer(path, asyncio.sleep(10**6))
    for _ in range(5):
        await requests.next()
    await asyncio.wait_for(requests.close(), 5)
    await requests.close()
    assert not running.running
    assert all(sent.has_ended for sent in running.sent.values())


async def test_events_from_outside_stand_in_line():
    requests = Requests(engine())
    requests.tell(Expired(TreeFinish.DEADLINE))
    assert await requests.next() == Expired(TreeFinish.DEADLINE)
