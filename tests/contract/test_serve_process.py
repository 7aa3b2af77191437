"""`treepo serve` as a process: ends when told to, fails when its engine does, leaves nothing.

Each test starts a server of its own, since each ends it.
"""

import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest

from tests.support import tiny_chat

pytestmark = pytest.mark.contract

# A port that the system picks; nothing here sends a request.
FLAGS = ("--host", "127.0.0.1", "--port", "0", "--kv-cache-memory-bytes", "64M")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_chat.build(tmp_path_factory.mktemp("tiny-chat"))


@contextmanager
def serving(model):
    """A server that is up, and its processes; kills what is left of it."""
    command = [sys.executable, "-m", "treepo.cli", "serve", str(model), *FLAGS]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    below = []
    try:
        seen = []
        for line in server.stdout:
            seen.append(line)
            if "Application startup complete" in line:
                break
        else:
            pytest.fail("the server ended:\n" + "".join(seen[-20:]))
        below = psutil.Process(server.pid).children(recursive=True)
        yield server, below
    finally:
        for process in below:
            if process.is_running():
                process.kill()
        server.kill()
        server.stdout.close()
        server.wait()


def end_of(server):
    """Everything it still prints, and its exit code; the pipe closes with its last process."""
    rest = server.stdout.read()
    return rest, server.wait()


def test_an_interrupt_ends_the_server_and_everything_it_started(model):
    with serving(model) as (server, below):
        server.send_signal(signal.SIGINT)
        _, code = end_of(server)
        assert code == 0
        assert not [process for process in below if process.is_running()]


def test_a_dead_engine_ends_the_server_with_a_failure(model):
    with serving(model) as (server, below):
        (engine,) = [process for process in below if process.name().startswith("VLLM::EngineCor")]
        engine.kill()
        rest, code = end_of(server)
        assert code == 1
        assert "the engine died" in rest
        assert not [process for process in below if process.is_running()]
