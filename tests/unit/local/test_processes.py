"""A contained command takes everything it started with it, however it ends."""

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc and prctl")

CONTAIN = """
import sys
from treepo.local.processes import run_contained
outcome = run_contained(sys.argv[1:], grace_s=0.2)
print(outcome.code, outcome.was_asked, len(outcome.leftovers))
"""


def contain(script):
    """A process that contains a shell running `script`; the shell prints pids first."""
    command = [sys.executable, "-c", CONTAIN, "bash", "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    "orphan",
    [
        "sleep 600 & echo $!",
        "setsid sleep 600 & echo $!",
        "coproc { trap '' TERM; echo ready; while :; do sleep 600; done; };"
        "read -u ${COPROC[0]} ready; echo $COPROC_PID",
    ],
    ids=["child", "other session", "deaf to SIGTERM"],
)
def test_the_code_is_kept_and_nothing_is_left(orphan):
    with contain(f"{orphan}; exit 3") as process:
        pid, outcome = process.stdout.read().splitlines()
    assert outcome.startswith("3 False")
    assert not is_alive(int(pid))


def test_a_command_that_leaves_nothing_is_reported_so():
    with contain("exit 0") as process:
        assert process.stdout.read() == "0 False 0\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_reaches_the_command_as_a_termination(number):
    with contain("trap 'exit 7' TERM; echo $$; while :; do sleep 0.05; done") as process:
        pid = int(process.stdout.readline())
        process.send_signal(number)
        assert process.stdout.read() == "7 True 0\n"
    assert not is_alive(pid)


def test_a_second_signal_ends_what_ignores_the_first():
    script = "trap 'echo asked' TERM; echo $$; while :; do sleep 0.05; done"
    with contain(script) as process:
        pid = int(process.stdout.readline())
        process.terminate()
        assert process.stdout.readline() == "asked\n"
        process.terminate()
        assert process.stdout.read().startswith("137 True")
    assert not is_alive(pid)


def test_a_process_can_be_made_to_end_with_its_parent():
    child = (
        "from treepo.local.processes import end_with_parent; import os, time; end_with_parent();"
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert int(process.stdout.readline())
        process.kill()
        # The pipe closes once the child, which holds its other end, has ended too.
        assert process.stdout.read() == b""
