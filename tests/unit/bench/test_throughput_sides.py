"""Every way to get trajectories gives as many, as long, and counts its tokens."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from bench.throughput.cells import summarise
from bench.throughput.sides import SIDES, WIDTH, Load
from treepo.engines.scripted import EOS, Script, ScriptedEngine, TokenMachine

MACHINE = TokenMachine({"s": {1: (0.5, "s"), 2: (0.45, "s"), EOS: (0.05, "s")}}, "s")
PROMPTS = [[9] * 17, [8] * 17]


class PlainClient:
    """Stands for vLLM's client: every request gets `n` outputs of full length."""

    async def generate(self, prompt: Any, params: Any, name: str) -> Any:
        outputs = [
            SimpleNamespace(index=i, token_ids=[1] * params.max_tokens) for i in range(params.n)
        ]
        yield SimpleNamespace(outputs=outputs)


class Engine(ScriptedEngine):
    """A scripted engine with a client."""

    client = PlainClient()


def answers(side: str, *, is_fixed: bool) -> list[Any]:
    pytest.importorskip("vllm") if side == "n=16" else None
    engine = Engine(MACHINE, Script(chunk_tokens=4, block_size=4))
    load = Load(PROMPTS, 32, 8, is_fixed, f"{side}-{is_fixed}")
    return asyncio.run(SIDES[side](engine, load))


@pytest.mark.parametrize("side", SIDES)
def test_with_fixed_lengths_every_side_gives_the_same_trajectories(side: str) -> None:
    for answer in answers(side, is_fixed=True):
        assert answer.trajectories == WIDTH
        assert answer.trajectory_tokens == WIDTH * 32
        assert answer.generated_tokens <= WIDTH * 32


def test_even_trees_and_lockstep_generate_the_same_tokens_at_fixed_lengths() -> None:
    # Roots 2, doubled at 8 and 16 and 24: 2, 4, 8 and 16 paths of 8 tokens.
    for side in ("tree, even", "lockstep, even"):
        assert [a.generated_tokens for a in answers(side, is_fixed=True)] == [240, 240]


def test_lockstep_falls_back_until_it_has_all_trajectories() -> None:
    for answer in answers("lockstep, even", is_fixed=False):
        assert answer.trajectories == WIDTH
        assert answer.generated_tokens <= answer.trajectory_tokens


def test_ratios_are_those_of_one_round() -> None:
    cell = {"kind": "fixed", "in_flight": 2, "max_tokens": 32, "segment_tokens": 8}
    figures = {"trajectories": 32, "trajectory_tokens": 1024, "answer_s": [1.0, 2.0]}
    samples = [
        {**cell, **figures, "round": 0, "side": "n=16", "generated_tokens": 1024, "seconds": 2.0},
        {**cell, **figures, "round": 0, "side": "x", "generated_tokens": 512, "seconds": 1.0},
        {**cell, **figures, "round": 1, "side": "x", "generated_tokens": 512, "seconds": 9.0},
    ]
    row = summarise(samples)[1]
    assert (row["speedup"], row["tokens_ratio"], row["limit"], row["rounds"]) == (2, 0.5, 2, 1)
