"""From our errors to HTTP: one table of status codes, and OpenAI's error object.

It knows nothing of trees or routes. A new class in `treepo.errors` gets a line in `RULES`; a test
fails until it has one. What an engine said in its own words never reaches a caller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from treepo.errors import (
    CheckpointError,
    ConfigError,
    DrainingError,
    EngineDeadError,
    EngineError,
    FieldError,
    OverloadError,
    RolloutFileError,
    TreePOError,
    UnsupportedError,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one class of errors is answered; `message` None means the error's own."""

    status: HTTPStatus
    message: str | None = None


_OURS = Rule(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says how.")
_LATER = Rule(
    HTTPStatus.SERVICE_UNAVAILABLE, "The engine cannot take this tree now. Send it again later."
)

RULES: dict[type[TreePOError], Rule] = {
    TreePOError: _OURS,
    ConfigError: _OURS,
    FieldError: Rule(HTTPStatus.BAD_REQUEST),
    EngineError: Rule(
        HTTPStatus.INTERNAL_SERVER_ERROR, "The engine failed while it sampled this tree."
    ),
    EngineDeadError: Rule(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The engine has stopped. Send the request to another server.",
    ),
    OverloadError: Rule(HTTPStatus.TOO_MANY_REQUESTS),
    DrainingError: Rule(HTTPStatus.SERVICE_UNAVAILABLE),
    UnsupportedError: _OURS,
    RolloutFileError: _OURS,
    CheckpointError: _OURS,
}

_TYPES = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.TOO_MANY_REQUESTS: "RateLimitError",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailableError",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An error as HTTP: the status, the JSON body and further headers."""

    status: HTTPStatus
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def rule_for(error: TreePOError) -> Rule:
    """The rule of an error's class; an engine error worth a second try is a 503."""
    if type(error) is EngineError and error.is_retryable:
        return _LATER
    return RULES[type(error)]


def reply(error: TreePOError) -> Reply:
    """The answer to a request that ended in `error`: `{"error": {message, type, param, code}}`."""
    rule = rule_for(error)
    message = rule.message or str(error)
    param = error.field if isinstance(error, FieldError) else None
    kind = _TYPES[rule.status]
    headers = {}
    if isinstance(error, OverloadError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    body = {"message": message, "type": kind, "param": param, "code": rule.status.value}
    return Reply(rule.status, {"error": body}, headers)
