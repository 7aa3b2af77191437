"""`treepo sample`: a tree per prompt, each once, whatever stopped the run before."""

import json
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.machines import CharDecoder, coin
from treepo.commands.sample import add_arguments, run
from treepo.commands.sample_config import SampleConfig, parse
from treepo.engines.base import PathRequest
from treepo.engines.scripted import Script, ScriptedEngine
from treepo.errors import ConfigError, EngineDeadError, EngineError, FieldError, RolloutFileError
from treepo.growth.reference import DEFAULT_NATS
from treepo.rollout.files import Rollout, read

ALPHABET = " abcdefghijklmnopqrstuvwxyz<>"


class ToyTokenizer(CharDecoder):
    """One token per character; a chat is its turns, role and text, in angle brackets."""

    def __init__(self) -> None:
        super().__init__(ALPHABET)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Tokens of a text, behind a `<` where special tokens are wanted."""
        begin = [ALPHABET.index("<")] if add_special_tokens else []
        return begin + super().encode(text)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The characters."""
        return super().decode(token_ids)

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The turns as one text."""
        if conversation[0]["role"] == "tool":
            raise ValueError("no tools here")
        turns = "".join(f"<{turn['role']} {turn['content']}>" for turn in conversation)
        return turns + "<" * add_generation_prompt


class ToyBackend:
    """A scripted engine that counts how often it was started and what it was asked."""

    def __init__(self, failure: Callable[[PathRequest], EngineError | None] | None = None) -> None:
        self.starts = 0
        self.requests: list[PathRequest] = []
        self.engine_in_use: ScriptedEngine | None = None
        self.failure = failure

    def tokenizer(self) -> ToyTokenizer:
        """One token per character."""
        return ToyTokenizer()

    @contextmanager
    def engine(self) -> Iterator[ScriptedEngine]:
        """A new scripted engine."""
        self.starts += 1
        script = Script(chunk_tokens=4, block_size=4, max_model_len=200, failure=self._refuse)
        self.engine_in_use = ScriptedEngine(coin((1, 2, 3), stop=0.05), script)
        yield self.engine_in_use

    def _refuse(self, request: PathRequest) -> EngineError | None:
        self.requests.append(request)
        return self.failure(request) if self.failure else None


class Session:
    """A folder with a prompt file, and the command run on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.prompts = folder / "prompts.jsonl"
        self.output = folder / "trees.jsonl"
        self.backend = ToyBackend()
        self.capsys = capsys
        self.stderr = ""
        self.code: int | None = None

    def put(self, *rows: object) -> None:
        """Writes the prompt file."""
        self.prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def sample(self, *options: str) -> dict[str, Any]:
        """Runs the command; returns its last line on stdout."""
        parser = ArgumentParser()
        add_arguments(parser)
        words = [str(self.prompts), "-o", str(self.output), "--max-tokens", "24", *options]
        self.code = run(parser.parse_args([*words, "--tree", "width=4"]), self.backend)
        captured = self.capsys.readouterr()
        self.stderr = captured.err
        counts: dict[str, Any] = json.loads(captured.out.splitlines()[-1])
        return counts

    def records(self) -> list[Rollout]:
        """What the output holds."""
        return list(read(self.output))


@pytest.fixture
def session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Session:
    return Session(tmp_path, capsys)


def test_every_prompt_gets_a_tree_and_keeps_its_columns(session: Session) -> None:
    rows = [
        {"prompt": "one", "answer": 1, "id": "a"},
        {"messages": [{"role": "user", "content": "two"}], "answer": [2]},
        {"prompt": [{"role": "user", "content": "two"}]},
        {"prompt_token_ids": [3, 1, 4], "level": None},
    ]
    session.put(*rows)
    counts = session.sample()
    records = {len(r.tree.prompt_token_ids): r for r in session.records()}
    assert session.code == 0
    assert counts["trees"] == len(session.records()) == 4
    assert counts["trajectories"] == sum(len(r.tree.trajectories) for r in session.records())
    assert counts["generated_tokens"] == sum(
        r.tree.stats.generated_tokens for r in session.records()
    )
    assert counts["tokens_per_second"] > 0
    texts = ["<one", "<user two><"]
    assert [records[len(t)].tree.prompt_token_ids for t in texts] == [
        tuple(ALPHABET.index(c) for c in t) for t in texts
    ]
    assert records[4].columns == rows[0]
    assert records[3].columns == {"level": None}
    assert records[3].tree.prompt_token_ids == (3, 1, 4)
    assert {json.dumps(r.columns) for r in session.records()} >= {json.dumps(r) for r in rows[:3]}


def test_a_record_says_how_it_was_sampled(session: Session) -> None:
    session.put({"prompt": "one"})
    session.sample("--temperature", "0.5", "--model", "some/model", "--tree", "branching=even")
    (record,) = session.records()
    assert record.origin == {
        "model": "some/model",
        "sampling": {
            "max_tokens": 24, "temperature": 0.5, "top_p": 1.0, "top_k": 0, "seed": None,
        },
    }  # fmt: skip
    assert record.tree.settings["branching"] == "even"
    assert all(t.text is not None for t in record.tree.trajectories)
    assert {r.sampling.temperature for r in session.backend.requests} == {0.5}


