"""The engine requests of one tree, as one stream of events.

Each path is read by its own task; what arrives is queued in order. It aborts by id and then reads
every request to its final chunk, so that no token goes uncounted and nothing of a tree is left in
the engine. An error nobody raises on purpose is raised by `next` or `close`, never lost. It decides
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from treepo.engines.base import Chunk, Engine, PathRequest
from treepo.errors import EngineError
from treepo.growth.state import Path
from treepo.tree import TreeFinish


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
    """A finished path's answer has been read, or given up, or it has none."""

    path: Path


@dataclass(frozen=True, slots=True)
class Expired:
    """The deadline has passed or the tree was told to end."""

    reason: TreeFinish


@dataclass(frozen=True, slots=True)
class Overdue:
    """The tree has ended, and answers that are still being read have had their time."""


Event = Arrived | Lost | Closed | Answered | Expired | Overdue


async def see_through(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` to its end, however often the caller is cancelled meanwhile.

    Frameworks deliver a cancellation again on every turn of the loop until the task is gone.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


class Requests:
    """Runs the paths of one tree on an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._readings: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._open: dict[str, Path] = {}
        self._unwanted: set[str] = set()
        self._failure: BaseException | None = None
        self._num_running = 0
        self._num_pending_answers = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request runs, no answer is being read, and `next` has told of their ends."""
        return self._num_running == 0 and self._num_pending_answers == 0

    def start(self, path: Path, request: PathRequest) -> None:
        """Run a path; its chunks arrive as events, then `Closed`."""
        path.request_id = request.id
        self._open[request.id] = path
        self._num_running += 1
        self._spawn(self._read(path, request), Closed(path))

    def read_answer(self, path: Path, reading: Coroutine[Any, Any, None]) -> None:
        """Await `reading`, which fills in the path's answer; `Answered` arrives then."""
        self._num_pending_answers += 1
        self._readings.add(self._spawn(reading, Answered(path)))

    def give_up_answers(self) -> int:
        """Stop reading answers, of which it returns the number; `Answered` arrives for each."""
        return sum(task.cancel() for task in self._readings)

    def tell(self, event: Event) -> None:
        """Queue an event from outside."""
        self._events.put_nowait(event)

    def tell_later(self, delay_s: float, event: Event) -> None:
        """Queue an event from outside after a time, unless everything has ended by then."""
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, self.tell, event))

    async def next(self) -> Event:
        """The next event, in the order of arrival.

        Raises:
            BaseException: Whatever a request or a reader raised that is not an `EngineError`.
        """
        event = await self._events.get()
        if self._failure is not None:
            raise self._failure
        self._num_running -= isinstance(event, Closed)
        self._num_pending_answers -= isinstance(event, Answered)
        return event

    async def abort(self, paths: Iterable[Path]) -> None:
        """Ask the engine to end these paths; their last chunks and `Closed` still arrive."""
        ids = [path.request_id for path in paths if path.request_id in self._open]
        self._unwanted.update(ids)
        if ids:
            await self._engine.abort(ids)

    async def close(self) -> None:
        """End everything that still runs and wait until it has left the engine."""
        for timer in self._timers:
            timer.cancel()
        self.give_up_answers()
        try:
            await self.abort(self._open.values())
        except BaseException:
            for task in self._tasks:
                task.cancel()
            raise
        finally:
            while self._tasks:
                await asyncio.wait(set(self._tasks))
        if self._failure is not None:
            raise self._failure

    def _spawn(self, work: Coroutine[Any, Any, None], last: Event) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, last))
        return task

    def _done(self, task: asyncio.Task[None], last: Event) -> None:
        self._tasks.discard(task)
        self._readings.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
        self._events.put_nowait(last)

    async def _read(self, path: Path, request: PathRequest) -> None:
        try:
            if request.id not in self._unwanted:
                await self._stream(path, request)
        except EngineError as error:
            self._events.put_nowait(Lost(path, error))
        finally:
            self._open.pop(request.id, None)
            self._unwanted.discard(request.id)

    async def _stream(self, path: Path, request: PathRequest) -> None:
        finish: str | None = None
        is_known = False
        async for chunk in self._engine.generate(request):
            finish = chunk.finish_reason
            self._events.put_nowait(Arrived(path, chunk))
            if not is_known and finish is None and request.id in self._unwanted:
                # An engine ignores an abort that comes before it knows the request.
                await self._engine.abort([request.id])
            is_known = True
        if finish is None:
            raise EngineError(
                "the engine closed a request without a finish reason; `Engine.generate` has to end "
                "with a chunk that has one"
            )
        if finish == "abort" and request.id not in self._unwanted:
            raise EngineError("the engine aborted a request by itself", is_retryable=True)
