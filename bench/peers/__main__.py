"""Accuracy, tokens, requests and seconds of other packages and of ours, on one server.

The first test problems of `bench.quality`, under its temperature and length, are answered by every
method in turn; what came in stands in a file that a later run goes on with. It says its result and
ends with 0 whichever way that falls. `python -m bench.peers` writes its result file; `--only judge`
judges the segments there are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import urllib.request
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from bench.peers.driver import MOST_PROBLEMS, Settings
from bench.peers.environments import python_of, version_of
from bench.peers.judging import read_samples, summarise, whole_blocks
from bench.peers.methods import METHODS, WIDTH, drive
from bench.peers.sampling import Block, Segments, blocks, fill, limit_of, settings_for
from bench.quality import make_problem
from bench.reasoner.model import prepare_reasoner
from bench.reasoner.problems import BENCH_LEVEL, Problem, problems
from bench.report import publish
from bench.results import make_result
from tests.support.server import Server, serve
from treepo.errors import ConfigError
from treepo.verdict.collect import Problem as Known

NAME = "reasoner"
FLAGS = ("--served-model-name", NAME, "--max-model-len", "2048", "--max-num-seqs", "128")
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the model's chat template says where a request has no system turn; one peer sends always
one, so all do."""


def sample(segments: Segments, asked: Sequence[Block], args: argparse.Namespace) -> None:
    """Measure what is missing, on a server of its own, for at most `--minutes`."""
    if not segments.missing(asked):
        return
    for peer in {method.peer for method in METHODS if method.peer}:
        python_of(peer)
    with tempfile.TemporaryDirectory() as folder:
        server_log = Path(folder, "server.log")
        with serve(prepare_reasoner(), server_log, *FLAGS) as server:
            check_prompt(server)
            warm(server, segments.settings, args.log)
            fill(server, segments, asked, args.log, limit_of(args.minutes))


def warm(server: Server, settings: Settings, log: Path) -> None:
    """Ask problems of the other split, so that kernels, counters and entropies are warm."""
    others = [_line(problem) for problem in islice(problems("train", BENCH_LEVEL), 4)]
    for method in METHODS[:2]:
        drive(method, settings_for(settings, server, method), others, log)


def check_prompt(server: Server) -> None:
    """See to it that the system turn leaves the prompt as it is without one.

    Raises:
        ConfigError: The model's chat template says something else.
    """
    user = {"role": "user", "content": "Work out 1 + 1 step by step."}
    system = {"role": "system", "content": SYSTEM}
    plain, with_system = (_tokens(server, turns) for turns in ([user], [system, user]))
    if plain != with_system:
        raise ConfigError("the chat template has another system turn than `SYSTEM`: correct it")


def _tokens(server: Server, turns: list[dict[str, str]]) -> list[int]:
    body = json.dumps({"model": NAME, "messages": turns}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/tokenize", body, headers)  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        tokens: list[int] = json.load(answer)["tokens"]
    return tokens


def judge(
    segments: Segments, asked: Sequence[Block], known: Sequence[Known], args: argparse.Namespace
) -> None:
    """Compare the segments there are, say it, and write the result file."""
    golds = {problem.name: problem.gold for problem in known}
    whole = whole_blocks(segments.known(asked))
    lines = [line for block in whole for line in block]
    samples = asyncio.run(read_samples(lines, golds))
    summary = summarise(samples, golds)
    config = {
        "width": WIDTH,
        "in_flight": args.in_flight,
        "sampling": {"temperature": args.temperature, "max_tokens": args.max_tokens},
        "server": list(FLAGS),
        "model": prepare_reasoner().name,
        "methods": {m.name: {"call": m.method, "tree": dict(m.options)} for m in METHODS},
        "versions": {m.peer: version_of(m.peer) for m in METHODS if m.peer},
    }
    publish(make_result("peers", seed=0, config=config, samples=samples, summary=summary))
    print(json.dumps({row["method"]: row["accuracy"]["value"] for row in summary["rows"]}))


def _line(problem: Problem) -> dict[str, str]:
    return {"id": problem.id, "question": problem.question}


def main() -> None:
    """Sample, judge, say."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--in-flight", type=int, default=10, help="problems at one time")
    parser.add_argument("--samples", type=Path, default=Path("peers-samples.jsonl"))
    parser.add_argument("--log", type=Path, default=Path("peers.log"), help="what drivers say")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--minutes", type=float, help="begin no segment after that")
    parser.add_argument("--only", choices=("sample", "judge"), help="default: both")
    args = parser.parse_args()
    if not 1 <= args.in_flight <= MOST_PROBLEMS:
        parser.error(f"--in-flight is {args.in_flight}; from 1 to {MOST_PROBLEMS} are possible")
    tasks = list(islice(problems("test", BENCH_LEVEL), args.problems))
    asked = list(blocks([_line(problem) for problem in tasks], args.in_flight))
    settings = Settings(NAME, WIDTH, args.temperature, args.max_tokens, SYSTEM)
    segments = Segments(args.samples, settings)
    if args.only != "judge":
        sample(segments, asked, args)
    if args.only != "sample":
        judge(segments, asked, [asyncio.run(make_problem(problem)) for problem in tasks], args)


if __name__ == "__main__":
    main()
