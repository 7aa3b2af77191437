"""Every stream names each choice's end once, and its last chunk tells of the tree."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import pytest

from treepo_server.response.sse import DONE, TreeStream, chat_frame, completion_frame

FRAME = chat_frame("chatcmpl-1", 7, "m")


class FakeTree:
    """What a stream asks of its tree, of `seen` tokens at each look, then of 40."""

    has_news = False
    num_prompt_tokens = 5

    def __init__(self, report: dict[str, Any] | None, seen: Iterable[int] = ()) -> None:
        self._report = report
        self._seen = iter(seen)

    def progress(self) -> dict[str, Any]:
        return {"progress": {}}

    def num_tokens(self) -> int:
        return next(self._seen, 40)

    def num_cached(self) -> int:
        return 3

    def choice(self, index: int) -> dict[str, Any]:
        return {"finish": f"end of {index}"}

    def report(self) -> dict[str, Any] | None:
        return self._report


def line(**fields: Any) -> str:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], **fields}
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


def delta(index: int, text: str, finish: str | None = None, **fields: Any) -> str:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return line(choices=[choice], **fields)


async def given(pieces: list[str], wait: asyncio.Event | None = None) -> AsyncGenerator[str, None]:
    for piece in pieces:
        yield piece
        if wait is not None:
            await wait.wait()


def read(pieces: list[str], num_choices: int, report: dict[str, Any] | None = None) -> list[Any]:
    """The chunks that a caller reads behind the first progress chunk; the end is checked."""

    async def lines() -> list[str]:
        stream = TreeStream(FakeTree(report), FRAME, num_choices)
        return [piece async for piece in stream.events(given(pieces))]

    first, *rest, last = asyncio.run(lines())
    assert last == DONE
    assert json.loads(first.removeprefix("data: "))["tree"] == {"progress": {}}
    return [json.loads(piece.removeprefix("data: ")) for piece in rest]


def test_deltas_pass_through_unopened():
    piece = delta(0, 'a "finish_reason":"stop" in the text')
    chunks = read([piece, delta(0, "", "stop"), DONE], 1)
    assert chunks[0] == json.loads(piece.removeprefix("data: "))


def test_every_choice_ends_once_with_its_tree():
    chunks = read([delta(1, "b", "stop"), delta(0, "a", "length"), DONE], 2, {"winner": 0})
    ends = {c["choices"][0]["index"]: c["choices"][0]["tree"] for c in chunks}
    assert ends == {0: {"finish": "end of 0"}, 1: {"finish": "end of 1"}}
    assert chunks[-1]["tree"] == {"winner": 0}
    assert "tree" not in chunks[0]


def test_a_choice_that_no_path_filled_ends_too():
    chunks = read([delta(1, "b", "stop"), DONE], 3, {"winner": 1})
    assert [c["choices"][0]["index"] for c in chunks] == [1, 0, 2]
    assert all(c["choices"][0]["finish_reason"] == "stop" for c in chunks)
    assert [("tree" in c) for c in chunks] == [False, False, True]


def test_usage_comes_last_and_counts_every_token_once():
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    chunks = read([delta(0, "a", "stop"), line(usage=usage), DONE], 2, {"winner": 0})
    assert [len(c["choices"]) for c in chunks] == [1, 1, 0]
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 40,
        "total_tokens": 45,
    }
    assert chunks[-1]["tree"] == {"winner": 0}


def test_cached_tokens_are_those_of_the_tree():
    details = {"prompt_tokens_details": {"cached_tokens": 0}}
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, **details}
    chunks = read([delta(0, "a", "stop"), line(usage=usage), DONE], 1, {})
    assert chunks[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}


def role(index: int, **fields: Any) -> str:
    return line(choices=[{"index": index, "delta": {"role": "assistant", "content": ""}}], **fields)


def test_a_further_choice_shows_only_once_it_begins():
    begun = [role(0), role(1), role(2), delta(0, "a", "stop"), delta(1, "b")]
    chunks = read([*begun, delta(1, "", "stop"), DONE], 1, {"winner": 1})
    assert [c["choices"][0]["index"] for c in chunks] == [0, 0, 1, 1, 1]
    assert "role" in chunks[2]["choices"][0]["delta"]


def test_no_text_of_a_further_choice_is_taken_for_its_role():
    called = {"index": 1, "delta": {"role": "assistant", "content": "b"}}
    begun = [role(0), role(1), line(choices=[called]), line(choices=[called])]
    chunks = read([*begun, delta(0, "a", "stop"), delta(1, "", "stop"), DONE], 1, {})
    texts = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
    assert texts == ["", "", "b", "b", "a", ""]


def test_a_further_choice_that_began_ends_too():
    chunks = read([delta(0, "a", "stop"), delta(2, 'of {"index":3,', None), DONE], 1, {"winner": 0})
    assert [c["choices"][0]["index"] for c in chunks] == [0, 2, 2]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_continuous_usage_counts_the_whole_tree():
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    chunks = read([delta(0, "a", usage=usage), delta(0, "", "stop"), DONE], 1, {})
    assert chunks[0]["usage"]["completion_tokens"] == 40


def test_with_continuous_usage_every_chunk_carries_it_and_no_count_falls():
    usage = {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
    pieces = [
        role(0, usage=usage),
        role(1, usage=usage),
        delta(0, "a", usage=usage),
        delta(0, "", "stop", usage=usage),
        delta(1, "b", usage=usage),
        DONE,
    ]

    async def lines() -> list[str]:
        stream = TreeStream(FakeTree({}, range(30)), FRAME, 1, counts_always=True)
        return [piece async for piece in stream.events(given(pieces))]

    chunks = [json.loads(line.removeprefix("data: ")) for line in asyncio.run(lines())[:-1]]
    assert [c["choices"][0]["index"] for c in chunks] == [0, 0, 0, 0, 1, 1, 1]
    assert {c["usage"]["prompt_tokens"] for c in chunks} == {5}
    counts = [c["usage"]["completion_tokens"] for c in chunks]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_a_failed_tree_leaves_vllms_error_as_it_is():
    error = 'data: {"error": {"message": "m", "code": 500}}\n\n'
    assert read([error, DONE], 2) == [{"error": {"message": "m", "code": 500}}]


def test_silence_is_filled_with_empty_deltas():
    async def scenario() -> list[str]:
        go_on = asyncio.Event()
        stream = TreeStream(FakeTree({}), FRAME, 1)
        events = stream.events(given([delta(0, "a", "stop"), DONE], go_on), interval_s=0.001)
        seen = [await anext(events) for _ in range(4)]
        go_on.set()
        return seen + [piece async for piece in events]

    seen = asyncio.run(scenario())
    progress = [json.loads(piece.removeprefix("data: ")) for piece in seen[:4]]
    assert all(c["choices"][0]["delta"] == {} for c in progress)
    assert all(c["choices"][0]["finish_reason"] is None for c in progress)
    assert seen[-1] == DONE


def test_a_caller_who_leaves_ends_vllms_generator():
    closed = []

    async def chunks() -> AsyncGenerator[str, None]:
        try:
            yield delta(0, "a")
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def scenario() -> None:
        events = TreeStream(FakeTree({}), FRAME, 1).events(chunks(), interval_s=0.001)
        for _ in range(3):
            await anext(events)
        await events.aclose()

    asyncio.run(scenario())
    assert closed == [True]


def test_a_generator_that_failed_unheard_is_no_second_failure():
    async def failing() -> AsyncGenerator[str, None]:
        yield delta(0, "a")
        raise RuntimeError("nobody hears it")

    async def scenario() -> None:
        events = TreeStream(FakeTree({}), FRAME, 1).events(failing())
        await anext(events)
        await anext(events)
        await asyncio.sleep(0)
        await events.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("frame", [chat_frame, completion_frame])
def test_a_frame_looks_like_the_chunks_of_its_route(frame):
    chunk = frame("id-1", 7, "m").chunk(2, finish_reason="stop")
    assert (chunk["id"], chunk["created"], chunk["model"]) == ("id-1", 7, "m")
    assert chunk["choices"][0]["index"] == 2
    assert chunk["choices"][0]["finish_reason"] == "stop"
