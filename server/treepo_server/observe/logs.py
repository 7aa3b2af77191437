"""Log lines of a tree, each with the id of its request, as text or as JSON.

The logger is below vLLM's own, so it shows wherever and at whatever level vLLM's log does. With
`treepo serve --log-json` every process writes one JSON object a line, also vLLM's own records;
those that are written while a tree is sampled carry its request's id. Standard library only.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

REQUEST_ID: ContextVar[str] = ContextVar("treepo_request_id", default="")
"""The request whose tree the running task samples."""

JSON_CONFIG = str(files("treepo_server.observe") / "logging.json")
"""A configuration for `logging.config.dictConfig`: vLLM and uvicorn as JSON."""


class _WithRequest(logging.LoggerAdapter[logging.Logger]):
    """Puts the request's id before the message."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        request = REQUEST_ID.get()
        return (f"[{request}] {msg}" if request else msg), kwargs


log = _WithRequest(logging.getLogger("vllm.treepo"), {})


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time (ISO 8601, UTC), level, logger, process, message.

    `request_id` is added where a tree is sampled, `error` where there was an exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        request = REQUEST_ID.get()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage().removeprefix(f"[{request}] "),
        }
        if request:
            line["request_id"] = request
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
