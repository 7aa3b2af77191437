"""From a tree that has stopped growing to its immutable record, with exact counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from treepo.engines.base import Chunk, EngineInfo, Uncertainty
from treepo.errors import EngineError
from treepo.growth.segments import segments
from treepo.growth.state import Growth, Path
from treepo.tree import Finish, Trajectory, Tree, TreeFinish, TreeStats
from treepo.votes.voting import leaf_weights

_LATE_TOKENS = 4
"""A path's last tokens, whose uncertainty may come too late to be read."""


@dataclass(slots=True)
class Totals:
    """What the engine did for one tree, counted as it happens."""

    generated_tokens: int = 0
    cached_tokens: int = 0
    prompt_cached_tokens: int = 0
    recomputed_tokens: int = 0
    branches: int = 0
    fallbacks: int = 0
    prunes: int = 0
    max_live_paths: int = 0
    duration_s: float = 0.0
    weight_versions: set[str] = field(default_factory=set)

    def count(self, path: Path, chunk: Chunk, num_prompt_tokens: int) -> None:
        """Add a chunk: its tokens, and once per request what the prefix cache saved."""
        self.generated_tokens += len(chunk.token_ids)
        self.weight_versions.update(chunk.weight_versions)
        cached = chunk.num_cached_tokens
        if cached is None or path.is_cache_counted:
            return
        path.is_cache_counted = True
        self.cached_tokens += cached
        if path.id == 0:
            self.prompt_cached_tokens = cached
        else:
            self.recomputed_tokens += num_prompt_tokens + path.start - cached


def make_record(
    tree_id: str,
    growth: Growth,
    totals: Totals,
    info: EngineInfo,
    finish: TreeFinish | None,
    notes: tuple[str, ...],
) -> Tree:
    """The record of a tree whose requests have all ended.

    Raises:
        EngineError: The engine got other weights while the tree grew.
    """
    nodes, tips = segments(growth)
    leaves = [path for path in growth.paths if path.is_trajectory and path.id in tips]
    weights = leaf_weights([p.mass for p in leaves], [p.is_late for p in leaves])
    trajectories = tuple(
        _trajectory(path, tips[path.id], weight)
        for path, weight in zip(leaves, weights, strict=True)
    )
    return Tree(
        id=tree_id,
        prompt_token_ids=growth.prompt_token_ids,
        nodes=tuple(nodes),
        trajectories=trajectories,
        finish=finish or TreeFinish.COMPLETE,
        weights_exact=_is_exact(growth),
        uncertainty_kind=info.uncertainty.value,
        weight_version=_weight_version(totals, info),
        settings=growth.config.model_dump(mode="json"),
        notes=(*notes, *_silence(growth, info)),
        stats=_stats(growth, leaves, totals),
    )


def _silence(growth: Growth, info: EngineInfo) -> Iterator[str]:
    """What to say where the engine kept back more uncertainties than a path's last ones."""
    if info.uncertainty is Uncertainty.NONE:
        return
    total = sum(len(path.token_ids) for path in growth.paths)
    known = sum(np.count_nonzero(~np.isnan(path.uncertainty)) for path in growth.paths)
    if total - known > _LATE_TOKENS * len(growth.paths):
        yield (
            f"{total - known} of {total} tokens came without {info.uncertainty.value}: the engine "
            "stopped reporting it, and nothing was decided by it there"
        )


def _weight_version(totals: Totals, info: EngineInfo) -> str:
    """The version all tokens were drawn with: what the engine said of them, else of itself."""
    versions = totals.weight_versions or {info.weight_version}
    if len(versions) > 1:
        names = " and ".join(repr(version) for version in sorted(versions))
        raise EngineError(
            f"the tree mixes the weights {names}: they were changed while it grew; sample it "
            "again, and change weights only when no tree runs",
            is_retryable=True,
        )
    return versions.pop()


def _trajectory(path: Path, leaf: int, weight: float) -> Trajectory:
    return Trajectory(
        leaf=leaf,
        finish=path.finish or Finish.UNFINISHED,
        weight=weight,
        text=path.transcript.shown if path.transcript else None,
        answer=path.answer.key if path.answer else None,
        answer_text=path.answer.text if path.answer else None,
        order=path.order,
    )


def _is_exact(growth: Growth) -> bool:
    """Whether trees with these settings are exact, and nothing of this one was lost.

    It must not depend on how the tree happened to turn out: trees that could have fallen back,
    stopped early or been pruned, and did not, are a biased selection.
    """
    config = growth.config
    may_depend = (
        config.fallback != "none"
        or config.until != "complete"
        or config.prune != "none"
        or (config.start != config.width and config.branching_factor != 1)
        or config.max_total_tokens is not None
        or config.deadline_ms is not None
    )
    return not may_depend and all(path.is_trajectory for path in growth.paths)


def _stats(growth: Growth, leaves: list[Path], totals: Totals) -> TreeStats:
    kept: dict[int, list[tuple[int, int]]] = {}
    for leaf in leaves:
        for owner, end in leaf.ancestry():
            kept.setdefault(owner.id, []).append((owner.start, end))
    unique = sum(max(end for _, end in parts) - parts[0][0] for parts in kept.values())
    trajectory_tokens = sum(path.end for path in leaves)
    return TreeStats(
        generated_tokens=totals.generated_tokens,
        trajectory_tokens=trajectory_tokens,
        reused_tokens=trajectory_tokens - unique,
        discarded_tokens=totals.generated_tokens - unique,
        prompt_tokens=len(growth.prompt_token_ids),
        prompt_cached_tokens=totals.prompt_cached_tokens,
        cached_tokens=totals.cached_tokens,
        recomputed_tokens=totals.recomputed_tokens,
        branches=totals.branches,
        fallbacks=totals.fallbacks,
        prunes=totals.prunes,
        max_live_paths=totals.max_live_paths,
        duration_s=totals.duration_s,
    )
