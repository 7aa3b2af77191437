"""Rollout files: sampled trees as JSON lines, the seam between serving and training.

A line is complete or it is not there: a writer that was killed leaves at most a torn last line,
which the next writer cuts off and a reader leaves out with a warning. What a line holds is for
`record.py`, which prompts still lack a tree for whoever compares `RolloutWriter.keys`.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydantic_core import from_json

from treepo.errors import RolloutFileError
from treepo.rollout.record import Rollout, decode, encode, prompt_key

__all__ = ["Rollout", "RolloutWarning", "RolloutWriter", "prompt_key", "read", "write"]


class RolloutWarning(UserWarning):
    """A rollout file was read without its torn last line."""


def read(path: str | os.PathLike[str]) -> Iterator[Rollout]:
    """The records of a file, in order, one in memory at a time.

    A torn last line is left out with a `RolloutWarning`.

    Raises:
        RolloutFileError: The file cannot be opened, or a line is no valid record; it names the
            line.
    """
    where = os.fspath(path)
    try:
        stream = Path(where).open("rb")  # noqa: SIM115
    except OSError as error:
        raise RolloutFileError(where, 1, str(error.strerror)) from None
    with stream:
        for number, line in enumerate(stream, 1):
            if _is_torn(line):
                message = f"{where}:{number}: the last line is torn and was left out"
                warnings.warn(message, RolloutWarning, stacklevel=2)
                return
            yield _decode(where, number, line)


def write(path: str | os.PathLike[str], rollouts: Iterable[Rollout]) -> int:
    """Append records to a file, which is made where there is none; returns how many.

    Raises:
        RolloutFileError: See `RolloutWriter`.
    """
    count = 0
    with RolloutWriter(path) as writer:
        for count, rollout in enumerate(rollouts, 1):  # noqa: B007
            writer.append(rollout)
    return count


class RolloutWriter:
    """Appends records to a file, one writer at a time; a context manager.

    Opening it reads what is there, so that a file with a bad line is never added to, and cuts
    off a torn last line. When `append` returns, the record survives a kill of this process; once
    closed, also a power cut.

    Attributes:
        keys: The keys of all records in the file.
        num_repaired_bytes: Length of the torn line that was cut off, 0 where there was none.

    Raises:
        RolloutFileError: The file cannot be opened, another process writes to it, or it holds a
            bad line other than a torn last one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self.keys: set[str] = set()
        self.num_repaired_bytes = 0
        self._num_lines = 0
        self._stream = self._open()
        try:
            self._load()
        except RolloutFileError:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, rollout: Rollout) -> None:
        """Write one record; where that fails nothing of it stays in the file.

        Raises:
            RolloutFileError: The disk is full or failing.
            ValueError: The record cannot be written as JSON.
        """
        line = encode(rollout)
        before = self._stream.seek(0, os.SEEK_END)
        try:
            self._write(line)
        except OSError as error:
            self._stream.truncate(before)
            raise self._error(f"it could not be written: {error.strerror}") from None
        self._num_lines += 1
        self.keys.add(rollout.key)

    def close(self) -> None:
        """Put everything on the disk and let other writers in."""
        if not self._stream.closed:
            os.fsync(self._stream.fileno())
            self._stream.close()

    def _open(self) -> BinaryIO:
        try:
            stream = Path(self._path).open("a+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._error(str(error.strerror)) from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            reason = "another process is writing to this file: wait for it, or name another file"
            raise self._error(f"{reason} with `-o`") from None
        return stream

    def _load(self) -> None:
        end = 0
        line = b"\n"
        # Read through a buffer of its own: an unbuffered file is iterated byte by byte.
        with Path(self._path).open("rb") as stream:
            for line in stream:
                if _is_torn(line):
                    self.num_repaired_bytes = len(line)
                    self._stream.truncate(end)
                    return
                self.keys.add(_decode(self._path, self._num_lines + 1, line).key)
                self._num_lines += 1
                end += len(line)
        if not line.endswith(b"\n"):
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._stream.write(rest) :]

    def _error(self, reason: str) -> RolloutFileError:
        return RolloutFileError(self._path, self._num_lines + 1, reason)


def _is_torn(line: bytes) -> bool:
    """Whether this is only the beginning of a line.

    The brace that closes a record is its last character, so a beginning is never valid JSON; a
    last line that lacks nothing but its line break is whole.
    """
    if line.endswith(b"\n"):
        return False
    try:
        from_json(line)
    except ValueError:
        return True
    return False


def _decode(path: str, number: int, line: bytes) -> Rollout:
    try:
        return decode(line)
    except ValueError as error:
        raise RolloutFileError(path, number, str(error)) from None
