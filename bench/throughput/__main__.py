"""Trajectories and tokens a second, and time to answer, for every side under several loads.

Every cell (load, side, round) is measured on the same engine in the same run and kept in a file,
so that a run that was stopped goes on; sides of a round are compared with each other, and ratios
are what counts. `python -m bench.throughput` writes its result file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path

from bench.reasoner.model import prepare_reasoner
from bench.report import publish
from bench.results import make_result
from bench.throughput.cells import BASELINE, Cell, run, summarise
from bench.throughput.sides import SIDES, WIDTH
from treepo.local.backends import VllmBackend


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """All cells, whole rounds first; the paper's grid is one budget in segments of each length."""
    for number in range(args.rounds):
        for in_flight in args.in_flight:
            for kind in args.kinds:
                length = args.tokens if kind == "fixed" else args.longest
                for side in SIDES:
                    yield Cell(kind, in_flight, length, args.segment, number, side)
        for segment in args.grid:
            for side in (BASELINE, "tree, even", "tree, even, root 1", "lockstep, even"):
                yield Cell("fixed", args.grid_in_flight, args.grid_tokens, segment, number, side)


def main() -> None:
    """Measure, compare, write."""
    args = _parse()
    model = str(args.model or prepare_reasoner())
    lines = args.samples.read_text().splitlines() if args.samples.exists() else []
    samples = [json.loads(line) for line in lines]
    arguments = {"max_model_len": 512, "max_num_seqs": args.max_num_seqs, **args.vllm}
    if not args.judge_only:
        backend = VllmBackend(model, arguments)
        with backend.engine() as engine:
            work = run(
                engine, backend.tokenizer(), cells(args), samples, args.samples, args.minutes * 60
            )
            asyncio.run(work)
    rows = summarise(samples)
    for row in rows:
        print(json.dumps(row))
    config = {"model": Path(model).name, "width": WIDTH, "vllm": arguments}
    result = make_result(args.name, seed=0, config=config, samples=samples, summary={"rows": rows})
    publish(result)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    parser.add_argument("--model", help="folder or hub name; default: the committed reasoner")
    parser.add_argument("--samples", type=Path, default=Path("throughput-samples.jsonl"))
    parser.add_argument("--in-flight", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--kinds", nargs="*", default=["fixed", "natural"])
    parser.add_argument("--tokens", type=int, default=128, help="of a trajectory of fixed length")
    parser.add_argument("--longest", type=int, default=160, help="of one of natural length")
    parser.add_argument("--segment", type=int, default=32)
    parser.add_argument("--grid", type=int, nargs="*", default=[32, 64, 128], help="segments")
    parser.add_argument("--grid-tokens", type=int, default=256)
    parser.add_argument("--grid-in-flight", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-num-seqs", type=int, default=128)
    parser.add_argument("--vllm", type=json.loads, default={}, help="more engine arguments, JSON")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no cell after that")
    parser.add_argument("--judge-only", action="store_true")
    parser.add_argument("--name", default="throughput", help="of the result file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
