"""`make bench`: a short version of the benchmarks, held against the committed results.

Machines differ, so what is compared is always a ratio of one run: the controller's cost over the
scripted engine's own, a policy's tokens and worth over independent sampling's, and a tree's speed
and tokens over `n=16` on one real engine. It fails where a ratio has become worse by more than its
tolerance, and writes no result file. Another check is another function in `CHECKS`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import controller, search
from bench.results import FOLDER
from treepo.config import TreeConfig

_VARIANTS = ("entropy", "even", "entropy, text")
_REPEATS = 3
_CHAIN = "late"
_POLICIES = ("even, root 2, factor 2", "entropy")
_PROBLEMS = 100
_IN_FLIGHT = 8


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
    """The summary of a committed result, None where there is none."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text())["summary"] if file.exists() else None


def controller_checks() -> Iterator[Check]:
    """The controller's cost per token over the scripted engine's."""
    size = str(controller.SIZES[0])
    for variant in _VARIANTS:
        then = committed("controller")["variants"][variant]
        samples = [controller.measure(variant, controller.SIZES[0]) for _ in range(_REPEATS)]
        now = min(s.controller_us for s in samples) / min(s.engine_us for s in samples)
        before = then["controller_us_per_token"][size] / then["engine_us_per_token"][size]
        yield Check(f"controller, {variant}: its cost over the engine's", now, before, 1.6)


def search_checks() -> Iterator[Check]:
    """What a policy's tokens are worth on a chain of known law."""
    reference = search.mean_entropy(_CHAIN)
    one = asyncio.run(search.run(_CHAIN, _PROBLEMS, _independent(), reference))
    for name in _POLICIES:
        config = TreeConfig(width=16, **search.POLICIES[name])
        row = asyncio.run(search.run(_CHAIN, _PROBLEMS, config, reference))
        worth = row.true_effective / row.tokens * one.tokens
        before = committed("search")[_CHAIN][name]
        # A variance over 100 trees has a standard error of 14 %.
        yield Check(f"{_CHAIN}, {name}: worth of a path", worth, before, 1.6, is_cost=False)


def _independent() -> TreeConfig:
    return TreeConfig(width=1, root_branching=1, **search.INDEPENDENT)


def engine_checks() -> Iterator[Check]:
    """Trees against `n=16` on a real engine: speed, and the generated tokens."""
    from bench.reasoner.model import prepare_reasoner
    from bench.throughput.__main__ import BASELINE, Cell, run, summarise
    from treepo.local.backends import VllmBackend

    known = committed("throughput")
    side, samples = "tree, even", list[dict[str, Any]]()
    then = [r for r in known["rows"] if _is_like(r, side)] if known else []
    if not then:
        print("throughput: no committed result to compare with")
        return
    load = (then[0]["kind"], _IN_FLIGHT, then[0]["max_tokens"], then[0]["segment_tokens"])
    cells = [Cell(*load, 0, name) for name in (BASELINE, side)]
    backend = VllmBackend(str(prepare_reasoner()), {"max_model_len": 512, "max_num_seqs": 128})
    with tempfile.TemporaryDirectory() as folder, backend.engine() as engine:
        file = Path(folder) / "samples.jsonl"
        asyncio.run(run(engine, backend.tokenizer(), cells, samples, file))
    now = summarise(samples)[-1]
    yield Check("tree, even: speed over n=16", now["speedup"], then[0]["speedup"], 1.5, False)
    yield Check("tree, even: tokens over n=16", now["tokens_ratio"], then[0]["tokens_ratio"], 1.1)


def _is_like(row: dict[str, Any], side: str) -> bool:
    return (row["side"], row["kind"], row["in_flight"]) == (side, "fixed", _IN_FLIGHT)


CHECKS: dict[str, Callable[[], Iterator[Check]]] = {
    "controller": controller_checks,
    "search": search_checks,
    "engine": engine_checks,
}


def main() -> int:
    """Measure, compare, say; 1 where anything has become worse than tolerated."""
    parser = ArgumentParser(prog="python -m bench.quick", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=CHECKS, default=list(CHECKS))
    found = []
    for name in parser.parse_args().only:
        for check in CHECKS[name]():
            found.append(check)
            verdict = "REGRESSION" if check.is_regression else "ok"
            print(
                f"{check.name}: {check.now:.2f}, committed {check.committed:.2f} "
                f"(worse by {check.worse:.2f}, tolerated {check.tolerance}): {verdict}",
                flush=True,
            )
    failed = [check.name for check in found if check.is_regression]
    print(json.dumps({"benchmark": "quick", "checks": len(found), "regressions": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
