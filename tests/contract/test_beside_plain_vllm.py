"""Beside vLLM's own server: the same bytes without a `tree`, and no failure that it does not have.

`plain` is stock vLLM without any plugin, on the same model and the same flags. Every case has a
prompt of its own, so that what a server has cached does not show.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st

from tests.contract.conftest import FLAGS, MAX_LENGTH, MODEL
from tests.support.raw import send
from tests.support.server import serve_plain
from treepo.config import TreeConfig

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
NUM_CALLERS = 8
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
YES = {"structured_outputs": {"choice": ["yes", "no"]}}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
CASES = {
    "chat": (CHAT, {}),
    "chat greedy": (CHAT, {"temperature": 0, "tree": None}),
    "chat logprobs": (CHAT, {"logprobs": True, "top_logprobs": 3}),
    "chat n": (CHAT, {"n": 2}),
    "chat stop": (CHAT, {"stop": ["1", "b"], "include_stop_str_in_output": True}),
    "chat tools": (CHAT, {"tools": [ADD], "tool_choice": "none"}),
    "chat required tools": (CHAT, {"tools": [ADD], "tool_choice": "required"}),
    "chat grammar": (CHAT, YES),
    "chat stream": (CHAT, {"stream": True}),
    "chat stream n usage": (CHAT, {**USAGE, "n": 2}),
    "text": (TEXT, {}),
    "text echo logprobs": (TEXT, {"echo": True, "logprobs": 2}),
    "text n": (TEXT, {"n": 2, "stop": ["1"]}),
    "text list": (TEXT, {"prompt": ["text list a", "text list b"]}),
    "text beams": (TEXT, {"use_beam_search": True, "n": 2, "max_tokens": 4, "temperature": 0}),
    "text stream": (TEXT, USAGE),
    "responses": (RESPONSES, {}),
    "responses stream": (RESPONSES, {"stream": True}),
    "messages": ("/v1/messages", {"temperature": 0}),
    "messages stream": ("/v1/messages", {"temperature": 0, "stream": True}),
    "tokenize": ("/tokenize", {}),
    "xargs": (CHAT, {"vllm_xargs": {"theirs": 1}}),
    "unknown model": (CHAT, {"model": "no-such-model"}),
    "unknown model, responses": (RESPONSES, {"model": "no-such-model"}),
    "bad field": (CHAT, {"temperature": -1}),
    "bad field, text": (TEXT, {"top_p": 7, "stream": True}),
    "bad type": (CHAT, {"messages": 5}),
    "bad type, responses": (RESPONSES, {"input": {"a": 1}}),
    "no choices": (TEXT, {"n": 0}),
    "too long": (TEXT, {"prompt": "x" * (MAX_LENGTH + 1)}),
    "too many tokens": (CHAT, {"max_tokens": MAX_LENGTH + 1}),
    "an image": (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    "an unknown tool": (CHAT, {"tool_choice": {"type": "function", "function": {"name": "x"}}}),
}


@pytest.fixture(scope="module")
def plain(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    with serve_plain(server.log.parent / "model", folder / "log", *FLAGS) as running:
        yield running


def request(name, path, options):
    """A seeded request with a prompt that no other case has."""
    messages = [{"role": "user", "content": f"{name}?"}]
    prompts = {"messages": messages, "prompt": f"{name}?", "input": f"{name}?"}
    key = {CHAT: "messages", TEXT: "prompt", RESPONSES: "input", "/v1/messages": "messages"}
    field = key.get(path, "prompt")
    length = "max_output_tokens" if path == RESPONSES else "max_tokens"
    return {"model": MODEL, field: prompts[field], length: 24, "seed": 5, **options}


@pytest.mark.parametrize(("name", "path", "options"), [(n, *c) for n, c in CASES.items()])
def test_without_a_tree_the_bytes_are_vllms_own(server, plain, name, path, options):
    body = request(name, path, options)
    ours, theirs = (send(each.port, path, body) for each in (server, plain))
    assert (ours.status, ours.kind) == (theirs.status, theirs.kind)
    if options.get("stream") and ours.status == 200:
        assert ours.events == theirs.events
    else:
        assert ours.masked == theirs.masked


@pytest.mark.parametrize(
    ("path", "body", "options"),
    [
        (CHAT, b'{"model": ', {}),
        (CHAT, b"[]", {}),
        (CHAT, b"{}", {"kind": "text/plain"}),
        (TEXT, b"", {}),
        (CHAT, b"", {"method": "GET"}),
        ("/v1/no-such-route", b"{}", {}),
        ("/version", b"", {"method": "GET"}),
    ],
    ids=str,
)
def test_what_is_no_request_is_answered_as_ever(server, plain, path, body, options):
    ours, theirs = (send(each.port, path, body, **options) for each in (server, plain))
    assert (ours.status, ours.kind, ours.masked) == (theirs.status, theirs.kind, theirs.masked)


# fuzzing


def drawn(strategy, count):
    """That many examples, always the same ones."""
    seen = []

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def draw(example):
        seen.append(example)

    draw()
    return seen


def asked_all(server, path, bodies):
    """Every body with its answer; several callers at once."""
    with ThreadPoolExecutor(NUM_CALLERS) as callers:
        return list(
            zip(bodies, callers.map(lambda b: send(server.port, path, b), bodies), strict=True)
        )


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
PLAUSIBLE = {
    "width": st.integers(1, 6),
    "segment_tokens": st.integers(1, 64),
    "root_branching": st.sampled_from([1, 3, [1, 4], [4, 1], [0, 2]]),
    "branching_factor": st.integers(1, 5),
    "branching": st.sampled_from(["entropy", "even", "low_prob", "high_prob"]),
    "fallback": st.sampled_from(["random", "entropy", "disagreement", "none"]),
    "vote": st.sampled_from(["majority", "weighted", "confidence", "likelihood", "none"]),
    "until": st.sampled_from(["complete", "settled", 0.9, 0.4, "soon"]),
    "start": st.integers(1, 8),
    "prune": st.sampled_from(["none", "confidence"]),
    "answer": st.one_of(
        st.sampled_from(["auto", "boxed", "none", "no-such", {"json": "a"}, {"regex": "([0-9])"}]),
        st.fixed_dictionaries({"regex": st.text("(a|b)*+?[]\\1", max_size=8)}),
    ),
    "max_total_tokens": st.integers(1, 40),
    "deadline_ms": st.integers(1, 2000),
    "include": st.lists(st.sampled_from(["nodes", "entropies", "texts", "all"]), max_size=3),
}
TREES = st.fixed_dictionaries({}, optional={**PLAUSIBLE, "widht": JUNK})
JUNK_TREES = st.fixed_dictionaries({}, optional=dict.fromkeys(TreeConfig.model_fields, JUNK))


@pytest.mark.parametrize("trees", [TREES, JUNK_TREES], ids=["plausible", "junk"])
def test_a_fuzzed_tree_is_an_answer_or_a_named_field(server, trees):
    fixed = {"model": MODEL, "prompt": "hi", "max_tokens": 8}
    bodies = [{**fixed, "tree": tree} for tree in drawn(trees, 100)]
    answers = asked_all(server, TEXT, bodies)
    for body, answer in answers:
        assert answer.status in (200, 400), (body, answer)
        if answer.status == 400:
            field = json.loads(answer.body)["error"]["param"]
            assert field.removeprefix("tree.").split(".")[0] in body["tree"], (body, answer)
    statuses = {answer.status for _, answer in answers}
    assert 400 in statuses


NUM_REQUESTS = {CHAT: 340, TEXT: 340, RESPONSES: 320}


def capped(path, body):
    """The request with no more than a few short answers; a text completion has a prompt."""
    body = {**body, "model": MODEL}
    if path == TEXT and not body.get("prompt"):
        body["prompt"] = "hi"
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if not isinstance(body.get(name), int) or body[name] > 8:
            body[name] = 8
    if isinstance(body.get("n"), int):
        body["n"] = min(body["n"], 3)
    return body


@pytest.mark.parametrize("path", NUM_REQUESTS)
def test_no_request_fails_here_that_does_not_fail_in_vllm(server, plain, path):
    """What fails in vLLM fails here with the same words.

    Seen in 1,000 requests: a refusal among the `input` of a response ("'ResponseOutputRefusal'
    object has no attribute 'text'"), a message or an output without content there ("list index
    out of range"), and one text completion whose error has no words at all.
    """
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    cases = drawn(schema[path]["POST"].as_strategy(), NUM_REQUESTS[path])
    bodies = [capped(path, case.body) for case in cases if isinstance(case.body, dict)]
    # Every other one asks for a tree.
    bodies = [{**b, "tree": {"width": 2}} if n % 2 else b for n, b in enumerate(bodies)]
    answers = asked_all(server, path, bodies)
    # Most are wrong in some field; enough are not.
    assert sum(answer.status == 200 for _, answer in answers) > len(answers) / 10
    ours_alone = []
    for body, answer in answers:
        if answer.status >= 500:
            without = {name: value for name, value in body.items() if name != "tree"}
            if send(plain.port, path, without).body != answer.body:
                ours_alone.append((body, answer.body))
    assert not ours_alone
    assert json.loads(server.read("/v1/treepo/capabilities"))["routes"]
