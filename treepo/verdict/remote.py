"""Samples the missing trees of a study on a running server, through the plain OpenAI client.

It asks for each tree's record, so that what comes back is what an engine of one's own would have
given. It judges nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAIError

from treepo.engines.base import Sampling
from treepo.errors import EngineError
from treepo.rollout.files import RolloutWriter
from treepo.rollout.prompts import Prompt
from treepo.rollout.request import tree_fields, tree_in
from treepo.tree import Tree
from treepo.verdict.collect import Study, Task, Told

_TIMEOUT_S = 3600.0


class RemoteSampler:
    """Asks a server for trees.

    Args:
        base_url: The server's, with `/v1`.
        api_key: Its key.
        study: What to sample; `model` of its origin is the one that is asked.
    """

    def __init__(self, base_url: str, api_key: str, study: Study) -> None:
        self._base_url = base_url
        self._api_key = api_key
        self._study = study

    async def fill(
        self, writer: RolloutWriter, tasks: Sequence[Task], told: Told, at_once: int
    ) -> None:
        """Ask for `tasks` and write each tree as it arrives.

        Args:
            writer: The file.
            tasks: What is missing in it.
            told: Told of each tree.
            at_once: Requests that are open at one time.

        Raises:
            EngineError: The server cannot be reached, or answers without a tree.
        """
        free = asyncio.Semaphore(at_once)
        client = AsyncOpenAI(
            base_url=self._base_url, api_key=self._api_key, max_retries=2, timeout=_TIMEOUT_S
        )

        async def one(task: Task) -> None:
            async with free:
                result = await self._ask(client, task)
            if isinstance(result, Tree):
                writer.append(self._study.record(task, result))
            told(task, result)

        try:
            async with client, asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(one(task))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _ask(self, client: AsyncOpenAI, task: Task) -> Tree | EngineError:
        config, sampling = task.plan.config(self._study.base), Sampling(**self._study.sampling)
        body = {"model": self._study.origin["model"], **tree_fields(config, sampling)}
        try:
            answer = await _post(client, task.problem.prompt, body)
        except APIStatusError as error:
            return EngineError(f"the server refused it: {error.message}")
        except APIConnectionError as error:
            raise EngineError(f"{self._base_url} cannot be reached: {error}") from error
        except OpenAIError as error:
            return EngineError(str(error))
        try:
            return tree_in(answer, config)
        except EngineError as error:
            raise EngineError(f"{self._base_url}: {error}") from None


async def _post(client: AsyncOpenAI, prompt: Prompt, body: Mapping[str, Any]) -> Any:
    """The response as it was sent; a chat where the prompt is one."""
    is_chat = isinstance(prompt.content, list) and isinstance(prompt.content[0], dict)
    route, name = ("/chat/completions", "messages") if is_chat else ("/completions", "prompt")
    return await client.post(route, body={**body, name: prompt.content}, cast_to=object)
