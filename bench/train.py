"""A policy update on packed trees against one row for each trajectory: same trees, same machine.

Both sides compute the same gradient (how near they come is in the result) of the same model, in
alternating rounds in one process, the step of the trainer's optimizer included. Trees are made up
of random tokens: what an update costs depends on their shape alone. Time is that of the CPU, which
is what a quiet machine takes with one thread and what others at work disturb least; time by the
clock stands beside it. The target is a speed-up of at least 0.8 of what the number of tokens
promises.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.report import publish
from bench.results import make_result
from treepo.local.embedded import MODEL_NAME, prepare
from treepo.train.advantage import AdvantageConfig, TreeAdvantages, advantages
from treepo.train.config import LossConfig, OptimizerConfig
from treepo.train.learner import make_optimizer
from treepo.train.loss import Policy, policy_loss
from treepo.train.pack import Row, pack, unpack
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish

TARGET_QUOTIENT = 0.8
SIDES = ("packed", "unpacked")
SHAPES: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "prompt": (128, ((8, 48),)),
    "binary": (48, ((2, 24), (2, 24), (2, 24))),
    "late": (48, ((1, 72), (8, 24))),
}
"""Prompt tokens, and for each depth the children of a node and their tokens."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One update.

    Attributes:
        shape: Which tree.
        side: Which rows.
        round: Which round; the sides of a round are compared with each other.
        num_tokens: Tokens that the model read.
        seconds: By the clock, gradient and optimizer step.
        cpu_seconds: The same of the CPU, over all threads.
    """

    shape: str
    side: str
    round: int
    num_tokens: int
    seconds: float
    cpu_seconds: float


def make_tree(shape: str, seed: int, vocabulary: int) -> Tree:
    """A tree of that shape with random tokens."""
    rng = np.random.default_rng(seed)
    num_prompt, depths = SHAPES[shape]
    nodes: list[Node] = []
    tips: list[Node | None] = [None]
    for count, length in depths:
        grown: list[Node | None] = []
        for parent in tips:
            for _ in range(count):
                node = Node(
                    id=len(nodes),
                    parent=parent.id if parent else None,
                    path=len(nodes),
                    start=parent.end if parent else 0,
                    token_ids=_tokens(rng, length, vocabulary),
                    logprobs=(-log(vocabulary),) * length,
                    mass=(parent.mass if parent else 1.0) / count,
                    finish=Finish.LENGTH,
                )
                nodes.append(node)
                grown.append(node)
        tips = grown
    leaves = tuple(Trajectory(n.id, Finish.LENGTH, n.mass) for n in tips if n is not None)
    prompt = _tokens(rng, num_prompt, vocabulary)
    return Tree(shape, prompt, tuple(nodes), leaves, TreeFinish.COMPLETE, weights_exact=True)


def _tokens(rng: np.random.Generator, count: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(rng.integers(0, vocabulary, count).tolist())


class Update:
    """A model that learns, and the rows of every shape on both sides.

    Args:
        model: Folder of the model.
        seed: Of the trees and their rewards.
    """

    def __init__(self, model: str, seed: int) -> None:
        from transformers import AutoModelForCausalLM

        self.policy = Policy(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
        self.optimizer = make_optimizer(self.policy, OptimizerConfig())
        vocabulary = self.policy.model.config.vocab_size
        self.rows: dict[tuple[str, str], list[Row]] = {}
        self.divisors: dict[str, float] = {}
        for number, shape in enumerate(SHAPES):
            tree = make_tree(shape, seed + number, vocabulary)
            scores = _scores(tree, seed + number)
            self.divisors[shape] = scores[0].divisor
            self.rows[shape, "packed"] = pack([tree], scores, max_tokens=4096)
            self.rows[shape, "unpacked"] = unpack([tree], scores)

    def num_tokens(self, shape: str, side: str) -> int:
        """Tokens that the model reads for one update."""
        return sum(len(row) for row in self.rows[shape, side])

    def gradient(self, shape: str, side: str) -> None:
        """Add the batch's gradient to the parameters'."""
        for row in self.rows[shape, side]:
            loss, _ = policy_loss(self.policy(row), row, LossConfig(), self.divisors[shape])
            loss.backward()

    def step(self, shape: str, side: str) -> tuple[float, float]:
        """One whole update; returns its seconds by the clock and of the CPU."""
        start, cpu_start = time.perf_counter(), time.process_time()
        self.gradient(shape, side)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start, time.process_time() - cpu_start

    def compare(self, shape: str) -> dict[str, Any]:
        """The peak memory of each side's gradient, and how far apart the two gradients are."""
        peaks, found = {}, []
        for side in SIDES:
            before = _reset_peak()
            self.gradient(shape, side)
            peaks[side] = _status("VmHWM") - before
            found.append([p.grad for p in self.policy.parameters() if p.grad is not None])
            self.optimizer.zero_grad()
        gaps = [(a - b).abs().max() for a, b in zip(*found, strict=True)]
        scale = max(grad.abs().max() for grad in found[0])
        return {"peak_bytes": peaks, "gradient_difference": float(max(gaps) / scale)}


