"""What the adapter says to vLLM and makes of its answers, on a client that plays vLLM."""

import asyncio
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from vllm import SamplingParams
from vllm.exceptions import QueueOverflowError, RetryableRequestError, VLLMValidationError
from vllm.logprobs import FlatLogprobs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError
from vllm.v1.engine.exceptions import EngineGenerateError

from tests.engine.runs import request, run
from treepo.engines.base import Sampling, Uncertainty
from treepo.engines.vllm import VllmEngine
from treepo.engines.vllm_requests import to_params
from treepo.engines.vllm_settings import cpu_defaults, cpu_environment
from treepo.errors import EngineDeadError, EngineError


def output(token_ids, finish_reason=None, logprobs=None, num_cached_tokens=32):
    completion = SimpleNamespace(
        weight_versions=None,
        token_ids=token_ids,
        logprobs=logprobs,
        finish_reason=finish_reason,
        stop_reason=None,
    )
    return SimpleNamespace(outputs=[completion], num_cached_tokens=num_cached_tokens)


class PlayedClient:
    """Plays outputs, then raises `error` if there is one; an abort ends what waits for it."""

    def __init__(self, *outputs, error=None, ignored_aborts=0):
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(block_size=32, effective_attention_block_size=64),
            model_config=SimpleNamespace(max_model_len=4096),
            scheduler_config=SimpleNamespace(max_num_seqs=8),
        )
        self.outputs, self.error, self.ignored_aborts = outputs, error, ignored_aborts
        self.asked = []
        self.aborts = []
        self.is_aborted, self.was_asked, self.may_begin = (asyncio.Event() for _ in range(3))
        self.may_begin.set()
        self.was_closed = False

    async def generate(self, prompt, params, request_id, **context):
        """Play the outputs; None waits for an abort."""
        self.asked.append((prompt, params, request_id, context))
        self.was_asked.set()
        await self.may_begin.wait()
        try:
            for one in self.outputs:
                if one is None:
                    await self.is_aborted.wait()
                else:
                    yield one
        except GeneratorExit:
            self.was_closed = True
            raise
        if self.error is not None:
            raise self.error

    async def abort(self, request_ids):
        """End what waits, once enough aborts were ignored."""
        self.aborts.append(request_ids)
        if len(self.aborts) > self.ignored_aborts:
            self.is_aborted.set()


class PlayedRing:
    """One row whose values are read off a script, one list per reading."""

    def __init__(self, *readings, has_failed=False):
        self.readings, self.has_failed = list(readings), has_failed
        self.extra_args = {"row": 7}
        self.asked = []
        self.is_held = False

    def acquire(self):
        """The only row."""
        self.is_held = True
        return self

    def read(self, start, end):
        """The next reading of the script."""
        self.asked.append((start, end))
        return self.readings.pop(0)

    def release(self):
        """Take the row back."""
        self.is_held = False


async def test_every_request_of_a_tree_carries_its_context():
    client = PlayedClient(output([1, 2], "length"))
    context = {
        "lora_request": object(),
        "priority": 3,
        "data_parallel_rank": 1,
        "trace_headers": {"traceparent": "00"},
    }
    prompt = (5, 6, 7)
    path = request(prompt)
    await run(VllmEngine(client).bind(cache_salt="tenant", **context), path)
    sent, _, request_id, carried = client.asked[0]
    assert sent == {"type": "token", "prompt_token_ids": [5, 6, 7], "cache_salt": "tenant"}
    assert (request_id, carried) == (path.id, context)


def test_a_path_is_streamed_as_tokens_and_its_text_is_the_hosts():
    params = to_params(
        Sampling(max_tokens=9, min_tokens=12, seed=3, temperature=0.5, top_p=0.9, top_k=4),
        logprobs=None,
        stream_interval=16,
    )
    assert (params.max_tokens, params.min_tokens, params.seed) == (9, 9, 3)
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 4)
    assert (params.output_kind, params.stream_interval) == (RequestOutputKind.DELTA, 16)
    assert (params.n, params.detokenize, params.stop, params.logprobs) == (1, False, [], None)


def test_a_path_with_stop_strings_is_read_by_vllm_too():
    sampling = Sampling(max_tokens=9, stop=("done", "."), native=SamplingParams(stop=["other"]))
    for one in (sampling, replace(sampling, native=None)):
        params = to_params(one, logprobs=None, stream_interval=16)
        assert (params.stop, params.detokenize) == (["done", "."], True)


def test_the_callers_parameters_are_the_template_of_a_path():
    native = SamplingParams(
        n=4,
        max_tokens=500,
        min_tokens=20,
        seed=1,
        stop=["done"],
        presence_penalty=0.5,
        bad_words=["no"],
        stop_token_ids=[8],
        prompt_logprobs=2,
        extra_args={"theirs": 1, "row": 2},
    )
    sampling = Sampling(max_tokens=100, native=native)
    params = to_params(sampling, logprobs=5, stream_interval=8, extra_args={"row": 7})
    assert (params.n, params.max_tokens, params.min_tokens, params.seed) == (1, 100, 0, None)
    assert (params.stop, params.output_text_buffer_length) == ([], 0)
    assert (params.presence_penalty, params.bad_words) == (0.5, ["no"])
    assert (params.stop_token_ids, params.logprobs) == ([8], 5)
    assert (params.prompt_logprobs, params.skip_reading_prefix_cache) == (None, False)
    assert params.extra_args == {"theirs": 1, "row": 7}
    assert (native.n, native.max_tokens, native.stop) == (4, 500, ["done"])
    assert native.extra_args == {"theirs": 1, "row": 2}


