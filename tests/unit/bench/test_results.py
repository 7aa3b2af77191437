"""A benchmark's result says everything needed to judge it, or is not written."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.results import Result, make_result, write_result
from treepo.errors import ConfigError

WHOLE: dict[str, Any] = {
    "seed": 1,
    "config": {"trees": 4},
    "samples": [{"seconds": 0.5}, {"seconds": 0.6}],
    "summary": {"speed": 2.0},
}


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "code.py").write_text("x = 1\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "code")
    return root


def test_a_result_says_what_ran_where_and_how(repository: Path, tmp_path: Path) -> None:
    result = make_result("speed", **WHOLE, root=repository)
    path = write_result(result, tmp_path / "results")
    said = json.loads(path.read_text())
    assert path.name == "speed.json"
    assert said["commit"] == git(repository, "rev-parse", "HEAD")
    assert said["is_dirty"] is False
    assert {"python", "treepo", "numpy"} <= said["versions"].keys()
    assert said["hardware"]["num_cpus"] >= 1
    assert said["hardware"]["memory_bytes"] > 0
    assert said["hardware"]["cpu"]
    assert {name: said[name] for name in WHOLE} == WHOLE
    assert Result.model_validate_json(path.read_text()) == result
    assert [p.name for p in path.parent.iterdir()] == ["speed.json"], "nothing half-written is left"


def test_changed_code_is_dirty_and_changed_results_are_not(repository: Path) -> None:
    (repository / "bench" / "results").mkdir(parents=True)
    (repository / "bench" / "results" / "old.json").write_text("{}")
    (repository / "README.md").write_text("a new verdict\n")
    assert not make_result("speed", **WHOLE, root=repository).is_dirty
    (repository / "code.py").write_text("x = 2\n")
    assert make_result("speed", **WHOLE, root=repository).is_dirty


@pytest.mark.parametrize("name", ["config", "samples", "summary"])
def test_no_result_without_its_parts(repository: Path, name: str) -> None:
    empty = WHOLE | {name: type(WHOLE[name])()}
    with pytest.raises(ConfigError, match=f"no result without `{name}`"):
        make_result("speed", **empty, root=repository)


def test_no_result_without_a_commit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no result without `commit`"):
        make_result("speed", **WHOLE, root=tmp_path)


def test_what_json_cannot_hold_is_refused_and_nothing_is_written(
    repository: Path, tmp_path: Path
) -> None:
    result = make_result("speed", **WHOLE | {"config": {"model": object()}}, root=repository)
    with pytest.raises(ConfigError, match=r"speed\.json"):
        write_result(result, tmp_path / "results")
    assert not (tmp_path / "results").exists()
