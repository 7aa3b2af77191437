"""The typed client against a real server, blocking and async."""

import asyncio
from collections import defaultdict

import pytest
from openai import AsyncOpenAI

from tests.contract.conftest import MESSAGES, SEED
from treepo_client import AsyncTrees, Done, Ended, Opened, Text, TreeOptions, Trees

TREE = TreeOptions(
    width=4, branching="even", segment_tokens=32, include=["nodes", "texts", "entropies"]
)


def test_an_answer_is_the_winner_with_its_typed_tree(client):
    answer = Trees(client).ask(MESSAGES, tree=TREE, max_tokens=60, seed=SEED)
    own = answer.completion.choices[0].tree
    (trajectory,) = [t for t in answer.tree.trajectories if t.leaf == own["leaf"]]
    assert answer.text == trajectory.text
    assert answer.tree.answer == trajectory.answer
    assert answer.tree.nodes is not None
    assert all(isinstance(node.entropy, float) for node in answer.tree.nodes)
    assert answer.completion.usage.completion_tokens == answer.tree.stats["generated_tokens"]


def test_events_tell_the_whole_story(client):
    events = list(Trees(client).stream(MESSAGES, tree=TREE, max_tokens=60, seed=SEED))
    texts = defaultdict(str)
    for event in events:
        if isinstance(event, Text):
            texts[event.index] += event.text
    opened = [event.index for event in events if isinstance(event, Opened)]
    ended = {event.index: event for event in events if isinstance(event, Ended)}
    tree = events[-1].tree
    assert isinstance(events[-1], Done)
    assert opened == sorted(ended) == list(range(4))
    by_leaf = {trajectory.leaf: trajectory for trajectory in tree.trajectories}
    for choice in tree.choices:
        assert texts[choice.index] == by_leaf[choice.leaf].text
        assert ended[choice.index].answer == choice.answer


@pytest.mark.parametrize("num_choices", [1, 4])
def test_the_async_client_hears_the_same_tree(client, server, num_choices):
    asked = {"tree": TREE, "max_tokens": 60, "seed": SEED, "n": num_choices}

    async def heard():
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused") as own:
            return [event async for event in AsyncTrees(own).stream(MESSAGES, **asked)]

    last = asyncio.run(heard())[-1]
    blocking = list(Trees(client).stream(MESSAGES, **asked))[-1]
    assert last.tree.trajectories == blocking.tree.trajectories
