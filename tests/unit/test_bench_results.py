"""A benchmark's result says everything needed to judge it, or is not written."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import controller, overhead
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


def sample(num_trees: int, tree_s: float, engine_s: float) -> controller.Sample:
    return controller.Sample("even", num_trees, 1_000_000, tree_s, tree_s, engine_s)


def test_the_controllers_cost_is_what_the_engine_does_not_explain() -> None:
    assert sample(16, 3.0, 1.0).controller_us == pytest.approx(2.0)
    assert sample(16, 2.5, 1.0).tokens_per_second == pytest.approx(400_000)


def test_a_controller_is_flat_when_its_least_costs_are() -> None:
    noisy = [sample(size, 4.0 + late, 1.0) for size in (16, 256, 1024) for late in (0, 0.5, 0.25)]
    summary = controller.summarise(noisy)
    assert (summary["is_flat"], summary["spread"]) == (True, 1.0)
    assert (summary["is_fast"], summary["tokens_per_second"]) == (True, 235294)
    steep = [sample(16, 2.0, 1.0), sample(256, 6.0, 1.0), sample(1024, 6.0, 1.0)]
    summary = controller.summarise(steep)
    assert (summary["is_flat"], summary["spread"]) == (False, 5.0)
    assert (summary["is_fast"], summary["tokens_per_second"]) == (False, 166667)


def test_the_measured_engine_does_the_same_work_without_the_sampler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controller, "TREES_PER_SAMPLE", 4)
    monkeypatch.setattr(controller, "_set_collector", lambda *, is_calm: None)
    for variant in controller.VARIANTS:
        measured = controller.measure(variant, 2)
        assert measured.num_tokens > 4 * controller.MAX_TOKENS
        assert measured.tree_s > measured.engine_s > 0


def test_overhead_compares_the_sides_of_a_round_with_each_other() -> None:
    speeds = {"plain": [100.0, 50.0, 80.0], "tree": [99.0, 49.0, 88.0], "entropy": [90.0, 40.0, 80]}
    samples = [
        overhead.Sample(side, number, 1000, 1000 / speed)
        for side, own in speeds.items()
        for number, speed in enumerate(own)
    ]
    summary = overhead.summarise(samples)
    assert summary["ratio_by_round"] == [0.99, 0.98, 1.1]
    assert (summary["ratio"], summary["entropy_ratio"]) == (0.99, 0.9)
    assert summary["ratio_interval"] == (0.98, 1.1)
    assert summary["is_met"] is True
    assert summary["tokens_per_second"] == {"plain": 80.0, "tree": 88.0, "entropy": 80.0}
