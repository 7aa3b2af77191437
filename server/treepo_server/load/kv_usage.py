"""How full the KV cache is, as vLLM's own metric says: `vllm:kv_cache_usage_perc`.

It is the gauge of this process. vLLM gives each step's figures to one of its API processes, so with
several of them a process that is idle may hold an old value; it matters only to trees that run
here, and those bring new ones. Without vLLM's statistics (`--disable-log-stats`) it is 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry

METRIC = "vllm:kv_cache_usage_perc"
FRESH_S = 0.05
"""Seconds for which a value that was read is used again."""


class KvUsage:
    """Reads the gauge, at most every `FRESH_S` seconds.

    Args:
        threshold: Usage, from 0 to 1, above which the cache is crowded.
        registry: Where vLLM registered the gauge.
        clock: Seconds.
    """

    def __init__(
        self,
        threshold: float,
        registry: CollectorRegistry = REGISTRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._metrics = registry.restricted_registry([METRIC])
        self._clock = clock
        self._read_at = -FRESH_S
        self._value = 0.0

    def is_crowded(self) -> bool:
        """Whether the fullest rank's cache is above the threshold."""
        now = self._clock()
        if now - self._read_at >= FRESH_S:
            self._read_at, self._value = now, self._read()
        return self._value > self._threshold

    def _read(self) -> float:
        samples = (sample for metric in self._metrics.collect() for sample in metric.samples)
        return max((sample.value for sample in samples), default=0.0)
