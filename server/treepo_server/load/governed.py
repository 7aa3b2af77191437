"""An engine for one tree whose paths wait for a slot, and that tells what they send.

To the sampler a path that waits is a path whose first token is late. So masses do not change: how
many children a branch has was decided without a look at the load, and a held child continues the
same prefix as it would have at once. A path that runs is passed through and never paused. Who gets
a slot is for `governor.py`, who is told of the chunks `trees/running.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

from treepo.engines.base import Chunk, Engine, EngineInfo, PathRequest
from treepo_server.load.governor import Seat, Turn

Watch = Callable[[str, Chunk | None], None]
"""Told the id of each request with None when it gets its slot, then with each of its chunks."""


class GovernedEngine:
    """An `Engine` around another; see the module docstring.

    Args:
        engine: The one that runs the paths.
        seat: The tree's part of the slots.
        watch: Told what happens.
    """

    def __init__(self, engine: Engine, seat: Seat, watch: Watch) -> None:
        self._engine = engine
        self._seat = seat
        self._watch = watch
        self._turns: dict[str, Turn] = {}

    @property
    def info(self) -> EngineInfo:
        """That of the engine behind it."""
        return self._engine.info

    async def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        """Stream one path once it has a slot; see `Engine.generate`."""
        if not await self._has_slot(request.id):
            yield Chunk((), finish_reason="abort")
            return
        try:
            self._watch(request.id, None)
            async with aclosing(self._engine.generate(request)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    self._watch(request.id, chunk)
                    yield chunk
        finally:
            self._seat.release()

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests; one that waits for a slot ends at once and never reaches vLLM."""
        running = []
        for id_ in request_ids:
            turn = self._turns.get(id_)
            if turn is None:
                running.append(id_)
            elif not turn.is_withdrawn:
                self._seat.withdraw(turn)
        if running:
            await self._engine.abort(running)

    async def _has_slot(self, id_: str) -> bool:
        """Wait for a slot; False where the path was given up meanwhile."""
        turn = self._turns[id_] = self._seat.ask()
        try:
            await turn.decided.wait()
        except asyncio.CancelledError:
            if not turn.is_withdrawn:
                self._seat.withdraw(turn)
            raise
        finally:
            del self._turns[id_]
        return not turn.is_withdrawn
