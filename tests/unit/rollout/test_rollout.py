"""Rollout files give back what was written, whatever was written and whenever the writer died."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treepo.errors import RolloutFileError
from treepo.rollout.files import Rollout, RolloutWarning, RolloutWriter, prompt_key, read, write
from treepo.rollout.record import VERSION, decode, encode
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish, TreeStats

LAWS = settings(max_examples=60, deadline=None)

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, json_values.filter(lambda v: v not in (math.inf, -math.inf)))
finite = st.floats(allow_nan=False, allow_infinity=False)
nats = st.floats(-50, 50) | st.just(-math.inf)
tokens = st.lists(st.integers(0, 200_000), max_size=5)


def is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    nodes: list[Node] = []
    for number in range(draw(st.integers(0, 6))):
        parent = draw(st.none() | st.integers(0, number - 1)) if number else None
        ids = draw(tokens)
        per_token = st.lists(nats, min_size=len(ids), max_size=len(ids)).map(tuple)
        nodes.append(
            Node(
                id=number,
                parent=parent,
                path=draw(st.integers(0, 9)),
                start=0 if parent is None else nodes[parent].end,
                token_ids=tuple(ids),
                logprobs=draw(st.just(()) | per_token),
                uncertainty=draw(st.just(()) | per_token),
                mass=draw(st.floats(0, 1)),
                is_late=draw(st.booleans()),
                finish=draw(st.none() | st.sampled_from(Finish)),
            )
        )
    trajectory = st.builds(
        Trajectory,
        leaf=st.integers(0, max(len(nodes) - 1, 0)),
        finish=st.sampled_from(Finish),
        weight=st.floats(0, 1),
        text=st.none() | texts,
        answer=st.none() | texts,
        answer_text=st.none() | texts,
        order=st.integers(0, 9),
    )
    return Tree(
        id=draw(texts),
        prompt_token_ids=tuple(draw(tokens)),
        nodes=tuple(nodes),
        trajectories=tuple(draw(st.lists(trajectory, max_size=4 if nodes else 0))),
        finish=draw(st.sampled_from(TreeFinish)),
        weights_exact=draw(st.booleans()),
        uncertainty_kind=draw(st.sampled_from(["entropy", "surprisal", "none"])),
        weight_version=draw(texts),
        settings=draw(objects.filter(is_json)),
        notes=tuple(draw(st.lists(texts, max_size=2))),
        stats=draw(st.builds(TreeStats, duration_s=st.floats(0, 1e6))),
    )


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    tree = draw(trees())
    rewards = st.lists(
        st.none() | finite, min_size=len(tree.trajectories), max_size=len(tree.trajectories)
    )
    return Rollout(
        key=draw(st.text("0123456789abcdef", min_size=1, max_size=32)),
        tree=tree,
        columns=draw(objects.filter(is_json)),
        rewards=draw(st.none() | rewards.map(tuple)),
        origin=draw(objects.filter(is_json)),
    )


def rounded(rollout: Rollout) -> Rollout:
    """What is left of a record once its per-token figures have six decimals."""
    nodes = tuple(
        replace(
            node,
            logprobs=tuple(round(value, 6) for value in node.logprobs),
            uncertainty=tuple(round(value, 6) for value in node.uncertainty),
        )
        for node in rollout.tree.nodes
    )
    return replace(rollout, tree=replace(rollout.tree, nodes=nodes))


def small(key: str = "k", num_tokens: int = 3) -> Rollout:
    node = Node(0, None, 0, 0, tuple(range(num_tokens)), (-0.5,) * num_tokens, finish=Finish.EOS)
    trajectory = Trajectory(0, Finish.EOS, 1.0, text="café\u2028\n", answer="4")
    tree = Tree("t", (7, 8), (node,), (trajectory,), TreeFinish.COMPLETE, True)
    return Rollout(key, tree, {"id": key})


@LAWS
@given(rollouts())
def test_a_record_comes_back_as_it_was_up_to_six_decimals(rollout: Rollout) -> None:
    close = rounded(rollout)
    line = encode(rollout)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    back = decode(line)
    assert replace(back, tree=replace(back.tree, nodes=())) == replace(
        close, tree=replace(close.tree, nodes=())
    )
    for node, wanted in zip(back.tree.nodes, close.tree.nodes, strict=True):
        assert node.logprobs == pytest.approx(wanted.logprobs, abs=1.1e-6)
        assert node.uncertainty == pytest.approx(wanted.uncertainty, abs=1.1e-6)
        assert replace(node, logprobs=(), uncertainty=()) == replace(
            wanted, logprobs=(), uncertainty=()
        )
    assert encode(back) == line, "a second writing changes nothing"


@LAWS
@given(rollouts())
def test_a_line_is_strict_json_that_names_its_version(rollout: Rollout) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(encode(rollout), parse_constant=refuse)["rollout"] == VERSION


def test_unknown_uncertainty_survives() -> None:
    node = Node(0, None, 0, 0, (1, 2), uncertainty=(math.nan, 0.5))
    tree = replace(small().tree, nodes=(node,))
    assert math.isnan(decode(encode(Rollout("k", tree))).tree.nodes[0].uncertainty[0])


def test_the_key_depends_on_prompt_settings_and_name_alone() -> None:
    base = prompt_key([1, 2], {"a": 1, "b": 2}, 0)
    assert base == prompt_key((1, 2), {"b": 2, "a": 1}, 0)
    others = [
        prompt_key([1, 2, 3], {"a": 1, "b": 2}, 0),
        prompt_key([1, 2], {"a": 1, "b": 3}, 0),
        prompt_key([1, 2], {"a": 1, "b": 2}, 1),
        prompt_key([1, 2], {"a": 1, "b": 2}, "0"),
    ]
    assert len({base, *others}) == 5


def test_appending_goes_on_where_a_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    assert write(path, [small("a"), small("b")]) == 2
    with RolloutWriter(path) as writer:
        assert writer.keys == {"a", "b"}
        writer.append(small("c"))
        assert writer.keys == {"a", "b", "c"}
    assert [rollout.key for rollout in read(path)] == ["a", "b", "c"]


@LAWS
@given(st.data())
def test_a_line_torn_anywhere_is_left_out_and_cut_off(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "trees.jsonl"
    whole, last = encode(small("a")), encode(small("b"))
    length = data.draw(st.integers(1, len(last) - 2))
    path.write_bytes(whole + last[:length])
    with pytest.warns(RolloutWarning, match=r"trees\.jsonl:2: the last line is torn"):
        assert [rollout.key for rollout in read(path)] == ["a"]
    with RolloutWriter(path) as writer:
        assert writer.num_repaired_bytes == length
        assert writer.keys == {"a"}
        writer.append(small("b"))
    assert path.read_bytes() == whole + last


def test_a_last_line_that_lacks_only_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    path.write_bytes(encode(small("a")) + encode(small("b"))[:-1])
    assert [rollout.key for rollout in read(path)] == ["a", "b"]
    write(path, [small("c")])
    assert [rollout.key for rollout in read(path)] == ["a", "b", "c"]


def spoiled(value: object, *place: str | int) -> bytes:
    record = json.loads(encode(small()))
    at = record
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    return json.dumps(record).encode() + b"\n"


NODE = ("tree", "nodes", 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\n", "no JSON: EOF while parsing a value"),
        (encode(small())[:40] + b"\n", "no JSON: EOF while parsing a string at column 40"),
        (spoiled(VERSION + 1, "rollout"), "rollout version 2; this treepo reads 1: use the one"),
        (b'{"prompt": "Hi"}\n', "no rollout record"),
        (b"[1]\n", "no rollout record"),
        (spoiled([1, "one"], *NODE, "token_ids"), "`tree.nodes.0.token_ids.1`"),
        (spoiled([0.5], *NODE, "logprobs"), "`tree.nodes.0.logprobs`: 1 for 3 tokens"),
        (spoiled(0, *NODE, "parent"), "`tree.nodes.0.parent`: 0 is no earlier node"),
        (spoiled(5, *NODE, "start"), "`tree.nodes.0.start`: 5, but its parent ends at 0"),
        (spoiled(1, "tree", "trajectories", 0, "leaf"), "`tree.trajectories.0.leaf`: no node 1"),
        (spoiled([1.0, 2.0], "rewards"), "`rewards`: not one per trajectory"),
        (spoiled("bored", "tree", "finish"), "`tree.finish`"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it_and_nothing_is_added(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "trees.jsonl"
    path.write_bytes(encode(small("a")) + line + encode(small("b")))
    before = path.read_bytes()
    for attempt in (lambda: list(read(path)), lambda: RolloutWriter(path)):
        with pytest.raises(RolloutFileError) as caught:
            attempt()
        assert str(caught.value).startswith(f"{path}:2: ")
        assert reason in caught.value.reason
        assert caught.value.line == 2
    assert path.read_bytes() == before


def test_a_missing_file_is_an_error_for_readers(tmp_path: Path) -> None:
    with pytest.raises(RolloutFileError, match="No such file"):
        list(read(tmp_path / "none.jsonl"))
    with pytest.raises(RolloutFileError, match="No such file"):
        RolloutWriter(tmp_path / "no" / "folder.jsonl")


def test_a_file_has_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    with RolloutWriter(path), pytest.raises(RolloutFileError, match="wait for it, or name another"):
        RolloutWriter(path)
    RolloutWriter(path).close()


def test_a_record_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with RolloutWriter(path) as writer:
        writer.append(small("a"))
        room = path.stat().st_size + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, old_limit[1]))
        try:
            with pytest.raises(RolloutFileError, match=r":2: it could not be written: File too"):
                writer.append(small("b", num_tokens=1000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
            signal.signal(signal.SIGXFSZ, old_handler)
        writer.append(small("c"))
    assert [rollout.key for rollout in read(path)] == ["a", "c"]


KILLED = """
import sys
from treepo.rollout.files import RolloutWriter
from tests.unit.rollout.test_rollout import small

with RolloutWriter(sys.argv[1]) as writer:
    while True:
        key = str(len(writer.keys))
        writer.append(small(key, num_tokens=200_000))
        print(key, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_it_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    root = Path(__file__).parents[3]
    for wanted in (1, 2, 3):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        assert child.stdout is not None
        confirmed = [child.stdout.readline().strip() for _ in range(wanted)]
        child.kill()
        confirmed += child.stdout.read().split()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        with RolloutWriter(path) as writer:
            assert writer.keys.issuperset(confirmed)
    keys = [rollout.key for rollout in read(path)]
    assert keys == [str(number) for number in range(len(keys))]
    assert len(keys) >= 6
