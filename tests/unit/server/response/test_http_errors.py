"""Every error of ours has one answer over HTTP, and none of them tells what an engine said."""

import inspect
from http import HTTPStatus

import pytest

from treepo import errors
from treepo.errors import (
    EngineDeadError,
    EngineError,
    FieldError,
    OverloadError,
    RolloutFileError,
    TreePOError,
)
from treepo_server.response.errors import RULES, reply

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, TreePOError)
]
FURTHER = {
    FieldError: ("tree.width", 0, "1 to 64", "Send 8."),
    RolloutFileError: ("trees.jsonl", 3, "torn"),
}


def make(kind: type[TreePOError]) -> TreePOError:
    if issubclass(kind, OverloadError):
        return kind("all slots are taken", retry_after_s=1.2)
    return kind(*FURTHER.get(kind, ("File /secret/engine.py, line 3",)))


def test_the_table_is_total():
    assert set(CLASSES) == set(RULES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_answer_has_openais_shape(kind):
    answer = reply(make(kind))
    error = answer.body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == answer.status
    assert error["type"].endswith("Error")
    assert answer.status in (400, 429, 500, 503)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_nothing_of_the_servers_insides_is_told(kind):
    assert "secret" not in reply(make(kind)).body["error"]["message"]


def test_a_wrong_field_is_named():
    error = reply(FieldError("tree.width", 0, "1 to 64", "Send 8.")).body["error"]
    assert error["param"] == "tree.width"
    assert all(part in error["message"] for part in ("tree.width", "0", "1 to 64", "Send 8."))


def test_only_what_may_succeed_later_is_a_503():
    assert reply(EngineError("busy", is_retryable=True)).status is HTTPStatus.SERVICE_UNAVAILABLE
    assert reply(EngineError("broken")).status is HTTPStatus.INTERNAL_SERVER_ERROR
    assert reply(EngineDeadError("gone")).status is HTTPStatus.SERVICE_UNAVAILABLE


def test_overload_says_when_to_come_back():
    answer = reply(OverloadError("all slots are taken", retry_after_s=1.2))
    assert answer.status is HTTPStatus.TOO_MANY_REQUESTS
    assert answer.headers == {"Retry-After": "2"}
