"""The child process in which reward functions run.

It loads the functions it is told to, then answers jobs one at a time until the parent closes the
connection. It decides nothing about time beyond a last alarm that ends it should its parent have
died in the middle of a job: the parent (`reward_pool.py`) waits and kills.
"""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from treepo.errors import ConfigError
from treepo.train.rewards import Messages, RewardFunction, call, resolve

logger = logging.getLogger(__name__)

_GRACE_S = 5.0
_MOST_TRACEBACKS = 3
_tracebacks = 0


@dataclass(frozen=True, slots=True)
class Job:
    """Some completions of one prompt, for one function.

    Attributes:
        function: Index into the functions the worker was started with.
        prompt: Text or messages.
        completions: Texts.
        completion_ids: Their tokens.
        columns: The data set's other columns for this prompt.
        limit_s: Seconds the parent will wait.
    """

    function: int
    prompt: str | Messages
    completions: tuple[str, ...]
    completion_ids: tuple[tuple[int, ...], ...]
    columns: dict[str, Any]
    limit_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a job, or of loading the functions.

    Attributes:
        rewards: The job's; None where the function raised, and after loading.
        refusal: What is wrong in the configuration, after which nothing is served; else empty.
    """

    rewards: list[float | None] | None = None
    refusal: str = ""


def main() -> None:
    """Load the functions, then serve jobs until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The connection came as standard input; what a function prints must not reach the caller's
    # standard output, and what it reads must not be a job.
    connection: Connection[Reply, Any] = Connection(os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    try:
        functions = [resolve(spec) for spec in connection.recv()]
        connection.send(Reply())
        while True:
            connection.send(_answer(functions, connection.recv()))
    except ConfigError as error:
        connection.send(Reply(refusal=str(error)))
    except EOFError:
        return


def _answer(functions: list[RewardFunction], job: Job) -> Reply:
    global _tracebacks  # noqa: PLW0603
    signal.setitimer(signal.ITIMER_REAL, job.limit_s + _GRACE_S)
    function = functions[job.function]
    try:
        rewards = call(function, job.prompt, job.completions, job.completion_ids, job.columns)
    except ConfigError:
        raise
    except Exception:
        _tracebacks += 1
        if _tracebacks <= _MOST_TRACEBACKS:
            logger.exception("a reward function raised")
        return Reply()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return Reply(rewards=rewards)
