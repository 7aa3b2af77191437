"""Entropies that the running engine reports, against transformers on the same tokens."""

import asyncio
import itertools
import math

import pytest
import torch
from vllm import SamplingParams
from vllm.inputs import tokens_input

from tests.engine.runs import has_requests, prompt
from treepo.engines.entropy_ring import EntropyRing
from treepo.engines.entropy_segment import ENTROPY_KEY
from treepo.engines.vllm_entropy import entropy_is_available

CLOSE = 2e-3  # nats
numbers = itertools.count()


@pytest.fixture(scope="module")
def ring(engine):
    assert entropy_is_available(engine.client.vllm_config) == (True, "")
    ring = EntropyRing.create(64, 128)
    yield ring
    assert not ring.has_failed
    assert ring.num_free == 64
    ring.close()


async def generate(engine, root, slot=None, *, stop_after=None, extra_args=None, **options):
    """Tokens of one request, which is hung up on after `stop_after` of them."""
    options = {"max_tokens": 60, "temperature": 1.0, "ignore_eos": True, **options}
    params = SamplingParams(extra_args=slot.extra_args if slot else extra_args, **options)
    token_ids = []
    async for output in engine.client.generate(
        tokens_input(list(root)), params, f"entropy-{next(numbers)}"
    ):
        token_ids = list(output.outputs[0].token_ids)
        if stop_after is not None and len(token_ids) >= stop_after:
            break
    return token_ids


def expected(logits, temperature=1.0):
    logprobs = torch.log_softmax(logits.double() / temperature, -1)
    return (-(logprobs.exp() * logprobs).sum(-1)).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"seed": 2, "temperature": 0.6},
        {"seed": 3, "temperature": 1.7, "top_k": 5, "top_p": 0.8},
    ],
    ids=str,
)
async def test_entropies_are_those_of_the_distribution_at_the_requests_temperature(
    engine, reference, ring, options
):
    root, slot = prompt(45, seed=900), ring.acquire()
    token_ids = await generate(engine, root, slot, **options)
    values = slot.read(0, len(token_ids))
    slot.release()
    logits = reference.logits(root, token_ids)
    assert values == pytest.approx(expected(logits, options.get("temperature", 1.0)), abs=CLOSE)
    assert max(values) - min(values) > 0.5


async def test_entropies_are_those_after_penalties(engine, reference, ring):
    root, slot = prompt(40, seed=901), ring.acquire()
    token_ids = await generate(engine, root, slot, seed=4, presence_penalty=1.5)
    values = slot.read(0, len(token_ids))
    slot.release()
    logits = reference.logits(root, token_ids).clone()
    for position in range(len(token_ids)):
        logits[position, sorted(set(token_ids[:position]))] -= 1.5
    assert values == pytest.approx(expected(logits), abs=CLOSE)


async def test_every_row_of_a_changing_batch_gets_its_own(engine, reference, ring):
    """Requests of many lengths, some without a slot, some hung up on, with slots used again."""

    async def tree_path(number):
        root = prompt(5 + 3 * number, seed=910 + number)
        for turn in range(2):
            slot = ring.acquire()
            try:
                stop_after = 7 if (number + turn) % 3 == 0 else None
                options = {"seed": number, "temperature": 0.5 + number / 20}
                options["max_tokens"] = 10 + (7 * number + 13 * turn) % 40
                token_ids = await generate(engine, root, slot, stop_after=stop_after, **options)
                values = slot.read(0, len(token_ids))
            finally:
                slot.release()
            logits = reference.logits(root, token_ids)
            assert values == pytest.approx(expected(logits, options["temperature"]), abs=CLOSE)

    async def plain(number):
        root = prompt(9 + number, seed=950 + number)
        assert len(await generate(engine, root, max_tokens=5 + 6 * number)) == 5 + 6 * number

    paths = [tree_path(number) for number in range(20)]
    await asyncio.gather(*paths, *(plain(number) for number in range(8)))


async def test_a_branch_starts_with_the_entropy_its_trunk_forked_before(engine, ring):
    root, trunk, child = prompt(33, seed=902), ring.acquire(), ring.acquire()
    token_ids = await generate(engine, root, trunk, seed=5)
    fork = engine.info.block_size
    await generate(engine, [*root, *token_ids[:fork]], child, max_tokens=2)
    assert child.read(0, 1) == pytest.approx(trunk.read(fork, fork + 1), abs=CLOSE)
    trunk.release()
    child.release()


async def test_a_greedy_request_among_others_reports_its_entropy_at_temperature_one(
    engine, reference, ring
):
    root, slot = prompt(30, seed=903), ring.acquire()
    other = asyncio.create_task(generate(engine, prompt(4, seed=904), max_tokens=400))
    token_ids = await generate(engine, root, slot, temperature=0.0, max_tokens=20)
    await other
    values = slot.read(0, 20)
    slot.release()
    for value, entropy in zip(values, expected(reference.logits(root, token_ids)), strict=True):
        assert math.isnan(value) or value == pytest.approx(entropy, abs=CLOSE)
    assert sum(not math.isnan(value) for value in values) >= 10


@pytest.mark.parametrize(
    "forged",
    ["x", 7, [], ["treepo-entropy-" + "0" * 32, 0, 1], ["../../etc/passwd", 0, 1], [1.5] * 3],
    ids=str,
)
async def test_forged_slots_change_nothing(engine, forged):
    root = prompt(20, seed=905)
    plain = await generate(engine, root, seed=6, max_tokens=12)
    token_ids = await generate(
        engine, root, seed=6, max_tokens=12, extra_args={ENTROPY_KEY: forged}
    )
    assert token_ids == plain
    await engine.client.check_health()
    assert not await has_requests(engine)
