"""A driver asks all problems at once, and a method that fails has given its answer."""

import asyncio
import io
import json
import sys
from typing import Any

import pytest

from bench.peers.driver import Ask, Reply, Settings, main

SETTINGS = {"model": "m", "width": 2, "temperature": 1.0, "max_tokens": 8, "system": "Be."}


def lines_of(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, dict[str, Any]]:
    problems = [{"id": name, "question": f"{name}?"} for name in ("a", "b")]
    asked = [SETTINGS | {"method": "it"}, *problems]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, asked))))
    main({"it": lambda _: ask})
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    return {line.pop("id"): line for line in lines}


def test_no_problem_waits_for_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = asyncio.Barrier(2)

    async def ask(question: str) -> Reply:
        await both.wait()
        return Reply(question.upper(), 3, answers=["1", None])

    found = lines_of(ask, monkeypatch, capsys)
    assert {name: line["text"] for name, line in found.items()} == {"a": "A?", "b": "B?"}
    assert found["a"]["reported_tokens"] == 3
    assert found["a"]["answers"] == ["1", None]
    assert found["a"]["seconds"] >= 0


def test_what_a_method_raises_is_its_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ask(question: str) -> Reply:
        if question == "a?":
            raise KeyError("choices")
        return Reply("1", 1)

    found = lines_of(ask, monkeypatch, capsys)
    assert found["a"]["error"] == "KeyError: 'choices'"
    assert "text" not in found["a"]
    assert found["b"]["text"] == "1"


def test_the_system_turn_comes_first() -> None:
    turns = Settings(**SETTINGS).turns("1 + 1?")
    assert turns == [
        {"role": "system", "content": "Be."},
        {"role": "user", "content": "1 + 1?"},
    ]
