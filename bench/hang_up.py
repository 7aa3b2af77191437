"""How soon a tree's requests have left the engine once its caller has hung up.

A caller asks for a long tree of 16 paths and leaves: as soon as it is known, once its paths run, or
in the middle of a stream. Then the server's metrics are read until no request runs or waits and
no tree is left; the time includes that reading. The model is a tiny random one, so that no step of
the engine is long. `python -m bench.hang_up` writes its result file.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from bench.report import publish
from bench.results import make_result
from tests.support.server import Server, metric_in, serve
from tests.support.tiny_chat import build

MODEL = "tiny"
MAX_LENGTH = 2048
WIDTH = 16
LEFT = ("at its start", "while paths run", "in a stream")
GOAL_S = 1.0
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "treepo_running_trees")
_TREE = {"width": WIDTH, "root_branching": WIDTH, "branching": "even"}
_LIMIT_S = 60.0
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Sample:
    """One tree whose caller left.

    Attributes:
        left: When, one of `LEFT`.
        turn: Which turn.
        seconds: From hanging up until nothing of it was left.
    """

    left: str
    turn: int
    seconds: float


def hang_up(server: Server, left: str, turn: int) -> Sample:
    """One tree, and how long it outlives its caller."""
    body = {"model": MODEL, "prompt": f"{turn}: why?", "max_tokens": MAX_LENGTH - 100, "n": WIDTH}
    body |= {"ignore_eos": True, "tree": _TREE, "stream": left == "in a stream"}
    headers = {"Content-Type": "application/json"}
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=_LIMIT_S)) as connection:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        while not any(_read(server, "treepo_running_trees")):
            time.sleep(_PAUSE_S)
        if left != "at its start":
            server.wait_for(WIDTH, _LIMIT_S)
        if left == "in a stream":
            connection.getresponse().read(1000)
        started = time.perf_counter()
    while any(_read(server, *GAUGES)):
        time.sleep(_PAUSE_S)
    return Sample(left, turn, time.perf_counter() - started)


def _read(server: Server, *gauges: str) -> list[float]:
    text = server.read("/metrics")
    return [metric_in(text, gauge) for gauge in gauges]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, says and writes."""
    parser = ArgumentParser(prog="python -m bench.hang_up", description=__doc__)
    parser.add_argument("--turns", type=int, default=10)
    turns = parser.parse_args(argv).turns
    with tempfile.TemporaryDirectory() as folder:
        model = build(Path(folder, "model"), max_length=MAX_LENGTH)
        flags = ["--served-model-name", MODEL, "--kv-cache-memory-bytes", "128M"]
        with serve(model, Path(folder, "log"), *flags) as server:
            found = [hang_up(server, left, turn) for turn in range(-1, turns) for left in LEFT]
    samples = [sample for sample in found if sample.turn >= 0]
    times = {left: [s.seconds for s in samples if s.left == left] for left in LEFT}
    summary = {
        left: {"median_s": round(median(own), 3), "max_s": round(max(own), 3)}
        for left, own in times.items()
    }
    config = {"model": "tiny random", "tree": _TREE, "turns": turns, "goal_s": GOAL_S}
    raw = [asdict(sample) for sample in samples]
    publish(make_result("hang_up", seed=0, config=config, samples=raw, summary=summary))
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
