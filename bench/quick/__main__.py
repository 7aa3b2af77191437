"""`make bench`: a short version of the benchmarks, held against the committed results.

Machines differ, so what is compared is always a ratio of one run: the controller's cost over the
scripted engine's own, a policy's worth over independent sampling's, a packed update over one row
for each trajectory, a tree's speed and tokens over `n=16`. It fails where a ratio has become worse
by more than its tolerance, and writes no result file. Another check is another function in
`CHECKS`.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator

from bench.quick.check import Check
from bench.quick.without_engine import controller_checks, search_checks, train_checks


def engine_checks() -> Iterator[Check]:
    """Those that need vLLM, which is slow to import."""
    from bench.quick.engine import engine_checks

    yield from engine_checks()


CHECKS: dict[str, Callable[[], Iterator[Check]]] = {
    "controller": controller_checks,
    "search": search_checks,
    "train": train_checks,
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
