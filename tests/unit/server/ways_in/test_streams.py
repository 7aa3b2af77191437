"""What a stream comes from ends with it, wherever the caller leaves."""

import asyncio
from typing import Any

import pytest

from treepo_server.ways_in.streams import OwnedStream


@pytest.mark.parametrize("num_sent", [0, 1, 2])
async def test_a_caller_who_leaves_while_a_line_is_sent_ends_the_source(num_sent):
    ended, sending = [], asyncio.Event()

    async def lines() -> Any:
        try:
            while True:
                yield "data: {}\n\n"
        finally:
            ended.append(True)

    async def receive() -> Any:
        await sending.wait()
        return {"type": "http.disconnect"}

    sent = []

    async def send(message: Any) -> None:
        if len(sent) == num_sent + 1:
            sending.set()
            await asyncio.Event().wait()
        sent.append(message)

    source = lines()
    await OwnedStream(source, source)({"type": "http", "asgi": {}}, receive, send)
    assert ended == [True]
