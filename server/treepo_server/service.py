"""What the plugin keeps for the life of the server: the engine, the limits, the running trees.

It holds nothing of a request once it is answered. One service belongs to one API process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from treepo.engines.base import Engine
from treepo.engines.entropy_source import EntropyLink
from treepo.engines.vllm import VllmEngine
from treepo.errors import FieldError
from treepo.growth.reference import EntropyReference
from treepo.sampler import sample_tree
from treepo.tree import Tree
from treepo_server.limits import Limits
from treepo_server.plan import Plan, make_plan, needs_uncertainty
from treepo_server.ranks import Ranks
from treepo_server.request import TreeRequest, check_room

_REASONING = ("reasoning_ended", "reasoning_parser_kwargs")


class TreeService:
    """Plans and runs trees on vLLM's engine.

    Args:
        client: vLLM's engine client.
        tasks: What the model can do, in vLLM's words; vLLM's checks ask for it.
        limits: What one request may ask for.
        entropies: How the engine reports entropies, or why it does not.
    """

    def __init__(
        self, client: Any, tasks: tuple[str, ...], limits: Limits, entropies: EntropyLink
    ) -> None:
        self.client = client
        self.limits = limits
        self.entropies = entropies
        self._tasks = tasks
        self._engine = VllmEngine(client, entropies=entropies.ring)
        self._reference = EntropyReference()
        self._ranks = Ranks.of(client.vllm_config.parallel_config)
        self._trees: set[asyncio.Task[Tree]] = set()

    @property
    def num_trees(self) -> int:
        """Trees that are being sampled."""
        return len(self._trees)

    def plan(
        self,
        request: TreeRequest,
        prompt: dict[str, Any],
        params: Any,
        request_id: str,
        options: Mapping[str, Any],
    ) -> Plan:
        """The plan for a request that vLLM's handler would have given to the engine.

        Raises:
            FieldError: The tree cannot be sampled as asked.
            VLLMError: The engine would have refused a request like this.
        """
        plan = make_plan(request, prompt, params, request_id, self.client.renderer.tokenizer)
        self._check_seed(params.seed)
        num_prompt_tokens = len(prompt["prompt_token_ids"])
        check_room(request, num_prompt_tokens, self._engine.info.max_model_len)
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
        job = replace(plan.job, entropy_reference=reference)
        rank = self._ranks.take(options.get("data_parallel_rank"))
        engine = self._bound(plan, prompt, {**options, "data_parallel_rank": rank})
        task = asyncio.create_task(sample_tree(engine, job))
        self._trees.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, rank))
        return task

    def _ended(self, task: asyncio.Task[Tree], rank: int | None) -> None:
        self._trees.discard(task)
        self._ranks.give_back(rank)
        if not task.cancelled() and task.exception() is None:
            self._reference.observe(task.result())

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

    def _check_seed(self, seed: int | None) -> None:
        """See that a seed does not kill the engine: vLLM's does on a CPU that splits prefills."""
        from vllm.platforms import current_platform

        scheduler = self.client.vllm_config.scheduler_config
        if seed is not None and current_platform.is_cpu() and scheduler.enable_chunked_prefill:
            remedy = "Leave it out, or have the server started with --no-enable-chunked-prefill."
            raise FieldError("seed", seed, "none: this CPU engine splits prefills", remedy)


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
