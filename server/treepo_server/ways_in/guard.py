"""Every way into the server that takes no `tree`: a request that brings one is refused, by name.

It stands before all routes and reads JSON bodies only; a body without the word is passed on as it
came. So a `tree` is never ignored, whatever routes this vLLM or another plugin has. It also refuses
what no caller may send anywhere: the key by which our own engine requests name shared memory, and
an adapter that an alias would hide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from treepo.engines.entropy_segment import ENTROPY_KEY
from treepo.errors import FieldError
from treepo_server.response.errors import reply
from treepo_server.settings.aliases import Aliases

_ESCAPED = b"\\u"
"""How JSON may write a letter of a key or a name in another way."""

_WIDE = b"\0"
"""Stands in every body that is UTF-16 or UTF-32, which routes decode as well."""


class TreeGuard:
    """An ASGI middleware; see the module docstring.

    Args:
        app: What it stands before.
        routes: Paths that take a `tree` and check their requests themselves.
        aliases: Model names that stand for a `tree`.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[str], aliases: Aliases) -> None:
        self._app = app
        self._routes = tuple(routes)
        self._aliases = aliases
        self._words = (
            _ESCAPED,
            _WIDE,
            *(w.encode() for w in ("tree", ENTROPY_KEY, *aliases.names)),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if not self._is_guarded(scope):
            await self._app(scope, receive, send)
            return
        messages, body = await _read(receive)
        error = self._error(_path(scope), body)
        if error is not None:
            await _response(_path(scope), error)(scope, receive, send)
        else:
            await self._app(scope, _again(messages, receive), send)

    def _is_guarded(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "POST" or _path(scope) in self._routes:
            return False
        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        # Routes may read a body without a type as JSON too.
        return kind in ("", "application/json") or kind.endswith("+json")

    def _error(self, path: str, body: bytes) -> FieldError | None:
        if not any(word in body for word in self._words):
            return None
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return None  # no route can read it either, and says so
        return self._wrong(path, value) if isinstance(value, dict) else None

    def _wrong(self, path: str, value: dict[str, Any]) -> FieldError | None:
        if value.get("tree") is not None:
            remedy = f"Send it to {_listed(self._routes)}, or leave it out."
            return FieldError("tree", value["tree"], f"nothing at {path}", remedy)
        model = value.get("model")
        if isinstance(model, str) and model in self._aliases.names:
            remedy = f"Send it to {_listed(self._routes)}, or name the model itself."
            allowed = f"no name that stands for a `tree`, at {path}"
            return FieldError("model", model, allowed, remedy)
        adapter = value.get("lora_name")
        if isinstance(adapter, str) and adapter in self._aliases.names:
            allowed = "a name that does not stand for a `tree`"
            return FieldError("lora_name", adapter, allowed, "Load it under another name.")
        if _has_key(value, ENTROPY_KEY):
            return FieldError(ENTROPY_KEY, "set", "nothing: it is the server's", "Leave it out.")
        return None


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).rstrip("/")


async def _read(receive: Receive) -> tuple[list[Message], bytes]:
    """The messages up to the body's end, and the body."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
        messages.append(await receive())
    return messages, b"".join(message.get("body", b"") for message in messages)


def _again(messages: list[Message], receive: Receive) -> Receive:
    """The same messages once more, then what follows."""
    kept = iter(messages)

    async def receive_again() -> Message:
        message = next(kept, None)
        return await receive() if message is None else message

    return receive_again


def _response(path: str, error: FieldError) -> JSONResponse:
    """The error in OpenAI's shape, or in Anthropic's where its SDK asks."""
    answer = reply(error)
    body = answer.body
    if path.startswith("/v1/messages"):
        said = {"type": "invalid_request_error", "message": body["error"]["message"]}
        body = {"type": "error", "error": said}
    return JSONResponse(body, status_code=answer.status, headers=answer.headers)


def _has_key(value: object, key: str) -> bool:
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if key in part:
                return True
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return False


def _listed(paths: tuple[str, ...]) -> str:
    *first, last = paths
    return f"{', '.join(first)} or {last}" if first else last
