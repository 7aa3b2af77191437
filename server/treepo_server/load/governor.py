"""Who may run a path now: the slots of one engine rank, shared fairly between trees.

A slot is one live path. A free slot goes to the waiting tree with the fewest live paths, and among
equals to the one that has waited longest: the first path of each tree comes before the second of
any, the shares are max-min fair, and a tree that waits holds up nobody. Where the engine schedules
by priority, all this holds among the trees of the lowest one, as in vLLM. A running path is never
paused. While the KV cache is nearly full no tree gets a further path; one without any always does,
so nothing waits for ever. It knows nothing of engines or requests (`governed.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

RECHECK_S = 0.1
"""Seconds after which a nearly full cache is looked at again when no path has ended meanwhile."""


class Turn:
    """One path's place in the queue.

    Attributes:
        decided: Set once the path has a slot, or was given up.
        is_withdrawn: Whether it was given up.
    """

    def __init__(self) -> None:
        self.decided = asyncio.Event()
        self.is_withdrawn = False


class Seat:
    """One tree's part of the slots.

    Attributes:
        priority: Which trees come before it: those with a lower one.
        num_live: Paths of this tree that hold a slot.
        waiting: Its paths that want one, in their order.
    """

    def __init__(self, governor: Governor, priority: int) -> None:
        self.priority = priority
        self.num_live = 0
        self.waiting: deque[Turn] = deque()
        self._governor = governor

    @property
    def is_waiting(self) -> bool:
        """Whether the tree has asked for a slot and holds none."""
        return self.num_live == 0 and bool(self.waiting)

    def ask(self) -> Turn:
        """Queue for a slot; where one is free it is granted at once."""
        turn = Turn()
        self.waiting.append(turn)
        self._governor.queue(self)
        return turn

    def withdraw(self, turn: Turn) -> None:
        """Give up a turn before its path has begun; a slot that it was granted is free again."""
        turn.is_withdrawn = True
        if turn.decided.is_set():
            self.release()
        else:
            self.waiting.remove(turn)
            turn.decided.set()
            self._governor.left(self)

    def release(self) -> None:
        """Give a slot back: its path has left the engine."""
        self.num_live -= 1
        self._governor.freed()


class Governor:
    """The slots of one rank; see the module docstring.

    Args:
        num_slots: Paths that may run at one time.
        is_crowded: Whether the KV cache is so full that no tree should have a further path.
        changed: Called when a path has begun to wait, got a slot or left.
    """

    def __init__(
        self,
        num_slots: int,
        is_crowded: Callable[[], bool] = lambda: False,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.num_slots = num_slots
        self.num_live = 0
        self._is_crowded = is_crowded
        self._changed = changed
        # Trees with waiting paths, in the order in which they began to wait.
        self._queue: dict[Seat, None] = {}
        self._recheck: asyncio.TimerHandle | None = None

    @property
    def num_waiting_trees(self) -> int:
        """Trees that have no live path and want one."""
        return sum(seat.is_waiting for seat in self._queue)

    @property
    def num_waiting_paths(self) -> int:
        """Paths that want a slot."""
        return sum(len(seat.waiting) for seat in self._queue)

    def seat(self, priority: int = 0) -> Seat:
        """A place for a new tree."""
        return Seat(self, priority)

    def queue(self, seat: Seat) -> None:
        """A path of this tree waits."""
        self._queue.setdefault(seat)
        self._grant()
        self._changed()

    def left(self, seat: Seat) -> None:
        """A path of this tree waits no more."""
        if not seat.waiting:
            self._queue.pop(seat, None)
        self._changed()

    def freed(self) -> None:
        """A slot is free."""
        self.num_live -= 1
        self._grant()
        self._changed()

    def _grant(self) -> None:
        while self.num_live < self.num_slots and (seat := self._neediest()) is not None:
            turn = seat.waiting.popleft()
            seat.num_live += 1
            self.num_live += 1
            turn.decided.set()
            self.left(seat)
        if self._queue and self.num_live < self.num_slots and self._recheck is None:
            self._recheck = asyncio.get_running_loop().call_later(RECHECK_S, self._look_again)

    def _neediest(self) -> Seat | None:
        """The tree to serve next: by priority, the fewest live paths, then the longest wait."""
        seats = list(self._queue)
        if any(seat.num_live > 0 for seat in seats) and self._is_crowded():
            seats = [seat for seat in seats if seat.num_live == 0]
        return min(seats, key=lambda seat: (seat.priority, seat.num_live), default=None)

    def _look_again(self) -> None:
        self._recheck = None
        self._grant()
