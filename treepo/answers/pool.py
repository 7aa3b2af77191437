"""A few child processes that can be killed: each job gets an answer in bounded time.

A job that overstays is ended with its process, and the next job starts another; neither an
event loop nor a tree waits for it. What the jobs are is the children's business (`worker.py`).
Threads wait for them, so a pool serves any event loop and ends with the interpreter.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

START_LIMIT_S: Final = 60.0
"""Seconds a child may take to import its algebra; not charged to a job."""


class WorkerError(Exception):
    """A job has no reply; `kind` is `timeout` or `crash`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Worker:
    """One child process; one thread at a time may ask it.

    Raises:
        WorkerError: It could not be started.
    """

    def __init__(self) -> None:
        # The child sees the modules that this process sees, and not what lies in its folder.
        path = os.pathsep.join(entry for entry in sys.path if entry)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "treepo.answers.worker"],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        except OSError:  # no memory or no process left
            raise WorkerError("crash") from None
        try:
            self._read_line(START_LIMIT_S)
        except WorkerError:
            self.close()
            raise WorkerError("crash") from None

    def ask(self, job: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The child's reply.

        Raises:
            WorkerError: It did not come within the limit, or the child died; it is dead now.
        """
        try:
            self._write(json.dumps(job).encode() + b"\n")
            reply: dict[str, Any] = json.loads(self._read_line(limit_s))
        except (WorkerError, BrokenPipeError) as error:
            self.close()
            raise error if isinstance(error, WorkerError) else WorkerError("crash") from None
        return reply

    def close(self) -> None:
        """Kill the child and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        view = memoryview(line)
        while view:
            view = view[self._process.stdin.write(view) or 0 :]

    def _read_line(self, limit_s: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        deadline = time.monotonic() + limit_s
        line = b""
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise WorkerError("timeout")
            piece = os.read(descriptor, 65536)
            if not piece:
                raise WorkerError("crash")
            line += piece
        return line


class WorkerPool:
    """Child processes that start when first needed.

    Args:
        num_workers: Most children at one time; further jobs queue.
    """

    def __init__(self, num_workers: int = 2) -> None:
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="treepo-answers")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._process_id = os.getpid()
        atexit.register(self.close)

    async def ask(self, job: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The reply to one job.

        Args:
            job: What to do; a JSON object.
            limit_s: Seconds for the job itself; waiting for a free child is not charged.

        Raises:
            WorkerError: The job took too long or ended its child.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask, job, limit_s)

    def close(self) -> None:
        """Let the jobs that were asked for end, then kill the children; later ones are refused."""
        if os.getpid() != self._process_id:
            return
        self._threads.shutdown()
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        atexit.unregister(self.close)

    def _ask(self, job: dict[str, Any], limit_s: float) -> dict[str, Any]:
        worker: Worker | None = getattr(self._own, "worker", None)
        if worker is None:
            worker = self._start()
        try:
            return worker.ask({**job, "limit_s": limit_s}, limit_s)
        except WorkerError:
            self._own.worker = None
            with self._lock:
                self._workers.remove(worker)
            raise

    def _start(self) -> Worker:
        worker = Worker()
        self._own.worker = worker
        with self._lock:
            self._workers.append(worker)
        return worker


@lru_cache
def shared_pool() -> WorkerPool:
    """The pool of this process, made when first asked for."""
    return WorkerPool()


# A forked process has none of the pool's threads, and the children are not its own.
os.register_at_fork(after_in_child=shared_pool.cache_clear)
