"""The engine requests of one tree, as one stream of events.

Each path is read by its own task; what arrives is queued in order. It aborts by id and then reads
every request to its final chunk, so that no token goes uncounted and nothing of a tree is left in
the engine. It decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from treepo.engines.base import Chunk, Engine, PathRequest
from treepo.errors import EngineError
from treepo.growth import Path


@dataclass(frozen=True, slots=True)
class Arrived:
    """A chunk of a path."""

    path: Path
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Lost:
    """The engine refused or failed a path's request."""

    path: Path
    error: EngineError


@dataclass(frozen=True, slots=True)
class Closed:
    """A path's request has left the engine."""

    path: Path


@dataclass(frozen=True, slots=True)
class Answered:
    """A finished path's answer has been read, or it has none."""

    path: Path


@dataclass(frozen=True, slots=True)
class Expired:
    """The deadline has passed or the tree was told to end."""

    reason: str


Event = Arrived | Lost | Closed | Answered | Expired


class Requests:
    """Runs the paths of one tree on an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[str, Path] = {}
        self._failure: BaseException | None = None
        self.num_running = 0
        self.num_pending_answers = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request runs and no answer is being read."""
        return self.num_running == 0 and self.num_pending_answers == 0

    def start(self, path: Path, request: PathRequest) -> None:
        """Run a path; its chunks arrive as events, then `Closed`."""
        path.request_id = request.id
        self._open[request.id] = path
        self.num_running += 1
        self._spawn(self._read(path, request))

    def read_answer(self, path: Path, reading: Coroutine[Any, Any, None]) -> None:
        """Await `reading`, which fills in the path's answer; `Answered` arrives then."""
        self.num_pending_answers += 1
        self._spawn(self._answer(path, reading))

    def tell(self, event: Event) -> None:
        """Queue an event from outside."""
        self._events.put_nowait(event)

    async def next(self) -> Event:
        """The next event, in the order of arrival."""
        return await self._events.get()

    async def abort(self, paths: Iterable[Path]) -> None:
        """Ask the engine to end these paths; their last chunks and `Closed` still arrive."""
        ids = [path.request_id for path in paths if path.request_id in self._open]
        if ids:
            await self._engine.abort(ids)

    async def close(self) -> None:
        """End everything that still runs and wait until it has left the engine.

        An error that no engine should raise ends the tree here instead of being lost.
        """
        if self._open:
            await self._engine.abort(list(self._open))
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._failure is not None:
            raise self._failure

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()

    async def _read(self, path: Path, request: PathRequest) -> None:
        try:
            finish: str | None = None
            async for chunk in self._engine.generate(request):
                finish = chunk.finish_reason
                self._events.put_nowait(Arrived(path, chunk))
            if finish is None:
                raise EngineError("the engine closed a request without a finish reason")
        except EngineError as error:
            self._events.put_nowait(Lost(path, error))
        finally:
            self._open.pop(request.id, None)
            self._events.put_nowait(Closed(path))

    async def _answer(self, path: Path, reading: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        self._events.put_nowait(Answered(path))
