"""A study's trees from a server: as an engine of one's own would have given them, or an error."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import CharDecoder, coin
from tests.support.tree_server import TreeServer, tree_server
from treepo.errors import EngineError
from treepo.rollout.files import RolloutWriter, read
from treepo.rollout.prompts import Prompt
from treepo.rollout.record import VERSION
from treepo.tree import Tree
from treepo.verdict.collect import Problem, Study, Task
from treepo.verdict.plans import Plan
from treepo.verdict.remote import RemoteSampler

SAMPLING = {"max_tokens": 24, "temperature": 0.5, "wants_logprobs": False}
TREE = {"width": 4, "branching": "even", "answer": "none", "include": ["nodes"]}


class Letters(CharDecoder):
    """One token per letter."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        return super().decode(token_ids)


@pytest.fixture
def server() -> Iterator[TreeServer]:
    with tree_server(Letters(), coin((1, 2), stop=0.1), max_model_len=100) as running:
        yield running


def study(*texts: str) -> Study:
    problems = [Problem(text, Prompt(f"p:{text}", text, {}), "1") for text in texts]
    return Study(problems, [Plan("tree", TREE)], {}, SAMPLING, {"model": "some/model"})


def fill(server: TreeServer, asked: Study, path: Path) -> dict[str, Tree | EngineError]:
    """What was told of each problem."""
    results: dict[str, Tree | EngineError] = {}

    def told(task: Task, result: Tree | EngineError) -> None:
        results[task.problem.name] = result

    sampler = RemoteSampler(server.url, "none", asked)
    with RolloutWriter(path) as writer:
        asyncio.run(sampler.fill(writer, asked.tasks(), told, at_once=2))
    return results


def test_every_sampling_parameter_is_sent_so_that_the_server_fills_in_none(
    server: TreeServer, tmp_path: Path
) -> None:
    fill(server, study("a"), tmp_path / "trees.jsonl")
    (body,) = server.asked
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 0}
    said = {"model": "some/model", "prompt": "a", "max_tokens": 24, "temperature": 0.5}
    assert body.items() >= {**neutral, **said}.items()


def test_trees_have_the_settings_that_were_asked_for(server: TreeServer, tmp_path: Path) -> None:
    fill(server, study("a", "b"), tmp_path / "trees.jsonl")
    trees = [rollout.tree for rollout in read(tmp_path / "trees.jsonl")]
    assert [len(tree.trajectories) for tree in trees] == [4, 4]
    assert all(tree.settings.items() >= TREE.items() for tree in trees)


def test_a_refused_prompt_is_the_error_of_its_own_task(server: TreeServer, tmp_path: Path) -> None:
    results = fill(server, study("a", "b" * 90), tmp_path / "trees.jsonl")
    assert isinstance(results["a"], Tree)
    assert isinstance(error := results["b" * 90], EngineError)
    assert str(error).startswith("the server refused it: ")
    assert "`max_tokens` is 24" in str(error)


def test_records_of_another_version_end_the_run_with_a_remedy(
    server: TreeServer, tmp_path: Path
) -> None:
    server.version = VERSION + 1
    with pytest.raises(EngineError, match=f"{server.url}: .* rollout version {VERSION + 1}"):
        fill(server, study("a"), tmp_path / "trees.jsonl")
