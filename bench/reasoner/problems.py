"""Signed chains: procedural sums worked line by line, with their answers.

A problem is a function of its split and its number, so that train and test never meet and a run
can be repeated anywhere. It knows neither tokens nor models. Another family is another function
that returns a `Problem`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]

_SEEDS: dict[Split, int] = {"train": 20_000_000, "test": 90_000_000}
_HIGHEST_TOTAL = 99


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, the way to work it out, and its answer.

    Attributes:
        id: Split and number.
        question: What the user asks.
        solution: What the assistant should write.
        answer: The result, as it stands in the solution.
    """

    id: str
    question: str
    solution: str
    answer: str


@dataclass(frozen=True, slots=True)
class Level:
    """How hard chains are.

    Attributes:
        terms: Fewest and most terms.
        highest: Largest term; the smallest is 2.
    """

    terms: tuple[int, int]
    highest: int


TRAIN_LEVEL = Level(terms=(4, 6), highest=30)
"""What the reasoner is trained on."""

BENCH_LEVEL = Level(terms=(5, 6), highest=9)
"""What it is asked in benchmarks: the part that it gets right about every other time."""


def problems(split: Split, level: Level, start: int = 0) -> Iterator[Problem]:
    """Endless problems of a split, from number `start` on; the same ones every time."""
    number = start
    while True:
        yield make(split, number, level)
        number += 1


def make(split: Split, number: int, level: Level) -> Problem:
    """One problem.

    Args:
        split: Which of the two disjoint sequences of seeds.
        number: Its place in the sequence.
        level: How hard it is.
    """
    rng = random.Random(_SEEDS[split] + number)
    terms = [rng.randint(2, level.highest) for _ in range(rng.randint(*level.terms))]
    total, signed = terms[0], []
    for term in terms[1:]:
        is_minus = total - term >= 0 and (total + term > _HIGHEST_TOTAL or rng.random() < 0.5)
        signed.append(-term if is_minus else term)
        total += signed[-1]
    return Problem(f"{split}-{number}", _question(terms[0], signed), *_work(terms[0], signed))


def _question(first: int, signed: list[int]) -> str:
    chain = "".join(f" {'-' if term < 0 else '+'} {abs(term)}" for term in signed)
    return f"Work out {first}{chain} step by step."


def _work(first: int, signed: list[int]) -> tuple[str, str]:
    """The solution and the answer."""
    total, lines = first, [f"We start with {first}."]
    for term in signed:
        verb, sign = ("Take away", "-") if term < 0 else ("Add", "+")
        lines.append(f"{verb} {abs(term)}: {total} {sign} {abs(term)} = {total + term}.")
        total += term
    lines.append(f"The answer is \\boxed{{{total}}}.")
    return "\n".join(lines), str(total)
