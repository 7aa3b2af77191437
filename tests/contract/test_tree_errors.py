"""A request that cannot be honoured is a 400 that says what to change, and harms nothing."""

import pytest
from openai import BadRequestError

from tests.contract.conftest import MAX_LENGTH, MAX_WIDTH
from treepo.engines.entropy_segment import ENTROPY_KEY

WRONG_TREES = [
    ({"widht": 4}, "tree.widht"),
    ({"width": 0}, "tree.width"),
    ({"width": MAX_WIDTH + 1}, "tree.width"),
    ({"width": "4"}, "tree.width"),
    ({"branching": "wide"}, "tree.branching"),
    ({"answer": "no_such_extractor"}, "tree.answer"),
    ({"answer": {"regex": "("}}, "tree.answer"),
    ({"until": 2}, "tree.until"),
    ({"include": ["everything"]}, "tree.include"),
    ("wide", "tree"),
]
WRONG_FIELDS = [
    ({"n": 5}, "n"),
    ({"max_tokens": MAX_LENGTH - 1}, "max_tokens"),
    ({"max_tokens": 10 * MAX_LENGTH}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"n": 2, "temperature": 0}, "n"),
    ({"extra_body": {"priority": 3}}, "priority"),
    ({"extra_headers": {"X-Vllm-Priority": "-1"}}, "priority"),
    ({"extra_body": {"use_beam_search": True}}, "use_beam_search"),
    ({"extra_body": {"echo": True}}, "echo"),
    ({"extra_body": {"prompt_logprobs": 1}}, "prompt_logprobs"),
    ({"extra_body": {"best_of": 8}}, "best_of"),
]


def refusal(ask, tree, **options):
    with pytest.raises(BadRequestError) as caught:
        ask(tree, **options)
    error = caught.value
    assert error.status_code == 400
    assert set(error.body) >= {"message", "type", "param", "code"}
    assert error.body["code"] == 400
    return error


@pytest.mark.parametrize(("tree", "field"), WRONG_TREES, ids=str)
def test_a_wrong_tree_names_its_field(ask, tree, field):
    error = refusal(ask, tree)
    assert error.param == field
    assert field in error.body["message"]


@pytest.mark.parametrize(("options", "field"), WRONG_FIELDS, ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_a_tree_cannot_honour_names_its_field(ask, options, field, stream):
    options = {**options, "extra_body": dict(options.get("extra_body", {}))}
    assert refusal(ask, {"width": 4}, stream=stream, **options).param == field


def test_a_list_of_prompts_is_refused(complete):
    assert refusal(complete, {"width": 2}, prompt=["a", "b"]).param == "prompt"


def test_the_message_has_the_value_the_range_and_the_remedy(ask):
    message = refusal(ask, {"width": 99}).body["message"]
    assert "99" in message
    assert f"1 to {MAX_WIDTH}" in message
    assert "Send" in message


def test_the_server_goes_on(ask):
    refusal(ask, {"width": 0})
    assert ask({"width": 2}, max_tokens=4).choices[0].finish_reason in ("stop", "length")


def test_a_callers_arguments_do_not_reach_our_processor(ask):
    forged = {"vllm_xargs": {ENTROPY_KEY: 3}}
    for tree in (None, {"width": 2}):
        assert ask(tree, max_tokens=4, extra_body=forged).usage.completion_tokens > 0
