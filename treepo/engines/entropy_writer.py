"""The engine's end of entropy rings: finds the slots that requests name and writes into them.

It trusts nothing a request says, since clients can send `extra_args` of their own, and knows
neither vLLM nor torch. What is written is measured in `vllm_entropy.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from treepo.engines.entropy_segment import (
    ATTACHED,
    ENTROPY_KEY,
    FAILED,
    NAME,
    Segment,
    directory,
    pack,
)

TARGET = np.dtype([("ring", np.int64), ("slot", np.int64), ("nonce", np.uint64)])
"""Where a request's entropies go: a ring of the writer's, a slot in it, and the slot's nonce."""

_MAX_RINGS = 64  # more than a server has API processes; bounds what forged names can map


class RingWriter:
    """Writes into the rings of any number of processes."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._rings: list[Segment] = []

    def find(self, extra_args: Mapping[str, Any] | None) -> tuple[int, int, int] | None:
        """The `TARGET` that a request's `extra_args` name; None if there is no such slot."""
        match (extra_args or {}).get(ENTROPY_KEY):
            case [str(name), int(slot), int(nonce)] if NAME.fullmatch(name) and 0 < nonce < 2**63:
                ring = self._attach(name)
                if ring is not None and 0 <= slot < self._rings[ring].num_slots:
                    return ring, slot, nonce
        return None

    def write(
        self,
        targets: npt.NDArray[np.void],
        positions: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32],
    ) -> None:
        """Store one value per target; those whose slot is no longer theirs are dropped.

        Args:
            targets: `TARGET` records, [n].
            positions: How many tokens each request had generated before, [n].
            values: Nats, [n].
        """
        for ring in np.unique(targets["ring"]):
            segment = self._rings[ring]
            is_here = targets["ring"] == ring
            slots, nonces = targets["slot"][is_here], targets["nonce"][is_here]
            at, theirs = positions[is_here].astype(np.uint64), segment.nonces[slots] == nonces
            cells = pack(nonces, at, values[is_here])
            segment.cells[slots[theirs], at[theirs] % np.uint64(segment.positions)] = cells[theirs]

    def give_up(self) -> None:
        """Tell the owners that nothing more will be written."""
        for segment in self._rings:
            segment.header[FAILED] = 1

    def _attach(self, name: str) -> int | None:
        if name not in self._ids and len(self._rings) < _MAX_RINGS:
            with suppress(OSError):
                fd = os.open(directory() / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    self._rings.append(Segment.attach(fd))
                finally:
                    os.close(fd)
                self._rings[-1].header[ATTACHED] = 1
                self._ids[name] = len(self._rings) - 1
        return self._ids.get(name)
