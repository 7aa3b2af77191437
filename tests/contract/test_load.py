"""Many trees for minutes, a fifth of whose callers hang up: nothing fails and nothing is left.

`TREEPO_LOAD_S` sets for how many seconds; `make soak` does the same for longer.
"""

import asyncio
import os

from bench.soak import Soak

SECONDS = float(os.environ.get("TREEPO_LOAD_S", "120"))
NUM_CALLERS = 32


def test_under_load_no_request_fails_and_nothing_is_left_behind(server):
    server.wait_for(0, 30)
    report = asyncio.run(Soak(server, SECONDS, NUM_CALLERS, seed=3).run())
    print(report)
    assert not report.problems
    assert report.outcomes["answered"] >= NUM_CALLERS
    assert report.outcomes["hung_up"] > 0
