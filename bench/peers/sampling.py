"""Asks a server block by block, one method at a time, and keeps what came in a file.

A segment is one method on one block of problems, all asked at once: nothing else runs on the server
meanwhile, so its own counters say what the segment generated, tokens of requests that were hung up
on included. The methods take turns, block by block and each time in another order, so that what
else the machine does touches all. It judges nothing.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bench.peers.driver import Settings
from bench.peers.methods import METHODS, Method, drive
from tests.support.server import metric_in

ROUTE = "/v1/chat/completions"
QUIET_S = 60.0

Line = dict[str, Any]
"""A segment as it stands in the file."""


class Counted(Protocol):
    """A server whose counters can be read."""

    @property
    def url(self) -> str:
        """Where it listens."""
        ...

    def read(self, path: str) -> str:
        """What it answers at a path."""
        ...

    def wait_for(self, num_requests: float, limit_s: float) -> float:
        """Seconds until its engine holds that many requests."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """Problems that are asked at once.

    Attributes:
        number: Its place among the blocks.
        problems: Objects with `id` and `question`.
    """

    number: int
    problems: Sequence[Mapping[str, str]]

    @property
    def turn(self) -> Sequence[Method]:
        """All methods in the order of this block."""
        first = self.number % len(METHODS)
        return METHODS[first:] + METHODS[:first]


def blocks(problems: Sequence[Mapping[str, str]], size: int) -> Iterator[Block]:
    """The problems in blocks of `size`, the last one perhaps smaller."""
    for number, start in enumerate(range(0, len(problems), size)):
        yield Block(number, problems[start : start + size])


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of one way of asking, in a file that may hold others too.

    Attributes:
        path: JSON lines.
        settings: What every method is told; `settings_for` fills in the rest.
    """

    path: Path
    settings: Settings

    def known(self, asked: Sequence[Block]) -> list[Line]:
        """Those of these blocks that are in the file."""
        wanted = [self._key(block, method) for block in asked for method in METHODS]
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line for line in map(json.loads, lines) if line["key"] in wanted]

    def missing(self, asked: Sequence[Block]) -> list[tuple[Block, Method]]:
        """What is not in the file yet, in the order in which it is asked."""
        known = [line["key"] for line in self.known(asked)]
        pairs = [(block, method) for block in asked for method in block.turn]
        return [pair for pair in pairs if self._key(*pair) not in known]

    def add(self, block: Block, method: Method, line: Line) -> None:
        """Append one."""
        with self.path.open("a") as stream:
            stream.write(json.dumps({"key": self._key(block, method), **line}) + "\n")

    def _key(self, block: Block, method: Method) -> dict[str, Any]:
        """What a segment depends on, as JSON values."""
        ids = [problem["id"] for problem in block.problems]
        return {"method": asdict(method), "settings": asdict(self.settings), "problems": ids}


def fill(
    server: Counted, segments: Segments, asked: Sequence[Block], log: Path, limit_s: float
) -> None:
    """Measure what is missing in the file.

    Args:
        server: Used by nothing else meanwhile.
        segments: The file.
        asked: All blocks.
        log: Takes what the drivers say.
        limit_s: No segment is begun after so many seconds.

    Raises:
        EngineError: A driver failed.
    """
    started = time.monotonic()
    for block, method in segments.missing(asked):
        if time.monotonic() - started > limit_s:
            return
        line = measure(server, method, segments.settings, block, log)
        segments.add(block, method, line)
        speed = line["generated_tokens"] / line["seconds"]
        print(f"{block.number} {method.name}: {line['seconds']:.1f} s, {speed:.0f} tokens/s",
              flush=True)  # fmt: skip


def measure(server: Counted, method: Method, settings: Settings, block: Block, log: Path) -> Line:
    """One segment: its answers, and what the server counted for all of them together.

    `seconds` is the time to the last answer, and `load` how many processes of the whole machine ran
    in its last minute: what else it does makes seconds longer, and engine `steps` not.
    """
    before = counts(server)
    answers = drive(method, settings_for(settings, server, method), block.problems, log)
    server.wait_for(0, QUIET_S)
    spent = {name: value - before[name] for name, value in counts(server).items()}
    return {
        "method": method.name,
        "block": block.number,
        "seconds": max(answer["seconds"] for answer in answers),
        "load": round(os.getloadavg()[0], 1),
        **spent,
        "answers": answers,
    }


def settings_for(settings: Settings, server: Counted, method: Method) -> Settings:
    """The settings, with what is left open in them for this server and method."""
    return replace(
        settings, base_url=f"{server.url}/v1", method=method.method, options=method.options
    )


def counts(server: Counted) -> dict[str, float]:
    """What the server has generated, the steps of its engine, and the requests it has answered."""
    text = server.read("/metrics")
    return {
        "generated_tokens": metric_in(text, "vllm:generation_tokens_total"),
        "steps": metric_in(text, "vllm:iteration_tokens_total_count"),
        "requests": metric_in(text, "http_requests_total", f'handler="{ROUTE}"'),
    }


def limit_of(minutes: float | None) -> float:
    """Minutes as seconds; without any, for ever."""
    return math.inf if minutes is None else 60 * minutes
