"""What the plugin keeps for the life of the server: the engine, the limits, the running trees.

It plans, admits and starts them, and ends them when the server does. It holds nothing of a request
once it is answered. One service belongs to one API process; each of its ranks has a governor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from treepo.engines.base import Engine, EngineInfo
from treepo.engines.entropy_link import EntropyLink
from treepo.engines.vllm import VllmEngine
from treepo.errors import DrainingError, OverloadError
from treepo.growth.job import check_length
from treepo.growth.reference import EntropyReference
from treepo.tree import Tree
from treepo_server.load.governor import Governor
from treepo_server.load.kv_usage import KvUsage
from treepo_server.load.ranks import Ranks
from treepo_server.observe import metrics
from treepo_server.observe.spans import TreeSpan, tracer_of
from treepo_server.request.engine_limits import check_priority, check_seed
from treepo_server.request.plan import Plan, make_plan, needs_uncertainty
from treepo_server.request.tree_request import TreeRequest
from treepo_server.settings.capacity import Capacity
from treepo_server.settings.limits import Limits
from treepo_server.trees.running import RunningTree

_AWAY_S = 5.0
_SHARE_OF_NEW = 0.1
_REASONING = ("reasoning_ended", "reasoning_parser_kwargs")


class TreeService:
    """Plans and runs trees on vLLM's engine.

    Args:
        client: vLLM's engine client.
        tasks: What the model can do, in vLLM's words; vLLM's checks ask for it.
        limits: What one request may ask for.
        entropies: How the engine reports entropies, or why it does not.
        capacity: What all trees may use together.
        num_processes: API processes that share the engine.
    """

    def __init__(
        self,
        client: Any,
        tasks: tuple[str, ...],
        limits: Limits,
        entropies: EntropyLink,
        capacity: Capacity,
        num_processes: int,
    ) -> None:
        self.client = client
        self.limits = limits
        self.entropies = entropies
        self._tasks = tasks
        self._engine = VllmEngine(client, entropies=entropies.ring)
        self._reference = EntropyReference()
        self._ranks = Ranks.of(client.vllm_config.parallel_config)
        self._trees: dict[asyncio.Task[Tree], RunningTree] = {}
        self._capacity = capacity
        self._tracer = tracer_of(client.vllm_config)
        self._governors = self._make_governors(num_processes)
        self._is_draining = False
        self._is_ending = False
        self._ending: asyncio.Task[None] | None = None
        self._mean_tree_s = 1.0

    @property
    def num_trees(self) -> int:
        """Trees that are being sampled."""
        return len(self._trees)

    @property
    def engine_info(self) -> EngineInfo:
        """What trees are resolved against."""
        return self._engine.info

    def plan(
        self,
        request: TreeRequest,
        prompt: dict[str, Any],
        params: Any,
        request_id: str,
        options: Mapping[str, Any],
        turn: int = 0,
    ) -> Plan:
        """The plan for a request that vLLM's handler would have given to the engine.

        A request whose first turn was let in is not turned away before its last, and nobody but
        vLLM's handler decides how its later turns are sent.

        Args:
            request: The checked `tree` part.
            prompt: vLLM's engine input.
            params: vLLM's `SamplingParams`.
            request_id: vLLM's id of this turn.
            options: What else the handler says to the engine.
            turn: How many trees were planned for the same request; vLLM's handler asks for
                one more after each tool that it has called itself.

        Raises:
            DrainingError: The server ends.
            OverloadError: Too many trees wait for a slot.
            FieldError: The tree cannot be sampled as asked.
            VLLMError: The engine would have refused a request like this.
        """
        if turn == 0:
            self._admit()
        plan = make_plan(request, prompt, params, request_id, self.client.renderer.tokenizer)
        if turn == 0:
            scheduler = self.client.vllm_config.scheduler_config
            check_seed(params.seed, scheduler)
            check_priority(options.get("priority", 0), scheduler)
            self._check_room(request, len(prompt["prompt_token_ids"]))
        self.client.input_processor.process_inputs(
            request_id,
            prompt,
            plan.job.sampling.native,
            supported_tasks=self._tasks,
            lora_request=options.get("lora_request"),
            priority=options.get("priority", 0),
            data_parallel_rank=options.get("data_parallel_rank"),
        )
        return plan

    def start(
        self, plan: Plan, prompt: Mapping[str, Any], options: Mapping[str, Any]
    ) -> asyncio.Task[Tree]:
        """Sample a tree in a task of its own; cancelling it ends the tree's requests."""
        reference = self._reference.value(plan.job.sampling.seed)
        rank = self._ranks.take(options.get("data_parallel_rank"))
        options = {**options, "data_parallel_rank": rank}
        span = None
        if self._tracer is not None:
            span = TreeSpan(self._tracer, plan.request_id, options.get("trace_headers"))
            options["trace_headers"] = span.headers
        engine = self._bound(plan, prompt, options)
        governor = self._governors[(rank or 0) % len(self._governors)]
        # vLLM's handler changes the priority of later turns, whether its engine heeds any or not.
        is_heeded = self.client.vllm_config.scheduler_config.policy == "priority"
        seat = governor.seat(options.get("priority", 0) if is_heeded else 0)
        tree = RunningTree(plan, engine, seat, span, reference)
        self._trees[tree.task] = tree
        if self._is_ending:  # it was planned before the signal
            tree.end()
        metrics.RUNNING.set(self.num_trees)
        tree.task.add_done_callback(lambda ended: self._ended(ended, rank))
        return tree.task

    async def drain(self, deadline: float, hurry: asyncio.Event) -> None:
        """Take no new requests, and return once no tree runs.

        Args:
            deadline: When trees have to answer with what they have, by the loop's clock, in
                seconds. It also holds for the later turns of a request, which may begin when
                this has returned.
            hurry: The same, at once.
        """
        self._is_draining = True
        self._ending = asyncio.create_task(self._end_trees(deadline, hurry))
        while self._trees:
            await asyncio.wait(set(self._trees))

    async def _end_trees(self, deadline: float, hurry: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await hurry.wait()
        self._is_ending = True
        for tree in self._trees.values():
            tree.end()

    def _admit(self) -> None:
        if self._is_draining:
            metrics.TREES.labels("draining").inc()
            message = "This server is about to stop. Send the request to another."
            raise DrainingError(message, retry_after_s=_AWAY_S)
        num_waiting = sum(governor.num_waiting_trees for governor in self._governors)
        if num_waiting >= self._capacity.max_waiting_trees:
            metrics.TREES.labels("overload").inc()
            message = f"{num_waiting} trees wait for the engine already. Send the request later."
            raise OverloadError(message, retry_after_s=self._mean_tree_s)

    def _check_room(self, request: TreeRequest, num_prompt_tokens: int) -> None:
        """See that the caller's own bound fits the model: vLLM would shorten it without a word."""
        if request.max_tokens is not None:
            longest = self._engine.info.max_model_len
            check_length(num_prompt_tokens, request.max_tokens, longest, request.max_tokens_field)

    def _make_governors(self, num_processes: int) -> list[Governor]:
        num_ranks = self._ranks.num_ranks
        num_slots = self._capacity.slots_per_rank(
            self.client.vllm_config.scheduler_config, num_ranks, num_processes
        )
        metrics.SLOTS.set(num_slots * num_ranks)
        is_crowded = KvUsage(self._capacity.kv_full).is_crowded
        return [Governor(num_slots, is_crowded, self._show_paths) for _ in range(num_ranks)]

    def _show_paths(self) -> None:
        metrics.LIVE.set(sum(governor.num_live for governor in self._governors))
        metrics.WAITING.set(sum(governor.num_waiting_paths for governor in self._governors))

    def _ended(self, task: asyncio.Task[Tree], rank: int | None) -> None:
        self._trees.pop(task, None)
        metrics.RUNNING.set(self.num_trees)
        self._ranks.give_back(rank)
        if not task.cancelled() and task.exception() is None:
            tree = task.result()
            self._reference.observe(tree)
            self._mean_tree_s += _SHARE_OF_NEW * (tree.stats.duration_s - self._mean_tree_s)

    def _bound(self, plan: Plan, prompt: Mapping[str, Any], options: Mapping[str, Any]) -> Engine:
        engine = self._engine.bind(
            lora_request=options.get("lora_request"),
            cache_salt=prompt.get("cache_salt"),
            priority=options.get("priority", 0),
            data_parallel_rank=options.get("data_parallel_rank"),
            trace_headers=options.get("trace_headers"),
            without_uncertainty=not needs_uncertainty(plan.job.config),
        )
        if plan.job.sampling.native.structured_outputs is not None:
            # A grammar starts behind the reasoning; only vLLM's handler knows where that is.
            more = {name: options.get(name) for name in _REASONING}
            engine.client = _WithOptions(self.client, more)
        return engine


class _WithOptions:
    """vLLM's client, with more arguments for every `generate`."""

    def __init__(self, client: Any, options: Mapping[str, Any]) -> None:
        self._client = client
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def generate(self, *arguments: Any, **named: Any) -> Any:
        """The client's own, with the further arguments."""
        return self._client.generate(*arguments, **named, **self._options)
