"""What docs/paper.md names is there: modules, functions, settings, tests."""

import re
from pkgutil import resolve_name

import pytest

from tests.docs.pages import ROOT, text_of
from treepo.train.config import TrainConfig

NAMES = re.findall(r"`([a-z_]+(?:[./][A-Za-z_]+)+)`", text_of("docs/paper.md"))
PLACES = ("treepo", "treepo.train", "treepo.growth", "treepo.policies", "treepo.votes")


def is_setting(name):
    """Whether it is a key of a run's configuration."""
    at = TrainConfig
    for part in name.split("."):
        fields = getattr(at, "model_fields", None) or getattr(at, "__dataclass_fields__", {})
        if part not in fields:
            return False
        found = fields[part]
        at = found.annotation if hasattr(found, "annotation") else found.default_factory
    return True


def is_object(name):
    """Whether a module of ours holds it, or is it."""
    dotted = name.replace("/", ".")
    for place in ("", *(f"{place}." for place in PLACES)):
        try:
            resolve_name(place + dotted)
        except (ImportError, AttributeError):
            continue
        return True
    return False


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_what_the_page_names_is_there(name):
    is_file = any((place / name).is_file() for place in (ROOT, ROOT / "treepo"))
    assert is_file or is_object(name) or is_setting(name)
