"""Many trees at once on one engine.

It keeps a number of trees growing and hands each over when it has finished. It knows neither
where jobs come from nor what becomes of trees. One failed tree does not end the others; a dead
engine does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from treepo.engines.base import Engine
from treepo.errors import EngineDeadError, EngineError, FieldError
from treepo.sampler import Job, sample_tree
from treepo.tree import Tree

Done = Callable[[Job, Tree | EngineError], None]
"""Takes a job and its tree, or why it has none."""


def default_concurrency(max_live_paths: int, width: int) -> int:
    """How many trees of that width fill an engine without any path waiting for its turn."""
    return max(1, max_live_paths // width)


async def sample_all(engine: Engine, jobs: Iterable[Job], concurrency: int, done: Done) -> None:
    """Sample every job, `concurrency` trees at a time; `jobs` is read as trees are started.

    Raises:
        EngineDeadError: The engine has died; the other trees were ended.
        Exception: Whatever `done` raised, after the other trees were ended.
    """
    free = asyncio.Semaphore(concurrency)
    try:
        async with asyncio.TaskGroup() as group:
            waiting = iter(jobs)
            while await free.acquire() and (job := next(waiting, None)) is not None:
                task = group.create_task(_sample(engine, job, done))
                task.add_done_callback(lambda _: free.release())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _sample(engine: Engine, job: Job, done: Done) -> None:
    try:
        result: Tree | EngineError = await sample_tree(engine, job)
    except EngineDeadError:
        raise
    except EngineError as error:
        result = error
    except FieldError as error:  # this prompt does not fit the model; the others may
        result = EngineError(str(error))
    done(job, result)