@pytest.mark.parametrize(
    ("raised", "expected", "is_retryable"),
    [
        (VllmEngineDeadError(), EngineDeadError, False),
        (QueueOverflowError(), EngineError, True),
        (RetryableRequestError(), EngineError, True),
        (VLLMValidationError("too long"), EngineError, False),
        (EngineGenerateError(), EngineError, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_vllms_errors_become_ours(raised, expected, is_retryable):
    engine = VllmEngine(PlayedClient(output([1]), error=raised))
    with pytest.raises(EngineError) as caught:
        await run(engine, request([1, 2]))
    assert type(caught.value) is expected
    assert caught.value.is_retryable is is_retryable
    assert str(caught.value)


async def test_a_request_that_vllm_lost_may_be_sent_again_and_its_tokens_arrive():
    engine = VllmEngine(PlayedClient(output([1]), output([2, 3], "error")))
    stream = engine.generate(request([1, 2]))
    assert [(await anext(stream)).token_ids for _ in range(2)] == [[1], [2, 3]]
    with pytest.raises(EngineError) as caught:
        await anext(stream)
    assert caught.value.is_retryable


async def test_a_request_aborted_before_vllm_heard_of_it_never_reaches_it():
    client = PlayedClient(output([1], "length"))
    engine = VllmEngine(client)
    path = request([1, 2])
    task = asyncio.create_task(run(engine, path))
    await engine.abort([path.id])
    assert (await task).finish_reason == "abort"
    assert client.asked == []


async def test_an_abort_that_overtakes_its_request_is_repeated():
    client = PlayedClient(output([1]), None, output([2], "abort"), ignored_aborts=1)
    client.may_begin.clear()
    engine = VllmEngine(client)
    path = request([1, 2])
    task = asyncio.create_task(run(engine, path))
    await client.was_asked.wait()
    await engine.abort([path.id])
    client.may_begin.set()
    ended = await task
    assert (ended.token_ids, ended.finish_reason) == ([1, 2], "abort")
    assert client.aborts == [[path.id]] * 2
    assert not client.was_closed


async def test_a_listener_that_leaves_never_closes_vllms_generator():
    client = PlayedClient(output([1]), None, output([2, 3], "abort"))
    engine = VllmEngine(client)
    stream = engine.generate(request([1, 2]))
    await anext(stream)
    await stream.aclose()
    await engine.drain()
    assert not client.was_closed
    assert engine.unheard_tokens == 2


async def test_surprisal_is_minus_the_drawn_tokens_logprob():
    records = FlatLogprobs()
    for token, others in ((4, (0.5, 6)), (5, (0.25, 8))):
        records.append_fast([token, others[1]], [-others[0], -0.1], [2, 1], [None, None])
    client = PlayedClient(output([4, 5], "stop", records))
    ended = await run(VllmEngine(client), request([1], logprobs=1))
    assert ended.logprobs == [-0.5, -0.25]
    assert ended.uncertainty == [0.5, 0.25]
    assert [set(record) for record in ended.records] == [{4, 6}, {5, 8}]


async def test_tokens_wait_for_their_entropies_and_at_the_end_no_longer():
    nan = math.nan
    ring = PlayedRing([nan], [1.0, 2.0, nan], [3.0, 4.0, nan])
    client = PlayedClient(output([1]), output([2, 3]), output([4, 5], "length"))
    engine = VllmEngine(client, entropies=ring)
    assert engine.info.uncertainty is Uncertainty.ENTROPY
    ended = await run(engine, request([9] * 33, wants_logprobs=False))
    assert [list(chunk.token_ids) for chunk in ended.chunks] == [[], [1, 2], [3, 4, 5]]
    assert ended.uncertainty[:4] == [1.0, 2.0, 3.0, 4.0]
    assert math.isnan(ended.uncertainty[4])
    assert [chunk.num_cached_tokens for chunk in ended.chunks] == [32, None, None]
    assert ring.asked == [(0, 1), (0, 3), (2, 5)]
    assert not ring.is_held
    params = client.asked[0][1]
    assert (params.logprobs, params.extra_args) == (None, {"row": 7})


async def test_tokens_do_not_wait_for_entropies_that_are_lost():
    ring = PlayedRing([math.nan] * 5, [])
    client = PlayedClient(output([1, 2, 3, 4, 5]), output([], "length"))
    ended = await run(VllmEngine(client, entropies=ring), request([1]))
    assert [len(chunk.token_ids) for chunk in ended.chunks] == [5, 0]


def test_once_the_ring_has_failed_new_trees_report_surprisal():
    engine = VllmEngine(PlayedClient(), entropies=PlayedRing(has_failed=True))
    assert engine.bind().info.uncertainty is Uncertainty.SURPRISAL


def test_a_context_parallel_block_counts_all_its_tokens():
    info = VllmEngine(PlayedClient()).info
    assert (info.block_size, info.max_model_len, info.max_live_paths) == (64, 4096, 8)


def test_cpu_settings_leave_alone_what_is_chosen():
    chosen = {"dtype": "bfloat16", "max_num_batched_tokens": 4096, "gpu_memory_utilization": 0.5}
    filled = cpu_defaults(chosen)
    assert filled.keys() == {"block_size", "enforce_eager", "max_num_seqs"}
    assert cpu_defaults({})["enable_chunked_prefill"] is False
    assert cpu_environment(1, {}, [1, 0])["VLLM_CPU_OMP_THREADS_BIND"] == "0,1"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in cpu_environment(1, {}, range(64))
    assert cpu_environment(1, dict.fromkeys(cpu_environment(1, {}, [0]), "x"), [0]) == {}


def test_nothing_is_compiled_where_there_is_no_compiler():
    assert cpu_environment(1, {"CXX": "no-such-compiler"}, [0])["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in cpu_environment(1, {"CXX": sys.executable}, [0])
