"""What a tree costs that never branches: plain vLLM requests against the same ones as trees.

All sides run in one process on one engine, in alternating rounds. `plain` is what vLLM's server
does for a request that is not streamed: one output at the end, with its text. `tree` is what ours
does for a tree that reads no uncertainty: it streams, joins the text, looks for answers and loops.
`entropy` is the same with the engine's entropies, which only branching trees ask for; it is shown
and not judged. Rounds are short and many, so that what else the machine does touches all sides.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.report import publish
from bench.results import make_result
from treepo.config import TreeConfig
from treepo.engines.base import Engine, Sampling
from treepo.growth.decoder import PromptDecoder
from treepo.growth.texts import Texts
from treepo.local.backends import VllmBackend
from treepo.local.embedded import MODEL_NAME
from treepo.sampler import Job, sample_tree

TARGET_RATIO = 0.97
TREE = TreeConfig(width=1, branching_factor=1, root_branching=1)
SIDES = ("plain", "tree", "entropy")


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one side.

    Attributes:
        side: Which.
        round: Which round; the sides of a round are compared with each other.
        num_tokens: Generated tokens.
        seconds: By the clock, from the first request to the last token.
    """

    side: str
    round: int
    num_tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second."""
        return self.num_tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Overhead:
    """The engine, and what is asked of it.

    Attributes:
        engine: A `VllmEngine`.
        tokenizer: The model's.
        args: The command's arguments.
    """

    engine: Any
    tokenizer: Any
    args: Namespace

    async def rounds(self) -> list[Sample]:
        """All sides in every round, each time in another order; the first round is not counted."""
        samples = []
        for number in range(-1, self.args.rounds):
            turn = number % len(SIDES)
            for side in (*SIDES[turn:], *SIDES[:turn]):
                sample = await self._run(side, number)
                if number >= 0:
                    samples.append(sample)
                    speed = sample.tokens_per_second
                    print(f"round {number} {side:7} {speed:9.1f} tokens/s", flush=True)
        return samples

    async def _run(self, side: str, number: int) -> Sample:
        # Prompts of its own for every side and round: nothing is found in the prefix cache.
        rng = random.Random(f"{self.args.seed} {side} {number}")
        size = (self.args.requests, self.args.prompt_tokens)
        prompts = [[rng.randrange(1000, 10_000) for _ in range(size[1])] for _ in range(size[0])]
        ask = self._plain if side == "plain" else self._tree(side)
        start = time.perf_counter()
        work = (ask(f"{side}-{number}-{index}", prompt) for index, prompt in enumerate(prompts))
        counts = await asyncio.gather(*work)
        return Sample(side, number, sum(counts), time.perf_counter() - start)

    async def _plain(self, name: str, prompt: list[int]) -> int:
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(
            max_tokens=self.args.tokens,
            ignore_eos=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        count = 0
        async for output in self.engine.client.generate(tokens_input(prompt), params, name):
            count = len(output.outputs[0].token_ids)
        return count

    def _tree(self, side: str) -> Callable[[str, list[int]], Awaitable[int]]:
        engine: Engine = self.engine.bind(without_uncertainty=side == "tree")
        sampling = Sampling(self.args.tokens, ignore_eos=True, wants_logprobs=False)

        async def ask(name: str, prompt: list[int]) -> int:
            decoder = PromptDecoder(self.tokenizer, prompt, skip_special_tokens=True)
            job = Job(prompt, sampling, TREE, name, Texts.from_config(decoder, TREE))
            return (await sample_tree(engine, job)).stats.generated_tokens

        return ask


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Each side's median speed, and the medians of the ratios within a round."""
    by_side = {side: [s for s in samples if s.side == side] for side in SIDES}
    plain = {s.round: s.tokens_per_second for s in by_side["plain"]}
    ratios = {
        side: [s.tokens_per_second / plain[s.round] for s in by_side[side]] for side in SIDES[1:]
    }
    return {
        "ratio": round(median(ratios["tree"]), 4),
        "ratio_interval": interval(ratios["tree"]),
        "ratio_by_round": [round(ratio, 4) for ratio in ratios["tree"]],
        "entropy_ratio": round(median(ratios["entropy"]), 4),
        "entropy_ratio_interval": interval(ratios["entropy"]),
        "tokens_per_second": {
            side: round(median(s.tokens_per_second for s in by_side[side]), 1) for side in SIDES
        },
        "is_met": median(ratios["tree"]) >= TARGET_RATIO,
    }


def interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """Where the median of such values lies with 95 %, by bootstrap."""
    rng = random.Random(0)
    medians = sorted(median(rng.choices(values, k=len(values))) for _ in range(draws))
    return round(medians[draws // 40], 4), round(medians[-draws // 40 - 1], 4)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes everything; returns 0 where the target is met, else 1."""
    args = _parse(argv)
    backend = VllmBackend(args.model)
    tokenizer = backend.tokenizer()
    with backend.engine() as engine:
        samples = asyncio.run(Overhead(engine, tokenizer, args).rounds())
        uncertainty = engine.info.uncertainty.value
    summary = summarise(samples)
    config = {
        "model": Path(args.model).name if args.model else MODEL_NAME,
        "requests": args.requests,
        "num_prompt_tokens": args.prompt_tokens,
        "max_tokens": args.tokens,
        "rounds": args.rounds,
        "uncertainty": uncertainty,
        "tree": TREE.model_dump(mode="json"),
        "target_ratio": TARGET_RATIO,
    }
    raw = [asdict(sample) for sample in samples]
    publish(make_result("overhead", seed=args.seed, config=config, samples=raw, summary=summary))
    print(json.dumps(summary))
    return 0 if summary["is_met"] else 1


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--model", help="folder or hub name; default: the embedded model")
    parser.add_argument("--requests", type=int, default=16, help="at a time, on each side")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48, help="generated by each request")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=11, help="of the prompts")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
