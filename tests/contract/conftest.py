"""One server for all contract tests: `treepo serve` with a tiny model made on the spot.

It takes about a minute to start, far longer than its tests. `server` is the process, `client` the
real OpenAI SDK, `chat` and `complete` call it with a tree.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.support.server import Server, serve

HERE = Path(__file__).parent
SEED = 1
MODEL = "tiny"
MAX_LENGTH = 4096
MAX_WIDTH = 16
FLAGS = ("--served-model-name", MODEL, "--enable-prompt-tokens-details")
FLAGS += ("--kv-cache-memory-bytes", str(64 * 1024**2))
ALIAS = "tiny-tree"
ALIAS_TREE = {"width": 3, "branching": "even"}
MESSAGES = [{"role": "user", "content": "What is 1 + 1?"}]
PROMPT = "What is 1 + 1? It is"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.contract)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tests.support.tiny_chat import build

    folder = tmp_path_factory.mktemp("contract")
    model = build(folder / "model", max_length=MAX_LENGTH)
    alias = ["--tree-alias", f"{ALIAS}={json.dumps(ALIAS_TREE)}"]
    with serve(model, folder / "log", *FLAGS, *alias, TREEPO_MAX_WIDTH=str(MAX_WIDTH)) as running:
        yield running


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
