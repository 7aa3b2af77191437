"""What the plugin does to vLLM's app, without a server: whose route answers, and what stops it."""

import pytest

from treepo.engines.entropy_segment import ENTROPY_KEY
from treepo.errors import ConfigError, UnsupportedError
from treepo_server import plugin
from treepo_server.plugin import TreePlugin

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
BODIES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
}


@pytest.fixture
def app():
    """An app whose routes say that they are vLLM's."""
    from fastapi import FastAPI, Request
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.plugins.endpoint_plugins import interface

    app = FastAPI()

    @app.post(PATHS[0], tags=["theirs"])
    async def chat(request: ChatCompletionRequest, raw_request: Request):
        return {"route": "vLLM's", "asked": request.vllm_xargs}

    @app.post(PATHS[1], tags=["theirs"])
    async def complete(request: CompletionRequest, raw_request: Request):
        return {"route": "vLLM's", "asked": request.vllm_xargs}

    @app.post(PATHS[2], tags=["theirs"])
    async def respond(request: ResponsesRequest, raw_request: Request):
        return {"route": "vLLM's", "asked": request.vllm_xargs}

    return app, interface.attach_endpoint_plugins


def attach(app, monkeypatch):
    """Attach the plugin as vLLM does."""
    app, attach_endpoint_plugins = app
    monkeypatch.setenv("VLLM_PLUGINS", "treepo")
    attach_endpoint_plugins(app, ("generate",))
    return app


def test_the_plugin_keeps_vllms_contract():
    from vllm.plugins.endpoint_plugins.interface import EndpointPlugin

    assert isinstance(TreePlugin(), EndpointPlugin)


@pytest.mark.parametrize("path", PATHS)
def test_a_request_without_a_tree_reaches_the_route_that_was_there(app, monkeypatch, path):
    from fastapi.testclient import TestClient

    with TestClient(attach(app, monkeypatch)) as client:
        answer = client.post(path, json=BODIES[path])
    assert answer.json() == {"route": "vLLM's", "asked": None}


@pytest.mark.parametrize("path", PATHS)
def test_private_arguments_are_taken_out_on_the_way(app, monkeypatch, path):
    from fastapi.testclient import TestClient

    body = {**BODIES[path], "vllm_xargs": {ENTROPY_KEY: 1, "theirs": 2}}
    with TestClient(attach(app, monkeypatch)) as client:
        assert client.post(path, json=body).json()["asked"] == {"theirs": 2}


def test_the_openapi_document_keeps_one_operation_per_route(app, monkeypatch):
    attached = attach(app, monkeypatch)
    paths = attached.openapi()["paths"]
    assert set(paths) == {*PATHS, "/v1/treepo/capabilities"}
    assert all(paths[path]["post"]["tags"] == ["theirs"] for path in PATHS)


def test_an_unsupported_vllm_stops_the_server(app, monkeypatch):
    def refuse():
        raise UnsupportedError("vllm 0.28.0 is installed; it has to be 0.32")

    monkeypatch.setattr(plugin, "check_vllm", refuse)
    with pytest.raises(UnsupportedError, match=r"0\.28\.0"):
        attach(app, monkeypatch)


def test_a_wrong_limit_stops_the_server(app, monkeypatch):
    monkeypatch.setenv("TREEPO_MAX_WIDTH", "many")
    with pytest.raises(ConfigError, match="TREEPO_MAX_WIDTH"):
        attach(app, monkeypatch)


def test_a_server_without_the_routes_is_refused(monkeypatch):
    from fastapi import FastAPI

    with pytest.raises(UnsupportedError, match="no route"):
        TreePlugin().attach_router(FastAPI())
