"""An engine client that answers `generate` with a tree.

vLLM's serving code believes it is talking to the engine: it calls `generate` once and reads
outputs. Here that one request becomes a tree, and its chosen trajectories become the outputs. All
else goes to the real client. One proxy serves one request; what the response says about the tree
afterwards is for `response/answer.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from vllm.exceptions import GracefulHTTPError

from treepo.errors import TreePOError
from treepo.growth.state import Path
from treepo.tree import Tree
from treepo_server.request.plan import Plan
from treepo_server.request.tree_request import TreeRequest
from treepo_server.response.answer import TreeAnswer
from treepo_server.response.choices import Choice
from treepo_server.response.errors import reply
from treepo_server.response.outputs import Outputs
from treepo_server.response.replay import Piece, Replay, whole
from treepo_server.trees.service import TreeService


class TreeClient:
    """The engine client for one request with a tree; see the module docstring.

    Attributes:
        answers: The part of the response of each tree: one, or one per turn where vLLM calls
            tools itself; empty until `generate` was called.
        is_planned: Set once `generate` has taken the request.
        request: What the caller asked for.
    """

    def __init__(self, service: TreeService, request: TreeRequest) -> None:
        self.answers: list[TreeAnswer] = []
        self.is_planned = asyncio.Event()
        self.request = request
        self._service = service

    @property
    def answer(self) -> TreeAnswer:
        """The part of the tree that was planned last."""
        return self.answers[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service.client, name)

    def generate(
        self, prompt: dict[str, Any], sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncIterator[Any]:
        """The outputs of one request, by sampling a tree.

        What is wrong with the request is raised here, before any answer has begun.

        Raises:
            FieldError: The tree cannot be sampled as asked.
        """
        service, request = self._service, self.request
        turn = len(self.answers)
        plan = service.plan(request, prompt, sampling_params, request_id, options, turn)
        outputs = Outputs(request_id, prompt, service.client.renderer.tokenizer, plan.decoder)
        self.answers.append(TreeAnswer(plan))
        self.is_planned.set()
        run = _Run(plan, self.answer, outputs, lambda: service.start(plan, prompt, options))
        if not request.is_stream:
            return run.whole()
        return run.all_paths() if request.streams_all else run.chosen()


class _Run:
    """One tree, as outputs in one of three ways.

    Sampling starts with the first output that is asked for: a caller may have left before, and
    then nobody would end it.
    """

    def __init__(
        self,
        plan: Plan,
        answer: TreeAnswer,
        outputs: Outputs,
        start: Callable[[], asyncio.Task[Tree]],
    ) -> None:
        self._plan = plan
        self._answer = answer
        self._outputs = outputs
        self._start = start

    async def whole(self) -> AsyncIterator[Any]:
        """One output with all choices."""
        self._answer.finish(await self._start())
        pieces = [
            whole(index, choice.path, self._plan.journal, has_logprobs=self._plan.has_logprobs)
            for index, choice in enumerate(self._answer.choices)
        ]
        cached = self._answer.num_cached()
        yield self._outputs.output(pieces, finished=True, num_cached_tokens=cached)

    async def chosen(self) -> AsyncIterator[Any]:
        """The chosen choices once the tree has ended, in their original pieces."""
        task = self._start()
        try:
            if not self._plan.request.is_single:
                yield self._outputs.output([], num_cached_tokens=0)
            self._answer.finish(await _tree(task))
            cached = self._answer.num_cached()
            for index, choice in enumerate(self._answer.choices):
                for piece in self._replayed(index, choice):
                    yield self._outputs.output([piece], num_cached_tokens=cached)
        finally:
            task.cancel()

    async def all_paths(self) -> AsyncIterator[Any]:
        """Every path as it grows; a path gets the next free index and keeps it.

        A path that takes the place of a pruned or lost one has an index from `n` on.
        """
        replays: dict[int, Replay] = {}
        changes: asyncio.Queue[Path | None] = asyncio.Queue()
        self._plan.journal.changed = changes.put_nowait
        task = self._start()
        task.add_done_callback(lambda _: changes.put_nowait(None))
        try:
            yield self._outputs.output([], num_cached_tokens=0)
            while (path := await changes.get()) is not None:
                if path.id not in replays and len(replays) < self._plan.request.num_indices:
                    index = self._answer.give_index(path)
                    replays[path.id] = self._replay(index, path)
                if path.id in replays:
                    for piece in replays[path.id].pieces():
                        yield self._outputs.output([piece])
            self._answer.finish(await _tree(task))
        finally:
            task.cancel()

    def _replay(self, index: int, path: Path) -> Replay:
        return Replay(index, path, self._plan.journal, self._plan.has_logprobs)

    def _replayed(self, index: int, choice: Choice) -> Iterable[Piece]:
        if choice.path is None:
            return [whole(index, None, self._plan.journal, has_logprobs=self._plan.has_logprobs)]
        return self._replay(index, choice.path).pieces()


async def _tree(task: asyncio.Task[Tree]) -> Tree:
    """The finished tree; its failure as an error that vLLM's streams report as ours."""
    try:
        return await task
    except TreePOError as error:
        answer = reply(error)
        raise GracefulHTTPError(answer.body["error"]["message"], answer.status) from error
