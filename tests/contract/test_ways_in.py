"""Every way into the server either takes a `tree` or refuses it by name; aliases; capabilities."""

import json
import urllib.error
import urllib.request

import pytest
from openai import BadRequestError

from tests.contract.conftest import ALIAS, ALIAS_TREE, MAX_LENGTH, MAX_WIDTH, MESSAGES, MODEL
from treepo.config import TreeConfig
from treepo.engines.entropy_segment import ENTROPY_KEY

OURS = ["/v1/chat/completions", "/v1/completions", "/v1/responses"]
ANYTHING = {
    "model": MODEL,
    "messages": MESSAGES,
    "prompt": "hi",
    "input": "hi",
    "token_ids": [1, 2],
    "max_tokens": 2,
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def post(server, path, body):
    """Status and body of an answer, whatever it is."""
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def other_ways(server):
    """Every POST route of the running server but ours."""
    paths = json.loads(server.read("/openapi.json"))["paths"]
    return sorted(path for path, verbs in paths.items() if "post" in verbs and path not in OURS)


def test_every_other_way_in_refuses_a_tree_by_name(server):
    ways = other_ways(server)
    assert {"/v1/messages", "/v1/chat/completions/batch", "/invocations"} < set(ways)
    for path in [*ways, "/inference/v1/generate", "/v1/embeddings"]:
        status, body = post(server, path, {**ANYTHING, "tree": {"width": 2}})
        assert status == 400, path
        message = body["error"]["message"]
        assert message.startswith("`tree` is {'width': 2}"), path
        assert all(way in message for way in OURS), path
        assert body["error"].get("param", "tree") == "tree", path


def test_without_a_tree_the_other_ways_answer_as_ever(server):
    status, body = post(server, "/tokenize", {"model": MODEL, "prompt": "a tree"})
    assert (status, body["count"]) == (200, 6)
    status, body = post(server, "/v1/messages", {**ANYTHING, "tree": None})
    assert (status, body["type"]) == (200, "message")


def test_nobody_forges_a_slot_of_our_shared_memory(server):
    params = {"max_tokens": 1, "extra_args": {ENTROPY_KEY: 1}}
    status, body = post(server, "/invocations", {**ANYTHING, "sampling_params": params})
    assert (status, body["error"]["param"]) == (400, ENTROPY_KEY)


def test_images_are_refused(chat):
    with pytest.raises(BadRequestError):
        chat({"width": 2}, messages=[{"role": "user", "content": [IMAGE]}])


def test_an_alias_samples_its_tree(client):
    chat = client.chat.completions.create(model=ALIAS, messages=MESSAGES, max_tokens=20)
    text = client.completions.create(model=ALIAS, prompt="hi", max_tokens=20)
    response = client.responses.create(model=ALIAS, input="hi", max_output_tokens=20)
    for answer in (chat, text, response):
        settings = answer.tree["settings"]
        assert {name: settings[name] for name in ALIAS_TREE} == ALIAS_TREE
        assert answer.model == MODEL


def test_the_requests_own_fields_win_over_the_aliases(client):
    own = {"tree": {"width": 2}}
    answer = client.completions.create(model=ALIAS, prompt="hi", max_tokens=20, extra_body=own)
    assert answer.tree["settings"]["width"] == 2
    assert answer.tree["settings"]["branching"] == ALIAS_TREE["branching"]


def test_an_alias_streams(client):
    stream = client.chat.completions.create(
        model=ALIAS, messages=MESSAGES, max_tokens=20, stream=True
    )
    assert list(stream)[-1].tree["settings"]["width"] == ALIAS_TREE["width"]


def test_models_list_aliases(client):
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {MODEL, ALIAS}
    assert models[ALIAS].parent == MODEL
    assert models[ALIAS].tree == ALIAS_TREE
    assert models[ALIAS].max_model_len == MAX_LENGTH


def test_where_no_tree_is_sampled_an_alias_is_refused(server):
    status, body = post(server, "/v1/messages", {**ANYTHING, "model": ALIAS})
    assert status == 400
    assert f"`model` is '{ALIAS}'" in body["error"]["message"]


def test_capabilities_say_what_a_caller_may_ask_for(server):
    said = json.loads(server.read("/v1/treepo/capabilities"))
    assert said["routes"] == OURS
    assert said["limits"] == {"max_width": MAX_WIDTH, "max_depth": None, "max_total_tokens": None}
    assert said["engine"] == {
        "max_model_len": MAX_LENGTH,
        "block_size": 32,
        "entropies": "exact",
        "entropies_reason": None,
    }
    assert set(said["fields"]) == set(TreeConfig.model_fields)
    assert said["fields"]["width"]["default"] == min(TreeConfig().width, MAX_WIDTH)
    assert said["policies"] == {
        "branching": ["entropy", "even", "low_prob", "high_prob"],
        "fallback": ["random", "entropy", "disagreement", "none"],
        "prune": ["none", "confidence"],
        "vote": ["majority", "weighted", "confidence", "likelihood", "none"],
        "until": ["complete", "settled"],
        "include": ["nodes", "entropies", "texts", "record"],
        "answer": ["auto", "boxed", "last_number", "none", "regex", "json"],
    }
    assert said["aliases"] == {ALIAS: {"model": None, "tree": ALIAS_TREE}}
    assert said["versions"]["vllm"].startswith("0.3")
