"""Writes the prompts of the two examples: arithmetic behind three worked lines.

One job: `NAME.train.jsonl` and `NAME.eval.jsonl` beside this file. What is asked in the evaluation
stands in no training prompt, neither as the question nor in the worked lines. A new task is a
function and a line in `TASKS`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement, permutations
from pathlib import Path

Question = tuple[int, ...]

NUM_WORKED = 3
NUM_HELD_OUT = 40


def one_digit_sum(question: Question) -> tuple[str, str]:
    """`3 + 4 =` and its answer."""
    left, right = question
    return f"{left} + {right} =", str(left + right)


def largest_of_three(question: Question) -> tuple[str, str]:
    """Three numbers below 100 and the largest of them."""
    return f"Largest of {question[0]}, {question[1]}, {question[2]}:", str(max(question))


def sums(rng: random.Random) -> tuple[list[Question], list[Question]]:
    """Questions to learn from and held-out ones; a + b and b + a stay together."""
    pairs = list(combinations_with_replacement(range(10), 2))
    rng.shuffle(pairs)
    ordered = [sorted({pair, pair[::-1]}) for pair in pairs]
    held_out: list[Question] = []
    while len(held_out) < NUM_HELD_OUT:
        held_out += ordered.pop()
    return [question for both in ordered for question in both], held_out[:NUM_HELD_OUT]


def triples(rng: random.Random) -> tuple[list[Question], list[Question]]:
    """Questions to learn from and held-out ones; no order of a held-out triple is learnt."""
    drawn = {tuple(sorted(rng.sample(range(1, 100), 3))) for _ in range(240)}
    chosen = [rng.choice(list(permutations(triple))) for triple in sorted(drawn)]
    rng.shuffle(chosen)
    return chosen[NUM_HELD_OUT:], chosen[:NUM_HELD_OUT]


TASKS: dict[
    str,
    tuple[
        Callable[[Question], tuple[str, str]],
        Callable[[random.Random], tuple[list[Question], list[Question]]],
    ],
] = {"one_digit_sum": (one_digit_sum, sums), "largest_of_three": (largest_of_three, triples)}


def rows(
    ask: Callable[[Question], tuple[str, str]],
    questions: Sequence[Question],
    known: Sequence[Question],
    rng: random.Random,
) -> list[dict[str, str]]:
    """Prompts of three worked lines drawn from `known` and one open line each."""
    found = []
    for question in questions:
        worked = rng.sample([k for k in known if set(k) != set(question)], NUM_WORKED)
        lines = [" ".join(ask(example)) for example in worked]
        text, answer = ask(question)
        found.append({"prompt": "\n".join([*lines, text]), "answer": answer})
    return found


def main() -> None:
    """Write both files of every task."""
    for name, (ask, split) in TASKS.items():
        rng = random.Random(name)
        train, held_out = split(rng)
        for part, questions in (("train", train), ("eval", held_out)):
            lines = [json.dumps(row) + "\n" for row in rows(ask, questions, train, rng)]
            Path(__file__).with_name(f"{name}.{part}.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
