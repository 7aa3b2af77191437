"""What plain requests feel of a wide tree beside them: the 95th percentile of time to first token.

Short plain requests are sent while one caller keeps the engine busy with `n=64` (the baseline),
with a tree of width 64, or with nothing. They come at uneven moments, the same ones for each load,
so that they can't fall into step with it. Then the server is started once more with a share of the
slots for trees, and all is measured again, the baseline too; so each ratio is of one server. Rounds
alternate. The model is a tiny random one unless another is named.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from openai import AsyncOpenAI

from bench.report import publish
from bench.results import make_result
from tests.support.server import Server, serve
from tests.support.tiny_chat import build

WIDTH = 64
MODEL = "tiny"
MAX_LENGTH = 2048
PROBE_TOKENS = 4
TREE = {"width": WIDTH, "root_branching": WIDTH, "branching": "even"}
DRAWS = 1000
BESIDE = ("nothing", "plain", "tree")


@dataclass(frozen=True, slots=True)
class Sample:
    """One plain request.

    Attributes:
        share: Part of the slots that trees may use.
        beside: What ran beside it.
        round: Which round.
        ttft_s: Seconds until its first token.
    """

    share: float
    beside: str
    round: int
    ttft_s: float


class Fairness:
    """Measures one server.

    Args:
        sdk: Its client.
        share: Part of the slots that trees may use there.
        args: The command's arguments.
    """

    def __init__(self, sdk: AsyncOpenAI, share: float, args: Namespace) -> None:
        self._sdk = sdk
        self._share = share
        self._args = args

    async def rounds(self) -> list[Sample]:
        """All loads in every round; the first round is not counted."""
        samples = []
        for number in range(-1, self._args.rounds):
            for beside in BESIDE:
                found = await self._round(beside, number)
                if number >= 0:
                    samples += found
        return samples

    async def _round(self, beside: str, number: int) -> list[Sample]:
        moments = random.Random(f"{self._args.seed} {number}")
        load = asyncio.create_task(self._load(beside, number))
        await asyncio.sleep(self._args.pace_s)
        probes = []
        for probe in range(self._args.probes):
            probes.append(asyncio.create_task(self._probe(f"{beside} {number} {probe}")))
            await asyncio.sleep(2 * self._args.pace_s * moments.random())
        times = await asyncio.gather(*probes)
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load
        print(f"share {self._share} round {number} beside {beside}: {max(times):.3f} s at most")
        return [Sample(self._share, beside, number, seconds) for seconds in times]

    async def _load(self, beside: str, number: int) -> None:
        """Keep the engine busy until cancelled."""
        tree = {"tree": TREE} if beside == "tree" else {"n": WIDTH}
        for turn in range(sys.maxsize if beside != "nothing" else 0):
            await self._ask(
                f"{beside} {number} load {turn}", self._args.tokens, {"ignore_eos": True, **tree}
            )

    async def _probe(self, name: str) -> float:
        start = time.perf_counter()
        stream = await self._ask(name, PROBE_TOKENS, {}, stream=True)
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].text:
                    break
        return time.perf_counter() - start

    async def _ask(self, name: str, max_tokens: int, extra: dict[str, Any], **options: Any) -> Any:
        # A prompt of its own: nothing is found in the prefix cache.
        prompt = f"{self._args.seed} {self._share} {name}: why is the sky blue?"
        return await self._sdk.completions.create(
            model=MODEL, prompt=prompt, max_tokens=max_tokens, extra_body=extra, **options
        )


async def measure(server: Server, share: float, args: Namespace) -> list[Sample]:
    """All samples of one server."""
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        return await Fairness(sdk, share, args).rounds()


def summarise(samples: Sequence[Sample], share: float) -> dict[str, Any]:
    """The 95th percentile of each load in seconds, and what a tree adds to the baseline."""
    p95 = {
        f"{beside}, share {part:g}": _p95(samples, beside, part)
        for part in (1.0, share)
        for beside in BESIDE
    }
    ratios: dict[str, Any] = {}
    for part, name in ((1.0, "tree_over_plain"), (share, "tree_over_plain_with_share")):
        ratio = p95[f"tree, share {part:g}"] / p95[f"plain, share {part:g}"]
        ratios[name] = round(ratio, 3)
        ratios[f"{name}_interval"] = _interval(samples, part)
    return {"p95_ttft_s": {name: round(value, 4) for name, value in p95.items()}, **ratios}


def _interval(samples: Sequence[Sample], share: float) -> tuple[float, float]:
    """Where the ratio lies with 95 %, by bootstrap over the rounds."""
    rounds: dict[int, list[Sample]] = {}
    for sample in samples:
        rounds.setdefault(sample.round, []).append(sample)
    rng, ratios = random.Random(0), []
    for _ in range(DRAWS):
        drawn = [s for number in rng.choices(list(rounds), k=len(rounds)) for s in rounds[number]]
        ratios.append(_p95(drawn, "tree", share) / _p95(drawn, "plain", share))
    ratios.sort()
    return round(ratios[DRAWS // 40], 3), round(ratios[-DRAWS // 40 - 1], 3)


def _p95(samples: Sequence[Sample], beside: str, share: float) -> float:
    chosen = [s.ttft_s for s in samples if s.beside == beside and s.share == share]
    return quantiles(chosen, n=20, method="inclusive")[-1]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes everything."""
    args = _parse(argv)
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(args.model) if args.model else build(Path(folder, "m"), max_length=MAX_LENGTH)
        flags = ["--served-model-name", MODEL, "--max-num-seqs", str(WIDTH)]
        flags += ["--kv-cache-memory-bytes", args.kv_bytes]
        for share in (1.0, args.share):
            with serve(model, Path(folder, "log"), *flags, "--tree-share", str(share)) as server:
                samples += asyncio.run(measure(server, share, args))
    summary = summarise(samples, args.share)
    config = {**vars(args), "model": args.model or "tiny random", "tree": TREE, "n": WIDTH}
    raw = [asdict(sample) for sample in samples]
    publish(make_result("fairness", seed=args.seed, config=config, samples=raw, summary=summary))
    print(json.dumps(summary))
    return 0


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--model", help="folder; default: a tiny model with random weights")
    parser.add_argument("--kv-bytes", default="128M", help="vLLM's --kv-cache-memory-bytes")
    parser.add_argument("--share", type=float, default=0.25, help="of the slots, for trees")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--probes", type=int, default=40, help="plain requests in a round")
    parser.add_argument("--pace-s", type=float, default=0.25, help="seconds between them, mean")
    parser.add_argument("--tokens", type=int, default=200, help="generated by each path beside")
    parser.add_argument("--seed", type=int, default=5)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
