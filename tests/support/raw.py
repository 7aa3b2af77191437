"""Requests as bytes, and answers as bytes with ids and times taken out, to compare two servers."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

LIMIT_S = 120.0

_IDS = re.compile(
    rb'"((?:chatcmpl|cmpl|resp|msg|rs|fc|call|modelperm)[-_](?:tool-)?)[0-9a-f-]{8,}"'
)
_TIMES = re.compile(rb'"(created|created_at)":\s*\d+')


@dataclass(frozen=True)
class Answer:
    """Status, content type and body of one answer."""

    status: int
    kind: str | None
    body: bytes

    @property
    def masked(self) -> bytes:
        """The body without ids and times."""
        return _TIMES.sub(rb'"\1":0', _IDS.sub(rb'"\1"', self.body))

    @property
    def events(self) -> dict[int, list[list[Any]]]:
        """A stream's lines by choice, -1 for those of none.

        Text that came in several deltas stands in the first of them: how many tokens a delta
        carries, and which choice is served first, depends on how fast the caller reads.
        """
        seen: dict[int, list[list[Any]]] = {}
        for line in self.masked.decode().split("\n\n"):
            frame, text, choice = _without_text(line)
            events = seen.setdefault(choice, [])
            if events and events[-1][0] == frame:
                events[-1][1] += text
            else:
                events.append([frame, text])
        return seen


def _without_text(line: str) -> tuple[str, str, int]:
    name, _, data = line.rpartition("data: ")
    if not data.startswith("{"):
        return line, "", -1
    event = json.loads(data)
    event.pop("sequence_number", None)
    delta = event.get("delta")
    holders = [event, delta] if isinstance(delta, dict) else [event]
    for choice in event.get("choices", ()):
        holders += [choice, choice.get("delta", {})]
    text = "".join(
        holder.pop(key)
        for holder in holders
        for key in ("content", "text", "delta")
        if isinstance(holder.get(key), str)
    )
    choices = event.get("choices") or [{}]
    return name + json.dumps(event), text, choices[0].get("index", -1)


def send(
    port: int,
    path: str,
    body: Any,
    *,
    method: str = "POST",
    kind: str = "application/json",
) -> Answer:
    """The answer to one request; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with closing(HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)) as connection:
        connection.request(method, path, data, {"Content-Type": kind})
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheader("content-type"), answer.read())
