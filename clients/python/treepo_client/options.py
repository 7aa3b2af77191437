"""What a request may say about its tree: the fields of `tree`, typed.

Ranges and defaults are the server's, which refuses what it does not know by name; they stand in
docs/configuration.md.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class TreeOptions(TypedDict, total=False):
    """The request's `tree` object; every field may be left out."""

    width: int
    segment_tokens: int
    max_depth: int | None
    branching_factor: int | None
    root_branching: int | tuple[int, int] | None
    branching: Literal["entropy", "even", "low_prob", "high_prob"]
    branching_temperature: float
    entropy_threshold: float | None
    fallback: Literal["random", "entropy", "disagreement", "none"] | None
    stop_on_answer: bool
    repetition: bool
    prune: Literal["none", "confidence"]
    prune_window: int
    prune_warmup: int
    prune_quantile: float
    answer: str | dict[str, str]
    vote: Literal["majority", "weighted", "confidence", "likelihood", "none"]
    until: Literal["complete", "settled"] | float
    start: int | None
    max_total_tokens: int | None
    deadline_ms: int | None
    include: list[Literal["nodes", "entropies", "texts", "record"]]
