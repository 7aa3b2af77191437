"""The two routes that take a `tree`: `/v1/chat/completions` and `/v1/completions`.

A request without `tree` goes to the route that was there before, untouched. One with it runs
through a copy of vLLM's own handler whose engine client is a `TreeClient`; what comes out of the
handler is completed with the tree. Further routes are further `TreeRoute`s.
"""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import load_aware_call, with_cancellation
from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError

from treepo.errors import EngineDeadError, TreePOError, UnsupportedError
from treepo_server.answer import TreeAnswer
from treepo_server.errors import reply
from treepo_server.proxy import TreeClient
from treepo_server.request import has_tree, read_request, strip_private
from treepo_server.service import TreeService
from treepo_server.sse import Frame, TreeStream, chat_frame, completion_frame, count_tokens

Endpoint = Callable[[Any, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class TreeRoute:
    """One route of vLLM's that takes a `tree`.

    Attributes:
        path: Where it is.
        request_type: vLLM's model of its requests.
        handler: Name of vLLM's handler on the app's state.
        method: The handler's method.
        frame: Of its chunks.
    """

    path: str
    request_type: type[Any]
    handler: str
    method: str
    frame: Callable[[str, int, str], Frame]

    def attach(self, app: FastAPI) -> None:
        """Put a route in front of the one that is there.

        Raises:
            UnsupportedError: There is none.
        """
        before = [r for r in app.routes if isinstance(r, APIRoute) and r.path == self.path]
        if not before:
            raise UnsupportedError(f"this vLLM has no route {self.path}")
        app.add_api_route(
            self.path,
            self._endpoint(before[-1].endpoint),
            methods=["POST"],
            dependencies=before[-1].dependencies,
            responses=before[-1].responses,
            tags=before[-1].tags,
        )

    def _endpoint(self, before: Endpoint) -> Endpoint:
        async def endpoint(request: Any, raw_request: Request) -> Response:
            strip_private(request)
            answer = self._with_tree if has_tree(request) else before
            return await answer(request, raw_request)

        endpoint.__name__ = before.__name__
        endpoint.__doc__ = before.__doc__
        endpoint.__annotations__ = {"request": self.request_type, "raw_request": Request}
        return endpoint

    @property
    def _with_tree(self) -> Endpoint:
        answer: Endpoint = with_cancellation(load_aware_call(self._answer))
        return answer

    async def _answer(self, request: Any, raw_request: Request) -> Response:
        try:
            return await self._sampled(request, raw_request)
        except TreePOError as error:
            return error_response(error)
        except VllmEngineDeadError as error:
            return error_response(EngineDeadError(str(error)))

    async def _sampled(self, request: Any, raw_request: Request) -> Response:
        service: TreeService = raw_request.app.state.treepo
        client = TreeClient(service, read_request(request, service.limits))
        handler = copy.copy(getattr(raw_request.app.state, self.handler))
        handler.engine_client = client
        answer = await getattr(handler, self.method)(request, raw_request)
        if isinstance(answer, ErrorResponse):
            return JSONResponse(answer.model_dump(), status_code=answer.error.code)
        assert client.answer is not None
        if not request.stream:
            return JSONResponse(_completed(answer, client.answer, raw_request))
        model = handler.models.model_name(handler.models.lora_requests.get(request.model))
        frame = self.frame(_request_id(raw_request), int(time.time()), model)
        stream = TreeStream(client.answer, frame, request.n or 1)
        events = _events(stream, answer, client.answer, raw_request)
        return StreamingResponse(events, media_type="text/event-stream")


async def _events(
    stream: TreeStream, chunks: AsyncGenerator[str, None], tree: TreeAnswer, raw_request: Request
) -> AsyncIterator[str]:
    """The lines of a stream; where the caller leaves, vLLM's generator ends, and its tree."""
    async with aclosing(stream.events(chunks)) as lines:
        async for line in lines:
            yield line
    usage = raw_request.state.request_metadata.final_usage_info
    if usage is not None and tree.is_finished:
        _count(usage, tree)


def _request_id(raw_request: Request) -> str:
    name: str = raw_request.state.request_metadata.request_id
    return name


def error_response(error: TreePOError) -> JSONResponse:
    """An error of ours in OpenAI's shape."""
    answer = reply(error)
    return JSONResponse(answer.body, status_code=answer.status, headers=answer.headers)


def _completed(answer: Any, tree: TreeAnswer, raw_request: Request) -> dict[str, Any]:
    """VLLM's response with the tree in it, and usage that counts every token once."""
    _count(raw_request.state.request_metadata.final_usage_info, tree)
    body: dict[str, Any] = answer.model_dump()
    count_tokens(body["usage"], tree.num_tokens())
    for choice in body["choices"]:
        choice["tree"] = tree.choice(choice["index"])
    body["tree"] = tree.report()
    return body


def _count(usage: Any, tree: TreeAnswer) -> None:
    """The same for the usage that vLLM's middleware reads."""
    usage.completion_tokens = tree.num_tokens()
    usage.total_tokens = usage.prompt_tokens + tree.num_tokens()


ROUTES = (
    TreeRoute(
        "/v1/chat/completions",
        ChatCompletionRequest,
        "openai_serving_chat",
        "create_chat_completion",
        chat_frame,
    ),
    TreeRoute(
        "/v1/completions",
        CompletionRequest,
        "openai_serving_completion",
        "create_completion",
        completion_frame,
    ),
)
