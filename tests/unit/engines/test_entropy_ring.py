"""Slots, nonces and wrapped rows: what is read is what was written for it, or missing."""

import errno
import fcntl
import json
import math
import secrets
import signal
import subprocess
import sys
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treepo.engines import entropy_ring
from treepo.engines.entropy_ring import EntropyRing
from treepo.engines.entropy_segment import ENTROPY_KEY, directory, pack
from treepo.engines.entropy_writer import TARGET, RingWriter

POSITIONS = 8
NAN = pytest.approx(math.nan, nan_ok=True)


@pytest.fixture
def ring():
    ring = EntropyRing.create(4, POSITIONS)
    yield ring
    ring.close()


def write(writer, slot, position, value):
    target = writer.find(slot.extra_args)
    writer.write(np.array([target], TARGET), np.array([position]), np.array([value], np.float32))


def python(script, *arguments):
    """Runs a script in another process; returns the process, ended."""
    return subprocess.run(
        # Python 3.12 warns of any fork, as numpy has threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_written_is_read_at_its_position_and_the_rest_is_missing(ring):
    slot = ring.acquire()
    write(RingWriter(), slot, 2, 1.25)
    assert slot.read(0, 4) == [NAN, NAN, 1.25, NAN]
    assert slot.read(2, 2) == []


def test_a_row_keeps_the_latest_positions_only(ring):
    slot, writer = ring.acquire(), RingWriter()
    for position in range(POSITIONS + 3):
        write(writer, slot, position, position / 4)
    expected = [NAN] * 3 + [position / 4 for position in range(3, POSITIONS + 3)]
    assert slot.read(0, POSITIONS + 3) == expected


def test_a_slot_survives_json(ring):
    slot, writer = ring.acquire(), RingWriter()
    assert writer.find(json.loads(json.dumps(slot.extra_args))) == (0, slot.index, slot.nonce)


operations = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "release", "write", "late write"]),
        st.integers(0, 1 << 16),
        st.integers(0, 3 * POSITIONS),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(operations)
def test_slots_are_never_shared_never_lost_and_never_read_another_ones_values(steps):
    ring, writer = EntropyRing.create(3, POSITIONS), RingWriter()
    live, ended = [], []
    written = {}
    try:
        for number, (step, choice, position) in enumerate(steps):
            if step == "acquire":
                slot = ring.acquire()
                assert (slot is None) == (len(live) == 3)
                if slot is not None:
                    live.append(slot)
                    written[slot] = deque(maxlen=POSITIONS)
            elif step == "release" and live:
                ended.append(live.pop(choice % len(live)))
                ended[-1].release()
                ended[choice % len(ended)].release()
            elif step == "write" and live:
                slot = live[choice % len(live)]
                following = written[slot][-1][0] + 1 if written[slot] else 0
                write(writer, slot, following, float(number))
                written[slot].append((following, float(number)))
            elif step == "late write" and ended:
                write(writer, ended[choice % len(ended)], position, -1.0)
            assert len({slot.index for slot in live}) == len(live)
            assert ring.num_free + len(live) == 3
        for slot in live:
            values = dict(written[slot])
            expected = [values.get(position, NAN) for position in range(4 * POSITIONS)]
            assert slot.read(0, 4 * POSITIONS) == expected
    finally:
        ring.close()


def test_a_write_that_overtook_the_release_of_its_slot_is_missing_not_wrong(ring):
    aborted = ring.acquire()
    aborted.release()
    slot = ring.acquire()
    assert slot.index == aborted.index
    # What a writer that had just found the nonce valid would store now.
    position = np.array([1], np.uint64)
    late = pack(np.array([aborted.nonce], np.uint64), position, np.array([9.0], np.float32))
    ring.segment.cells[slot.index, 1] = late[0]
    assert slot.read(0, 3) == [NAN] * 3


def test_a_full_ring_gives_no_slot_until_one_is_released(ring):
    slots = [ring.acquire() for _ in range(4)]
    assert ring.acquire() is None
    slots[2].release()
    assert ring.acquire().index == slots[2].index


