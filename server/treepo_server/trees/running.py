"""One tree while it is sampled: its slots, its spans, its log lines, and its place in the metrics.

Everything here only watches the sampler; the one thing that it does is to end a tree early with the
answer it has. Which trees run is for `service.py`.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import Context, copy_context
from dataclasses import replace

from treepo.engines.base import Chunk, Engine
from treepo.sampler import sample_tree
from treepo.tree import Tree, TreeFinish
from treepo.votes.voting import choose
from treepo_server.load.governed import GovernedEngine
from treepo_server.load.governor import Seat
from treepo_server.observe import metrics
from treepo_server.observe.logs import REQUEST_ID, log
from treepo_server.observe.spans import TreeSpan
from treepo_server.request.plan import Plan


class RunningTree:
    """See the module docstring; it starts to sample as soon as it is made.

    Args:
        plan: What to sample.
        engine: What to sample it on.
        seat: Its part of the slots.
        span: Its spans; None where tracing is off.
        entropy_reference: The job's, in nats.

    Attributes:
        task: The sampling; cancelling it ends every request of the tree.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        seat: Seat,
        span: TreeSpan | None,
        entropy_reference: float,
    ) -> None:
        self._plan = plan
        self._span = span
        self._num_generated = 0
        self._started = time.monotonic()
        self._ending: asyncio.Future[TreeFinish] = asyncio.get_running_loop().create_future()
        job = replace(plan.job, entropy_reference=entropy_reference, ending=self._ending)
        governed = GovernedEngine(engine, seat, self._saw)
        context = _context(plan.request_id)
        self.task = asyncio.create_task(sample_tree(governed, job), context=context)
        self.task.add_done_callback(self._ended, context=context)

    def end(self) -> None:
        """Have the tree answer now, with what it has."""
        if not self._ending.done():
            self._ending.set_result(TreeFinish.CANCELLED)

    def _saw(self, request_id: str, chunk: Chunk | None) -> None:
        num_tokens = len(chunk.token_ids) if chunk else 0
        if chunk is None:
            metrics.PATHS.inc()
        else:
            self._num_generated += num_tokens
            metrics.GENERATED.inc(num_tokens)
        if self._span is not None:
            self._span.saw(request_id, num_tokens)

    def _ended(self, task: asyncio.Task[Tree]) -> None:
        seconds = time.monotonic() - self._started
        tree, outcome = None, "client_gone"
        if not task.cancelled():
            error = task.exception()
            if error is None:
                tree = task.result()
                outcome = str(tree.finish)
                metrics.ended(tree, choose(tree, self._plan.job.config.vote), seconds)
            else:
                outcome = "failed"
                log.warning("tree failed after %.2f s: %s", seconds, error)
        if tree is None:
            metrics.lost(outcome, self._num_generated)
        if self._span is not None:
            self._span.end(tree, outcome)
        self._log(tree, outcome, seconds)

    def _log(self, tree: Tree | None, outcome: str, seconds: float) -> None:
        num_trajectories = len(tree.trajectories) if tree else 0
        log.info(
            "tree ended: %s, %d trajectories, %d tokens, %.2f s",
            outcome,
            num_trajectories,
            self._num_generated,
            seconds,
        )
        for note in [*self._plan.notes, *tree.notes] if tree else ():
            log.warning("%s", note)


def _context(request_id: str) -> Context:
    context = copy_context()
    context.run(REQUEST_ID.set, request_id)
    return context
