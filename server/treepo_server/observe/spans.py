"""OpenTelemetry spans of a tree and its segments, where vLLM's tracing is on.

A tree is one span below the caller's; vLLM's own spans of its paths and ours of its segments are
its children. Segments are known only when the tree has ended, so their times are looked up then, to
a chunk. Without `--otlp-traces-endpoint` nothing is imported or recorded. vLLM configures the
exporter.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from treepo.growth.job import request_id
from treepo.tree import Node, Tree


@dataclass(slots=True)
class _Clock:
    """When a path had generated how many tokens; the first entry is its start."""

    counts: list[int] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)

    def add(self, num_tokens: int) -> None:
        self.counts.append(num_tokens + (self.counts[-1] if self.counts else 0))
        self.times_ns.append(time.time_ns())

    def at(self, num_tokens: int) -> int:
        """When the path had that many tokens, in nanoseconds since the epoch."""
        return self.times_ns[min(bisect_left(self.counts, num_tokens), len(self.times_ns) - 1)]


class TreeSpan:
    """The spans of one tree.

    Args:
        tracer: An OpenTelemetry tracer.
        request_id: The caller's request.
        headers: Trace headers of the caller.

    Attributes:
        headers: Trace headers for the tree's engine requests.
    """

    def __init__(self, tracer: Any, request_id: str, headers: Mapping[str, str] | None) -> None:
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        self._tracer = tracer
        self._span = tracer.start_span("treepo.tree", propagator.extract(dict(headers or {})))
        self._span.set_attribute("gen_ai.request.id", request_id)
        self._context = set_span_in_context(self._span)
        self.headers: dict[str, str] = {}
        propagator.inject(self.headers, self._context)
        self._clocks: dict[str, _Clock] = {}

    def saw(self, request_id: str, num_tokens: int) -> None:
        """A path began (0 tokens) or sent a chunk."""
        self._clocks.setdefault(request_id, _Clock()).add(num_tokens)

    def end(self, tree: Tree | None, outcome: str) -> None:
        """End all spans; `tree` is None where it has no answer."""
        self._span.set_attribute("treepo.outcome", outcome)
        if tree is not None:
            self._span.set_attribute("treepo.trajectories", len(tree.trajectories))
            self._span.set_attribute("gen_ai.usage.completion_tokens", tree.stats.generated_tokens)
            starts: dict[int, int] = {}
            for node in tree.nodes:
                self._segment(tree.id, node, starts.setdefault(node.path, node.start))
        self._span.end()

    def _segment(self, tree_id: str, node: Node, path_start: int) -> None:
        clock = self._clocks.get(request_id(tree_id, node.path))
        if clock is None:
            return
        began, ended = clock.at(node.start - path_start), clock.at(node.end - path_start)
        span = self._tracer.start_span("treepo.segment", self._context, start_time=began)
        span.set_attributes(
            {
                "treepo.node": node.id,
                "treepo.parent": -1 if node.parent is None else node.parent,
                "treepo.path": node.path,
                "treepo.start_tokens": node.start,
                "treepo.tokens": len(node.token_ids),
                "treepo.finish": str(node.finish or ""),
            }
        )
        span.end(end_time=ended)


def tracer_of(vllm_config: Any) -> Any:
    """The tracer, or None where vLLM's tracing is off."""
    if vllm_config.observability_config.otlp_traces_endpoint is None:
        return None
    from opentelemetry.trace import get_tracer

    return get_tracer("treepo")
