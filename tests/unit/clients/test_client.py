"""The typed client says what the server knows, sends what it is told and reads what comes."""

import asyncio
import json
from typing import get_args, get_type_hints

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.support import saved
from treepo.config import Branching, Fallback, Include, TreeConfig, Vote
from treepo_client import (
    AsyncTrees,
    Done,
    Ended,
    NoTreeError,
    Opened,
    Progress,
    Reasoning,
    Text,
    TreeOptions,
    Trees,
    report,
)
from treepo_server.response import wire

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "It is 408."}}
ANSWER = {"id": "1", "object": "chat.completion", "choices": [CHOICE], "tree": saved.report()}


def chunk(**fields):
    return {"id": "1", "object": "chat.completion.chunk", "choices": [], **fields}


def delta(index, text, **fields):
    return chunk(choices=[{"index": index, "delta": {"content": text}, **fields}])


def thought(index, text):
    return chunk(choices=[{"index": index, "delta": {"reasoning": text}}])


CHUNKS = [
    chunk(tree={"id": "t", "progress": {"live_paths": 1, "finished": 0, "generated_tokens": 0}}),
    chunk(
        tree={
            "id": "t",
            "progress": {
                "live_paths": 2,
                "finished": 0,
                "generated_tokens": 9,
                "opened": [{"index": 1, "parent": 0, "start": 4, "is_late": True}],
            },
        }
    ),
    thought(1, "6 * 70 less 12"),
    delta(1, "so"),
    delta(1, "", finish_reason="stop", tree={"finish": "answer", "answer": "408"}),
    chunk(tree=saved.report(winner=1)),
]


CAPABILITIES = {
    "fields": {"width": {"default": 8}},
    "aliases": {"narrow": {"tree": {"width": 4}}, "plain": {"tree": {}}},
}


class Wire:
    """A server of canned answers that remembers what it was asked."""

    def __init__(self, answer=ANSWER, chunks=CHUNKS, capabilities=CAPABILITIES):
        self.asked = []
        self.answer = answer
        self.chunks = chunks
        self.capabilities = capabilities

    def __call__(self, request):
        if request.url.path == "/v1/treepo/capabilities":
            return httpx.Response(200 if self.capabilities else 404, json=self.capabilities)
        if request.method == "GET":
            return httpx.Response(200, json={"object": "list", "data": [{"id": "first"}]})
        self.asked.append(json.loads(request.content))
        if not self.asked[-1].get("stream"):
            return httpx.Response(200, json=self.answer)
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in self.chunks]
        return httpx.Response(200, text="".join([*lines, "data: [DONE]\n\n"]))


def trees(wire):
    transport = httpx.Client(transport=httpx.MockTransport(wire))
    return Trees(OpenAI(base_url="http://server/v1", api_key="none", http_client=transport))


FIELDS = {Branching: "branching", Fallback: "fallback", Vote: "vote", Include: "include"}


def words_in(hint):
    """The words of a type: those of its literals, however deep."""
    parts = [words_in(part) if get_args(part) else {part} for part in get_args(hint)]
    return set().union(*parts)


def test_every_option_of_the_server_has_a_name_and_every_word_its_place():
    hints = get_type_hints(TreeOptions)
    assert set(hints) == set(TreeConfig.model_fields)
    for words, name in FIELDS.items():
        assert set(get_args(words)) <= words_in(hints[name])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (report.Tree, wire.TreeReport),
        (report.Node, wire.NodeReport),
        (report.Trajectory, wire.TrajectoryReport),
        (report.Vote, wire.VoteReport),
        (report.ChoiceTree, wire.IndexedChoiceReport),
    ],
)
def test_every_field_of_the_server_has_a_type(ours: type[BaseModel], theirs: type[BaseModel]):
    assert set(ours.model_fields) == set(theirs.model_fields)


def test_a_question_becomes_a_request_with_a_tree():
    wire = Wire()
    answer = trees(wire).ask("6 * 68?", tree=TreeOptions(width=3), seed=1, extra_body={"top_k": 5})
    assert wire.asked == [
        {
            "messages": [{"role": "user", "content": "6 * 68?"}],
            "model": "first",
            "seed": 1,
            "top_k": 5,
            "tree": {"width": 3},
        }
    ]
    assert answer.text == "It is 408."
    assert answer.tree.votes[0].count == 2
    assert answer.tree.nodes is not None
    assert answer.tree.nodes[5].finish == "pruned"


def test_a_stream_becomes_events():
    wire = Wire()
    events = list(trees(wire).stream("6 * 68?", tree=TreeOptions(width=3)))
    assert (wire.asked[0]["n"], wire.asked[0]["stream"]) == (3, True)
    assert events[:-1] == [
        Progress(1, 0, 0),
        Opened(1, 0, 4, is_late=True),
        Progress(2, 0, 9),
        Reasoning(1, "6 * 70 less 12"),
        Text(1, "so"),
        Ended(1, "answer", "408"),
    ]
    assert isinstance(events[-1], Done)
    assert events[-1].tree.winner == 1


@pytest.mark.parametrize(("model", "width"), [(None, 8), ("plain", 8), ("narrow", 4)])
def test_a_stream_shows_as_many_paths_as_the_server_gives_a_tree_that_says_nothing(model, width):
    wire = Wire()
    assert list(trees(wire).stream("6 * 68?", model=model))
    assert (wire.asked[0]["n"], wire.asked[0]["tree"]) == (width, {})


def test_the_async_client_does_the_same():
    wire = Wire()

    async def both():
        transport = httpx.AsyncClient(transport=httpx.MockTransport(wire))
        client = AsyncOpenAI(base_url="http://server/v1", api_key="none", http_client=transport)
        async with client:
            own = AsyncTrees(client)
            answer = await own.ask("6 * 68?", tree=TreeOptions(width=3))
            assert [event async for event in own.stream("6 * 68?", model="narrow")]
            return answer, [event async for event in own.stream("6 * 68?", n=1)]

    answer, events = asyncio.run(both())
    assert answer.tree.answer == "408"
    assert events == list(trees(Wire()).stream("6 * 68?", n=1))
    assert [asked.get("n") for asked in wire.asked] == [None, 4, 1]


def test_a_server_without_trees_is_named():
    plain = {**ANSWER, "tree": None}
    with pytest.raises(NoTreeError, match="VLLM_PLUGINS=treepo"):
        trees(Wire(answer=plain)).ask("6 * 68?")
    with pytest.raises(NoTreeError):
        list(trees(Wire(chunks=CHUNKS[:-1])).stream("6 * 68?"))
    with pytest.raises(NoTreeError):
        list(trees(Wire(capabilities=None)).stream("6 * 68?"))


def test_fields_that_a_newer_server_adds_are_kept():
    tree = report.Tree.model_validate(saved.report(later="yes"))
    assert tree.model_extra == {"later": "yes"}
