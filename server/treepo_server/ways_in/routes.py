"""The routes that take a `tree`: which they are, and how they come before vLLM's.

A request without `tree` goes to the route that was there before, untouched. One with it runs
through a copy of vLLM's own handler whose engine client is a `TreeClient`; a `Face` completes
what comes out of the handler with the tree. A further route is a further `TreeRoute`; every other
way into the server is `guard.py`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import (
    load_aware_call,
    should_include_usage,
    with_cancellation,
)
from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError

from treepo.errors import EngineDeadError, TreePOError, UnsupportedError
from treepo_server.request.tree_request import TreeRequest, has_tree, read_request, strip_private
from treepo_server.response.errors import reply
from treepo_server.response.sse import chat_frame, completion_frame
from treepo_server.settings.aliases import Aliases
from treepo_server.trees.client import TreeClient
from treepo_server.trees.service import TreeService
from treepo_server.ways_in.faces import ChoicesFace, Face
from treepo_server.ways_in.responses import ResponsesFace

Endpoint = Callable[[Any, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class TreeRoute:
    """One route of vLLM's that takes a `tree`.

    Attributes:
        path: Where it is.
        request_type: vLLM's model of its requests.
        handler: Name of vLLM's handler on the app's state.
        method: The handler's method.
        face: How its answers are completed.
    """

    path: str
    request_type: type[Any]
    handler: str
    method: str
    face: Face

    def attach(self, app: FastAPI, aliases: Aliases) -> None:
        """Put a route in front of the one that is there.

        Raises:
            UnsupportedError: There is none.
        """
        before = [r for r in app.routes if isinstance(r, APIRoute) and r.path == self.path]
        if not before:
            raise UnsupportedError(f"this vLLM has no route {self.path}")
        app.add_api_route(
            self.path,
            self._endpoint(before[-1].endpoint, aliases),
            methods=["POST"],
            dependencies=before[-1].dependencies,
            responses=before[-1].responses,
            tags=before[-1].tags,
        )

    def _endpoint(self, before: Endpoint, aliases: Aliases) -> Endpoint:
        async def endpoint(request: Any, raw_request: Request) -> Response:
            strip_private(request)
            aliases.apply(request)
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
        handler = copy.copy(getattr(raw_request.app.state, self.handler))
        asked = read_request(request, service.limits, is_single=self.face.is_single)
        if not self.face.is_single:
            asked = replace(asked, counts_always=_counts_always(request, handler))
        client = TreeClient(service, asked)
        handler.engine_client = client
        answer = await getattr(handler, self.method)(_with_indices(request, asked), raw_request)
        if isinstance(answer, ErrorResponse):
            return JSONResponse(answer.model_dump(), status_code=answer.error.code)
        if not request.stream:
            return JSONResponse(self.face.completed(answer, client, raw_request))
        model = handler.models.model_name(handler.models.lora_requests.get(request.model))
        return await self.face.streamed(answer, client, raw_request, model)


def _counts_always(request: Any, handler: Any) -> bool:
    """Whether vLLM's handler puts usage into every chunk of a stream."""
    is_forced = getattr(handler, "enable_force_include_usage", False)
    _, is_continuous = should_include_usage(getattr(request, "stream_options", None), is_forced)
    return bool(is_continuous)


def _with_indices(request: Any, asked: TreeRequest) -> Any:
    """The request for vLLM's handler, which must know of as many choices as may be streamed."""
    if not asked.streams_all or asked.num_choices == 1:
        return request
    return request.model_copy(update={"n": asked.num_indices})


def error_response(error: TreePOError) -> JSONResponse:
    """An error of ours in OpenAI's shape."""
    answer = reply(error)
    return JSONResponse(answer.body, status_code=answer.status, headers=answer.headers)


ROUTES = (
    TreeRoute(
        "/v1/chat/completions",
        ChatCompletionRequest,
        "openai_serving_chat",
        "create_chat_completion",
        ChoicesFace(chat_frame),
    ),
    TreeRoute(
        "/v1/completions",
        CompletionRequest,
        "openai_serving_completion",
        "create_completion",
        ChoicesFace(completion_frame),
    ),
    TreeRoute(
        "/v1/responses",
        ResponsesRequest,
        "openai_serving_responses",
        "create_responses",
        ResponsesFace(),
    ),
)
