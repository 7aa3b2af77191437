"""The finished tree: an immutable record of what was sampled, and walks over it.

A node is a segment: the tokens between two places where paths were cut or forked. Nodes store
only what they add; a trajectory is the walk from a root segment to its leaf. The record knows
neither how it grew (`growth/state.py`) nor what its answers are worth (`voting.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Any, Final


class Finish(StrEnum):
    """Why a path ended."""

    EOS = "eos"  # the model's end of sequence
    STOP = "stop"  # a stop string or stop token of the caller
    ANSWER = "answer"  # its answer is complete
    LENGTH = "length"  # `max_tokens` or the model's length
    DEPTH = "depth"  # `max_depth` segments
    REPETITION = "repetition"  # it loops
    PRUNED = "pruned"  # a prune policy gave it up
    UNFINISHED = "unfinished"  # the tree ended first
    FAILED = "failed"  # the engine refused or lost it

    @property
    def is_trajectory(self) -> bool:
        """Whether such a path counts as a complete trajectory."""
        return self not in (Finish.PRUNED, Finish.UNFINISHED, Finish.FAILED)

    @property
    def is_natural(self) -> bool:
        """Whether such a path ended by itself, at an answer, the end of sequence or a stop."""
        return self in (Finish.EOS, Finish.STOP, Finish.ANSWER)


GIVEN_UP: Final = frozenset(finish for finish in Finish if not finish.is_trajectory)
"""How paths end that are no trajectories; equal to the words that stand for them in JSON."""


class TreeFinish(StrEnum):
    """Why a tree ended."""

    COMPLETE = "complete"  # every path ended by itself
    SETTLED = "settled"  # votes still to come could not change the winner
    CONFIDENT = "confident"  # the asked-for confidence was reached
    MAX_TOTAL_TOKENS = "max_total_tokens"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"  # the caller left or the server is draining


@dataclass(frozen=True, slots=True)
class Node:
    """One segment.

    Attributes:
        id: Index into `Tree.nodes`; parents come before children.
        parent: Index of the segment before this one, None for a root segment.
        path: The engine request that generated it; a path's segments share the number.
        start: Generated tokens of its trajectory before this segment.
        token_ids: Tokens it adds.
        logprobs: Log-probability of each, in nats, under the sampling distribution; or empty.
        uncertainty: Entropy or surprisal of each position, in nats; or empty.
        mass: Share of the prompt's unit of probability mass that flows through it.
        is_late: Whether it was opened with knowledge of tokens behind its branch point.
        finish: Why the path ended, on the last node of each path.
    """

    id: int
    parent: int | None
    path: int
    start: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    uncertainty: tuple[float, ...] = ()
    mass: float = 1.0
    is_late: bool = False
    finish: Finish | None = None

    @property
    def end(self) -> int:
        """Generated tokens of the trajectory up to and with this segment."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One complete leaf.

    Attributes:
        leaf: Its last node.
        finish: Why it ended.
        weight: Its share in a weighted vote; the weights of a tree sum to 1.
        text: The generated text, when the sampler had a tokenizer.
        answer: The answer as a canonical key, None where none was found.
        answer_text: The answer as it stands in the text.
        order: 0 for the trajectory that finished first.
    """

    leaf: int
    finish: Finish
    weight: float
    text: str | None = None
    answer: str | None = None
    answer_text: str | None = None
    order: int = 0


@dataclass(frozen=True, slots=True)
class TreeStats:
    """Exact token and event counts of one tree.

    `trajectory_tokens + discarded_tokens == generated_tokens + reused_tokens` always holds.

    Attributes:
        generated_tokens: Tokens the engine generated, each once.
        trajectory_tokens: Sum of the lengths of the complete trajectories.
        reused_tokens: Trajectory tokens that were generated once and read again by a sibling.
        discarded_tokens: Generated tokens on no complete trajectory: those of paths that were
            pruned, lost or unfinished, and what ran over a path's end.
        prompt_tokens: Length of the prompt.
        prompt_cached_tokens: Prompt tokens of the first request found in the prefix cache.
        cached_tokens: Prompt tokens of all requests that the engine found in its prefix cache.
        recomputed_tokens: Request prompt tokens computed again, after the first request.
        branches: Children opened beside a running path.
        fallbacks: Children opened late, from finished paths.
        prunes: Paths ended by a prune policy.
        max_live_paths: Most paths that ran at one time.
        duration_s: Wall-clock from the first request until all requests had ended and all answers
            had been read.
    """

    generated_tokens: int = 0
    trajectory_tokens: int = 0
    reused_tokens: int = 0
    discarded_tokens: int = 0
    prompt_tokens: int = 0
    prompt_cached_tokens: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    branches: int = 0
    fallbacks: int = 0
    prunes: int = 0
    max_live_paths: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Tree:
    """A sampled tree.

    Attributes:
        id: Unique name; every engine request of the tree starts with it.
        prompt_token_ids: The root.
        nodes: All segments, also those of pruned and unfinished paths; parents first.
        trajectories: Complete leaves, in the order of their node ids.
        finish: Why the tree ended.
        weights_exact: Whether the weighted mean over trajectories is unbiased, over all trees of
            these settings: no fallback, early stop, prune or limit was allowed, and no path lost.
        uncertainty_kind: `entropy`, `surprisal` or `none`: what `Node.uncertainty` holds.
        weight_version: The engine's weights, one version for all tokens.
        settings: The resolved configuration the tree was sampled with.
        notes: What was done otherwise than asked, in words.
        stats: Token counts.
    """

    id: str
    prompt_token_ids: tuple[int, ...]
    nodes: tuple[Node, ...]
    trajectories: tuple[Trajectory, ...]
    finish: TreeFinish
    weights_exact: bool
    uncertainty_kind: str = "none"
    weight_version: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stats: TreeStats = field(default_factory=TreeStats)

    def lineage(self, node: int) -> list[Node]:
        """The segments from the root segment to `node`, in order."""
        walk: list[Node] = []
        at: int | None = node
        while at is not None:
            walk.append(self.nodes[at])
            at = self.nodes[at].parent
        return walk[::-1]

    def token_ids(self, trajectory: Trajectory) -> list[int]:
        """All generated tokens of a trajectory."""
        return list(chain.from_iterable(n.token_ids for n in self.lineage(trajectory.leaf)))

    def logprobs(self, trajectory: Trajectory) -> list[float]:
        """The sampling log-probability of each of its tokens, in nats."""
        return list(chain.from_iterable(n.logprobs for n in self.lineage(trajectory.leaf)))

    def children(self) -> list[list[int]]:
        """For each node the ids of its children; `[-1]` (the last entry) holds the roots."""
        kids: list[list[int]] = [[] for _ in range(len(self.nodes) + 1)]
        for node in self.nodes:
            kids[-1 if node.parent is None else node.parent].append(node.id)
        return kids

    def leaves_through(self) -> list[list[int]]:
        """For each node the indices of the trajectories that pass through it."""
        through: list[list[int]] = [[] for _ in self.nodes]
        for index, trajectory in enumerate(self.trajectories):
            at: int | None = trajectory.leaf
            while at is not None:
                through[at].append(index)
                at = self.nodes[at].parent
        return through

    def walk(self) -> Iterator[tuple[int, Node]]:
        """Nodes in depth-first order, each with its number of ancestors."""
        kids = self.children()
        stack = [(0, node) for node in reversed(kids[-1])]
        while stack:
            depth, node = stack.pop()
            yield depth, self.nodes[node]
            stack.extend((depth + 1, child) for child in reversed(kids[node]))
