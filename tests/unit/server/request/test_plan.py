"""A plan says what the engine has to measure, and names what it cannot sample."""

from types import SimpleNamespace
from typing import get_args

import pytest
from vllm import SamplingParams

from treepo.config import Branching, Fallback, Include, TreeConfig
from treepo.errors import FieldError
from treepo_server.request.plan import make_plan, needs_uncertainty
from treepo_server.request.tree_request import read_request
from treepo_server.settings.limits import Limits


@pytest.mark.parametrize("include", get_args(Include))
@pytest.mark.parametrize("factor", [None, 1, 2])
@pytest.mark.parametrize("fallback", [None, *get_args(Fallback)])
@pytest.mark.parametrize("branching", get_args(Branching))
def test_what_is_shown_does_not_change_the_evidence(branching, fallback, factor, include):
    config = TreeConfig(branching=branching, fallback=fallback, branching_factor=factor)
    resolved = config.resolve(16, 64, 1.0)
    if (resolved.branching_factor, resolved.fallback) != (1, "none"):
        shown = config.model_copy(update={"include": (include,)})
        assert needs_uncertainty(config) == needs_uncertainty(shown)


@pytest.mark.parametrize(
    ("read", "needs"),
    [
        ({}, False),
        ({"until": "settled", "vote": "weighted"}, False),
        ({"until": 0.9}, True),
        ({"prune": "confidence"}, True),
        ({"vote": "confidence"}, True),
        ({"include": ("entropies",)}, True),
    ],
)
def test_nothing_is_measured_of_independent_paths_that_nobody_reads(read, needs):
    assert needs_uncertainty(TreeConfig(branching_factor=1, **read)) == needs


@pytest.mark.parametrize("field", ["messages", "input"])
def test_images_are_refused_under_the_name_that_the_route_gives_its_prompt(field):
    fields = {"stream": False, field: []}
    asked = SimpleNamespace(model_extra={"tree": {}}, model_fields_set={field}, **fields)
    request = read_request(asked, Limits())
    with pytest.raises(FieldError) as caught:
        make_plan(request, {"type": "multimodal"}, SamplingParams(), "r", None)
    assert caught.value.field == field
