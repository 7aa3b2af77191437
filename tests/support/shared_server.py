"""The one server that contract tests and the pages' examples share: it takes a minute to start.

`server` is `treepo serve` with a tiny model made on the spot. Tests that need other flags start
their own (`server.py`).
"""

import json
from collections.abc import Iterator

import pytest

from tests.support.server import SMALL_CACHES, Server, serve

MODEL = "tiny"
MAX_LENGTH = 4096
MAX_WIDTH = 16
FLAGS = ("--served-model-name", MODEL, "--enable-prompt-tokens-details")
FLAGS += ("--kv-cache-memory-bytes", str(64 * 1024**2))
ALIAS = "tiny-tree"
ALIAS_TREE = {"width": 3, "branching": "even"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tests.support.tiny_chat import build

    folder = tmp_path_factory.mktemp("server")
    model = build(folder / "model", max_length=MAX_LENGTH)
    alias = ["--tree-alias", f"{ALIAS}={json.dumps(ALIAS_TREE)}"]
    environment = {"TREEPO_MAX_WIDTH": str(MAX_WIDTH), **SMALL_CACHES}
    with serve(model, folder / "log", *FLAGS, *alias, **environment) as running:
        yield running
