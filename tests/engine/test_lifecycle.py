"""Every request leaves the engine, however it ends, and no token goes uncounted."""

import asyncio

import pytest

from tests.engine.runs import (
    Run,
    has_requests,
    holds_blocks,
    is_left_empty,
    num_generated_tokens,
    prompt,
    read_until,
    request,
    run,
)
from treepo.errors import EngineError


async def test_a_path_that_ends_by_itself_leaves_nothing(engine):
    before = num_generated_tokens()
    ended = await run(engine, request(prompt(70, seed=200), max_tokens=100))
    assert ended.finish_reason == "length"
    assert len(ended.token_ids) == num_generated_tokens() - before == 100
    assert await is_left_empty(engine)


async def test_an_aborted_path_ends_with_a_chunk_and_all_its_tokens(engine):
    before = num_generated_tokens()
    paths = [request(prompt(50, seed=201 + i), max_tokens=1500) for i in range(4)]
    streams = [engine.generate(path) for path in paths]
    heads = await asyncio.gather(*(read_until(stream, 20) for stream in streams))
    assert await has_requests(engine)
    assert await holds_blocks(engine)
    await engine.abort([path.id for path in paths])
    tails = [[chunk async for chunk in stream] for stream in streams]
    runs = [Run(head + tail) for head, tail in zip(heads, tails, strict=True)]
    assert {ended.finish_reason for ended in runs} == {"abort"}
    assert all(len(ended.token_ids) < 1500 for ended in runs)
    assert sum(len(ended.token_ids) for ended in runs) == num_generated_tokens() - before
    assert await is_left_empty(engine)


async def test_an_aborted_trunk_leaves_its_branch_running(engine, reference):
    block = engine.info.block_size
    root = prompt(block, seed=210)
    path = request(root, max_tokens=1500)
    trunk = engine.generate(path)
    chunks = await read_until(trunk, block + 1)
    prefix = root + [token for chunk in chunks for token in chunk.token_ids][: block + 1]
    child = engine.generate(request(prefix, block + 1, max_tokens=200))
    head = await anext(child)
    assert head.num_cached_tokens == 2 * block
    await engine.abort([path.id])
    assert [chunk async for chunk in trunk][-1].finish_reason == "abort"
    rest = Run([head, *[chunk async for chunk in child]])
    assert rest.token_ids == reference.greedy(prefix, rest.token_ids)
    assert len(rest.token_ids) == 200
    assert await is_left_empty(engine)


async def test_an_abort_in_the_same_turn_as_the_start_is_not_lost(engine):
    path = request(prompt(40, seed=211), max_tokens=1500)
    task = asyncio.create_task(run(engine, path))
    await engine.abort([path.id])
    ended = await task
    assert ended.finish_reason == "abort"
    assert ended.token_ids == []
    assert await is_left_empty(engine)


async def test_unknown_and_finished_ids_are_ignored_by_abort(engine):
    path = request(prompt(40, seed=212), max_tokens=8)
    assert (await run(engine, path)).finish_reason == "length"
    await engine.abort([path.id, "never-heard-of"])
    again = await run(engine, path)
    assert again.finish_reason == "length"
    assert len(again.token_ids) == 8


@pytest.mark.parametrize("way", ["cancel", "close"])
async def test_a_listener_that_leaves_ends_the_path_and_its_tokens_are_counted(engine, way):
    before, unheard = num_generated_tokens(), engine.unheard_tokens
    heard: list[int] = []
    has_begun = asyncio.Event()

    async def listen() -> None:
        async for chunk in stream:
            heard.extend(chunk.token_ids)
            has_begun.set()

    stream = engine.generate(request(prompt(40, seed=213), max_tokens=1500))
    if way == "cancel":
        task = asyncio.create_task(listen())
        await has_begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    else:
        heard.extend((await anext(stream)).token_ids)
        await stream.aclose()
    assert await is_left_empty(engine)
    generated = num_generated_tokens() - before
    assert generated < 1500
    assert len(heard) + engine.unheard_tokens - unheard == generated


async def test_a_prompt_that_is_too_long_is_refused_and_the_engine_goes_on(engine):
    with pytest.raises(EngineError) as caught:
        await run(engine, request(prompt(engine.info.max_model_len + 1, seed=214)))
    assert not caught.value.is_retryable
    assert (await run(engine, request(prompt(40, seed=215), max_tokens=4))).chunks
    assert await is_left_empty(engine)


async def test_a_full_queue_is_an_error_that_may_be_retried(engine, monkeypatch):
    monkeypatch.setattr(engine.client.scheduler_config, "max_num_queued_reqs", 1)
    path = request(prompt(40, seed=216), max_tokens=1500)
    stream = engine.generate(path)
    head = await anext(stream)
    with pytest.raises(EngineError) as caught:
        await run(engine, request(prompt(40, seed=217)))
    assert caught.value.is_retryable
    await engine.abort([path.id])
    assert Run([head, *[chunk async for chunk in stream]]).finish_reason == "abort"
    assert await is_left_empty(engine)
