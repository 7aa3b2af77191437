"""The running reference of `branching: entropy`: a model's mean entropy per generated token.

One per engine; it is read once before a tree starts and told about each finished tree, so no
tree changes its own threshold. It knows no policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treepo.tree import Tree

DEFAULT_NATS = 0.3
"""Reference before an engine has been observed, and of every seeded request."""

_PRIOR_TOKENS = 512
_MEMORY_TOKENS = 100_000


@dataclass(slots=True)
class EntropyReference:
    """Mean uncertainty per token over about the last 100,000 generated tokens, in nats.

    It starts as if 512 tokens of the default had been seen. Tokens of pruned paths count, since
    they were generated too.
    """

    _total: float = DEFAULT_NATS * _PRIOR_TOKENS
    _tokens: float = float(_PRIOR_TOKENS)

    def value(self, seed: int | None) -> float:
        """The reference for a tree that starts now; the default where a seed must repeat it."""
        return DEFAULT_NATS if seed is not None else self._total / self._tokens

    def observe(self, tree: Tree) -> None:
        """Take in a finished tree; older trees fade."""
        parts = [np.asarray(node.uncertainty) for node in tree.nodes if node.uncertainty]
        total = float(sum(np.nansum(part) for part in parts))
        count = int(sum(np.count_nonzero(~np.isnan(part)) for part in parts))
        fade = max(0.0, 1 - count / _MEMORY_TOKENS) if self._tokens > _PRIOR_TOKENS else 1.0
        self._total = self._total * fade + total
        self._tokens = self._tokens * fade + count
