"""What each peer asks of a server, and what it makes of the answers: in the peer's environment."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.peers.driver import Settings
from bench.peers.methods import METHODS, Method
from bench.peers.sampling import Block, measure
from tests.support.alike_server import TOKENS, alike

SETTINGS = Settings("m", 8, 1.0, 32, "Be.")
ONE = Block(0, [{"id": "p", "question": "1 + 1?"}])
AGREE = ["So \\boxed{2}."]
# The steps differ, the answers of one in four as well.
MOST_SAY_2 = [f"Step {number}: \\boxed{{{2 + (number % 4 == 0)}}}" for number in range(8)]


def measured(name: str, texts: list[str], log: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The segment of one problem, and the bodies of its requests."""
    method: Method = next(method for method in METHODS if method.name == name)
    home = Path(sys.prefix, f"peers-{method.peer}", "stamp")
    if not home.exists():
        pytest.skip(f"no {home.parent.name} in this environment: `python -m bench.peers` makes it")
    with alike(*texts) as server:
        line = measure(server, method, SETTINGS, ONE, log)
    assert "error" not in line["answers"][0]
    return line, server.asked


@pytest.mark.parametrize(
    ("name", "texts", "num_requests", "num_choices"),
    [
        ("its-hub, self-consistency", AGREE, 8, 8),
        ("its-hub, adaptive", AGREE, 2, 2),
        ("its-hub, adaptive", ["\\boxed{1}", "\\boxed{2}"], 8, 8),
        ("optillm, self-consistency", AGREE, 8, 8),
        ("optillm, majority voting", AGREE, 1, 8),
        # Two simulations: 3 actions, what the user says after each, 3 more, once more, a rating.
        ("optillm, mcts", AGREE, 2 * (1 + 3 + 1 + 1 + 1), 2 * (3 + 3 + 3 + 1 + 1)),
    ],
)
def test_a_method_asks_as_often_as_it_says(
    tmp_path: Path, name: str, texts: list[str], num_requests: int, num_choices: int
) -> None:
    line, asked = measured(name, texts, tmp_path / "log")
    assert line["requests"] == len(asked) == num_requests
    assert line["generated_tokens"] == TOKENS * num_choices
    assert line["answers"][0]["reported_tokens"] == TOKENS * num_choices
    assert asked[0]["messages"] == SETTINGS.turns("1 + 1?")
    assert asked[0]["temperature"] == 1
    assert asked[0].get("max_completion_tokens") or asked[0]["max_tokens"] == 32


@pytest.mark.parametrize("name", ["its-hub, self-consistency", "its-hub, beta"])
def test_its_hub_votes_on_what_is_boxed(tmp_path: Path, name: str) -> None:
    line, _ = measured(name, MOST_SAY_2, tmp_path / "log")
    assert line["answers"][0]["text"].endswith("\\boxed{2}")


def test_optillm_takes_similar_texts_for_one_answer(tmp_path: Path) -> None:
    line, _ = measured("optillm, self-consistency", MOST_SAY_2, tmp_path / "log")
    assert line["answers"][0]["groups"] == 1
    assert line["answers"][0]["text"] == MOST_SAY_2[0]  # which holds the rarer answer
