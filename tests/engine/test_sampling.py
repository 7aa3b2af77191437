"""Lengths, seeds, log-probs and the caller's own parameters, on the real engine."""

import asyncio
import math

import pytest
import torch
from vllm import SamplingParams

from tests.engine.runs import prompt, request, run
from treepo.engines.base import Uncertainty
from treepo.engines.entropy_ring import EntropyRing
from treepo.engines.vllm import VllmEngine


async def run_all(engine, paths):
    return await asyncio.gather(*(run(engine, path) for path in paths))


async def test_sixty_four_seeded_prompts_at_once_run_and_repeat(engine):
    def paths():
        return [
            request(prompt(64 + i, seed=300 + i), seed=i, temperature=1.0, max_tokens=48)
            for i in range(64)
        ]

    first = await run_all(engine, paths())
    assert {ended.finish_reason for ended in first} == {"length"}
    assert len({tuple(ended.token_ids) for ended in first}) == 64
    await engine.client.reset_prefix_cache()
    second = await run_all(engine, paths())
    assert [e.token_ids for e in second] == [e.token_ids for e in first]
    await engine.client.check_health()


async def test_a_seed_fixes_the_tokens_and_no_seed_does_not(engine):
    root = prompt(33, seed=400)
    seeds = [11, 11, 12, 2**63 - 1, None, None]
    runs = await run_all(engine, [request(root, seed=s, temperature=1.0) for s in seeds])
    texts = [tuple(ended.token_ids) for ended in runs]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 5


@pytest.mark.parametrize("max_tokens", [1, 2, 16, 17, 18, 100])
async def test_lengths_hold_whatever_the_chunks(engine, max_tokens):
    ended = await run(engine, request(prompt(20, seed=401), max_tokens=max_tokens))
    assert ended.finish_reason == "length"
    assert len(ended.token_ids) == max_tokens
    assert len(ended.chunks) <= 2 + max_tokens // 16


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_logprobs_are_those_of_the_sampling_distribution(engine, reference, temperature):
    root = prompt(50, seed=402)
    view = VllmEngine(engine.client)
    ended = await run(view, request(root, temperature=temperature, max_tokens=100))
    rows = reference.logprobs(root, ended.token_ids, temperature)
    expected = rows.gather(1, torch.tensor(ended.token_ids)[:, None])[:, 0].tolist()
    assert ended.logprobs == pytest.approx(expected, abs=1e-3)
    assert view.info.uncertainty is Uncertainty.SURPRISAL
    assert ended.uncertainty == [-logprob for logprob in ended.logprobs]
    assert ended.records == []
    entropy = -(rows.exp() * rows).sum(-1).mean().item()
    assert 0.5 < entropy < 0.8 * math.log(rows.shape[1])


async def test_entropies_arrive_with_their_tokens_and_cost_no_logprobs(engine, reference):
    ring = EntropyRing.create(4, 128)
    view = VllmEngine(engine.client, entropies=ring)
    assert view.info.uncertainty is Uncertainty.ENTROPY
    root = prompt(50, seed=407)
    paths = [request(root, temperature=0.8, wants_logprobs=False, max_tokens=100) for _ in range(4)]
    for ended in await run_all(view, paths):
        rows = reference.logprobs(root, ended.token_ids, 0.8)
        assert ended.uncertainty == pytest.approx((-rows.exp() * rows).sum(-1).tolist(), abs=2e-3)
        assert ended.logprobs == []
    assert ring.num_free == 4
    ring.close()


async def test_asked_for_alternatives_arrive_as_vllms_own_records(engine, reference):
    root = prompt(50, seed=403)
    ended = await run(engine, request(root, temperature=1.0, logprobs=3, max_tokens=40))
    rows = reference.logprobs(root, ended.token_ids)
    assert len(ended.records) == len(ended.token_ids) == 40
    for token, logprob, record, row in zip(
        ended.token_ids, ended.logprobs, ended.records, rows, strict=True
    ):
        assert record[token].logprob == logprob == pytest.approx(row[token].item(), abs=1e-3)
        assert set(row.topk(3).indices.tolist()) <= set(record)


async def test_no_logprobs_are_asked_for_where_nothing_needs_them(engine):
    view = engine.bind(without_uncertainty=True)
    assert view.info.uncertainty is Uncertainty.NONE
    root = prompt(40, seed=404)
    bare = await run(view, request(root, wants_logprobs=False))
    assert bare.logprobs == bare.uncertainty == []
    wanted = await run(view, request(root))
    assert len(wanted.logprobs) == len(wanted.token_ids)
    assert wanted.uncertainty == []


async def test_the_callers_own_parameters_are_kept_and_its_lengths_are_not(engine, reference):
    root = prompt(40, seed=405)
    plain = (await run(engine, request(root))).token_ids
    native = SamplingParams(
        temperature=0.0, max_tokens=999, stop=["x"], logit_bias={plain[0]: -100.0}
    )
    ended = await run(engine, request(root, native=native, max_tokens=24))
    first = reference.logits(root, ended.token_ids)[0].clone()
    first[plain[0]] = -math.inf
    assert ended.token_ids[0] == first.argmax().item() != plain[0]
    assert plain[0] not in ended.token_ids
    assert len(ended.token_ids) <= 24
    assert (native.max_tokens, native.stop) == (999, ["x"])


async def test_a_stop_token_ends_the_path_and_is_handed_on(engine, tokenizer):
    root = prompt(40, seed=406)
    plain = (await run(engine, request(root))).token_ids
    stop = next(token for token in plain[5:] if token not in plain[:5])
    ended = await run(engine, request(root, stop_token_ids=(stop,)))
    assert ended.finish_reason == "stop"
    assert ended.chunks[-1].stop_reason == stop
    assert ended.token_ids == plain[: plain.index(stop) + 1]
    many = [request(root, temperature=1.0, ignore_eos=False, max_tokens=300) for _ in range(32)]
    stopped = [e for e in await run_all(engine, many) if e.finish_reason == "stop"]
    assert stopped
    assert {e.token_ids[-1] for e in stopped} == {tokenizer.eos_token_id}
    assert {e.chunks[-1].stop_reason for e in stopped} == {None}
