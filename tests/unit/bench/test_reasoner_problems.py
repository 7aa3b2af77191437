"""The reasoner's problems: right, repeatable, and never the same in train and test."""

from itertools import islice

import pytest

from bench.reasoner.problems import BENCH_LEVEL, TRAIN_LEVEL, Level, make, problems
from treepo.answers.extraction import last_boxed


@pytest.mark.parametrize("level", [TRAIN_LEVEL, BENCH_LEVEL])
def test_every_line_and_the_answer_are_right(level: Level) -> None:
    for problem in islice(problems("train", level), 300):
        chain = problem.question.removeprefix("Work out ").removesuffix(" step by step.")
        assert level.terms[0] <= len(chain.split()[::2]) <= level.terms[1]
        assert str(eval(chain)) == problem.answer == last_boxed(problem.solution)
        for line in problem.solution.splitlines()[1:-1]:
            left, right = line.partition(": ")[2].removesuffix(".").split(" = ")
            assert eval(left) == int(right)
            assert 0 <= int(right) <= 99


def test_a_problem_is_a_function_of_split_and_number() -> None:
    again = list(islice(problems("test", BENCH_LEVEL, start=5), 3))
    assert again == [make("test", number, BENCH_LEVEL) for number in (5, 6, 7)]


def test_a_benched_problem_was_never_trained_on() -> None:
    trained = {p.question for p in islice(problems("train", TRAIN_LEVEL), 3000)}
    benched = {p.question for p in islice(problems("test", BENCH_LEVEL), 500)}
    assert not trained & benched
