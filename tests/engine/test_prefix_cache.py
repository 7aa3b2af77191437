"""What a branch costs, and that it continues the trunk and nothing else."""

import pytest

from tests.engine.runs import prompt, read_until, request, run


@pytest.mark.parametrize(
    ("beyond_block", "num_recomputed"), [(1, 1), (2, 2), (31, 31), (0, 32)], ids=str
)
async def test_a_branch_recomputes_what_lies_behind_the_last_block_while_the_trunk_runs(
    engine, reference, beyond_block, num_recomputed
):
    block = engine.info.block_size
    root = prompt(3 * block, seed=beyond_block)
    trunk = engine.generate(request(root, max_tokens=400))
    length = 6 * block + beyond_block
    chunks = await read_until(trunk, length - len(root))
    so_far = [token for chunk in chunks for token in chunk.token_ids]
    prefix = [*root, *so_far][:length]
    child = await run(engine, request(prefix, length - len(root), max_tokens=40))
    later = [chunk async for chunk in trunk]
    assert later[-1].finish_reason == "length"
    assert length - child.num_cached_tokens == num_recomputed
    whole = so_far + [token for chunk in later for token in chunk.token_ids]
    assert len(whole) == 400
    assert whole == reference.greedy(root, whole)
    assert child.token_ids == reference.greedy(prefix, child.token_ids)


async def test_siblings_forked_at_once_each_recompute_one_token(engine, reference):
    block = engine.info.block_size
    root = prompt(2 * block + 1, seed=100)
    await run(engine, request(root, max_tokens=1))
    sampling = {"temperature": 1.0, "max_tokens": 3 * block}
    streams = [engine.generate(request(root, **sampling)) for _ in range(8)]
    runs = [[chunk async for chunk in stream] for stream in streams]
    assert {run[0].num_cached_tokens for run in runs} == {2 * block}
    assert len({tuple(token for c in run for token in c.token_ids) for run in runs}) == 8


async def test_a_salt_keeps_caches_apart(engine):
    block = engine.info.block_size
    root = prompt(4 * block + 1, seed=101)
    salted, other = engine.bind(cache_salt="one"), engine.bind(cache_salt="two")
    found = [
        (await run(view, request(root, max_tokens=1))).num_cached_tokens
        for view in (engine, salted, other, engine, salted, other)
    ]
    assert found == [0, 0, 0, 4 * block, 4 * block, 4 * block]
