"""Where reward functions run: child processes that can be killed, so that no reward ends a run.

One job: rewards for the trajectories of a batch in bounded time. A prompt's completions go to a
function together; if that call raises, hangs or kills its process, each completion is tried alone,
and only those that fail again lose their reward. It knows no trees and no formulas: what a
trajectory without a reward means stands in `advantages` (it is left out of the estimate).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from queue import LifoQueue
from types import TracebackType
from typing import Annotated, Any, Literal

from pydantic import Field

from treepo.errors import ConfigError
from treepo.train.reward_worker import Job, Reply
from treepo.train.rewards import Messages

Failure = Literal["raised", "timeout", "crash"]
"""`raised`: an exception, or not one finite number or None a completion; `timeout`: it took longer
than `limit_s`; `crash`: its process died."""


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """Which rewards are added up, and how long one may take.

    Attributes:
        functions: Names as `rewards.resolve` reads them.
        weights: What each is multiplied by; None for 1 each.
        missing_reward: What a trajectory gets that has no reward, because a function failed on it
            or none had anything to say. None leaves it out of the estimate.
        limit_s: Seconds one call may take, for the completions of a prompt or for one of them.
        load_limit_s: Seconds a process may take to import its functions.
        num_workers: Most processes at one time.
    """

    functions: tuple[str, ...] = ("math_verify",)
    weights: tuple[float, ...] | None = None
    missing_reward: float | None = None
    limit_s: Annotated[float, Field(gt=0)] = 5.0
    load_limit_s: Annotated[float, Field(gt=0)] = 120.0
    num_workers: Annotated[int, Field(ge=1)] = 2


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """The completions of one prompt.

    Attributes:
        prompt: Text or messages, as in the data set.
        completions: The trajectories' texts.
        completion_ids: Their tokens.
        columns: The data set's other columns for this prompt.
    """

    prompt: str | Messages
    completions: tuple[str, ...]
    completion_ids: tuple[tuple[int, ...], ...]
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scores:
    """Rewards of a batch of requests.

    Attributes:
        rewards: For each request the weighted sum for each completion, over the functions that
            had something to say; `missing_reward` where a function failed or none had.
        failures: How many (function, completion) pairs failed, by kind.
    """

    rewards: list[list[float | None]]
    failures: Counter[str]


class RewardFailedError(Exception):
    """A job has no rewards; `kind` says why."""

    def __init__(self, kind: Failure) -> None:
        super().__init__(kind)
        self.kind: Failure = kind


class _Worker:
    """One child process with its functions loaded; one thread at a time may ask it."""

    def __init__(self, config: RewardConfig) -> None:
        self._connection, theirs = Pipe()
        # The child finds what this process finds, and modules of the working directory.
        path = os.pathsep.join([*(entry for entry in sys.path if entry), os.getcwd()])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from treepo.train.reward_worker import main; main()"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=theirs.fileno(),
        )
        theirs.close()
        self.is_alive = True
        try:
            self._exchange(config.functions, config.load_limit_s)
        except RewardFailedError as failed:
            raise ConfigError(
                f"rewards {', '.join(config.functions)}: loading them ended in a {failed.kind} "
                f"(`rewards.load_limit_s` is {config.load_limit_s:g})."
            ) from None

    def ask(self, job: Job) -> list[float | None]:
        """The rewards of a job.

        Raises:
            RewardFailedError: There are none; unless the function raised, the process is gone.
            ConfigError: The function needs columns the data does not have.
        """
        rewards = self._exchange(job, job.limit_s).rewards
        if rewards is None:
            raise RewardFailedError("raised")
        return rewards

    def close(self) -> None:
        """Kill the process and wait for its end."""
        self.is_alive = False
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _exchange(self, message: object, limit_s: float) -> Reply:
        answered = False
        try:
            self._connection.send(message)
            if not self._connection.poll(limit_s):
                raise RewardFailedError("timeout")
            reply: Reply = self._connection.recv()
            answered = not reply.refusal
        except (EOFError, ConnectionError):
            raise RewardFailedError("crash") from None
        finally:
            if not answered:
                self.close()
        if reply.refusal:
            raise ConfigError(reply.refusal)
        return reply


class RewardPool:
    """Runs reward functions in child processes; a context manager that ends them.

    Args:
        config: See there. One process starts at once, so that a wrong name fails here.

    Raises:
        ConfigError: A function cannot be loaded, or there is not one weight for each.
    """

    def __init__(self, config: RewardConfig) -> None:
        self.config = config
        self._weights = config.weights or (1.0,) * len(config.functions)
        if not config.functions or len(self._weights) != len(config.functions):
            raise ConfigError(
                f"`rewards.functions` names {len(config.functions)} rewards and `rewards.weights` "
                f"has {len(self._weights)}; name at least one, and give each a weight or none any."
            )
        self._slots: LifoQueue[_Worker | None] = LifoQueue()
        for _ in range(config.num_workers - 1):
            self._slots.put(None)
        self._slots.put(_Worker(config))
        self._threads = ThreadPoolExecutor(config.num_workers, thread_name_prefix="treepo-rewards")

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        self._threads.shutdown(cancel_futures=True)
        while not self._slots.empty():
            worker = self._slots.get()
            if worker is not None:
                worker.close()

    def score(self, requests: Sequence[RewardRequest]) -> Scores:
        """Rewards of a batch, prompts in parallel.

        Raises:
            ConfigError: A function needs columns the data does not have.
        """
        functions, count = range(len(self.config.functions)), len(requests)
        jobs = [self._job(index, r) for index in functions for r in requests]
        outcomes = list(self._threads.map(self._rewards, jobs))
        by_function = [outcomes[i * count : (i + 1) * count] for i in functions]
        failures = Counter(str(r) for call in outcomes for r in call if isinstance(r, str))
        return Scores(
            rewards=[
                [self._total(column) for column in zip(*calls, strict=True)]
                for calls in zip(*by_function, strict=True)
            ],
            failures=failures,
        )

    def _job(self, function: int, request: RewardRequest) -> Job:
        return Job(
            function=function,
            prompt=request.prompt,
            completions=request.completions,
            completion_ids=request.completion_ids,
            columns=request.columns,
            limit_s=self.config.limit_s,
        )

    def _total(self, parts: tuple[float | Failure | None, ...]) -> float | None:
        said = [(w, r) for w, r in zip(self._weights, parts, strict=True) if r is not None]
        if not said or any(isinstance(r, str) for _, r in said):
            return self.config.missing_reward
        return math.fsum(w * r for w, r in said if not isinstance(r, str))

    def _rewards(self, job: Job) -> list[float | Failure | None]:
        try:
            return [*self._ask(job)]
        except RewardFailedError as failed:
            if len(job.completions) == 1:
                return [failed.kind]
        pairs = zip(job.completions, job.completion_ids, strict=True)
        alone = [replace(job, completions=(t,), completion_ids=(ids,)) for t, ids in pairs]
        return [self._rewards(one)[0] for one in alone]

    def _ask(self, job: Job) -> list[float | None]:
        worker = self._slots.get()
        try:
            worker = worker or _Worker(self.config)
            return worker.ask(job)
        finally:
            self._slots.put(worker if worker is not None and worker.is_alive else None)