def test_prompts_that_have_a_tree_are_passed_over(session: Session) -> None:
    session.put({"prompt": "one"}, {"prompt": "two"})
    assert session.sample("--limit", "1")["trees"] == 1
    counts = session.sample()
    assert (counts["trees"], counts["skipped"]) == (1, 1)
    counts = session.sample()
    assert (counts["trees"], counts["skipped"]) == (0, 2)
    assert session.backend.starts == 2, "where nothing is left no engine is started"
    assert len(session.records()) == 2


def test_other_settings_are_another_tree(session: Session) -> None:
    session.put({"prompt": "one"})
    session.sample()
    for change in (["--seed", "1"], ["--tree", "segment_tokens=8"], ["--model", "other"]):
        assert session.sample(*change)["skipped"] == 0


def test_equal_prompts_are_as_many_trees_and_ids_tell_them_apart(session: Session) -> None:
    session.put({"prompt": "a"}, {"prompt": "a"}, {"prompt": "a", "id": 7})
    assert session.sample()["trees"] == 3
    session.put({"prompt": "a", "id": 7}, {"prompt": "a"}, {"prompt": "a"}, {"prompt": "a"})
    counts = session.sample()
    assert (counts["trees"], counts["skipped"]) == (1, 3)


def test_a_seeded_tree_does_not_depend_on_what_else_is_sampled(session: Session) -> None:
    rows = [{"prompt": "one"}, {"prompt": "two"}, {"prompt": "two"}]
    session.put(*rows)
    session.sample("--seed", "3", "--concurrency", "1")
    together = {r.key: r.tree.nodes for r in session.records()}
    session.output.unlink()
    session.sample("--seed", "3", "--limit", "2")
    session.sample("--seed", "3", "--concurrency", "3")
    assert {r.key: r.tree.nodes for r in session.records()} == together
    assert len(set(together.values())) == 3, "equal prompts get different trees"


def test_a_torn_last_line_is_cut_off_and_its_prompt_sampled_again(session: Session) -> None:
    session.put({"prompt": "one"}, {"prompt": "two"})
    session.sample()
    whole = session.output.read_bytes()
    session.output.write_bytes(whole[:-9])
    counts = session.sample()
    assert "cut off a torn last line" in session.stderr
    assert (counts["trees"], counts["skipped"]) == (1, 1)
    assert len(session.records()) == 2


def test_unseeded_trees_learn_what_entropy_is_usual_and_seeded_ones_do_not(
    session: Session,
) -> None:
    session.put(*({"prompt": "x"} for _ in range(40)))
    session.sample("--concurrency", "1")
    thresholds = [r.tree.settings["entropy_threshold"] for r in session.records()]
    assert thresholds[0] == DEFAULT_NATS
    assert DEFAULT_NATS < thresholds[1] < thresholds[-1] < 1.5
    session.output.unlink()
    session.sample("--concurrency", "1", "--seed", "1")
    assert {r.tree.settings["entropy_threshold"] for r in session.records()} == {DEFAULT_NATS}


def test_concurrency_bounds_the_trees_that_run(session: Session) -> None:
    session.put(*({"prompt": "x"} for _ in range(6)))
    session.sample("--concurrency", "2")
    assert session.backend.engine_in_use is not None
    assert 4 < session.backend.engine_in_use.counters.most_running <= 2 * 4


def test_a_refused_prompt_is_reported_and_the_others_go_on(session: Session) -> None:
    session.backend.failure = lambda request: (
        EngineError("no such token") if request.token_ids[0] == 99 else None
    )
    session.put({"prompt": "one"}, {"prompt_token_ids": [99]}, {"prompt": "two"})
    counts = session.sample()
    assert (session.code, counts["trees"], counts["failed"]) == (1, 2, 1)
    assert "prompts.jsonl:2: no tree: no such token" in " ".join(session.stderr.split())
    session.backend.failure = None
    assert session.sample()["trees"] == 1


def test_a_dead_engine_ends_the_run_and_what_is_written_stays(session: Session) -> None:
    session.backend.failure = lambda request: (
        EngineDeadError("gone") if len(request.token_ids) == 3 else None
    )
    session.put({"prompt": "one"}, {"prompt": "be"}, {"prompt": "two"})
    with pytest.raises(EngineDeadError, match="gone"):
        session.sample("--concurrency", "1")
    assert len(session.records()) == 1
    session.backend.failure = None
    assert session.sample()["trees"] == 2


