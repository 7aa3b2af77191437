"""The shared file in which the entropies of running requests stand: where what is in it.

A segment has rows (slots) of cells, one per generated token, used as a ring; a cell is valid for
one use of its row and one position only. It is a file that both sides map: `SharedMemory` would,
before Python 3.13, unlink it as soon as any process that attached it ends. Who creates, removes
and hands out rows is `entropy_ring.py`, who writes is `entropy_writer.py`.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import tempfile
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

ENTROPY_KEY = "treepo_entropy"
"""The key of `SamplingParams.extra_args` under which a request names its slot."""

PREFIX = "treepo-entropy-"
NAME = re.compile(PREFIX + "[0-9a-f]{32}")

_SHM = Path("/dev/shm")  # noqa: S108 - the shared memory of Linux, not a place for temporary files
_MAGIC = 0x7472_6565_706F_0001
_MAGIC_AT, _SLOTS_AT, _POSITIONS_AT = 0, 1, 2
ATTACHED, FAILED = 3, 4
"""Words of the header that the engine sets: it has found the ring; it has given up."""
_NONCES_AT = 8
_PAGE_WORDS = mmap.PAGESIZE // 8

_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


def directory() -> Path:
    """Where segments stand."""
    return _SHM if os.access(_SHM, os.W_OK) else Path(tempfile.gettempdir())


class Segment:
    """A mapped segment; words are 8 bytes.

    Attributes:
        num_slots: Rows.
        positions: Cells of a row.
        header: Words of the whole segment.
        nonces: The nonce of each row's present use, 0 while it is free, [num_slots].
        cells: A tag and a float32 in each, [num_slots, positions].
    """

    def __init__(self, fd: int, num_slots: int, positions: int) -> None:
        self.num_slots, self.positions = num_slots, positions
        first = first_cell(num_slots)
        size = 8 * (first + num_slots * positions)
        if os.fstat(fd).st_size != size:
            raise OSError("an entropy segment of another size than it says")
        words = np.frombuffer(mmap.mmap(fd, size), np.uint64)
        self.header = words[:_NONCES_AT]
        self.nonces = words[_NONCES_AT:][:num_slots]
        self.cells = words[first:].reshape(num_slots, positions)

    @classmethod
    def lay_out(cls, fd: int, num_slots: int, positions: int) -> Self:
        """Make an empty file a segment; memory for its cells is not yet taken.

        Raises:
            OSError: There is no room for the header.
        """
        header = np.zeros(first_cell(num_slots), np.uint64)
        header[[_MAGIC_AT, _SLOTS_AT, _POSITIONS_AT]] = _MAGIC, num_slots, positions
        if os.pwrite(fd, header.tobytes(), 0) < header.nbytes:
            raise OSError("no room in shared memory for the entropy ring")
        os.ftruncate(fd, header.nbytes + 8 * num_slots * positions)
        return cls(fd, num_slots, positions)

    @classmethod
    def attach(cls, fd: int) -> Self:
        """Map a segment of this user's that another process made.

        Raises:
            OSError: The file is none.
        """
        header = np.frombuffer(os.pread(fd, 8 * _NONCES_AT, 0), np.uint64)
        is_ours = os.fstat(fd).st_uid == os.geteuid() and len(header) == _NONCES_AT
        if not is_ours or header[_MAGIC_AT] != _MAGIC:
            raise OSError("not an entropy segment of ours")
        return cls(fd, int(header[_SLOTS_AT]), int(header[_POSITIONS_AT]))


def first_cell(num_slots: int) -> int:
    """The word at which the cells begin: a page of their own."""
    return math.ceil((_NONCES_AT + num_slots) / _PAGE_WORDS) * _PAGE_WORDS


def pack(nonces: Words, positions: Words, values: npt.NDArray[np.float32]) -> Words:
    """Cells for these values; the arguments are [n].

    Half of a cell says whose value the other half is, and both are one aligned word, stored at
    once. So a value of an earlier position (the row has wrapped), of an earlier use of the row, or
    of a request aborted between the writer's look at the nonce and its write, is not read as
    another's: it is missing, not wrong (but for one chance in 2**32).
    """
    return _tags(nonces, positions) << _HALF | values.view(np.uint32).astype(np.uint64)


def unpack(cells: Words, nonce: int, positions: Words) -> npt.NDArray[np.float32]:
    """The values of these cells; NaN where a cell is not of this nonce and position."""
    values = (cells & _LOW).astype(np.uint32).view(np.float32)
    values[cells >> _HALF != _tags(np.uint64(nonce), positions)] = np.nan
    return values


def _tags(nonces: Words | np.uint64, positions: Words) -> Words:
    return (nonces + positions) & _LOW
