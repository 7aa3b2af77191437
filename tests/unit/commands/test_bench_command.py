"""`treepo bench`: a verdict on the caller's own prompts, which a second run goes on with."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.machines import CharDecoder
from tests.support.tree_server import TreeServer, tree_server
from treepo.commands.bench import add_arguments, run
from treepo.engines.scripted import EOS, Script, ScriptedEngine, TokenMachine
from treepo.errors import ConfigError, EngineError
from treepo.rollout.files import Rollout, read

MACHINE = TokenMachine(
    {
        "s": {4: (0.8, "s"), 1: (0.12, "e"), 2: (0.08, "e")},
        "e": {EOS: (1.0, "e")},
    },
    "s",
)


class Digits(CharDecoder):
    """Tokens 1 to 3 are digits, token 4 is a dash."""

    def __init__(self) -> None:
        super().__init__(" 123-abcdefgh")

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return super().encode(text)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return super().decode(token_ids)


class DigitBackend:
    """A scripted engine that ends every path with a digit."""

    starts = 0

    def tokenizer(self) -> Digits:
        return Digits()

    @contextmanager
    def engine(self) -> Iterator[ScriptedEngine]:
        self.starts += 1
        yield ScriptedEngine(MACHINE, Script(chunk_tokens=4, max_model_len=300, seed=self.starts))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"abc{letter}", "answer": "1", "gold": 1} for letter in "defgh"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def server() -> Iterator[TreeServer]:
    with tree_server(Digits(), MACHINE) as running:
        yield running


def bench(prompts: Path, backend: DigitBackend | None, *options: str) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    words = ["--prompts", str(prompts), "-o", str(prompts.parent / "out"), "--max-tokens", "64"]
    tree = ["--tree", "width=8", "--tree", "answer=last_number"]
    return run(parser.parse_args([*words, *tree, *options]), backend)


def trees(prompts: Path) -> list[Rollout]:
    return list(read(prompts.parent / "out" / "trees.jsonl"))


def results(prompts: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((prompts.parent / "out" / "results.json").read_text())
    return found


def test_a_verdict_has_a_sentence_a_table_a_file_and_two_plots(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(prompts, DigitBackend()) == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["verdict"] == results(prompts)["verdict"]
    assert "On 5 problems" in out
    assert "independent, start 4, until 0.95" in out
    for name in ("accuracy.png", "branches.png"):
        assert (prompts.parent / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_every_figure_can_be_had_again_from_the_outcomes(prompts: Path) -> None:
    bench(prompts, DigitBackend())
    found = results(prompts)
    for row in found["rows"]:
        own = [o for o in found["outcomes"] if o["plan"] == row["plan"]]
        assert len(own) == 5
        for name, mean in row["mean"].items():
            assert mean == pytest.approx(sum(o[name] for o in own) / 5)


def test_a_second_run_samples_nothing_and_says_the_same(prompts: Path) -> None:
    backend = DigitBackend()
    bench(prompts, backend)
    first = results(prompts)
    bench(prompts, backend, "--answers", "gold")
    assert backend.starts == 1
    assert results(prompts)["outcomes"] == first["outcomes"]


def test_answers_can_stand_in_a_file_of_their_own(prompts: Path) -> None:
    file = prompts.parent / "gold.txt"
    file.write_text("3\n" * 5)
    bench(prompts, DigitBackend(), "--answers", str(file))
    assert {row["mean"]["passed"] for row in results(prompts)["rows"]} == {0.0}


def test_a_prompt_without_an_answer_is_named(prompts: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.jsonl:1: no column `truth`.*--answers"):
        bench(prompts, DigitBackend(), "--answers", "truth")


def test_an_answer_that_cannot_be_read_is_named_with_its_prompt(prompts: Path) -> None:
    file = prompts.parent / "gold.txt"
    file.write_text("1\n2\n####\n4\n5\n")
    with pytest.raises(ConfigError, match=r"prompts\.jsonl:3: the right answer '####' cannot be"):
        bench(prompts, DigitBackend(), "--answers", str(file))


def test_too_few_answers_are_counted_with_a_remedy(prompts: Path) -> None:
    file = prompts.parent / "gold.txt"
    file.write_text("3\n" * 4)
    with pytest.raises(ConfigError, match=r"4 answers for 5 prompts; .* `--limit`"):
        bench(prompts, DigitBackend(), "--answers", str(file))


def test_the_baseline_runs_to_its_end_whatever_ends_the_trees(prompts: Path) -> None:
    ends = {"max_depth": 1, "start": 2, "until": "settled", "max_total_tokens": 9, "vote": "none"}
    bench(prompts, DigitBackend(), "--tree", json.dumps(ends), "--tree", "segment_tokens=16")
    settings = {r.columns["plan"]: r.tree.settings for r in trees(prompts)}
    assert settings["tree"].items() >= ends.items()
    whole = {"until": "complete", "start": 8, "max_total_tokens": None, "vote": "none"}
    # 64 tokens are four segments of 16, and one more for the last boundary.
    assert settings["independent"].items() >= {**whole, "max_depth": 5, "width": 8}.items()


def test_a_prompt_that_is_too_long_is_named_and_the_others_are_judged(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = json.dumps({"prompt": "a" * 290, "answer": "1"})
    prompts.write_text(f"{long}\n{prompts.read_text()}")
    assert bench(prompts, DigitBackend()) == 0
    assert "On 5 problems" in results(prompts)["verdict"]
    assert f"{prompts}:1: no tree for `tree`: `max_tokens` is 64" in capsys.readouterr().err


def test_a_server_is_asked_with_the_flags_key_before_the_environments(
    prompts: Path, server: TreeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREEPO_API_KEY", "theirs")
    ask = ("--base-url", server.url, "--limit", "1")
    bench(prompts, None, *ask, "--api-key", "mine")
    assert server.keys == {"mine"}
    server.keys.clear()
    bench(prompts, None, *ask, "--max-tokens", "32")
    assert server.keys == {"theirs"}


def test_trees_are_those_of_the_model_that_the_server_had(
    prompts: Path, server: TreeServer
) -> None:
    ask = ("--base-url", server.url, "--limit", "2")
    for model in ("first", "second"):
        server.model = model
        bench(prompts, None, *ask)
        assert results(prompts)["config"]["model"] == model
    assert [body["model"] for body in server.asked] == ["first"] * 4 + ["second"] * 4
    assert [r.origin["model"] for r in trees(prompts)] == ["first"] * 4 + ["second"] * 4
    bench(prompts, None, *ask, "--model", "first")
    assert len(server.asked) == 8, "what was sampled of a model is not sampled again"


def test_a_server_that_cannot_be_reached_is_named(prompts: Path) -> None:
    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:9/v1: Connection error"):
        bench(prompts, None, "--base-url", "http://127.0.0.1:9/v1")
