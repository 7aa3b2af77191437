"""`make bench` fails on what has become worse by more than its tolerance, and on nothing else."""

import json
import sys
from collections.abc import Iterator

import pytest

from bench.quick import __main__ as quick
from bench.quick.check import Check, committed


@pytest.mark.parametrize(
    ("now", "is_cost", "is_regression"),
    [(1.4, True, False), (1.6, True, True), (0.7, False, False), (0.6, False, True)],
)
def test_a_check_fails_beyond_its_tolerance_in_its_own_direction(
    now: float, is_cost: bool, is_regression: bool
) -> None:
    assert Check("x", now, 1.0, 1.5, is_cost).is_regression is is_regression


def test_a_result_that_is_missing_says_what_writes_it() -> None:
    with pytest.raises(SystemExit, match=r"python -m bench\.nothing"):
        committed("nothing")


def test_a_regression_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def checks() -> Iterator[Check]:
        yield Check("good", 1.0, 1.0, 1.1)
        yield Check("bad", 2.0, 1.0, 1.1)

    monkeypatch.setattr(quick, "CHECKS", {"some": checks})
    monkeypatch.setattr(sys, "argv", ["quick"])
    assert quick.main() == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last)["regressions"] == ["bad"]
