"""Trees against independent sampling at the same generated tokens, paired by problem.

The pool of a problem gives the expected accuracy of every smaller number of independent samples;
between two numbers a mixture of both is taken. A plan is compared with that curve at the tokens
which it generated itself. Everything is arrays and pure functions; it knows no trees
(`outcomes.py`) and prints nothing.

Letters of shapes: `P` problems, `N` trajectories of a problem's pool, `B` resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_LEVEL = 0.95
_NUM_ORDERS = 256


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bootstrap interval over problems, at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A plan against independent sampling.

    Attributes:
        tokens: Generated tokens of a problem.
        paths: The same over the mean length of an independent trajectory.
        accuracy: Of the plan's answers.
        independent: Accuracy of independent sampling at the same tokens.
        difference: The first minus the second, paired by problem.
        is_beyond: Whether the plan cost more than the whole pool, which it is then held against.
    """

    tokens: Interval
    paths: float
    accuracy: Interval
    independent: float
    difference: Interval
    is_beyond: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """Independent sampling, from 1 to N trajectories.

    Attributes:
        accuracy: `[P, N]`, expected accuracy of the majority of the first 1, 2, ... samples.
        passed: `[P, N]`, the probability that one of them is right.
        lengths: `[P]`, mean tokens of one trajectory.
    """

    accuracy: Floats
    passed: Floats
    lengths: Floats

    @property
    def num_samples(self) -> int:
        """N."""
        return int(self.accuracy.shape[1])

    def at(self, paths: float, problems: npt.NDArray[np.int64] | None = None) -> float:
        """Mean accuracy at a number of trajectories that need not be whole."""
        rows = self.accuracy if problems is None else self.accuracy[problems]
        return float(np.interp(paths, np.arange(1, self.num_samples + 1), rows.mean(axis=0)))

    def intervals(self, *, num_resamples: int = 2000, seed: int = 0) -> list[Interval]:
        """The accuracy at 1, 2, ... N samples, each with its interval over problems."""
        size = len(self.accuracy)
        draws = np.random.default_rng(seed).integers(0, size, (num_resamples, size))
        return [mean_interval(column, draws) for column in self.accuracy.T]


def majority_curve(answers: Sequence[str | None], gold: str, seed: int = 0) -> Floats:
    """`[N]`, how often the majority of n samples drawn from these is right.

    The mean over random orders; ties go to the answer that is first in the alphabet, as in a
    vote, and samples without an answer abstain.
    """
    kinds = sorted({answer for answer in answers if answer is not None})
    if gold not in kinds:
        return np.zeros(len(answers))
    places = {answer: i for i, answer in enumerate(kinds)}
    table = np.zeros((len(answers), len(kinds)))
    for row, answer in enumerate(answers):
        if answer is not None:
            table[row, places[answer]] = 1
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(len(answers)), (_NUM_ORDERS, 1)), axis=1)
    counts = table[orders].cumsum(axis=1)
    is_right = (counts.argmax(axis=2) == places[gold]) & (counts.max(axis=2) > 0)
    return np.asarray(is_right.mean(axis=0), dtype=np.float64)


def pass_curve(num_right: int, num_samples: int) -> Floats:
    """`[N]`, the probability that at least one of n samples drawn from these is right."""
    missed, misses = 1.0, []
    for drawn in range(num_samples):
        missed *= max(0.0, num_samples - num_right - drawn) / (num_samples - drawn)
        misses.append(missed)
    return 1 - np.array(misses)


def compare(
    curve: Curve, tokens: Floats, is_right: Floats, *, num_resamples: int = 2000, seed: int = 0
) -> Comparison:
    """A plan against independent sampling at the tokens that the plan generated.

    Args:
        curve: Independent sampling on the same problems.
        tokens: `[P]`, tokens that the plan generated.
        is_right: `[P]`, 1 where its answer was right, or a mean over repeats.
        num_resamples: B, bootstrap resamples of the problems.
        seed: Of the resamples.
    """
    everything = np.arange(len(tokens))
    draws = np.random.default_rng(seed).integers(0, len(tokens), (num_resamples, len(tokens)))

    def difference(problems: npt.NDArray[np.int64]) -> float:
        paths = tokens[problems].mean() / curve.lengths[problems].mean()
        return float(is_right[problems].mean()) - curve.at(paths, problems)

    paths = float(tokens.mean() / curve.lengths.mean())
    return Comparison(
        tokens=mean_interval(tokens, draws),
        paths=paths,
        accuracy=mean_interval(is_right, draws),
        independent=curve.at(paths),
        difference=_interval(difference(everything), [difference(draw) for draw in draws]),
        is_beyond=paths > curve.num_samples + 1e-9,
    )


def mean_interval(values: Floats, draws: npt.NDArray[np.int64]) -> Interval:
    """The mean of `values`, `[P]`, with its interval over resampled problems, `[B, P]`."""
    return _interval(float(values.mean()), values[draws].mean(axis=1).tolist())


def _interval(value: float, resampled: Sequence[float]) -> Interval:
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(value, float(low), float(high))
