"""The real OpenAI SDK before the shared server; `chat` and `complete` call it with a tree."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.support.server import Server
from tests.support.shared_server import (
    ALIAS,
    ALIAS_TREE,
    FLAGS,
    MAX_LENGTH,
    MAX_WIDTH,
    MODEL,
)

__all__ = ["ALIAS", "ALIAS_TREE", "FLAGS", "MAX_LENGTH", "MAX_WIDTH", "MODEL"]

HERE = Path(__file__).parent
SEED = 1
MESSAGES = [{"role": "user", "content": "What is 1 + 1?"}]
PROMPT = "What is 1 + 1? It is"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.contract)


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120
    ) as client:
        yield client


def text_of(choice: Any) -> str:
    """The text of a choice of either route."""
    return choice.message.content if hasattr(choice, "message") else choice.text


@pytest.fixture(scope="session")
def respond(client: OpenAI) -> Any:
    """`respond(tree, **options)`: a response of `/v1/responses`; without a tree for None."""

    def call(tree: dict[str, Any] | None, **options: Any) -> Any:
        extra = {"seed": SEED, **options.pop("extra_body", {})}
        if tree is not None:
            extra["tree"] = tree
        return client.responses.create(
            **{"model": MODEL, "input": "What is 1 + 1?", "extra_body": extra, **options}
        )

    return call


def _call(create: Any, fixed: dict[str, Any], tree: dict[str, Any] | None, **options: Any) -> Any:
    extra = options.pop("extra_body", {})
    if tree is not None:
        extra = {"tree": tree, **extra}
    # Seeded, so that no test hangs on where a random text happens to end.
    return create(**{"model": MODEL, "seed": SEED, **fixed, "extra_body": extra, **options})


@pytest.fixture(scope="session")
def chat(client: OpenAI) -> Any:
    """`chat(tree, **options)`: a chat completion; without a tree for None."""
    return partial(_call, client.chat.completions.create, {"messages": MESSAGES})


@pytest.fixture(scope="session")
def complete(client: OpenAI) -> Any:
    """`complete(tree, **options)`: a text completion; without a tree for None."""
    return partial(_call, client.completions.create, {"prompt": PROMPT})


@pytest.fixture(params=["chat", "complete"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Both routes, one after the other, behind one signature."""
    return request.getfixturevalue(request.param)
