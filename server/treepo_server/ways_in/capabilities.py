"""`GET /v1/treepo/capabilities`: what this server can do for a request with `tree`.

It is what a client would otherwise find out by a 400: versions, limits, the fields of `tree` with
defaults and ranges, model names that stand for a tree, and whether entropies are exact. It says
nothing of any caller or any load.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel

import treepo
from treepo.answers.reader import answer_words
from treepo.config import TreeConfig
from treepo_server.settings.aliases import Alias, Aliases
from treepo_server.settings.limits import Limits
from treepo_server.settings.versions import installed_vllm
from treepo_server.trees.service import TreeService

PATH = "/v1/treepo/capabilities"
MODELS = "/v1/models"


class FieldReport(BaseModel):
    """One field of `tree`, with its default within the limits and its range in words."""

    default: Any
    allowed: str
    meaning: str


class LimitsReport(BaseModel):
    """The largest values a request may carry; null is no limit."""

    max_width: int
    max_depth: int | None
    max_total_tokens: int | None


class EngineReport(BaseModel):
    """What a tree's settings are resolved against; `entropies` is `exact` or `surprisal`."""

    max_model_len: int
    block_size: int
    entropies: str
    entropies_reason: str | None


class Capabilities(BaseModel):
    """The answer of the route."""

    versions: dict[str, str]
    routes: list[str]
    limits: LimitsReport
    engine: EngineReport
    policies: dict[str, list[str]]
    fields: dict[str, FieldReport]
    aliases: dict[str, dict[str, Any]]


def attach(app: FastAPI, limits: Limits, aliases: Aliases, routes: list[str]) -> None:
    """Add the route, and the aliases to `/v1/models` where there are any."""

    async def capabilities(raw_request: Request) -> Capabilities:
        service: TreeService = raw_request.app.state.treepo
        return describe(service, limits, aliases, routes)

    app.add_api_route(PATH, capabilities, methods=["GET"], response_model=Capabilities)
    listed = [r for r in app.routes if isinstance(r, APIRoute) and r.path == MODELS]
    if aliases.names and listed:
        app.add_api_route(MODELS, _models(aliases), methods=["GET"])


def _models(aliases: Aliases) -> Any:
    async def show_available_models(raw_request: Request) -> JSONResponse:
        models = await raw_request.app.state.openai_serving_models.show_available_models()
        body = models.model_dump()
        body["data"] += aliases.cards(body["data"])
        return JSONResponse(body)

    return show_available_models


def describe(
    service: TreeService, limits: Limits, aliases: Aliases, routes: list[str]
) -> Capabilities:
    """What the server can do."""
    _, vllm = installed_vllm() or ("", "")
    defaults = limits.apply(TreeConfig())
    return Capabilities(
        versions={"treepo": treepo.__version__, "vllm": vllm},
        routes=routes,
        limits=LimitsReport(
            max_width=limits.max_width,
            max_depth=limits.max_depth,
            max_total_tokens=limits.max_total_tokens,
        ),
        engine=_engine(service),
        policies=_policies(),
        fields={
            name: _field(info, getattr(defaults, name))
            for name, info in TreeConfig.model_fields.items()
        },
        aliases={name: _stands_for(alias) for name, alias in aliases.by_name.items()},
    )


def _engine(service: TreeService) -> EngineReport:
    info = service.engine_info
    is_exact = service.entropies.ring is not None
    return EngineReport(
        max_model_len=info.max_model_len,
        block_size=info.block_size,
        entropies="exact" if is_exact else "surprisal",
        entropies_reason=None if is_exact else service.entropies.reason,
    )


def _policies() -> dict[str, list[str]]:
    """The words that each field of `tree` takes."""
    fields = TreeConfig.model_fields.items()
    named = {name: words for name, info in fields if (words := _words_in(info.annotation))}
    return {**named, "answer": answer_words()}


def _words_in(kind: Any) -> list[str]:
    """The words of a type: those of its literals, however deep."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for part in get_args(kind) for word in _words_in(part)]


def _field(info: Any, default: object) -> FieldReport:
    allowed = info.json_schema_extra["allowed"]
    return FieldReport(default=default, allowed=allowed, meaning=info.description)


def _stands_for(alias: Alias) -> dict[str, Any]:
    return {"model": alias.model, "tree": alias.tree}
