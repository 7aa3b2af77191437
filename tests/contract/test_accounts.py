"""What is told of a tree's tokens is what the engine did, also after prunes and hang-ups."""

import json
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.contract.conftest import MAX_LENGTH, MESSAGES, MODEL
from tests.support.server import metric_in

QUIET_LIMIT_S = 30
TREES = [
    {"width": 6, "branching": "even", "segment_tokens": 32},
    {"width": 6, "branching": "entropy"},
    {"width": 8, "root_branching": 2, "branching": "low_prob", "fallback": "random"},
    {
        "width": 8,
        "root_branching": 8,
        "prune": "confidence",
        "prune_window": 8,
        "prune_warmup": 1,
        "prune_quantile": 0.5,
        "include": ["nodes"],
    },
]


def counters(server):
    server.wait_for(0, QUIET_LIMIT_S)
    text = server.read("/metrics")
    return {
        "prompt": metric_in(text, "vllm:prompt_tokens_total"),
        "cached": metric_in(text, "vllm:prefix_cache_hits_total"),
        "generated": metric_in(text, "vllm:generation_tokens_total"),
        "ours": metric_in(text, "treepo_tokens_total", 'kind="generated"'),
        "left": metric_in(text, "treepo_trees_total", 'outcome="client_gone"'),
    }


def since(server, before):
    return {name: value - before[name] for name, value in counters(server).items()}


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.get("prune", tree.get("branching")))
def test_the_sums_of_a_tree_are_the_engines_own(server, chat, tree):
    before = counters(server)
    answer = chat(tree, max_tokens=200)
    did, stats = since(server, before), answer.tree["stats"]
    assert did["generated"] == stats["generated_tokens"] == answer.usage.completion_tokens
    assert did["ours"] == did["generated"]
    assert did["cached"] == stats["cached_tokens"]
    first = stats["prompt_tokens"] - stats["prompt_cached_tokens"]
    assert did["prompt"] == stats["cached_tokens"] + stats["recomputed_tokens"] + first
    if "prune" in tree:
        assert stats["prunes"] > 0


@pytest.mark.parametrize("limit", [{"max_total_tokens": 300}, {"deadline_ms": 1500}], ids=str)
def test_a_limit_of_the_tree_returns_the_best_answer_so_far(server, chat, limit):
    tree = {"width": 4, "root_branching": 4, "branching": "even", **limit}
    before = counters(server)
    answer = chat(tree, max_tokens=MAX_LENGTH - 100, extra_body={"ignore_eos": True})
    assert answer.tree["finish"] == next(iter(limit)).removesuffix("_ms")
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert since(server, before)["generated"] == answer.usage.completion_tokens


def test_what_a_caller_leaves_behind_is_counted(server):
    before = counters(server)
    body = {
        "model": MODEL,
        "messages": MESSAGES,
        "max_tokens": MAX_LENGTH - 100,
        "ignore_eos": True,
        "tree": {"width": 8, "branching": "even"},
    }
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=QUIET_LIMIT_S)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        server.wait_for(8, QUIET_LIMIT_S)
    did = since(server, before)
    assert did["ours"] == did["generated"] > 0
    assert did["left"] == 1


@pytest.mark.parametrize("pattern", ["^(([a-z0-9 .,])+)+!$", "(?:a|a|b|.)*!!!$"])
def test_a_pattern_that_backtracks_for_ever_costs_its_own_tree_some_seconds(chat, pattern):
    answer = chat({"width": 4, "answer": {"regex": pattern}}, max_tokens=200)
    assert answer.choices[0].message.content
    assert answer.tree["answer"] is None
    assert any("could not be read" in note for note in answer.tree["notes"])
