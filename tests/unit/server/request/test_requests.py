"""What a request asks of a tree is either honoured or refused by name."""

from types import SimpleNamespace
from typing import Any

import pytest

from treepo.config import TreeConfig
from treepo.engines.entropy_segment import ENTROPY_KEY
from treepo.errors import ConfigError, FieldError
from treepo_server.request.tree_request import (
    TreeRequest,
    has_tree,
    read_request,
    strip_private,
)
from treepo_server.settings.limits import Limits

DEFAULTS = Limits()


def request(tree: object = None, **fields: Any) -> Any:
    """A request as vLLM parses it."""
    return SimpleNamespace(
        model_extra={} if tree is None else {"tree": tree},
        model_fields_set=set(fields),
        **{"n": 1, "stream": False, "vllm_xargs": None, "max_tokens": 16, **fields},
    )


def refused(asked: Any, limits: Limits = DEFAULTS) -> FieldError:
    with pytest.raises(FieldError) as caught:
        read_request(asked, limits)
    return caught.value


def test_only_a_tree_that_is_there_counts():
    assert has_tree(request({}))
    assert not has_tree(request())
    assert not has_tree(SimpleNamespace(model_extra=None))
    assert not has_tree(SimpleNamespace(model_extra={"tree": None}))


def test_an_empty_tree_is_the_default_one():
    assert read_request(request({}), DEFAULTS).config == TreeConfig()


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        ({"widht": 4}, "tree.widht"),
        ({"width": 0}, "tree.width"),
        ({"width": 65}, "tree.width"),
        ({"width": "4"}, "tree.width"),
        ({"width": 4.0}, "tree.width"),
        ({"root_branching": [3, 2]}, "tree.root_branching"),
        ({"root_branching": [0, 2]}, "tree.root_branching"),
        ({"root_branching": 1025}, "tree.root_branching"),
        ({"until": 1.5}, "tree.until"),
        ({"\ud800": 1}, "tree"),
        ({"deadline_ms": 10**400}, "tree.deadline_ms"),
        ("wide", "tree"),
        ([], "tree"),
    ],
)
def test_a_wrong_tree_is_refused_by_field(tree, field):
    error = refused(request(tree))
    assert error.field == field
    assert error.remedy
    str(error).encode()


@pytest.mark.parametrize("width", [0, 65, "x"])
def test_the_range_of_width_is_this_servers(width):
    assert "1 to 64" in str(refused(request({"width": width})))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"use_beam_search": True}, "use_beam_search"),
        ({"best_of": 4}, "best_of"),
        ({"echo": True}, "echo"),
        ({"prompt_logprobs": 0}, "prompt_logprobs"),
        ({"prompt_embeds": b""}, "prompt_embeds"),
        ({"kv_transfer_params": {}}, "kv_transfer_params"),
        ({"ec_transfer_params": {}}, "ec_transfer_params"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [[1, 2], [3]]}, "prompt"),
        ({"background": True}, "background"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"n": 2, "temperature": 0}, "n"),
    ],
)
def test_what_a_tree_cannot_honour_is_refused(fields, name):
    assert refused(request({}, **fields)).field == name


@pytest.mark.parametrize("prompt", ["a", ["a"], [[1, 2]], [1, 2, 3]])
def test_one_prompt_in_any_form_is_taken(prompt):
    assert read_request(request({}, prompt=prompt), DEFAULTS).num_choices == 1


def test_a_bound_counts_only_where_the_caller_set_it():
    assert read_request(request({}), DEFAULTS).max_tokens is None
    asked = read_request(request({}, max_tokens=5, max_completion_tokens=7), DEFAULTS)
    assert (asked.max_tokens, asked.max_tokens_field) == (7, "max_completion_tokens")
    asked = read_request(request({}, max_output_tokens=9), DEFAULTS)
    assert (asked.max_tokens, asked.max_tokens_field) == (9, "max_output_tokens")


def test_all_paths_are_streamed_only_where_each_is_a_choice():
    config = TreeConfig(width=4)
    assert TreeRequest(config, num_choices=4, is_stream=True).streams_all
    assert not TreeRequest(config, num_choices=3, is_stream=True).streams_all
    assert not TreeRequest(config, num_choices=4).streams_all
    assert not TreeRequest(TreeConfig(width=1), is_stream=True).streams_all


def test_a_path_that_replaces_another_has_an_index_of_its_own():
    assert TreeRequest(TreeConfig(width=4), num_choices=4).num_indices == 9
    assert TreeRequest(TreeConfig(width=1)).num_indices == 1


@pytest.mark.parametrize("asked", [2, 0, "two"])
def test_a_route_with_room_for_one_refuses_more(asked):
    with pytest.raises(FieldError) as caught:
        read_request(request({}, n=asked), DEFAULTS, is_single=True)
    assert caught.value.field == "n"
    assert not TreeRequest(TreeConfig(width=1), is_stream=True, is_single=True).streams_all


def test_private_arguments_never_come_from_a_caller():
    asked = request(vllm_xargs={ENTROPY_KEY: 3, "theirs": 1})
    strip_private(asked)
    assert asked.vllm_xargs == {"theirs": 1}


def test_limits_are_read_from_the_environment():
    limits = Limits.from_env({"TREEPO_MAX_WIDTH": "8", "TREEPO_MAX_TOTAL_TOKENS": "900"})
    assert limits == Limits(max_width=8, max_depth=None, max_total_tokens=900)
    assert Limits.from_env({}) == Limits()


@pytest.mark.parametrize("text", ["0", "-3", "many", "1.5", "²"])
def test_a_limit_that_is_no_number_stops_the_server(text):
    with pytest.raises(ConfigError, match="TREEPO_MAX_DEPTH"):
        Limits.from_env({"TREEPO_MAX_DEPTH": text})


def test_a_limit_holds_where_the_caller_says_nothing():
    limits = Limits(max_width=8, max_depth=5, max_total_tokens=900)
    config = read_request(request({"max_depth": 3}), limits).config
    assert (config.width, config.max_depth, config.max_total_tokens) == (8, 3, 900)
    assert refused(request({"width": 16}), limits).field == "tree.width"
    assert refused(request({"max_depth": 6}), limits).field == "tree.max_depth"
    assert refused(request({"max_total_tokens": 901}), limits).field == "tree.max_total_tokens"
