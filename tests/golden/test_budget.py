"""The paper's budget and its division (TreePO 2.2), worked by hand."""

import math

import pytest

from treepo.policies.branching import branching_budget, largest_remainder, softmax


@pytest.mark.parametrize(
    ("width", "finished", "new", "live", "factor", "budget"),
    [
        # The formula is T = max(A, min(max(w - F, 0), N * f + N * A)).
        (16, 0, 0, 2, 2, 4),  # max(2, min(16, 0 + 4)): plain doubling
        (16, 1, 1, 3, 2, 8),  # max(3, min(15, 2 + 6)): the one that finished passes 2 on
        (16, 6, 2, 8, 2, 10),  # max(8, min(10, 4 + 16)): the width binds
        (16, 10, 0, 6, 2, 6),  # max(6, min(6, 12)): full, every path goes on once
        (16, 12, 4, 6, 2, 6),  # max(6, min(4, 20)): overfull from before, nobody is ended
        (16, 17, 0, 1, 2, 1),  # max(1, min(0, 2)): more finished than asked for
        (16, 4, 4, 0, 2, 8),  # max(0, min(12, 8 + 0)): all finished at once; nobody to fork
        (16, 0, 0, 2, 8, 16),  # max(2, min(16, 16))
        (16, 0, 0, 3, 1, 3),  # a factor of 1 never forks
    ],
)
def test_budget_transfer(width, finished, new, live, factor, budget):
    assert (
        branching_budget(
            width=width, num_finished=finished, num_new=new, num_live=live, factor=factor
        )
        == budget
    )


@pytest.mark.parametrize(
    ("total", "weights", "counts"),
    [
        # 7 over 4 equal paths: each 1, spare 3, shares 0.75 each: floors 0, the three earlier
        # paths take the rest. The released code gives 1, 1, 1, 4.
        (7, [1, 1, 1, 1], [2, 2, 2, 1]),
        (8, [1, 1, 1, 1], [2, 2, 2, 2]),
        # Spare 6 by 3 : 2 : 1 is 3, 2, 1.
        (9, [3, 2, 1], [4, 3, 2]),
        # Spare 4 by 0.5, 0.3, 0.2 is 2.0, 1.2, 0.8: floors 2, 1, 0; the last 1 to the rest 0.8.
        (7, [0.5, 0.3, 0.2], [3, 2, 2]),
        # Spare 2 by 0.6, 0.4 is 1.2, 0.8: floors 1, 0; the last 1 to the rest 0.8.
        (4, [0.6, 0.4], [2, 2]),
        (3, [0.2, 0.7, 0.1], [1, 1, 1]),
    ],
)
def test_largest_remainder(total, weights, counts):
    assert largest_remainder(total, weights) == counts


def test_softmax_division_with_tau():
    # Segment means m = -0.2, -1.2, -0.7 (nats). Low-prob encourage weighs exp(-m / tau); relative
    # to the largest, tau = 1: e^-1.0, 1, e^-0.5 = 0.3679, 1, 0.6065, sum 1.9744.
    low = softmax([0.2, 1.2, 0.7], 1.0)
    assert low == pytest.approx([0.1863, 0.5065, 0.3072], abs=1e-4)
    # tau = 2 flattens: e^-0.5, 1, e^-0.25 = 0.6065, 1, 0.7788, sum 2.3853.
    assert softmax([0.2, 1.2, 0.7], 2.0) == pytest.approx([0.2543, 0.4192, 0.3265], abs=1e-4)
    # Spare 6 - 3 = 3 by the first: 0.559, 1.519, 0.922: floors 0, 1, 0; the two left over go to
    # the rests 0.922 and 0.559.
    assert largest_remainder(6, low) == [2, 2, 2]
    # Spare 5: 0.931, 2.532, 1.536: floors 0, 2, 1; two left over: rests 0.931, 0.536 (0.532).
    assert largest_remainder(8, low) == [2, 3, 3]
    # High-prob encourage weighs exp(+m / tau): 1, e^-1.0, e^-0.5, the same numbers turned round.
    assert softmax([-0.2, -1.2, -0.7], 1.0) == pytest.approx([0.5065, 0.1863, 0.3072], abs=1e-4)


def test_softmax_stands_large_values():
    assert softmax([-1e6, 0.0], 0.1) == [0.0, 1.0]
    assert math.isclose(sum(softmax([-900.0, -901.0, -902.0], 1.0)), 1.0)
