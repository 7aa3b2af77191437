"""Runs a command so that nothing it started outlives it.

`treepo serve` keeps the engine's processes together with it, and `.ci/run` the whole test suite.
It uses the standard library only and imports nothing of this package, since CI runs it before
anything is installed. It knows nothing of servers: what an exit code means is the caller's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

# From <linux/prctl.h>.
_SET_PARENT_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36

# Helpers such as multiprocessing's resource tracker end by themselves once their owner has.
_SETTLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Ended:
    """How a contained command ended.

    Attributes:
        code: Its exit status as a shell reports it, so 128 plus the signal that killed it.
        was_asked: Whether this process was told to stop and passed that on.
        leftovers: Command lines of the processes that it left behind and that were ended.
    """

    code: int
    was_asked: bool
    leftovers: tuple[str, ...] = ()


@dataclass(slots=True)
class _Relay:
    """Passes an interrupt or a termination on: politely once, then by force."""

    child: subprocess.Popen[bytes] | None = None
    num_asked: int = 0
    previous: dict[int, object] = field(default_factory=dict)

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self.on_signal)

    def restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.num_asked += 1
        self.pass_on()

    def pass_on(self) -> None:
        if self.child is None or self.num_asked == 0:
            return
        if self.num_asked == 1:
            self.child.terminate()
        else:
            _signal_group(self.child.pid, signal.SIGKILL)


def run_contained(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, grace_s: float = 10.0
) -> Ended:
    """Runs `command` to its end, then ends everything that it started and left behind.

    The command gets a session of its own, so that a Ctrl-C reaches it once and through us: as
    a SIGTERM the first time, as a SIGKILL to its whole group the second.

    Args:
        command: Program and arguments.
        env: Its environment; None for ours.
        grace_s: Seconds that processes left behind have between SIGTERM and SIGKILL.

    Raises:
        OSError: The program cannot be started.
    """
    _prctl(_SET_CHILD_SUBREAPER, 1)
    relay = _Relay()
    relay.install()
    try:
        relay.child = subprocess.Popen(command, env=env, start_new_session=True)  # noqa: S603
        relay.pass_on()
        code = _wait(relay.child)
        leftovers = end_descendants(relay.child.pid, grace_s)
    finally:
        relay.restore()
        _prctl(_SET_CHILD_SUBREAPER, 0)
    return Ended(code if code >= 0 else 128 - code, relay.num_asked > 0, leftovers)


def end_with_parent() -> None:
    """Asks the kernel to send this process a SIGTERM when the one that started it dies."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def end_descendants(group: int, grace_s: float) -> tuple[str, ...]:
    """Ends every process of a group and every descendant of ours; returns their command lines.

    So it is for a process whose children were all started by the one command. Descendants are
    found on Linux only; elsewhere the group alone is ended.

    Args:
        group: Process group of a child that has already ended.
        grace_s: Seconds between SIGTERM and SIGKILL, and after it.
    """
    if _all_ended_within(_SETTLE_S):
        return ()
    leftovers = [line for pid in _descendants() if (line := _command_line(pid))]
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_all(group, number)
        if _all_ended_within(grace_s):
            break
    return tuple(leftovers)


def _all_ended_within(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        while _reap():
            pass
        if not _descendants():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The child's return code; orphans that come to us meanwhile are reaped on the way."""
    if sys.platform != "linux":
        return child.wait()
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def _reap() -> bool:
    """Collects what has ended; returns whether something was collected."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _signal_all(group: int, number: signal.Signals) -> None:
    _signal_group(group, number)
    for pid in _descendants():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _descendants() -> set[int]:
    """Living and unreaped processes below this one, by /proc; empty where there is none."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo.extend(below)
    return found


def _command_line(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
