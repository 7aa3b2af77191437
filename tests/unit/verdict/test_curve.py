"""The curve of independent sampling, worked by hand, and the pairing at matched tokens."""

from itertools import permutations

import numpy as np
import pytest

from treepo.verdict.curve import Curve, compare, majority_curve, pass_curve


def test_a_majority_is_that_of_every_order_of_the_pool() -> None:
    answers = ["a", "b", "b", None, "c"]
    rights = np.zeros(5)
    for order in permutations(answers):
        for n in range(1, 6):
            given = [answer for answer in order[:n] if answer is not None]
            best = min(given, key=lambda a: (-given.count(a), a), default=None)
            rights[n - 1] += best == "b"
    expected = rights / 120
    assert majority_curve(answers, "b") == pytest.approx(expected, abs=0.08)
    assert majority_curve(answers, "b")[-1] == 1
    assert majority_curve(answers, "d").tolist() == [0] * 5


def test_passing_is_drawing_without_putting_back() -> None:
    # 2 of 4 right: 1/2; 1 - (2/4)(1/3) = 5/6; then no way around a right one
    assert pass_curve(2, 4) == pytest.approx([1 / 2, 5 / 6, 1, 1])
    assert pass_curve(0, 3).tolist() == [0, 0, 0]


def test_a_plan_meets_the_curve_at_its_own_tokens() -> None:
    # Two problems of 10 tokens a sample; right on average 1/2, 3/4 and 1 at 1, 2 and 3 samples.
    curve = Curve(np.array([[1, 1, 1], [0, 0.5, 1]]), np.ones((2, 3)), np.array([10.0, 10.0]))
    found = compare(curve, np.array([10.0, 20.0]), np.array([1.0, 1.0]))
    assert found.paths == 1.5
    assert found.independent == pytest.approx(0.625)
    assert found.difference.value == pytest.approx(0.375)
    assert found.difference.low <= 0.375 <= found.difference.high
    assert not found.is_beyond
    assert compare(curve, np.array([40.0, 40.0]), np.ones(2)).is_beyond


def test_a_plan_that_is_the_curve_differs_by_nothing() -> None:
    rng = np.random.default_rng(1)
    rights = rng.random((200, 16)).cumsum(axis=1) / 16
    lengths = rng.integers(60, 120, 200).astype(float)
    curve = Curve(rights, rights, lengths)
    found = compare(curve, 16 * lengths, rights[:, -1])
    assert found.difference.value == pytest.approx(0)
    assert found.difference.high - found.difference.low == pytest.approx(0, abs=1e-12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    truth = np.clip(rng.beta(2, 2, 100_000) + 0.1, 0, 1).mean() - 0.5
    for seed in range(200):
        chances = rng.beta(2, 2, 100)
        curve = Curve(chances[:, None], chances[:, None], np.full(100, 50.0))
        is_right = (rng.random(100) < np.clip(chances + 0.1, 0, 1)).astype(float)
        gap = compare(curve, np.full(100, 50.0), is_right, num_resamples=200, seed=seed).difference
        covered += gap.low <= truth <= gap.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_curve_has_an_interval_at_every_number_of_samples() -> None:
    accuracy = np.array([[0.0, 0.5], [1.0, 0.5]])
    curve = Curve(accuracy, accuracy, np.array([10.0, 10.0]))
    first, second = curve.intervals(num_resamples=400)
    assert (first.value, first.low, first.high) == (0.5, 0.0, 1.0)
    assert (second.value, second.low, second.high) == (0.5, 0.5, 0.5)
