"""Trees from `treepo serve` hosts: the trainer's `Rollouts` over HTTP.

One job: each `Ask` to the pool, and what comes back checked against it. It knows neither what a
request says (`rollout/request.py`), which host answers (`remote_hosts.py`) nor how weights get
there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from treepo.errors import EngineDeadError, EngineError
from treepo.rollout.request import tree_fields, tree_in
from treepo.train.remote_hosts import HostPool
from treepo.train.rollouts import Ask, WeightSource, WeightSync
from treepo.tree import Tree

ROUTE = "/v1/completions"


class HostRollouts:
    """`Rollouts` over a pool of hosts.

    Hosts have to report the log-probs that tokens are drawn with: where `sampling.temperature` is
    not 1, start them with `--logprobs-mode processed_logprobs`.

    Args:
        pool: The hosts; closed with this.
        sync: How they get new weights.
    """

    def __init__(self, pool: HostPool, sync: WeightSync) -> None:
        self._pool = pool
        self._sync = sync
        self._version = ""

    async def sample(self, asks: Sequence[Ask]) -> list[Tree | EngineError]:
        """A tree for each ask in order, or why there is none; see `Rollouts.sample`."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._sample(ask)) for ask in asks]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def push(self, source: WeightSource, version: int) -> None:
        """Sample with these weights on every host from now on; see `WeightSync.push`."""
        await self._sync.push(source, version)
        self._version = str(version)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def _sample(self, ask: Ask) -> Tree | EngineError:
        try:
            body = {"prompt": list(ask.prompt_token_ids), **tree_fields(ask.tree, ask.sampling)}
            host, answer = await self._pool.ask(ROUTE, body)
            tree = tree_of(ask, answer)
        except EngineDeadError:
            raise
        except EngineError as error:
            return error
        if tree.weight_version != self._version:
            host.is_current = False
            return EngineError(
                f"{host.url} sampled with the weights {tree.weight_version!r} instead of "
                f"{self._version!r}; it was started anew, or somebody else changes its weights"
            )
        return tree


def tree_of(ask: Ask, answer: Any) -> Tree:
    """The tree of an answer, under the name that it was asked for.

    Raises:
        EngineError: The answer holds no whole tree, or that of another prompt.
    """
    tree = tree_in(answer, ask.tree)
    if tree.prompt_token_ids != ask.prompt_token_ids:
        raise EngineError("the answer's tree has another prompt than the one that was sent")
    return replace(tree, id=ask.id)