def test_an_interrupt_leaves_nothing_running_and_what_is_written(session: Session) -> None:
    def interrupt(request: PathRequest) -> None:
        if len(request.token_ids) == 3:
            raise KeyboardInterrupt

    session.backend.failure = interrupt
    session.put({"prompt": "one"}, {"prompt": "be"})
    with pytest.raises(KeyboardInterrupt):
        session.sample("--concurrency", "1")
    assert session.backend.engine_in_use is not None
    assert session.backend.engine_in_use.counters.running == 0
    assert len(session.records()) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "no JSON: EOF while parsing an object at column 1"),
        ('{"prompt": NaN}', "no JSON"),
        ("[1]", "not an object"),
        ('{"text": "Hi"}', "one of `prompt`, `messages`, `prompt_token_ids`; here none of them"),
        ('{"prompt": "a", "prompt_token_ids": [1]}', "here `prompt` and `prompt_token_ids`"),
        ('{"prompt": ""}', "`prompt` must be a text, or a list of messages"),
        ('{"prompt": ["a"]}', "`prompt` must be a text, or a list of messages"),
        ('{"messages": []}', "`messages` must be a list of messages"),
        ('{"messages": [{"role": "user"}]}', "`messages` must be a list of messages"),
        ('{"prompt_token_ids": [1, -1]}', "`prompt_token_ids` must be a list of token ids"),
        ('{"prompt_token_ids": [true]}', "`prompt_token_ids` must be a list of token ids"),
        ('{"messages": [{"role": "tool", "content": ""}]}', "chat template cannot be used: no too"),
    ],
)
def test_a_bad_prompt_is_an_error_that_names_its_line(
    session: Session, line: str, reason: str
) -> None:
    session.prompts.write_text(f'{{"prompt": "a"}}\n\n{line}\n')
    with pytest.raises(ConfigError) as caught:
        session.sample()
    assert str(caught.value).startswith(f"{session.prompts}:3: ")
    assert reason in str(caught.value)
    assert session.backend.starts == 0


def test_a_prompt_that_is_too_long_is_named_before_anything_is_sampled(session: Session) -> None:
    session.put({"prompt": "a"}, {"prompt": "a" * 180})
    with pytest.raises(ConfigError, match=r":2: the prompt has 181 tokens, which leaves 19 of the"):
        session.sample()
    assert session.backend.requests == []


def test_a_prompt_file_must_be_there_and_hold_something(session: Session) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.jsonl: No such file"):
        session.sample()
    session.prompts.write_text("\n")
    with pytest.raises(ConfigError, match=r"prompts\.jsonl: no prompts"):
        session.sample()


def test_a_bad_output_is_never_added_to(session: Session) -> None:
    session.put({"prompt": "a"})
    session.output.write_text('{"prompt": "a"}\n')
    with pytest.raises(RolloutFileError, match=r"trees\.jsonl:1: no rollout record"):
        session.sample()
    assert session.output.read_text() == '{"prompt": "a"}\n'


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--max-tokens", "0"], ConfigError, "`--max-tokens` is '0': Input should be greater"),
        (["--temperature", "hot"], ConfigError, "`--temperature` is 'hot': Input should be a"),
        (["--top-p", "0"], ConfigError, "`--top-p`"),
        (["--concurrency", "0"], ConfigError, "`--concurrency`"),
        (["--limit", "0"], ConfigError, "`--limit`"),
        (["--tree", "wide"], ConfigError, "`--tree` is 'wide'; write key=value or a JSON object"),
        (["--tree", "depth=3"], FieldError, r"`tree\.depth` is 3; allowed: no such field"),
        (["--tree", '{"branching": 1}'], FieldError, r"`tree\.branching` is 1"),
        (["--tree", "answer=who"], FieldError, r"`tree\.answer` is 'who'"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(
    session: Session, options: list[str], error: type[Exception], message: str
) -> None:
    session.put({"prompt": "a"})
    with pytest.raises(error, match=message):
        session.sample(*options)
    assert not session.output.exists()


def test_what_goes_wrong_in_the_watched_process_is_said_once(session: Session) -> None:
    words = ["sample", str(session.prompts), "-o", str(session.output), "--tree", "width=3"]
    done = subprocess.run(
        [sys.executable, "-m", "treepo.cli", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == f"treepo: error: {session.prompts}: No such file or directory\n"
    assert done.stdout == ""


def test_the_configuration_reaches_the_watched_process_as_it_is(session: Session) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    words = ["p", "-o", "t", "--tree", '{"root_branching": [1, 4], "until": 0.9}', "--seed", "5"]
    config = parse(parser.parse_args([*words, "--vllm", "tensor_parallel_size=2"]))
    assert config.vllm == {"tensor_parallel_size": 2}
    assert config.tree.root_branching == (1, 4)
    assert SampleConfig.model_validate_json(config.model_dump_json()) == config


def test_tree_settings_may_be_json_or_pairs_and_the_later_one_holds(session: Session) -> None:
    session.put({"prompt": "a"})
    session.sample(
        "--tree", '{"segment_tokens": 8, "branching": "even", "until": 0.9}',
        "--tree", "segment_tokens=12", "--tree", 'answer={"json": "a"}',
    )  # fmt: skip
    (record,) = session.records()
    settings = record.tree.settings
    assert (settings["segment_tokens"], settings["branching"]) == (12, "even")
    assert (settings["until"], settings["answer"]) == (0.9, {"json": "a"})
