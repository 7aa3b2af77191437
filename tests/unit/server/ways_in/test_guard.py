"""Whatever takes no `tree` refuses one by name, and everything else passes byte for byte."""

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treepo.engines.entropy_segment import ENTROPY_KEY
from treepo_server.settings.aliases import Alias, Aliases
from treepo_server.ways_in.guard import TreeGuard

OURS = ("/v1/chat/completions", "/v1/completions")
ALIASES = Aliases({"m-tree": Alias({}), "größe": Alias({})})


class App:
    """What stands behind the guard; it keeps what it was told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            self.seen.append(message)
            if not message.get("more_body"):
                return


def posted(
    body: bytes, path: str = "/other", kind: str = "application/json", cuts: Sequence[int] = ()
) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """What was received, what came through, and the answer where it was refused."""
    places = [0, *sorted(cuts), len(body)]
    parts = [body[a:b] for a, b in pairwise(places)]
    messages = [
        {"type": "http.request", "body": part, "more_body": n + 1 < len(parts)}
        for n, part in enumerate(parts)
    ]
    app, sent, waiting = App(), [], iter(messages)

    async def receive() -> Any:
        return next(waiting)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(TreeGuard(app, OURS, ALIASES)(scope, receive, send))
    answer = {}
    if sent:
        answer = {"status": sent[0]["status"], "body": json.loads(sent[1]["body"])}
    return messages, app.seen, answer


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def refused(body: bytes, **options: Any) -> str:
    _, seen, answer = posted(body, **options)
    assert not seen
    assert answer["status"] == 400
    field: str = answer["body"]["error"]["param"]
    return field


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=3))
def test_a_body_without_a_tree_passes_as_it_came(body, cuts):
    messages, seen, answer = posted(body, cuts=[min(cut, len(body)) for cut in cuts])
    assert seen == messages
    assert answer == {}


@pytest.mark.parametrize(
    "value", [{"tree": None}, {"prompt": "a tree"}, {"a": {"tree": {}}}, ["tree"], {"model": "m"}]
)
def test_the_word_alone_is_no_tree(value):
    messages, seen, _ = posted(dumped(value))
    assert seen == messages


@pytest.mark.parametrize("tree", [{}, {"width": 2}, "wide", 0, False])
def test_a_tree_is_refused_with_where_it_may_go(tree):
    body = dumped({"tree": tree})
    assert refused(body) == refused(body, cuts=(3, 5)) == "tree"
    _, _, answer = posted(body, path="/v1/embeddings")
    message = answer["body"]["error"]["message"]
    assert "/v1/embeddings" in message
    assert "Send it to /v1/chat/completions or /v1/completions" in message


def test_a_key_in_other_letters_is_the_same_key():
    assert refused(b'{"\\u0074ree": {}}') == "tree"
    assert refused(b'{"model": "gr\\u00f6\\u00dfe"}') == "model"


@pytest.mark.parametrize("model", ["m-tree", "größe"])
def test_a_name_that_stands_for_a_tree_is_refused_like_one(model):
    assert refused(dumped({"model": model})) == "model"
    assert refused(json.dumps({"model": model}, ensure_ascii=False).encode()) == "model"


def test_no_adapter_is_loaded_under_the_name_of_a_tree():
    path = "/v1/load_lora_adapter"
    assert refused(dumped({"lora_name": "m-tree", "lora_path": "/a"}), path=path) == "lora_name"
    messages, seen, _ = posted(dumped({"lora_name": "m", "lora_path": "/tree"}), path=path)
    assert seen == messages


def test_nobody_names_our_shared_memory():
    body = {"sampling_params": [{"extra_args": {ENTROPY_KEY: 1}}]}
    assert refused(dumped(body)) == ENTROPY_KEY
    messages, seen, _ = posted(dumped({"prompt": ENTROPY_KEY}))
    assert seen == messages


def test_anthropics_sdk_reads_the_refusal():
    _, _, answer = posted(dumped({"tree": {}}), path="/v1/messages")
    assert answer["body"]["type"] == "error"
    assert answer["body"]["error"]["type"] == "invalid_request_error"
    assert "`tree`" in answer["body"]["error"]["message"]


@pytest.mark.parametrize("path", [*OURS, "/v1/completions/"])
def test_routes_that_take_a_tree_look_themselves(path):
    messages, seen, _ = posted(dumped({"tree": "wide"}), path=path)
    assert seen == messages


def test_only_json_is_read():
    messages, seen, _ = posted(dumped({"tree": {}}), kind="multipart/form-data; boundary=x")
    assert seen == messages
    for kind in ("application/json; charset=utf-8", "application/vnd.api+json", ""):
        assert refused(dumped({"tree": {}}), kind=kind) == "tree"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_tree_in_a_wider_encoding_is_seen(encoding):
    assert refused(json.dumps({"tree": {}}).encode(encoding)) == "tree"


@pytest.mark.parametrize("depth", [450, 100_000])
def test_a_deep_body_is_no_fault_of_the_server(depth):
    deep = b"[" * depth + b"]" * depth
    messages, seen, _ = posted(b'{"a": "tree", "b": ' + deep + b"}")
    assert seen == messages
