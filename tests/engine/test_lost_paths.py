"""When vLLM itself refuses or ends one request of a tree, the rest and all other trees go on."""

import asyncio

import pytest
from vllm.exceptions import VLLMValidationError

from tests.engine.runs import is_left_empty, num_generated_tokens, prompt
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.vllm import VllmEngine
from treepo.sampler import Job, Silent, sample_tree

LENGTH = 400


class Opened(Silent):
    """Says when a path has had its first tokens."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.has_begun = asyncio.Event()

    def extended(self, path, chunk, num_kept):
        if path.id == self.number:
            self.has_begun.set()


def job(name: str, seed: int, observer=None) -> Job:
    config = TreeConfig(width=4, segment_tokens=32, branching="even", root_branching=2)
    sampling = Sampling(LENGTH, ignore_eos=True)
    more = {} if observer is None else {"observer": observer}
    return Job(prompt(65, seed=seed), sampling, config, id=name, **more)


def assert_lost(tree, number):
    """One path is missing, was replaced, and the tree says so."""
    assert [note for note in tree.notes if note.startswith(f"path {number} was lost")]
    assert len(tree.trajectories) == 4
    assert not tree.weights_exact
    assert number not in {tree.nodes[t.leaf].path for t in tree.trajectories}


async def test_a_request_that_somebody_else_aborts_costs_one_path(engine):
    before = num_generated_tokens()
    watch = Opened(1)
    hit = asyncio.create_task(sample_tree(engine, job("hit", 300, watch)))
    other = asyncio.create_task(sample_tree(engine, job("other", 301)))
    await watch.has_begun.wait()
    await engine.client.abort(["hit-1"])
    hit, other = await asyncio.gather(hit, other)
    assert_lost(hit, 1)
    assert len(other.trajectories) == 4
    assert not other.notes
    generated = hit.stats.generated_tokens + other.stats.generated_tokens
    assert generated == num_generated_tokens() - before
    assert await is_left_empty(engine)


class Refusing:
    """The real client, but for one request."""

    def __init__(self, client, request_id):
        self._client, self._request_id = client, request_id

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def generate(self, prompt, params, request_id, **options):
        if request_id == self._request_id:
            raise VLLMValidationError("refused")
        async for output in self._client.generate(prompt, params, request_id, **options):
            yield output


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_request_that_vllm_refuses_costs_one_path(engine, number):
    refusing = VllmEngine(Refusing(engine.client, f"hit-{number}"))
    hit, other = await asyncio.gather(
        sample_tree(refusing, job("hit", 310 + number)), sample_tree(engine, job("other", 320))
    )
    assert_lost(hit, number)
    assert len(other.trajectories) == 4
    assert not other.notes
    assert await is_left_empty(engine)
