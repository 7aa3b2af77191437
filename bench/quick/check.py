"""One ratio of a short run, held against the committed result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bench.results import FOLDER


@dataclass(frozen=True, slots=True)
class Check:
    """A ratio, now and as committed.

    Attributes:
        name: What it is.
        now: In this run.
        committed: In the committed result.
        tolerance: How many times worse it may be.
        is_cost: Whether more is worse.
    """

    name: str
    now: float
    committed: float
    tolerance: float
    is_cost: bool = True

    @property
    def worse(self) -> float:
        """How many times worse than committed; below 1 where it is better."""
        change = self.now / self.committed
        return change if self.is_cost else 1 / change

    @property
    def is_regression(self) -> bool:
        """Whether it is worse than tolerated."""
        return self.worse > self.tolerance


def committed(name: str) -> Any:
    """A committed result: what `bench.results.Result` has, as JSON values.

    Raises:
        SystemExit: There is none; without it nothing can be compared.
    """
    file = FOLDER / f"{name}.json"
    if not file.exists():
        raise SystemExit(f"{file} is missing: `python -m bench.{name}` writes it")
    return json.loads(file.read_text())