def test_full_shared_memory_gives_no_slot_and_takes_none(ring, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    slot = ring.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(entropy_ring.os, "pwrite", no_room)
        assert ring.acquire() is None
        patch.setattr(entropy_ring.os, "pwrite", lambda _fd, data, _at: len(data) - 1)
        assert ring.acquire() is None
        slot.release()
        assert ring.acquire().index == slot.index
    assert ring.acquire() is not None


def test_memory_is_taken_by_the_rows_in_use():
    ring = EntropyRing.create(256, 2048)
    try:
        before = (directory() / ring.name).stat().st_blocks * 512
        assert ring.acquire() is not None
        after = (directory() / ring.name).stat().st_blocks * 512
        assert 2048 * 8 <= after - before < 256 * 2048 * 8 / 2
    finally:
        ring.close()


@pytest.mark.parametrize(
    "forge",
    [
        lambda name, slot, nonce: None,
        lambda name, slot, nonce: name,
        lambda name, slot, nonce: [name, slot],
        lambda name, slot, nonce: [name, slot, nonce, 1],
        lambda name, slot, nonce: ["../" + name, slot, nonce],
        lambda name, slot, nonce: [f"{name}/../{name}", slot, nonce],
        lambda name, slot, nonce: [name + "\n", slot, nonce],
        lambda name, slot, nonce: ["treepo-entropy-" + "0" * 32, slot, nonce],
        lambda name, slot, nonce: ["/etc/passwd", slot, nonce],
        lambda name, slot, nonce: [b"bytes", slot, nonce],
        lambda name, slot, nonce: [name, -1, nonce],
        lambda name, slot, nonce: [name, 4, nonce],
        lambda name, slot, nonce: [name, 2**70, nonce],
        lambda name, slot, nonce: [name, 0.0, nonce],
        lambda name, slot, nonce: [name, slot, str(nonce)],
        lambda name, slot, nonce: [name, slot, 0],
        lambda name, slot, nonce: [name, slot, -nonce],
        lambda name, slot, nonce: [name, slot, 2**63 + nonce],
        lambda name, slot, nonce: {"name": name},
    ],
)
def test_a_forged_reference_is_no_slot(ring, forge):
    slot = ring.acquire()
    writer = RingWriter()
    assert writer.find({ENTROPY_KEY: forge(ring.name, slot.index, slot.nonce)}) is None
    assert writer.find(None) is None
    assert writer.find({}) is None
    assert slot.read(0, POSITIONS) == [NAN] * POSITIONS


def test_a_guessed_nonce_writes_nothing(ring):
    slot, writer = ring.acquire(), RingWriter()
    write(writer, slot, 0, 1.0)
    before = ring.segment.cells.copy()
    forged = {ENTROPY_KEY: [ring.name, slot.index, slot.nonce ^ 2]}
    target = np.array([writer.find(forged)], TARGET)
    writer.write(target, np.array([0]), np.array([7.0], np.float32))
    free = {ENTROPY_KEY: [ring.name, slot.index + 1, 1]}
    target = np.array([writer.find(free)], TARGET)
    writer.write(target, np.array([0]), np.array([7.0], np.float32))
    assert (ring.segment.cells == before).all()
    assert slot.read(0, 1) == [1.0]


@contextmanager
def file_in_shared_memory(content):
    """A file with a ring's name, locked so that no other ring's owner takes it for abandoned."""
    path = directory() / f"treepo-entropy-{secrets.token_hex(16)}"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(content)
        file.flush()
        try:
            yield path
        finally:
            path.unlink()


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\0" * 8192], ids=len)
def test_a_file_of_that_name_that_is_no_ring_is_left_alone(content):
    with file_in_shared_memory(content) as path:
        assert RingWriter().find({ENTROPY_KEY: [path.name, 0, 1]}) is None
        assert path.read_bytes() == content


def test_a_cut_off_ring_is_not_mapped(ring):
    content = (directory() / ring.name).read_bytes()
    with file_in_shared_memory(content) as path:
        assert RingWriter().find({ENTROPY_KEY: [path.name, 0, 1]}) == (0, 0, 1)
    with file_in_shared_memory(content[:-8]) as path:
        assert RingWriter().find({ENTROPY_KEY: [path.name, 0, 1]}) is None


def test_one_writer_serves_the_rings_of_several_processes(ring):
    other = EntropyRing.create(2, POSITIONS)
    try:
        slots = [ring.acquire(), other.acquire(), ring.acquire()]
        writer = RingWriter()
        targets = np.array([writer.find(slot.extra_args) for slot in slots], TARGET)
        writer.write(targets, np.array([0, 5, 1]), np.array([0.5, 1.5, 2.5], np.float32))
        assert slots[0].read(0, 2) == [0.5, NAN]
        assert slots[1].read(5, 6) == [1.5]
        assert slots[2].read(0, 2) == [NAN, 2.5]
    finally:
        other.close()


def test_the_owner_sees_whether_anybody_attached_and_whether_they_gave_up(ring):
    assert (ring.is_attached, ring.has_failed) == (False, False)
    writer = RingWriter()
    writer.find(ring.acquire().extra_args)
    assert (ring.is_attached, ring.has_failed) == (True, False)
    writer.give_up()
    assert ring.has_failed


WRITE = """
import json, sys, numpy as np
from treepo.engines.entropy_writer import TARGET, RingWriter
writer = RingWriter()
targets = np.array([writer.find(json.loads(sys.argv[1]))], TARGET)
writer.write(targets, np.array([3]), np.array([0.75], np.float32))
"""


def test_another_process_writes_and_its_end_does_not_remove_the_ring(ring):
    slot = ring.acquire()
    for _ in range(2):
        done = python(WRITE, json.dumps(slot.extra_args))
        assert (done.returncode, done.stderr) == (0, "")
        assert (directory() / ring.name).exists()
    assert slot.read(3, 4) == [0.75]


CREATE = """
import os, signal, sys
from treepo.engines.entropy_ring import EntropyRing
ring = EntropyRing.create(2)
print(ring.name, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "forked":
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        print(os.path.exists(sys.argv[2] + "/" + ring.name), flush=True)
"""


def test_a_ring_goes_with_its_process_but_not_with_a_forked_child():
    assert not _left_by(python(CREATE, "exits")).exists()
    forked = python(CREATE, "forked", str(directory()))
    assert forked.stdout.split()[1:] == ["True"]
    assert not _left_by(forked).exists()


def test_the_ring_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(ring):
    killed = python(CREATE, "killed")
    assert killed.returncode == -signal.SIGKILL
    abandoned = _left_by(killed)
    EntropyRing.create(1).close()
    assert not abandoned.exists()
    assert (directory() / ring.name).exists()


def _left_by(done) -> Path:
    assert done.stderr == ""
    return directory() / done.stdout.split()[0]


def test_a_closed_ring_is_gone_and_closing_again_is_harmless(ring):
    ring.close()
    assert not (directory() / ring.name).exists()
    ring.close()
