"""Trees from `treepo serve` hosts: the trainer's `Rollouts` over HTTP.

One job: an `Ask` as the body of a completion with a tree, and the answer's `record` as the `Tree`
that an engine of this process would have given. It knows neither which host answers
(`remote_hosts.py`) nor how weights get there. Every sampling parameter is sent, since a host would
fill in what is left out from the model's own generation settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from treepo.engines.base import Sampling
from treepo.errors import EngineDeadError, EngineError
from treepo.rollout.record import decode_values
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
            host, answer = await self._pool.ask(ROUTE, body_of(ask))
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


def body_of(ask: Ask) -> dict[str, Any]:
    """The request body of one tree."""
    tree = ask.tree.model_dump(mode="json")
    return {
        "prompt": list(ask.prompt_token_ids),
        "tree": {**tree, "include": ["record"]},
        **_sampling(ask.sampling),
    }


def tree_of(ask: Ask, answer: Any) -> Tree:
    """The tree of an answer, under the name and with the settings that were asked for.

    Raises:
        EngineError: The answer holds no whole tree.
    """
    try:
        tree = decode_values(answer["tree"]["record"]).tree
    except (KeyError, TypeError):
        raise EngineError("the answer has no `tree.record`: is it a `treepo serve`?") from None
    except ValueError as error:
        raise EngineError(f"the answer's `tree.record` is wrong: {error}") from None
    if tree.prompt_token_ids != ask.prompt_token_ids:
        raise EngineError("the answer's tree has another prompt than the one that was sent")
    settings = {**tree.settings, "include": list(ask.tree.include)}
    return replace(tree, id=ask.id, settings=settings)


def _sampling(sampling: Sampling) -> dict[str, Any]:
    return {
        "max_tokens": sampling.max_tokens,
        "min_tokens": sampling.min_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
        "include_stop_str_in_output": sampling.include_stop,
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": sampling.ignore_eos,
    }
