"""How much of the engine trees may use: what the operator set, and this process's share of it.

Read once from the environment: each field is the variable `TREEPO_` with its name. What it means
stands with its flag, in `launch/options.py`. What one request may ask for is `limits.py`'s, who
gets a slot `load/governor.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from treepo.errors import ConfigError
from treepo_server.settings.limits import PREFIX, positive


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the operator gives to trees; `max_live_paths` None is as many as the engine takes."""

    max_live_paths: int | None = None
    tree_share: float = 1.0
    max_waiting_trees: int = 64
    kv_full: float = 0.9
    drain_s: float = 10.0

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Capacity:
        """What the environment sets.

        Raises:
            ConfigError: A variable is no number, or out of its range; it is named.
        """
        readers: dict[str, Callable[[str, str], Any]] = {
            "max_live_paths": positive,
            "tree_share": _part,
            "max_waiting_trees": positive,
            "kv_full": _part,
            "drain_s": _seconds,
        }
        keys = {name: PREFIX + name.upper() for name in readers}
        return cls(
            **{n: readers[n](k, environment[k]) for n, k in keys.items() if environment.get(k)}
        )

    def slots_per_rank(self, scheduler: Any, num_ranks: int, num_processes: int) -> int:
        """Paths that trees of this process may run on each rank, at least 1.

        The slots of all ranks, or what vLLM's queue takes if that is less, are divided among the
        API processes; so no branch waits in vLLM behind other trees' prompts.

        Args:
            scheduler: vLLM's `SchedulerConfig`.
            num_ranks: Data-parallel ranks that this process sends requests to.
            num_processes: API processes that share them.
        """
        active = getattr(scheduler, "max_num_active_seqs", None)
        total = num_ranks * min(scheduler.max_num_seqs, active or scheduler.max_num_seqs)
        queued = getattr(scheduler, "max_num_queued_reqs", None)
        if queued is not None:
            total = min(total, queued)
        total = int(total * self.tree_share)
        if self.max_live_paths is not None:
            total = min(total, self.max_live_paths)
        return max(1, total // num_processes // num_ranks)


def _part(key: str, text: str) -> float:
    value = _number(key, text, "a number above 0, at most 1")
    if not 0 < value <= 1:
        raise ConfigError(f"{key} is {text!r}; set it to a number above 0, at most 1, or unset it")
    return value


def _seconds(key: str, text: str) -> float:
    value = _number(key, text, "a number of seconds")
    if not 0 <= value <= 86400:
        raise ConfigError(f"{key} is {text!r}; set it to seconds from 0 to 86400 or unset it")
    return value


def _number(key: str, text: str, allowed: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{key} is {text!r}; set it to {allowed} or unset it") from None
