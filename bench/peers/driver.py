"""One way to answer several problems at once: problems in on stdin, answers out on stdout.

This runs in the peer's own environment, so it knows the standard library only. The first line is
an object of settings (`Settings`), every further one a problem: `id` and `question`. Out comes a
line for each problem as it is answered (`answered`). All problems begin at the same time. A peer is
a module beside this one that calls `main` with its methods.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

MOST_PROBLEMS = 64


@dataclass(frozen=True)
class Settings:
    """What every method is told.

    Attributes:
        model: As the server names it.
        width: Trajectories a problem, at most.
        temperature: Of the sampling.
        max_tokens: Most generated tokens of a trajectory.
        system: The system turn that goes before the question.
        base_url: The server's, with `/v1`.
        method: Which of the module's methods.
        options: What only this method knows.
    """

    model: str
    width: int
    temperature: float
    max_tokens: int
    system: str
    base_url: str = ""
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def turns(self, question: str) -> list[dict[str, str]]:
        """The chat that asks the question."""
        system = {"role": "system", "content": self.system}
        return [system, {"role": "user", "content": question}]


@dataclass(frozen=True)
class Reply:
    """A method's answer.

    Attributes:
        text: What it returned.
        reported_tokens: Generated tokens as the method counts them.
        groups: Different answers that it has told apart, where it tells.
        answers: The answer of every trajectory, where it tells them.
    """

    text: str
    reported_tokens: int
    groups: int | None = None
    answers: list[str | None] | None = None


Ask = Callable[[str], Awaitable[Reply]]
Methods = Mapping[str, Callable[[Settings], Ask]]


def main(methods: Methods) -> None:
    """Answer what stands on stdin."""
    first, *lines = sys.stdin.read().splitlines()
    settings = Settings(**json.loads(first))
    asyncio.run(answer_all(methods[settings.method](settings), [json.loads(x) for x in lines]))


async def answer_all(ask: Ask, problems: list[dict[str, str]]) -> None:
    """Answer them all at once, each on a line of stdout as soon as it is there."""
    threads = ThreadPoolExecutor(MOST_PROBLEMS)
    asyncio.get_running_loop().set_default_executor(threads)
    for answer in asyncio.as_completed([answered(ask, problem) for problem in problems]):
        print(json.dumps(await answer), flush=True)


async def answered(ask: Ask, problem: Mapping[str, str]) -> dict[str, Any]:
    """A problem's line: the reply's fields, or `error` where the method raised, and `seconds`."""
    started = time.perf_counter()
    said: dict[str, Any]
    try:
        said = vars(await ask(problem["question"]))
    except Exception as error:  # noqa: BLE001  a method may raise anything, which is its answer
        said = {"error": f"{type(error).__name__}: {error}"}
    return {"id": problem["id"], "seconds": round(time.perf_counter() - started, 3), **said}
