"""Trees beside each other: what is let in, what is lost, what ends them, what they leave behind."""

import asyncio

import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

from tests.support.played_vllm import PROMPT, PlayedVllm, asked, service
from treepo.errors import DrainingError, EngineError, FieldError
from treepo.tree import Finish, TreeFinish
from treepo_server.trees.client import TreeClient

LIMIT_S = 20.0
LONG = 4000


def params(max_tokens=40):
    return SamplingParams(max_tokens=max_tokens)


def sampled(trees, request_id="r", max_tokens=40, **options):
    """A tree in its task, as it begins once vLLM's handler asks for the first output."""
    plan = trees.plan(asked(), PROMPT, params(max_tokens), request_id, options)
    return trees.start(plan, PROMPT, options)


async def settle(turns=20):
    for _ in range(turns):
        await asyncio.sleep(0)


async def read(outputs):
    return [output async for output in outputs]


async def test_a_priority_that_the_engine_would_not_heed_is_refused_by_name():
    trees = service(PlayedVllm())
    with pytest.raises(FieldError, match="--scheduling-policy priority") as caught:
        trees.plan(asked(), PROMPT, params(), "r", {"priority": 3})
    assert (caught.value.field, caught.value.value) == ("priority", 3)
    assert trees.plan(asked(), PROMPT, params(), "r", {"priority": 0})


async def test_where_the_engine_schedules_by_priority_every_path_carries_it():
    client = PlayedVllm(policy="priority")
    await sampled(service(client), priority=-2)
    assert {options["priority"] for _, options in client.asked} == {-2}


async def test_a_later_turn_comes_with_vllms_own_priority_and_is_taken():
    client = PlayedVllm()
    tree = TreeClient(service(client), asked())
    for turn, priority in enumerate([0, -1]):
        assert await read(tree.generate(PROMPT, params(), f"r_{turn}", priority=priority))
    assert len(tree.answers) == 2


async def test_a_request_that_was_let_in_ends_its_turns_while_the_server_drains():
    trees = service(PlayedVllm())
    deadline = asyncio.get_running_loop().time() + LIMIT_S
    tree = TreeClient(trees, asked())
    await read(tree.generate(PROMPT, params(), "r_0"))
    await trees.drain(deadline, asyncio.Event())
    assert await read(tree.generate(PROMPT, params(), "r_1"))
    assert tree.answer.outcome.tree.finish is TreeFinish.COMPLETE
    with pytest.raises(DrainingError):
        TreeClient(trees, asked()).generate(PROMPT, params(), "other")


async def test_a_later_turn_answers_with_what_it_has_when_the_grace_time_is_over():
    trees = service(PlayedVllm())
    hurry = asyncio.Event()
    tree = TreeClient(trees, asked())
    await read(tree.generate(PROMPT, params(), "r_0"))
    await trees.drain(asyncio.get_running_loop().time() + LIMIT_S, hurry)
    turn = asyncio.create_task(read(tree.generate(PROMPT, params(LONG), "r_1")))
    await settle()
    hurry.set()
    assert await asyncio.wait_for(turn, LIMIT_S)
    assert tree.answer.outcome.tree.finish is TreeFinish.CANCELLED


@pytest.mark.parametrize("num_chunks", [0, 3])
async def test_a_request_that_vllm_refuses_costs_its_tree_one_path_and_others_nothing(num_chunks):
    def lose(request_id, number):
        is_hit = request_id.startswith("tree-hit") and request_id.endswith("-1")
        return VLLMValidationError("no") if is_hit and number == num_chunks else None

    client = PlayedVllm(lose=lose)
    trees = service(client)
    hit, other = await asyncio.gather(sampled(trees, "hit"), sampled(trees, "other"))
    assert len(hit.trajectories) == len(other.trajectories) == 4
    assert not hit.weights_exact
    assert [note for note in hit.notes if note.startswith("path 1 was lost")]
    assert [node.finish for node in hit.nodes].count(Finish.FAILED) <= 1
    assert not other.notes
    assert client.generated == sum(t.stats.generated_tokens for t in (hit, other))


async def test_a_tree_that_loses_every_path_is_an_error_and_leaves_others_alone():
    def lose(request_id, number):
        return VLLMValidationError("no") if request_id.startswith("tree-hit") else None

    client = PlayedVllm(lose=lose)
    trees = service(client)
    other = sampled(trees, "other")
    with pytest.raises(EngineError):
        await sampled(trees, "hit")
    assert len((await other).trajectories) == 4
    assert (trees.num_trees, client.running) == (0, set())


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_a_tree_that_is_cancelled_at_any_moment_leaves_nothing(turns):
    client = PlayedVllm(num_seqs=3)
    trees = service(client)
    gone, other = sampled(trees, "gone", LONG), sampled(trees, "other")
    await settle(turns)
    gone.cancel()
    await asyncio.wait({gone}, timeout=LIMIT_S)
    assert gone.cancelled()
    assert not any(request_id.startswith("tree-gone") for request_id in client.running)
    assert len((await other).trajectories) == 4
    assert (trees.num_trees, client.running) == (0, set())
    await settle()
    assert await sampled(trees, "next"), "its slots are free again"


async def test_a_bound_that_the_first_turn_kept_does_not_end_a_later_one():
    """The prompt of a later turn holds the earlier ones; vLLM's handler shortens the turn."""
    tree = TreeClient(service(PlayedVllm()), asked(max_tokens=4090))
    with pytest.raises(FieldError, match="beside a prompt of 5 tokens") as caught:
        TreeClient(service(PlayedVllm()), asked(max_tokens=4092)).generate(PROMPT, params(), "r")
    assert caught.value.field == "max_tokens"
    await read(tree.generate(PROMPT, params(), "r_0"))
    longer = {**PROMPT, "prompt_token_ids": [1] * 100}
    assert await read(tree.generate(longer, params(), "r_1"))
