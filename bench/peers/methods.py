"""What is compared: the peers' methods and ours, each with the driver that runs it.

All get the same width, prompt, temperature and longest trajectory. Another peer is a driver beside
this file, a lock in `requirements/` and its lines in `METHODS`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.driver import Settings
from bench.peers.environments import python_of
from bench.results import ROOT
from treepo.errors import EngineError
from treepo.verdict.plans import INDEPENDENT

WIDTH = 8
BASELINE = "independent"


@dataclass(frozen=True, slots=True)
class Method:
    """A way to answer a problem.

    Attributes:
        name: How the table calls it.
        driver: Module of `bench.peers` that runs it.
        method: What the driver calls it.
        peer: The package whose environment the driver needs; None for ours.
        options: Settings that only this method has.
    """

    name: str
    driver: str
    method: str
    peer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


_SAMPLES = {**INDEPENDENT, "root_branching": WIDTH}
METHODS = (
    Method(BASELINE, "ours", "tree", options=_SAMPLES),
    Method("tree", "ours", "tree"),
    Method(
        "independent, start 4, until 0.95",
        "ours",
        "tree",
        options={**_SAMPLES, "start": 4, "until": 0.95},
    ),
    Method("its-hub, self-consistency", "its_hub", "self-consistency", "its-hub"),
    Method("its-hub, adaptive", "its_hub", "adaptive", "its-hub"),
    Method("its-hub, beta", "its_hub", "beta", "its-hub"),
    Method("optillm, self-consistency", "optillm", "self-consistency", "optillm"),
    Method("optillm, majority voting", "optillm", "majority voting", "optillm"),
    Method("optillm, mcts", "optillm", "mcts", "optillm"),
)


def drive(
    method: Method, settings: Settings, problems: Sequence[Mapping[str, str]], log: Path
) -> list[dict[str, Any]]:
    """The method's answers to the problems, all asked at once, in their order.

    Args:
        method: The method.
        settings: What it is told.
        problems: Objects with `id` and `question`.
        log: File that takes what the driver says.

    Raises:
        EngineError: The driver failed, or left a problem out; its last words are the message.
    """
    python = python_of(method.peer) if method.peer else sys.executable
    lines = [json.dumps(line) for line in (asdict(settings), *problems)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("ab") as said:
        done = subprocess.run(  # noqa: S603
            [str(python), "-P", "-m", f"bench.peers.{method.driver}"],
            input="\n".join(lines).encode(),
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "PYTHONPATH": paths if method.peer is None else str(ROOT)},
            check=False,
        )
    found = {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
    if done.returncode != 0 or len(found) != len(problems):
        last = log.read_text(errors="replace")[-2000:]
        raise EngineError(f"{method.name}: {len(found)} of {len(problems)} answers\n{last}")
    return [found[problem["id"]] for problem in problems]
