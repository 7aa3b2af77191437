"""The scripted engine does what it says, so that laws tested on it mean something."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.machines import chain, coin, endless
from tests.support.scenarios import machines
from treepo.engines.base import PathRequest, Sampling, Uncertainty
from treepo.engines.scripted import EOS, Script, ScriptedEngine, TokenMachine
from treepo.errors import EngineError

TABLE = {"s": {1: (0.5, "s"), 2: (0.25, "t"), EOS: (0.25, "s")}, "t": {3: (1.0, "s")}}


def request(prompt=(1,), inherited=(), name="r", **sampling) -> PathRequest:
    options = {"max_tokens": 20, "seed": 1} | sampling
    return PathRequest(name, "t", [*prompt, *inherited], len(inherited), Sampling(**options))


async def run(engine: ScriptedEngine, asked: PathRequest) -> list:
    return [chunk async for chunk in engine.generate(asked)]


def tokens(chunks) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


def test_a_table_that_is_no_law_is_refused():
    with pytest.raises(ValueError, match=r"sum to 0\.5"):
        TokenMachine({"s": {1: (0.5, "s")}}, "s")
    with pytest.raises(ValueError, match="unknown state 'x'"):
        TokenMachine({"s": {1: (1.0, "x")}}, "s")


@given(machines())
def test_distributions_are_those_of_the_table_and_sum_to_one(machine):
    for state in machine._states:
        law = machine.distribution(state)
        assert sum(p for p, _ in law.values()) == pytest.approx(1.0)


async def test_draws_follow_the_table_with_its_log_probs_and_entropies():
    engine = ScriptedEngine(TokenMachine(TABLE, "s"), Script(chunk_tokens=7))
    seen: Counter[int] = Counter()
    for seed in range(3000):
        chunks = await run(engine, request(seed=seed, max_tokens=1))
        seen[tokens(chunks)[0]] += 1
        (chunk,) = chunks
        assert chunk.logprobs == [math.log(TABLE["s"][chunk.token_ids[0]][0])]
        assert chunk.uncertainty == [pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))]
    for token, (p, _) in TABLE["s"].items():
        assert abs(seen[token] - 3000 * p) < 4.5 * math.sqrt(3000 * p * (1 - p))


async def test_a_seed_decides_alone_and_without_one_the_scripts_seed_and_the_order_do():
    script = Script(chunk_tokens=4, seed=5)
    asked = request(max_tokens=50)
    first = tokens(await run(ScriptedEngine(coin(), script), asked))
    engine = ScriptedEngine(coin(), script)
    await run(engine, request(seed=99))
    assert tokens(await run(engine, asked)) == first
    free = request(max_tokens=50, seed=None)
    both = [tokens(await run(engine, free)) for _ in range(2)]
    again = ScriptedEngine(coin(), script)
    await run(again, asked)
    await run(again, asked)
    assert [tokens(await run(again, free)) for _ in range(2)] == both
    assert both[0] != both[1]


async def test_a_path_goes_on_from_the_state_its_inherited_tokens_lead_to():
    engine = ScriptedEngine(chain("abcdef"))
    assert tokens(await run(engine, request(inherited=(1, 2, 3)))) == [4, 5, 6, EOS]


async def test_what_ends_a_path_is_said_as_vllm_says_it():
    engine = ScriptedEngine(chain("abc"), Script(chunk_tokens=2))
    ends = [
        (await run(engine, request(**sampling)))[-1]
        for sampling in ({}, {"max_tokens": 2}, {"stop_token_ids": (3,)})
    ]
    assert [(c.finish_reason, c.stop_reason) for c in ends] == [
        ("stop", None), ("length", None), ("stop", 3),
    ]  # fmt: skip


async def test_the_end_of_sequence_can_be_ignored():
    engine = ScriptedEngine(coin(stop=0.5), Script(chunk_tokens=4))
    drawn = tokens(await run(engine, request(max_tokens=40, ignore_eos=True)))
    assert len(drawn) == 40
    assert EOS in drawn[:-1]


@pytest.mark.parametrize("chunk", [1, 3, 50])
async def test_no_path_ends_before_min_tokens_and_the_rest_of_the_law_stays(chunk):
    engine = ScriptedEngine(TokenMachine(TABLE, "s"), Script(chunk_tokens=chunk))
    lengths: Counter[int] = Counter()
    first: Counter[int] = Counter()
    for seed in range(900):
        chunks = await run(engine, request(seed=seed, min_tokens=3, max_tokens=30))
        drawn = tokens(chunks)
        lengths[len(drawn)] += 1
        first[drawn[0]] += 1
        assert EOS not in drawn[:3]
    assert min(lengths) == 4
    assert abs(first[1] - 600) < 4.5 * math.sqrt(900 * 2 / 9)


@given(
    block=st.integers(1, 5),
    prompts=st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=20), min_size=1, max_size=6),
)
def test_cache_hits_are_the_longest_known_run_of_full_blocks(block, prompts):
    engine = ScriptedEngine(endless(), Script(block_size=block))
    known: set[tuple[int, ...]] = set()
    for prompt in prompts:
        hits = 0
        while hits + block < len(prompt) and tuple(prompt[: hits + block]) in known:
            hits += block
        assert engine._admit(prompt) == hits
        engine._cache.extend(0, [], prompt)
        known |= {tuple(prompt[:end]) for end in range(block, len(prompt) + 1, block)}


async def test_generated_blocks_are_cached_while_the_path_still_runs():
    engine = ScriptedEngine(endless(), Script(chunk_tokens=4, block_size=4))
    stream = engine.generate(request(max_tokens=100))
    await anext(stream)
    chunks = await run(engine, request(inherited=(1,) * 4, name="child", max_tokens=1))
    assert chunks[0].num_cached_tokens == 4
    await stream.aclose()
    assert engine.counters.running == 0


@pytest.mark.parametrize("overrun", [0, 3])
async def test_an_abort_ends_a_running_request_with_what_was_generated_meanwhile(overrun):
    engine = ScriptedEngine(endless(), Script(chunk_tokens=4, overrun_tokens=overrun))
    stream = engine.generate(request(max_tokens=100))
    chunks = [await anext(stream)]
    await engine.abort(["r", "unknown"])
    chunks += [chunk async for chunk in stream]
    assert [len(chunk.token_ids) for chunk in chunks] == [4, overrun]
    assert chunks[-1].finish_reason == "abort"
    assert engine.counters.aborted == 1


async def test_an_abort_of_a_request_that_is_not_running_does_nothing_also_later():
    engine = ScriptedEngine(chain("abc"))
    await engine.abort(["r"])
    assert tokens(await run(engine, request())) == [1, 2, 3, EOS]
    await engine.abort(["r"])
    assert tokens(await run(engine, request())) == [1, 2, 3, EOS]


async def test_a_scripted_failure_comes_before_any_token():
    engine = ScriptedEngine(
        endless(), Script(failure=lambda r: EngineError("full") if r.id == "r" else None)
    )
    with pytest.raises(EngineError, match="full"):
        await run(engine, request())
    assert engine.counters.requests == 0
    assert await run(engine, request(name="other"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Uncertainty.SURPRISAL, [math.log(2)]), (Uncertainty.NONE, [])],
)
async def test_it_reports_the_figure_it_is_told_to(kind, expected):
    engine = ScriptedEngine(coin(), Script(uncertainty=kind))
    assert engine.info.uncertainty is kind
    (chunk,) = await run(engine, request(max_tokens=1))
    assert chunk.uncertainty == pytest.approx(expected)


async def test_counters_add_up():
    engine = ScriptedEngine(coin(), Script(chunk_tokens=4, block_size=2))
    for number in range(3):
        await run(engine, request(prompt=(1, 1, 1), name=str(number), max_tokens=7, seed=number))
    counters = engine.counters
    assert (counters.requests, counters.running, counters.most_running) == (3, 0, 1)
    assert (counters.generated_tokens, counters.prompt_tokens) == (21, 9)
    assert counters.cached_tokens == 2 * 2
