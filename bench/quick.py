"""`make bench`: a short controller benchmark, held against the committed result.

Machines differ, so what is compared is a ratio of one run: the controller's cost per token over the
scripted engine's own. It says so and fails where that has grown by more than `TOLERANCE`; it
writes no result file.
"""

from __future__ import annotations

import json
import sys

from bench.controller import SIZES, measure
from bench.results import FOLDER

TOLERANCE = 1.6
VARIANTS = ("entropy", "even", "entropy, text")
REPEATS = 3


def main() -> int:
    """Measure, compare, say; 1 where a ratio has grown beyond the tolerance."""
    committed = json.loads((FOLDER / "controller.json").read_text())["summary"]["variants"]
    worst = 0.0
    for variant in VARIANTS:
        size = str(SIZES[0])
        then = committed[variant]
        before = then["controller_us_per_token"][size] / then["engine_us_per_token"][size]
        samples = [measure(variant, SIZES[0]) for _ in range(REPEATS)]
        now = min(s.controller_us for s in samples) / min(s.engine_us for s in samples)
        worst = max(worst, now / before)
        print(f"{variant}: {now:.2f} times the engine's own cost per token, committed {before:.2f}")
    print(json.dumps({"benchmark": "quick", "worst_growth": round(worst, 2)}))
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
