"""Where running paths branch: `entropy`, and the paper's `even`, `low_prob` and `high_prob`.

A policy looks at the tree in the order of tokens and yields `Branch` actions; the loop applies
each before the next is computed, so a policy always sees the masses as they are. What keeps
weights exact: a branch count may depend on anything but tokens, or a finish, behind the branch
position on a path through that node. A new policy is a class with these two methods and a line
in `make_branching`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from treepo.config import TreeConfig
from treepo.engines.base import Uncertainty
from treepo.growth.state import Branch, Growth, Path, Wave


class BranchingPolicy(Protocol):
    """Decides the branches of one wave."""

    def advance(self, path: Path, seen: int) -> Iterator[Branch]:
        """Branches that the tokens of `path` after position `seen` call for, in token order."""
        ...

    def finished(self) -> Iterator[Branch]:
        """Branches that become decidable because a path of the wave has ended."""
        ...


def branching_budget(
    *, width: int, num_finished: int, num_new: int, num_live: int, factor: int
) -> int:
    """Paths that may run after a depth is decided (TreePO §2.2, budget transfer).

    Each of the `num_live` paths goes on at least once; paths that finished in this round
    (`num_new`) pass their share on: `max(A, min(max(w - F, 0), N*f + N*A))`.
    """
    room = max(width - num_finished, 0)
    return max(num_live, min(room, factor * num_new + factor * num_live))


def largest_remainder(total: int, weights: list[float]) -> list[int]:
    """`total` divided into one integer per weight, each at least 1, by largest remainder.

    The released code gives the whole remainder to the last path; here it is spread, and ties go
    to the earlier path.
    """
    spare = total - len(weights)
    norm = sum(weights)
    shares = [spare * weight / norm for weight in weights]
    counts = [math.floor(share) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_rest[: spare - sum(counts)]:
        counts[i] += 1
    return [1 + count for count in counts]


def softmax(values: list[float], temperature: float) -> list[float]:
    """`exp(v / temperature)`, normalised and stable for large values."""
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


@dataclass(slots=True)
class DepthRounds:
    """The paper's policies: a depth is decided once all paths of the wave have passed it.

    Nothing waits for the decision: trunks run on, and a decided branch starts from the boundary
    even if its trunk has ended meanwhile. Counts are those as of the depth, not of the clock,
    which keeps the weights exact (a trunk's later finish must not change an earlier branch).

    Deviations from the released code: the remainder is spread (`largest_remainder`); paths that
    were opened late do not branch again; pruned and failed paths give their slot back.
    """

    growth: Growth
    wave: Wave
    _depth: int = field(default=1, init=False)

    def advance(self, path: Path, seen: int) -> Iterator[Branch]:
        """Branches of every depth that this path's progress completes."""
        if path.end >= self.growth.boundary(self._depth) and not path.is_late:
            yield from self._decide()

    def finished(self) -> Iterator[Branch]:
        """Branches of every depth that waited for a path which has now ended."""
        yield from self._decide()

    def _decide(self) -> Iterator[Branch]:
        growth, wave, config = self.growth, self.wave, self.growth.config
        while self._depth < (config.max_depth or 1):
            here, before = growth.boundary(self._depth), growth.boundary(self._depth - 1)
            paths = [p for p in wave.paths if not p.is_late and p.start <= before]
            if not paths or any(p.finish is None and p.end < here for p in paths):
                return
            live = [p for p in paths if p.end > here or (p.end == here and p.finish is None)]
            done = [p for p in paths if p.end <= here and p.is_trajectory]
            budget = branching_budget(
                width=wave.width,
                num_finished=len(done),
                num_new=sum(p.end > before for p in done),
                num_live=len(live),
                factor=config.branching_factor or 1,
            )
            self._depth += 1
            if not live:
                return
            for path, count in zip(live, self._divide(budget, live, before, here), strict=True):
                if count > 1:
                    yield Branch(path, here, count - 1)

    def _divide(self, budget: int, live: list[Path], before: int, here: int) -> list[int]:
        config = self.growth.config
        if config.branching == "even":
            return largest_remainder(budget, [1.0] * len(live))
        sign = -1.0 if config.branching == "low_prob" else 1.0
        means = [sign * _mean_logprob(path, before, here) for path in live]
        return largest_remainder(budget, softmax(means, config.branching_temperature))


def _mean_logprob(path: Path, start: int, stop: int) -> float:
    """Mean log-prob of the segment that ends at `stop`, in nats; 0.0 where none is known."""
    values = path.logprobs[max(start - path.start, 0) : stop - path.start]
    return sum(values) / len(values) if values else 0.0


def window_children(share: float, entropy: float, reference: float, factor: int) -> int:
    """Ways to split before a token of this entropy (nats) where `share` leaves are still to come.

    A token of entropy h is worth sharing among about `reference / h` leaves: one more shared
    token saves share - 1 tokens, and copies h nats to each (derivation in docs/paper.md). So at
    least half the reference forks at once into all leaves, less forks into fewer, and under
    2 / share of it nothing does. Every child keeps a share of at least 1.
    """
    if not entropy > 0 or share < 2:
        return 1
    sharing = max(1, math.floor(reference / entropy + 1e-9))
    return max(1, min(factor, math.floor(share / sharing + 1e-9)))


@dataclass(slots=True)
class UncertainSteps:
    """`entropy`: fork exactly before uncertain tokens, the wider the more uncertain.

    A stretch of low entropy is shared since independent samples would have written it too. The
    entropy before a token is a function of the prefix alone, so weights stay exact. The masses
    form a window: no child falls below mass 1 / width, hence at most `width` trajectories without
    any counting of slots, on an idle engine as on a busy one.

    Where the engine reports surprisal, which is known only with the token, the mean surprisal of
    the segment before a boundary stands in for the entropy behind it.
    """

    growth: Growth
    kind: Uncertainty

    def advance(self, path: Path, seen: int) -> Iterator[Branch]:
        """Branches before the uncertain tokens among those after position `seen`."""
        config = self.growth.config
        if path.is_late or not path.uncertainty or config.width * path.mass < 2:
            return
        places = self._by_entropy if self.kind is Uncertainty.ENTROPY else self._by_surprisal
        reference = config.entropy_threshold or 0.0
        factor = config.branching_factor or config.width
        for position, entropy in places(path, seen):
            ways = window_children(config.width * path.mass, entropy, reference, factor)
            if ways > 1:
                yield Branch(path, position, ways - 1)

    def finished(self) -> Iterator[Branch]:
        """Nothing: no decision waits for another path."""
        return iter(())

    def _by_entropy(self, path: Path, seen: int) -> Iterator[tuple[int, float]]:
        # A child's first token is the one its trunk forked before: its entropy has been used.
        is_root = path in path.wave.paths[: path.wave.num_roots]
        first = max(seen, path.start + (not is_root))
        values = np.asarray(path.uncertainty[first - path.start :])
        reference = self.growth.config.entropy_threshold or 0.0
        least = 2 * reference / (self.growth.config.width * path.mass)
        for offset in np.flatnonzero(values >= max(least, 1e-6)):
            yield first + int(offset), float(values[offset])

    def _by_surprisal(self, path: Path, seen: int) -> Iterator[tuple[int, float]]:
        growth = self.growth
        for depth in range(growth.depth_at(seen) + 1, growth.depth_at(path.end) + 1):
            here, before = growth.boundary(depth), growth.boundary(depth - 1)
            part = path.uncertainty[max(before - path.start, 0) : here - path.start]
            is_over = path.finish is not None and here == path.end
            if part and not is_over:
                yield here, sum(part) / len(part)


def make_branching(
    config: TreeConfig, growth: Growth, wave: Wave, kind: Uncertainty
) -> BranchingPolicy:
    """The policy that `config.branching` names, for one wave."""
    if config.is_paper_policy:
        return DepthRounds(growth, wave)
    return UncertainSteps(growth, kind)
