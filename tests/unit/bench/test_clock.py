"""`bench.clock` compares seconds within a block, and finds the time of the same accuracy."""

from typing import Any

import pytest

from bench.clock import BASELINE, COUNTS, PLANS, accuracies, summarise, turn


def sample(plan: str, block: int, seconds: float) -> dict[str, Any]:
    waits = [seconds / 2, seconds]
    return {
        "plan": plan, "block": block, "seconds": seconds, "answer_s": waits, "generated_tokens": 200
    }  # fmt: skip


def blocks(plan: str, *seconds: float) -> list[dict[str, Any]]:
    return [sample(plan, block, value) for block, value in enumerate(seconds)]


KNOWN = {f"independent, {n}": 0.4 + 0.02 * n for n in COUNTS} | {"entropy": 0.56}


def test_a_plan_is_as_fast_as_its_ratio_within_each_block() -> None:
    rows = summarise([*blocks(BASELINE, 8.0, 16.0), *blocks("entropy", 4.0, 16.0)], KNOWN)
    assert rows[1]["speedup"] == 1.5  # the median of 2 and 1, not of 12 over 10
    assert rows[1]["speedup_range"] == [1.0, 2.0]
    assert rows[1]["tokens"] == 100


def test_the_time_of_the_same_accuracy_lies_between_two_numbers_of_samples() -> None:
    # 0.56 is what 8 samples reach, at 4 seconds for two problems; the plan takes 2.
    samples = [s for n in COUNTS for s in blocks(f"independent, {n}", n / 2)]
    rows = summarise([*samples, *blocks("entropy", 2.0)], KNOWN)
    assert rows[-1]["same_accuracy_speedup"] == pytest.approx(2.0)
    own = {row["plan"]: row["same_accuracy_speedup"] for row in rows[:-1]}
    assert own == pytest.approx(dict.fromkeys(own, 1.0))


def test_beyond_the_curve_there_is_no_time_to_compare_with() -> None:
    samples = [s for n in COUNTS for s in blocks(f"independent, {n}", n / 2)]
    rows = summarise([*samples, *blocks("entropy", 2.0)], KNOWN | {"entropy": 0.9})
    assert rows[-1]["same_accuracy_speedup"] is None


def test_every_plan_takes_every_place_once() -> None:
    firsts = {turn(block)[0].name for block in range(len(PLANS))}
    assert firsts == {plan.name for plan in PLANS}


def test_accuracies_are_read_from_the_result_of_the_quality_bench() -> None:
    summary = {
        "independent": {"1": {"accuracy": 0.5}},
        "rows": [{"plan": "entropy", "majority": {"accuracy": {"value": 0.7}}}],
    }
    assert accuracies(summary) == {"independent, 1": 0.5, "entropy": 0.7}
