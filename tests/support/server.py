"""A real server for tests and benchmarks: `treepo serve` as a user starts it, on a free port."""

from __future__ import annotations

import os
import re
import signal
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

from treepo.engines.vllm_settings import cpu_environment, usable_cpus

START_LIMIT_S = 300.0
STOP_LIMIT_S = 60.0
READ_LIMIT_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: Where it listens on 127.0.0.1.
        log: What it has printed.
        process: `treepo serve`; the server's processes are its children.
    """

    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=READ_LIMIT_S) as answer:
            return answer.read().decode()

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        return metric_in(self.read("/metrics"), f"vllm:{name}")

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


def metric_in(text: str, name: str, labels: str = "") -> float:
    """Sum of a metric over its labels, in what `/metrics` says; `labels` is a part to look for."""
    values = re.findall(rf"^{name}(?:{{[^\n]*{labels}[^\n]*}})? (\S+)$", text, re.M)
    assert values, f"no metric {name}"
    return sum(float(value) for value in values)


SMALL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "LRU_CACHE_CAPACITY": "16"}
"""Environment under which a worker's memory says something: oneDNN keeps a kernel for each size of
batch it has seen, 1,024 of them by default, which takes minutes and hundreds of MB to fill."""


@contextmanager
def serve(model: Path, log: Path, *flags: str, **environment: str) -> Iterator[Server]:
    """`treepo serve` of a model folder, until the block is left and it was told to stop by Ctrl-C.

    Raises:
        RuntimeError: It did not come up; the end of its log is the message.
    """
    with _running(["treepo.cli", "serve", str(model)], log, *flags, **environment) as server:
        yield server
        was_up = server.process.poll() is None
    assert server.process.returncode == 0 or not was_up, log.read_text()[-4000:]


@contextmanager
def serve_plain(model: Path, log: Path, *flags: str) -> Iterator[Server]:
    """VLLM's own server without any plugin, with the engine settings of `treepo serve`.

    Raises:
        RuntimeError: It did not come up; the end of its log is the message.
    """
    entry = "vllm.entrypoints.launchers.api_server.entry"
    settings = ["--dtype", "float32", "--block-size", "32", "--enforce-eager"]
    settings += ["--max-num-seqs", "64", "--no-enable-chunked-prefill"]
    environment = cpu_environment(1, os.environ, usable_cpus())
    command = [entry, "--model", str(model), *settings]
    with _running(command, log, *flags, VLLM_PLUGINS="", **environment) as server:
        yield server


@contextmanager
def _running(module: list[str], log: Path, *flags: str, **environment: str) -> Iterator[Server]:
    port = _free_port()
    command = [sys.executable, "-P", "-m", *module]
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
            server = Server(port, log, process)
            _wait_until_healthy(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
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
