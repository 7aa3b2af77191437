"""A real server for contract tests: `treepo serve` as a user starts it, on a free loopback port."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_LIMIT_S = 300.0
STOP_LIMIT_S = 60.0
READ_LIMIT_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: Where it listens on 127.0.0.1.
        log: What it has printed.
    """

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=READ_LIMIT_S) as answer:
            return answer.read().decode()

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        values = re.findall(rf"^vllm:{name}(?:{{.*}})? (\S+)$", self.read("/metrics"), re.M)
        assert values, f"no metric {name}"
        return sum(float(value) for value in values)

    def num_requests(self) -> float:
        """Requests that run or wait in the engine."""
        return self.metric("num_requests_running") + self.metric("num_requests_waiting")

    def wait_for(self, num_requests: float, limit_s: float) -> float:
        """Seconds until the engine holds that many requests; fails after the limit."""
        start = time.monotonic()
        while (seen := self.num_requests()) != num_requests:
            waited = time.monotonic() - start
            assert waited < limit_s, f"{seen} requests after {waited:.1f} s"
        return time.monotonic() - start


@contextmanager
def serve(model: Path, log: Path, *flags: str, **environment: str) -> Iterator[Server]:
    """`treepo serve` of a model folder, until the block is left.

    Raises:
        RuntimeError: It did not come up; the end of its log is the message.
    """
    port = _free_port()
    command = [sys.executable, "-P", "-m", "treepo.cli", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), *flags]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, **quiet, **environment},
            cwd=log.parent,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            server = Server(port, log)
            _wait_until_healthy(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(STOP_LIMIT_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            server.read("/health")
        except (urllib.error.URLError, ConnectionError):
            try:
                process.wait(0.25)
            except subprocess.TimeoutExpired:
                continue
        else:
            return
        break
    raise RuntimeError("the server did not start:\n" + server.log.read_text()[-4000:])
