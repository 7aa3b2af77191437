"""docs/benchmarks.md says what the result files say, and nothing else."""

import json
from pathlib import Path
from typing import Any

from bench.report import PAGE, README, SECTIONS, page, readme
from bench.results import ROOT
from bench.sections.accuracy import verdict


def gap(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def row(plan: str, tokens: float, right: float) -> dict[str, Any]:
    found = {"tokens": gap(tokens), "paths": tokens / 80, "accuracy": gap(right)}
    found |= {"independent": 0.6, "difference": gap(right - 0.6), "is_beyond": False}
    names = ("leaves", "majority", "weighted", "passed", "effective", "seconds")
    mean = dict.fromkeys(names, right)
    return {"plan": plan, "mean": mean, "majority": found, "weighted": found}


def test_the_committed_page_is_the_one_that_the_results_give() -> None:
    assert PAGE.read_text() == page(), "run `python -m bench.report`"
    assert README.read_text() == readme(), "run `python -m bench.report`"


def test_no_bench_writes_a_result_without_the_pages() -> None:
    files = [file for file in (ROOT / "bench").rglob("*.py") if "write_result" in file.read_text()]
    assert sorted(file.name for file in files) == ["report.py", "results.py"]


def test_what_was_not_measured_is_named_with_its_command(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert text.count("Not measured yet") == len(SECTIONS)
    assert "`bench.quality` writes `quality.json`" in text


def test_the_verdict_tells_the_plans_that_were_judged_and_the_speeds_that_were_measured() -> None:
    rows = [
        row("independent", 1280, 0.6), row("entropy", 960, 0.7), row("even, root 2", 640, 0.5)
    ]  # fmt: skip
    judged = {"config": {"width": 16}, "summary": {"rows": rows}}
    timed = {"summary": {"rows": [{"plan": "entropy", "speedup": 1.5, "speedup_range": [1, 2]}]}}
    assert verdict(judged, timed).splitlines()[2:] == [
        "| 16 independent samples | 1280 | 60.0 % |  |  |",
        "| the default tree | 960 | 70.0 % | +10.0 (+8.0 to +12.0) | 1.50 (1.00 to 2.00) |",
        "| the paper's even split of two roots | 640 | 50.0 % | -10.0 (-12.0 to -8.0) |  |",
    ]


def test_a_result_is_shown_with_its_run(tmp_path: Path) -> None:
    summary = {
        "problems": 7,
        "path_tokens": 80.0,
        "independent": {"1": {"accuracy": 0.4, "passed": 0.4}},
        "rows": [row("independent", 1280, 0.6), row("independent, settled", 640, 0.58)],
        "verdicts": {"independent, settled": "On 7 problems, nothing can be told."},
    }
    result = {
        "made_at": "2030-01-02T03:04:05+00:00",
        "commit": "c" * 40,
        "is_dirty": True,
        "hardware": {"cpu": "Fast", "num_cpus": 2, "gpus": [], "load_average": 0.5},
        "config": {"sampling": {"temperature": 1.0}},
        "summary": summary,
    }
    (tmp_path / "quality.json").write_text(json.dumps(result))
    text = page(tmp_path)
    assert "| independent, 1 | 1 | 80 | 1.0 | 40.0 % |" in text
    assert "-2.0 (-4.0 to " in text
    assert "`independent, settled` saves 50% of the tokens of `independent`, at -2.0 points" in text
    assert "2030-01-02, commit cccccccc, with changes that are not in it; 2 cores of Fast" in text
