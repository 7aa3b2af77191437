"""Rows worked by hand: who is right, at what cost, and against what."""

from typing import Any

import pytest

from bench.peers.judging import read_samples, summarise, whole_blocks
from bench.peers.methods import BASELINE, METHODS
from bench.sections.peers import peers
from treepo.errors import ConfigError

GOLDS = {"p0": "7", "p1": "12"}
WRONG, RIGHT = "So \\boxed{5}.", {"p0": "\\boxed{7}", "p1": "thus \\boxed{12}."}


def segment(method: str, texts: dict[str, str | None], tokens: float, **more: Any) -> Any:
    answers = [
        {"id": name, "seconds": 1.0 + number, "text": text, "reported_tokens": 9, **more}
        for number, (name, text) in enumerate(texts.items())
    ]
    spent = {"generated_tokens": tokens, "requests": 4.0, "steps": 30.0, "load": 1.5}
    return {"method": method, "block": 0, **spent, "answers": answers}


async def summary_of(**others: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Both problems are right for everybody, except where `others` has other texts and tokens."""
    lines = []
    for method in METHODS:
        texts, tokens = others.get(method.name, (RIGHT, 40.0))
        more = {"answers": ["7", "5", "7", None]} if method.name == BASELINE else {}
        lines.append(segment(method.name, texts, tokens, **more))
    samples = await read_samples(lines, GOLDS)
    return samples, summarise(samples, GOLDS)


async def test_a_method_is_held_against_the_vote_and_the_tokens() -> None:
    # The samples of the baseline, 7 5 7 -, suit problem p0 alone: its curve rises from 1/2 at one
    # sample towards 1, p1's stays at 0. Its vote, however, was right on both.
    wrong_once = {"p0": WRONG, "p1": RIGHT["p1"]}
    _, found = await summary_of(tree=(wrong_once, 20.0))
    base, tree = found["rows"][:2]
    assert (base["accuracy"]["value"], base["difference"]["value"]) == (1.0, 0.0)
    assert (tree["accuracy"]["value"], tree["difference"]["value"]) == (0.5, -0.5)
    assert (tree["difference"]["low"], tree["difference"]["high"]) == (-1.0, 0.0)
    assert found["path_tokens"] == 5.0  # 40 tokens, two problems, four samples each
    assert (base["tokens"], base["same_tokens"]["paths"]) == (20.0, 4.0)
    assert (tree["tokens"], tree["same_tokens"]["paths"]) == (10.0, 2.0)
    assert found["independent"][0] == pytest.approx(0.25, abs=0.05)
    assert found["independent"][3] == 0.5
    assert tree["same_tokens"]["independent"] == pytest.approx(found["independent"][1])
    assert (tree["requests"], tree["mean_s"], tree["unread"]) == (2.0, 1.5, 0)
    assert (tree["steps"], tree["load"]) == (30.0, 1.5)


async def test_no_text_is_no_answer_and_wrong() -> None:
    samples, found = await summary_of(**{METHODS[-1].name: ({"p0": None, "p1": "12"}, 40.0)})
    assert [s["answer"] for s in samples[-2:]] == [None, None]
    last = found["rows"][-1]
    assert (last["accuracy"]["value"], last["unread"], last["failed"]) == (0.0, 2, 0)


async def test_an_error_is_counted() -> None:
    lines = [segment(METHODS[1].name, RIGHT, 40.0, error="TypeError: no")]
    lines += [segment(m.name, RIGHT, 40.0, answers=["7"]) for m in METHODS if m is not METHODS[1]]
    rows = summarise(await read_samples(lines, GOLDS), GOLDS)["rows"]
    assert [row["failed"] for row in rows[:3]] == [0, 2, 0]


def test_only_blocks_of_all_methods_count() -> None:
    first = [segment(method.name, RIGHT, 40.0) for method in METHODS]
    second = [{**line, "block": 1} for line in first[1:]]
    assert whole_blocks([*second, *reversed(first)]) == [first]
    with pytest.raises(ConfigError, match="no block"):
        whole_blocks(second)


async def test_the_section_shows_every_method() -> None:
    _, found = await summary_of(tree=({"p0": WRONG, "p1": RIGHT["p1"]}, 20.0))
    config = {
        "versions": {"its-hub": "1.2.0"},
        "width": 4,
        "in_flight": 2,
        "sampling": {"temperature": 1.0},
    }
    text = peers({"summary": found, "config": config})
    assert "| tree | 50.0 % | -50.0 (-100.0 to +0.0) | 10 | 9 | " in text
    assert "its-hub 1.2.0; 2 problems" in text
    assert all(f"| {method.name} | " in text for method in METHODS)
