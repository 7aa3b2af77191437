"""Slots of shared memory in which the engine leaves the entropies of this process's requests.

The owner's end: it makes and removes the segment, gives each request a `Slot` and reads it. It
does not know who writes (`entropy_writer.py`) or how an entropy is measured (`vllm_entropy.py`);
the layout, and room for another figure per token, is in `entropy_segment.py`.

The owner holds a lock on its segment and unlinks it at exit. That of an owner that was killed is
unlocked, and is removed when the next ring is made.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from treepo.engines.entropy_segment import (
    ATTACHED,
    ENTROPY_KEY,
    FAILED,
    PREFIX,
    Segment,
    directory,
    first_cell,
    unpack,
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One request's row of a ring.

    Attributes:
        ring: The ring it belongs to.
        index: Its row.
        nonce: 63 random bits that mark this use of the row.
    """

    ring: EntropyRing
    index: int
    nonce: int

    @property
    def extra_args(self) -> dict[str, Any]:
        """What the request carries so that the engine finds the slot; plain JSON."""
        return {ENTROPY_KEY: [self.ring.name, self.index, self.nonce]}

    def read(self, start: int, end: int) -> list[float]:
        """Entropies, in nats, of the distributions that generated tokens `[start, end)` came from.

        NaN where there is none: the engine has not written it yet (a GPU's values come one or two
        steps late, so that a request's last ones never do), or has since gone on by more tokens
        than the ring has positions.
        """
        segment = self.ring.segment
        positions = np.arange(start, end, dtype=np.uint64)
        cells = segment.cells[self.index, positions % np.uint64(segment.positions)]
        values: list[float] = unpack(cells, self.nonce, positions).tolist()
        return values

    def release(self) -> None:
        """Give the row back; what the engine still writes for this request is lost."""
        self.ring.take_back(self)


class EntropyRing:
    """The slots of one process; made by `create`, for use in one thread.

    A row takes memory when it is first used, 8 bytes a position: 256 slots of 2,048 positions are
    4 MiB at most, of the 64 MB that a container usually has.
    """

    def __init__(self, segment: Segment, path: Path, fd: int) -> None:
        self.name = path.name
        self.segment = segment
        self._fd = fd
        self._free = list(range(segment.num_slots))[::-1]
        self._num_reserved = 0
        self._end = weakref.finalize(self, _remove, path, fd, os.getpid())

    @classmethod
    def create(cls, num_slots: int, positions: int = 2048) -> Self:
        """A ring with all slots free.

        Args:
            num_slots: Requests that may hold one at the same time.
            positions: How many of a request's latest tokens stay readable.

        Raises:
            OSError: There is no shared memory, or no room in it.
        """
        folder = directory()
        _remove_abandoned(folder)
        while True:
            path = folder / f"{PREFIX}{secrets.token_hex(16)}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    return cls(Segment.lay_out(fd, num_slots, positions), path, fd)
            except OSError:
                _remove(path, fd, os.getpid())
                raise
            os.close(fd)  # taken for abandoned before it was locked

    @property
    def is_attached(self) -> bool:
        """Whether an engine has found this ring: it shares our memory and looks for our key."""
        return bool(self.segment.header[ATTACHED])

    @property
    def has_failed(self) -> bool:
        """Whether an engine has stopped writing, after an error of its own."""
        return bool(self.segment.header[FAILED])

    @property
    def num_free(self) -> int:
        """Slots that nobody holds."""
        return len(self._free)

    def acquire(self) -> Slot | None:
        """A slot for one request; None while all are taken or shared memory is full."""
        if not self._free or not self._reserve(self._free[-1]):
            return None
        slot = Slot(self, self._free.pop(), secrets.randbelow(2**63 - 1) + 1)
        self.segment.nonces[slot.index] = slot.nonce
        return slot

    def take_back(self, slot: Slot) -> None:
        """Free a slot; one that is free already, or used anew, is left alone."""
        if self.segment.nonces[slot.index] == slot.nonce:
            self.segment.nonces[slot.index] = 0
            self._free.append(slot.index)

    def close(self) -> None:
        """Remove the segment, as happens at exit; engines that have mapped it do not notice."""
        self._end()

    def _reserve(self, index: int) -> bool:
        # A store to a mapped page for which the file system has no room kills the process that
        # makes it; writing to the file takes the page, or fails. Rows are first used in order.
        if index < self._num_reserved:
            return True
        row = bytes(8 * self.segment.positions)
        start = 8 * first_cell(self.segment.num_slots) + index * len(row)
        try:
            is_whole = os.pwrite(self._fd, row, start) == len(row)
        except OSError:
            return False
        self._num_reserved += is_whole
        return is_whole


def _remove(path: Path, fd: int, owner: int) -> None:
    os.close(fd)
    if os.getpid() == owner:  # a forked child inherits the finalizer, not the segment
        path.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    # A process id in the name would not do: containers may share memory without sharing those.
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(fd)
