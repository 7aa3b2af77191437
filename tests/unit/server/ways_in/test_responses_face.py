"""`/v1/responses`: events are numbered, failures are said, and nothing outlives its caller."""

import asyncio
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from treepo.errors import EngineError, FieldError
from treepo_server.ways_in.responses import ResponsesFace

USAGE = {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}


class Event:
    """What vLLM's generator yields."""

    def __init__(self, kind: str, **fields: Any) -> None:
        self._body = {"type": kind, "sequence_number": 0, **fields}

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return json.loads(json.dumps(self._body))


class FakeAnswer:
    """One turn's tree."""

    def __init__(self, name: str, num_tokens: int) -> None:
        self._name, self._num_tokens = name, num_tokens

    def num_tokens(self) -> int:
        return self._num_tokens

    def progress(self) -> dict[str, Any]:
        return {"id": self._name, "progress": {}}

    def report(self) -> dict[str, Any]:
        return {"id": self._name}


def client(*answers: FakeAnswer) -> Any:
    flag = asyncio.Event()
    flag.set()
    return SimpleNamespace(answers=list(answers), answer=answers[-1], is_planned=flag)


TREE = FakeAnswer("t", 40)
OPENING = [Event("response.created", response={}), Event("response.in_progress", response={})]


async def events(*items: Any, closed: list[bool] | None = None) -> AsyncGenerator[Any, None]:
    try:
        for item in [*OPENING, *items]:
            if isinstance(item, Exception):
                raise item
            yield item
        await asyncio.Event().wait()
    finally:
        if closed is not None:
            closed.append(True)


def read(*items: Any) -> list[dict[str, Any]]:
    """The bodies of a stream, up to its end or its last item."""

    async def lines() -> list[dict[str, Any]]:
        response = await ResponsesFace().streamed(events(*items), client(TREE), None, "m")
        seen = []
        async for line in response.body_iterator:
            name, data = line.split("\n")[:2]
            seen.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {seen[-1]['type']}"
            if seen[-1]["type"] in ("response.completed", "response.failed"):
                break
        return seen

    return asyncio.run(lines())


def test_events_are_numbered_and_the_last_one_has_the_tree():
    last = Event("response.completed", response={"usage": USAGE})
    seen = read(Event("response.output_text.delta", delta="a"), last)
    assert [body["sequence_number"] for body in seen] == [0, 1, 2, 3]
    assert seen[1]["response"]["tree"] == {"id": "t", "progress": {}}
    assert seen[3]["response"]["tree"] == {"id": "t"}
    assert seen[3]["response"]["usage"] == {**USAGE, "output_tokens": 40, "total_tokens": 45}


def test_a_failure_within_the_stream_is_said_and_ends_it():
    seen = read(Event("response.output_text.delta", delta="a"), EngineError("in its own words"))
    assert [body["type"] for body in seen[2:]] == ["response.output_text.delta", "response.failed"]
    assert seen[-1]["response"]["status"] == "failed"
    assert seen[-1]["response"]["error"]["code"] == "server_error"
    assert "its own words" not in seen[-1]["response"]["error"]["message"]


def test_a_wrong_request_is_refused_before_anything_is_sent():
    async def begin() -> None:
        asked = client(TREE)
        asked.is_planned.clear()
        wrong = FieldError("tree.width", 0, "1 to 64", "Send more.")
        await ResponsesFace().streamed(events(wrong), asked, None, "m")

    with pytest.raises(FieldError):
        asyncio.run(begin())


def test_a_caller_who_leaves_before_the_tree_is_planned_leaves_nothing_that_waits():
    closed: list[bool] = []

    async def leave() -> set[Any]:
        asked = client(TREE)
        asked.is_planned.clear()
        coming = asyncio.create_task(
            ResponsesFace().streamed(events(closed=closed), asked, None, "m")
        )
        await asyncio.sleep(0)
        coming.cancel()
        await asyncio.wait({coming})
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(leave()) == set()
    assert closed == [True]


def test_a_stream_that_nobody_reads_ends_its_tree():
    closed: list[bool] = []

    async def leave() -> None:
        face = ResponsesFace()
        response = await face.streamed(events(closed=closed), client(TREE), None, "m")

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await asyncio.Event().wait()

        await response({"type": "http", "asgi": {}}, receive, send)

    asyncio.run(leave())
    assert closed == [True]


def test_every_turns_tree_counts():
    answer = Event("response", usage=USAGE)
    body = ResponsesFace().completed(answer, client(FakeAnswer("first", 7), TREE), None)
    assert body["tree"] == {"id": "t", "earlier_turns": [{"id": "first"}]}
    assert body["usage"] == {**USAGE, "output_tokens": 47, "total_tokens": 52}
