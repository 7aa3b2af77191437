"""What a SIGTERM means to a process that samples trees: end them first, then serve no more.

A middleware that serves nothing; it looks out for the app's start-up, by when vLLM has put its own
signal handlers in place, and puts one before them. New trees get a 503 then; running ones have a
grace time, after which they answer with what they have; then the HTTP server ends as it does when
vLLM's engine has died, and the process with code 0. A second signal ends the grace time. With a
grace time of 0 the handlers stay vLLM's, which break off whatever runs.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from treepo_server.observe.logs import log

ANSWER_S = 2.0
"""Seconds to send the last answers once the grace time is over; spent only while some are open."""


class DrainOnSignal:
    """An ASGI middleware; see the module docstring.

    Args:
        app: What it stands before.
        grace_s: Seconds for running trees.
    """

    def __init__(self, app: ASGIApp, grace_s: float) -> None:
        self._app = app
        self._grace_s = grace_s
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; install the handler at start-up."""
        if scope["type"] == "lifespan" and self._grace_s > 0:
            self._install(scope["app"].state)
        await self._app(scope, receive, send)

    def _install(self, state: Any) -> None:
        if getattr(state, "server", None) is None:
            return  # not vLLM's launcher: signals belong to whoever serves this app
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked, state)

    def _asked(self, state: Any) -> None:
        if self._task is not None:
            self._hurry.set()
            return
        self._task = asyncio.create_task(self._drain(state))

    async def _drain(self, state: Any) -> None:
        deadline = asyncio.get_running_loop().time() + self._grace_s
        service, server = state.treepo, state.server
        log.info("told to stop: %d trees have %.0f s", service.num_trees, self._grace_s)
        try:
            # An engine that ends no request, or a hurry that nobody obeys, holds up nothing.
            await asyncio.wait_for(service.drain(deadline, self._hurry), self._grace_s + ANSWER_S)
            log.info("no tree runs any more")
        except TimeoutError:
            log.warning("%d trees did not end", service.num_trees)
        server.should_exit = True
        left = deadline - asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), max(left, 0))
        await asyncio.sleep(ANSWER_S)
        server.force_exit = True
