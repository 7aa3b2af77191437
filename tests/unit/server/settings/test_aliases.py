"""A model name that stands for a tree changes no other request, and never hides a model."""

import json
from types import SimpleNamespace

import pytest

from treepo.errors import ConfigError
from treepo_server.settings.aliases import KEY, Aliases, with_flags
from treepo_server.settings.limits import Limits

ALIASES = {"m-tree": {"width": 4, "vote": "weighted"}, "a-tree": {"width": 2, "model": "adapter"}}
LIMITS = Limits(max_width=8)


def aliases(value=ALIASES):
    return Aliases.from_env({KEY: json.dumps(value)}, LIMITS)


def request(model, **extra):
    return SimpleNamespace(model=model, model_extra=extra)


@pytest.mark.parametrize("model", ["m", "other", None])
def test_other_requests_stay_as_they_are(model):
    asked = request(model, tree={"width": 3})
    aliases().apply(asked)
    assert asked == request(model, tree={"width": 3})


def test_an_alias_brings_its_model_and_its_tree():
    first, adapter = request("m-tree"), request("a-tree", tree=None)
    for asked in (first, adapter):
        aliases().apply(asked)
    assert first == request(None, tree={"width": 4, "vote": "weighted"})
    assert adapter == request("adapter", tree={"width": 2})


def test_the_requests_own_fields_win():
    asked = request("m-tree", tree={"width": 6, "until": "settled"})
    aliases().apply(asked)
    assert asked.model_extra["tree"] == {"width": 6, "vote": "weighted", "until": "settled"}
    assert ALIASES["m-tree"] == {"width": 4, "vote": "weighted"}


def test_what_is_no_tree_is_left_to_be_refused():
    asked = request("m-tree", tree="wide")
    aliases().apply(asked)
    assert asked.model_extra["tree"] == "wide"


def test_the_limits_hold_where_an_alias_says_nothing():
    assert aliases({"m": {}}).by_name["m"].tree == {}


def test_a_file_holds_them_as_well(tmp_path):
    file = tmp_path / "aliases.json"
    file.write_text(json.dumps(ALIASES))
    assert Aliases.from_env({KEY: str(file)}, LIMITS) == aliases()
    assert Aliases.from_env({}, LIMITS).names == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("no-such-file", "readable|No such file"),
        ('{"m": 4}', "write it like"),
        ('{"": {}}', "write it like"),
        ('{"m": {"widht": 4}}', "tree.widht"),
        ('{"m": {"width": 9}}', "tree.width"),
        ('{"m": {"model": 1}}', "model"),
    ],
)
def test_wrong_ones_stop_the_server(text, said):
    with pytest.raises(ConfigError, match=said):
        Aliases.from_env({KEY: text}, LIMITS)


def test_none_may_hide_a_model():
    aliases().check(["m", "adapter"])
    with pytest.raises(ConfigError, match="'m-tree'"):
        aliases().check(["m", "m-tree"])


def test_cards_are_those_of_the_models_behind_them():
    cards = aliases().cards([{"id": "m", "root": "r"}, {"id": "other"}])
    tree = {"width": 4, "vote": "weighted"}
    assert cards == [{"id": "m-tree", "root": "r", "parent": "m", "tree": tree}]


def test_flags_add_to_the_environment():
    text = with_flags(json.dumps(ALIASES), ['b={"width": 3}', 'm-tree={"answer": {"regex": "=x"}}'])
    both = json.loads(text)
    assert both == {**ALIASES, "b": {"width": 3}, "m-tree": {"answer": {"regex": "=x"}}}
    with pytest.raises(ConfigError, match="--tree-alias"):
        with_flags("", ["b"])
