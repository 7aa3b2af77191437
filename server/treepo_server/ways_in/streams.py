"""A streamed response that ends its source whenever it ends itself.

Where a caller leaves while a line is on its way to them, the generator of the lines is left where
it stands, and its tree would run until somebody collects it. It knows nothing of trees.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Source(Protocol):
    """Where the lines come from."""

    async def aclose(self) -> Any:
        """End it; again is no fault."""
        ...


class OwnedStream(StreamingResponse):
    """A stream of events; see the module docstring.

    Args:
        lines: The lines to send.
        source: What ends with them, even where the first one was never sent.
    """

    def __init__(self, lines: AsyncIterator[str], source: Source) -> None:
        super().__init__(lines, media_type="text/event-stream")
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()
