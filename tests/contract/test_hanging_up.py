"""A caller who leaves takes every request of their tree along, whenever they leave."""

import json
import time
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection

import pytest
from openai import APITimeoutError

from tests.contract.conftest import MAX_LENGTH, MAX_WIDTH, MESSAGES, MODEL, PROMPT
from tests.support.server import metric_in
from treepo.engines.vllm_settings import CPU_DEFAULTS

WIDTH = 8
SLOTS = CPU_DEFAULTS["max_num_seqs"]
GONE_LIMIT_S = 10
START_LIMIT_S = 60
MOST_TOKENS = MAX_LENGTH - 100
ROUTES = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": MOST_TOKENS},
    "/v1/completions": {"prompt": PROMPT, "max_tokens": MOST_TOKENS},
    "/v1/responses": {"input": PROMPT, "max_output_tokens": MOST_TOKENS},
}
WAYS = {"whole": {}, "streamed": {"stream": True}, "all streamed": {"stream": True, "n": WIDTH}}
CASES = [(path, way) for path in ROUTES for way in WAYS]
CASES.remove(("/v1/responses", "all streamed"))  # it has no `n`


def long_request(path, *, width=WIDTH, **options):
    """A tree that runs for many seconds, and at once with all its paths."""
    body = {
        "model": MODEL,
        "ignore_eos": True,
        "tree": {"width": width, "root_branching": width, "branching": "even"},
        **ROUTES[path],
        **options,
    }
    return json.dumps(body), {"Content-Type": "application/json"}


@pytest.mark.parametrize(("path", "way"), CASES)
def test_nothing_runs_once_the_caller_has_left(server, path, way):
    body, headers = long_request(path, **WAYS[way])
    server.wait_for(0, GONE_LIMIT_S)
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=START_LIMIT_S)) as connection:
        connection.request("POST", path, body, headers)
        server.wait_for(WIDTH, START_LIMIT_S)
    server.wait_for(0, GONE_LIMIT_S)
    assert server.metric("kv_cache_usage_perc") == 0


def test_several_callers_may_leave_before_the_first_event(server):
    """A tree that was begun for a stream nobody reads ends as well."""
    body, headers = long_request("/v1/responses", stream=True)
    for _ in range(8):
        with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
            connection.request("POST", "/v1/responses", body, headers)
    server.wait_for(0, START_LIMIT_S)


def test_a_request_that_times_out_in_the_sdk_ends_its_tree(server, client):
    asked = json.loads(long_request("/v1/chat/completions")[0])
    extra = {name: asked.pop(name) for name in ("tree", "ignore_eos")}
    with pytest.raises(APITimeoutError):
        client.chat.completions.create(**asked, extra_body=extra, timeout=1.0)
    server.wait_for(0, GONE_LIMIT_S)


def test_other_trees_are_not_touched(server, chat):
    path = "/v1/chat/completions"
    body, headers = long_request(path)
    alone = chat({"width": 4}, max_tokens=100, seed=5).choices[0].message.content
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=START_LIMIT_S)) as connection:
        connection.request("POST", path, body, headers)
        server.wait_for(WIDTH, START_LIMIT_S)
        beside = chat({"width": 4}, max_tokens=100, seed=5).choices[0].message.content
    server.wait_for(0, GONE_LIMIT_S)
    assert beside == alone


def test_a_tree_that_waits_for_a_slot_leaves_at_once_and_holds_up_nobody(server, chat):
    path = "/v1/chat/completions"
    with ExitStack() as stack:
        for _ in range(SLOTS // MAX_WIDTH):
            stack.enter_context(asked(server, path, MAX_WIDTH))
        server.wait_for(SLOTS, START_LIMIT_S)
        with asked(server, path, MAX_WIDTH):
            wait_for_paths(server, "waiting", MAX_WIDTH)
        wait_for_paths(server, "waiting", 0)
        assert metric_in(server.read("/metrics"), "treepo_live_paths") == SLOTS
    server.wait_for(0, GONE_LIMIT_S)
    assert chat({"width": 2}, max_tokens=20).choices


@contextmanager
def asked(server, path, width):
    """A long tree that runs until the block is left."""
    body, headers = long_request(path, width=width)
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=START_LIMIT_S)) as connection:
        connection.request("POST", path, body, headers)
        yield


def wait_for_paths(server, kind, count):
    deadline = time.monotonic() + START_LIMIT_S
    while metric_in(server.read("/metrics"), f"treepo_{kind}_paths") != count:
        assert time.monotonic() < deadline
