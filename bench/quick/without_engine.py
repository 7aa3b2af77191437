"""Checks that need no engine: the sampler on scripted chains, and the packed update."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from bench import controller, search
from bench.quick.check import Check, committed
from treepo.config import TreeConfig

_VARIANTS = ("entropy", "even", "entropy, text")
_REPEATS = 3
_CHAIN = "late"
_POLICIES = ("even, root 2, factor 2", "entropy")
_PROBLEMS = 100
_SHAPE = "late"


def controller_checks() -> Iterator[Check]:
    """The controller's cost per token over the scripted engine's."""
    size = str(controller.SIZES[0])
    for variant in _VARIANTS:
        then = committed("controller")["summary"]["variants"][variant]
        samples = [controller.measure(variant, controller.SIZES[0]) for _ in range(_REPEATS)]
        now = min(s.controller_us for s in samples) / min(s.engine_us for s in samples)
        before = then["controller_us_per_token"][size] / then["engine_us_per_token"][size]
        yield Check(f"controller, {variant}: its cost over the engine's", now, before, 1.6)


def search_checks() -> Iterator[Check]:
    """What a policy's tokens are worth on a chain of known law."""
    reference = search.mean_entropy(_CHAIN)
    one = asyncio.run(search.run(_CHAIN, _PROBLEMS, search.independent(1), reference))
    for name in _POLICIES:
        config = TreeConfig(width=16, **search.POLICIES[name])
        row = asyncio.run(search.run(_CHAIN, _PROBLEMS, config, reference))
        worth = row.true_effective / row.tokens * one.tokens
        before = committed("search")["summary"][_CHAIN][name]
        # A variance over 100 trees has a standard error of 14 %.
        yield Check(f"{_CHAIN}, {name}: worth of a path", worth, before, 1.6, is_cost=False)


def train_checks() -> Iterator[Check]:
    """The packed update against one row for each trajectory, on one shape of tree."""
    import torch

    from bench import train
    from treepo.local.embedded import prepare

    torch.set_num_threads(1)
    update = train.Update(str(prepare()), seed=5)
    update.gradient(_SHAPE, "packed")  # what torch does once
    update.optimizer.zero_grad()
    seconds = {side: update.step(_SHAPE, side)[1] for side in train.SIDES}
    now = seconds["unpacked"] / seconds["packed"]
    before = committed("train")["summary"]["shapes"][_SHAPE]["speedup"]
    yield Check(f"packed update, {_SHAPE}: speed-up", now, before, 1.3, is_cost=False)
