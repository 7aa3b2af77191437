"""Segments: every method meets every block, once, and the server counts what it took."""

from pathlib import Path
from typing import Any

import pytest

from bench.peers import sampling
from bench.peers.driver import Settings
from bench.peers.methods import BASELINE, METHODS, Method
from bench.peers.sampling import Block, Segments, blocks, fill, measure
from tests.support.alike_server import TOKENS, AlikeServer, alike
from treepo.errors import EngineError

SETTINGS = Settings("m", 2, 1.0, 8, "Be.")
PROBLEMS = [{"id": f"p{number}", "question": f"{number}?"} for number in range(5)]
OURS = METHODS[0]


def played(_: Method, settings: Settings, problems: Any, log: Path) -> list[dict[str, Any]]:
    return [{"id": p["id"], "seconds": 1.0, "text": settings.method} for p in problems]


def test_every_method_comes_first_in_turn() -> None:
    asked = list(blocks(PROBLEMS * 2, 1))
    assert [len(block.problems) for block in blocks(PROBLEMS, 2)] == [2, 2, 1]
    names = sorted(method.name for method in METHODS)
    assert sorted(block.turn[0].name for block in asked[: len(METHODS)]) == names
    assert all(sorted(method.name for method in block.turn) == names for block in asked)


def test_a_stopped_run_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sampling, "drive", played)
    segments, asked = Segments(tmp_path / "s.jsonl", SETTINGS), list(blocks(PROBLEMS, 3))
    with alike("") as server:
        fill(server, segments, asked[:1], tmp_path / "log", 1e9)
        assert len(segments.known(asked)) == len(METHODS)
        fill(server, segments, asked, tmp_path / "log", 0)
        assert len(segments.known(asked)) == len(METHODS)
        fill(server, segments, asked, tmp_path / "log", 1e9)
    found = [(line["block"], line["method"]) for line in segments.known(asked)]
    assert sorted(found) == sorted((b, m.name) for b in (0, 1) for m in METHODS)
    assert segments.missing(asked) == []


def test_segments_of_other_settings_or_blocks_are_not_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sampling, "drive", played)
    file, asked = tmp_path / "s.jsonl", list(blocks(PROBLEMS, 3))
    with alike("") as server:
        fill(server, Segments(file, SETTINGS), asked, tmp_path / "log", 1e9)
    hotter = Settings("m", 2, 1.5, 8, "Be.")
    assert Segments(file, hotter).known(asked) == []
    assert Segments(file, SETTINGS).known(list(blocks(PROBLEMS, 2))) == []


def test_a_segment_is_what_the_server_counted(tmp_path: Path) -> None:
    with alike("It is \\boxed{1}.") as server:
        server.answer({"model": "m"})  # asked before, by somebody else
        line = measure(server, OURS, SETTINGS, Block(4, PROBLEMS[:3]), tmp_path / "log")
        body = server.asked[-1]
    assert line["method"] == BASELINE
    assert (line["block"], line["requests"]) == (4, 3)
    assert line["generated_tokens"] == line["steps"] == 3 * TOKENS
    assert line["load"] >= 0
    assert line["seconds"] == max(answer["seconds"] for answer in line["answers"])
    assert [answer["id"] for answer in line["answers"]] == ["p0", "p1", "p2"]
    assert line["answers"][0]["text"] == "It is \\boxed{1}."
    assert line["answers"][0]["answers"] == ["1", None]
    assert body["tree"] == {"width": 2, **OURS.options}
    assert (body["temperature"], body["max_tokens"]) == (1.0, 8)
    assert body["messages"][0] == {"role": "system", "content": "Be."}


def test_a_driver_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    unknown = Method("new", "ours", "no such method")
    with (
        AlikeServer([""]) as server,
        pytest.raises(EngineError, match=r"new: 0 of 1 answers[\s\S]*KeyError"),
    ):
        measure(server, unknown, SETTINGS, Block(0, PROBLEMS[:1]), tmp_path / "log")
