"""Which data-parallel rank a tree goes to: all its requests to one, or its branches miss the cache.

vLLM would spread the requests of one tree over its ranks. Trees are counted, not their paths, and
only those of this process.
"""

from __future__ import annotations

from collections import Counter
from typing import Any


class Ranks:
    """Hands out the ranks of one engine.

    Args:
        num_ranks: Ranks that this process may send requests to.
    """

    def __init__(self, num_ranks: int) -> None:
        self._num_ranks = num_ranks
        self._trees: Counter[int] = Counter()

    @property
    def num_ranks(self) -> int:
        """Ranks that this process sends requests to."""
        return self._num_ranks

    @classmethod
    def of(cls, parallel_config: Any) -> Ranks:
        """The ranks behind vLLM's `ParallelConfig`."""
        if parallel_config.local_engines_only:
            return cls(parallel_config.data_parallel_size_local)
        return cls(parallel_config.data_parallel_size)

    def take(self, asked: int | None) -> int | None:
        """The rank for a new tree: the one asked for, else one with the fewest trees.

        None where there is only one.
        """
        if self._num_ranks == 1 and asked is None:
            return None
        fewest = min(range(self._num_ranks), key=lambda rank: self._trees[rank])
        rank = fewest if asked is None else asked
        self._trees[rank] += 1
        return rank

    def give_back(self, rank: int | None) -> None:
        """A tree on this rank has ended."""
        if rank is not None:
            self._trees[rank] -= 1