def _reset_peak() -> int:
    """Forget the highest memory so far; returns what is in use, in bytes. Linux with glibc."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def _scores(tree: Tree, seed: int) -> list[TreeAdvantages]:
    rewards = np.random.default_rng(seed).integers(0, 2, len(tree.trajectories))
    rewards[:2] = 0, 1
    return list(advantages([tree], [rewards.astype(float).tolist()], AdvantageConfig()))


def measure(update: Update, num_rounds: int) -> list[Sample]:
    """Both sides of every shape in every round, in turns."""
    samples = []
    for number in range(num_rounds):
        for shape in SHAPES:
            for side in SIDES if number % 2 else SIDES[::-1]:
                seconds, cpu_seconds = update.step(shape, side)
                tokens = update.num_tokens(shape, side)
                samples.append(Sample(shape, side, number, tokens, seconds, cpu_seconds))
                print(f"round {number} {shape:7} {side:9} {seconds:7.2f} s", flush=True)
    return samples


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """For each shape the token ratio, the speed-up (median over rounds) and their quotient."""
    shapes = {shape: _summary([s for s in samples if s.shape == shape]) for shape in SHAPES}
    is_met = all(shape["quotient"] >= TARGET_QUOTIENT for shape in shapes.values())
    return {"shapes": shapes, "is_met": is_met}


def _summary(samples: Sequence[Sample]) -> dict[str, Any]:
    packed, unpacked = ([s for s in samples if s.side == side] for side in SIDES)
    pairs = list(zip(packed, unpacked, strict=True))
    speedups = [u.cpu_seconds / p.cpu_seconds for p, u in pairs]
    ratio = unpacked[0].num_tokens / packed[0].num_tokens
    return {
        "tokens": {"packed": packed[0].num_tokens, "unpacked": unpacked[0].num_tokens},
        "token_ratio": round(ratio, 3),
        "cpu_seconds": {
            "packed": round(median(s.cpu_seconds for s in packed), 3),
            "unpacked": round(median(s.cpu_seconds for s in unpacked), 3),
        },
        "speedup": round(median(speedups), 3),
        "speedup_by_round": [round(speedup, 3) for speedup in speedups],
        "clock_speedup": round(median(u.seconds / p.seconds for p, u in pairs), 3),
        "quotient": round(median(speedups) / ratio, 3),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes everything; returns 0 where the target is met, else 1."""
    args = _parse(argv)
    torch.set_num_threads(args.threads)
    update = Update(args.model or str(prepare()), args.seed)
    # Comes first, so that what torch does once is done before the clock runs.
    compared = {shape: update.compare(shape) for shape in SHAPES}
    print(json.dumps(compared), flush=True)
    samples = measure(update, args.rounds)
    summary = summarise(samples)
    for shape, found in compared.items():
        summary["shapes"][shape] |= found
    config = {
        "model": args.model or MODEL_NAME,
        "dtype": "float32",
        "device": "cpu",
        "threads": args.threads,
        "rounds": args.rounds,
        "shapes": SHAPES,
        "target_quotient": TARGET_QUOTIENT,
    }
    raw = [asdict(sample) for sample in samples]
    publish(make_result("train", seed=args.seed, config=config, samples=raw, summary=summary))
    print(json.dumps(summary))
    return 0 if summary["is_met"] else 1


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("--model", help="folder or hub name; default: the embedded model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--seed", type=int, default=5, help="of the trees")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
