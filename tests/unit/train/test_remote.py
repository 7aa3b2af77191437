"""Trees from hosts over HTTP: their records, who is asked next, and weights for all hosts."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.support.machines import coin
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.scripted import ScriptedEngine
from treepo.errors import EngineDeadError, EngineError
from treepo.rollout.record import VERSION, Rollout, decode, encode, tree_values
from treepo.sampler import Job, sample_tree
from treepo.train import remote_hosts
from treepo.train.remote import HostRollouts
from treepo.train.remote_hosts import HostPool
from treepo.train.rollouts import Ask

TREE = TreeConfig(width=4, branching="even", segment_tokens=16)
SAMPLING = Sampling(64, seed=3)
URLS = ["http://a", "http://b/v1/"]


def ask(number: int = 0) -> Ask:
    return Ask(f"ask-{number}", (1, 2, 3 + number), TREE, SAMPLING)


class Fleet:
    """Hosts behind one transport: each samples with a scripted engine and takes weights."""

    def __init__(self) -> None:
        self.answers: dict[str, list[httpx.Response | Exception]] = {"a": [], "b": []}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.bodies: list[dict] = []
        self.versions = {"a": "", "b": ""}
        self.running: Counter[str] = Counter()
        self.most_running = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        host, path = request.url.host, request.url.path
        self.calls[host, path] += 1
        if self.answers[host]:
            answer = self.answers[host].pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        body = json.loads(request.content or "{}")
        if path == "/v1/completions":
            return await self._tree(host, body)
        if path == "/update_weight_version":
            self.versions[host] = body["new_version"]
        return httpx.Response(200, json={"success": True})

    async def _tree(self, host: str, body: dict) -> httpx.Response:
        self.bodies.append(body)
        self.running[host] += 1
        self.most_running = max(self.most_running, self.running[host])
        tree = await here(body["prompt"], body["seed"])
        self.running[host] -= 1
        tree = replace(tree, id="cmpl", weight_version=self.versions[host])
        record = {"rollout": VERSION, "key": "cmpl", "tree": tree_values(tree)}
        return httpx.Response(200, json={"tree": {"record": record}})

    def rollouts(self, urls: list[str] = URLS, **options) -> HostRollouts:
        pool = HostPool(urls, transport=httpx.MockTransport(self), **options)
        return HostRollouts(pool, Sync(pool))


class Sync:
    """A `WeightSync` whose folder is made up."""

    def __init__(self, pool: HostPool) -> None:
        self.pool = pool

    async def push(self, source, version: int) -> None:
        await self.pool.load_folder(Path("/weights"), str(version))


async def here(prompt: list[int], seed: int):
    """The tree of an engine of this process."""
    return await sample_tree(
        ScriptedEngine(coin((1, 2, 3), stop=0.02)),
        Job(tuple(prompt), replace(SAMPLING, seed=seed), TREE, "tree"),
    )


def saved(tree):
    """The tree as a rollout file keeps it: log-probs rounded, clocks left out."""
    tree = replace(tree, stats=replace(tree.stats, duration_s=0.0))
    return decode(encode(Rollout("key", tree))).tree


@pytest.fixture
def fleet(monkeypatch) -> Fleet:
    monkeypatch.setattr(remote_hosts, "_REST_S", 0.0)
    return Fleet()


async def test_trees_come_in_order_and_equal_those_of_an_engine_of_this_process(fleet):
    asks = [ask(n) for n in range(5)]
    trees = await fleet.rollouts().sample(asks)
    for one, tree in zip(asks, trees, strict=True):
        expected = replace(await here(list(one.prompt_token_ids), 3), id=one.id)
        assert saved(tree) == saved(expected)
    assert {host for host, _ in fleet.calls} == {"a", "b"}


async def test_every_sampling_parameter_is_sent(fleet):
    await fleet.rollouts().sample([ask()])
    body = fleet.bodies[0]
    assert {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "seed": 3}.items() <= (
        body.items()
    )
    assert body["tree"] == {**TREE.model_dump(mode="json"), "include": ["record"]}


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("gone"),
        httpx.Response(500),
        httpx.Response(503),
    ],
    ids=["connect", "read", "500", "503"],
)
async def test_what_fails_on_one_host_is_asked_of_another(fleet, failure):
    fleet.answers["a"] = [failure] * 3
    trees = await fleet.rollouts(concurrency=1).sample([ask(n) for n in range(4)])
    assert all(not isinstance(tree, EngineError) for tree in trees)


async def test_a_busy_host_is_left_alone_for_as_long_as_it_says(fleet):
    fleet.answers["a"] = [httpx.Response(429, headers={"Retry-After": "3600"})] * 2
    trees = await fleet.rollouts(concurrency=1).sample([ask(n) for n in range(4)])
    assert all(not isinstance(tree, EngineError) for tree in trees)
    assert fleet.calls["a", "/v1/completions"] == 1


async def test_a_host_that_says_at_once_is_asked_again(fleet):
    fleet.answers["a"] = [httpx.Response(429, headers={"Retry-After": "0"})] * 9
    (tree,) = await fleet.rollouts(["http://a"]).sample([ask()])
    assert tree.id == "ask-0"


async def test_a_refusal_is_told_and_not_repeated(fleet):
    message = {"error": {"message": "`tree.width` is 4"}}
    fleet.answers["a"] = [httpx.Response(400, json=message)]
    first, second = await fleet.rollouts(["http://a"]).sample([ask(0), ask(1)])
    assert isinstance(first, EngineError)
    assert "http://a refused: 400 `tree.width` is 4" in str(first)
    assert second.id == "ask-1"
    assert fleet.calls["a", "/v1/completions"] == 2


async def test_an_answer_without_a_whole_tree_is_an_error_of_its_ask(fleet):
    fleet.answers["a"] = [httpx.Response(200, json={"choices": []})]
    (error,) = await fleet.rollouts(["http://a"]).sample([ask()])
    assert "no `tree.record`" in str(error)


async def test_no_host_gets_more_at_a_time_than_it_may(fleet):
    await fleet.rollouts(concurrency=2).sample([ask(n) for n in range(12)])
    assert fleet.most_running == 2


async def test_when_no_host_answers_nothing_will_be_sampled(fleet):
    for host in ("a", "b"):
        fleet.answers[host] = [httpx.ConnectError("refused")] * 20
    with pytest.raises(EngineDeadError, match="no host answers: http://a: ConnectError"):
        await fleet.rollouts().sample([ask(0), ask(1)])


async def test_a_push_reaches_every_host_step_by_step(fleet):
    rollouts = fleet.rollouts()
    await rollouts.push(None, 7)
    trees = await rollouts.sample([ask(n) for n in range(4)])
    assert {tree.weight_version for tree in trees} == {"7"}
    steps = ["pause", "collective_rpc", "reset_prefix_cache", "update_weight_version", "resume"]
    assert [path for host, path in fleet.calls if host == "a"] == [
        *(f"/{step}" for step in steps),
        "/v1/completions",
    ]


async def test_a_host_without_the_new_weights_is_not_asked(fleet, caplog):
    rollouts = fleet.rollouts()
    fleet.answers["a"] = [httpx.Response(404)]
    await rollouts.push(None, 1)
    assert "VLLM_SERVER_DEV_MODE=1" in caplog.text
    trees = await rollouts.sample([ask(n) for n in range(4)])
    assert {tree.weight_version for tree in trees} == {"1"}
    assert fleet.calls["a", "/v1/completions"] == 0
    await rollouts.push(None, 2)
    await rollouts.sample([ask(n) for n in range(4)])
    assert fleet.calls["a", "/v1/completions"] > 0


async def test_a_tree_of_other_weights_is_refused_and_its_host_not_asked_again(fleet):
    rollouts = fleet.rollouts(concurrency=1)
    await rollouts.push(None, 1)
    fleet.versions["a"] = ""
    results = await rollouts.sample([ask(n) for n in range(6)])
    errors = [result for result in results if isinstance(result, EngineError)]
    assert len(errors) == 1
    assert "the weights '' instead of '1'" in str(errors[0])
    assert fleet.calls["a", "/v1/completions"] == 1


async def test_weights_that_no_host_takes_end_the_run(fleet):
    for host in ("a", "b"):
        fleet.answers[host] = [
            httpx.Response(200, json={}),
            httpx.Response(500),
            httpx.Response(200),
        ]
    with pytest.raises(EngineDeadError, match="no host took the new weights"):
        await fleet.rollouts().push(None, 1)


async def test_a_cancelled_sample_leaves_no_request_behind(fleet):
    started, never = asyncio.Event(), asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        started.set()
        await never.wait()
        return httpx.Response(200)

    pool = HostPool(["http://a"], transport=httpx.MockTransport(hang))
    task = asyncio.create_task(HostRollouts(pool, Sync(pool)).sample([ask()]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.hosts[0].num_running == 0
