"""`treepo show` lists the trees of a file and draws the one that is asked for."""

import json

import pytest

from tests.support import saved
from treepo import cli
from treepo.commands.show import picked, read_trees
from treepo.errors import ConfigError, RolloutFileError
from treepo.rollout.files import write
from treepo.rollout.record import Rollout
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish, TreeStats

TREE = Tree(
    "t",
    (1,),
    (
        Node(0, None, 0, 0, (5, 6, 7)),
        Node(1, 0, 0, 3, (8,), mass=0.5, finish=Finish.EOS),
        Node(2, 0, 1, 3, (9, 9), mass=0.5, finish=Finish.EOS),
        Node(3, 0, 2, 3, (9,), mass=0.0, finish=Finish.PRUNED),
    ),
    (
        Trajectory(1, Finish.EOS, 0.25, "so it is 7.0", "7", "7.0"),
        Trajectory(2, Finish.EOS, 0.75, "x" * 200 + "it is 8", "8", "8", 1),
    ),
    TreeFinish.COMPLETE,
    weights_exact=True,
    settings={"vote": "weighted"},
    stats=TreeStats(generated_tokens=7, trajectory_tokens=9, discarded_tokens=1),
)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    path = tmp_path / "trees.jsonl"
    names = ("what is\nthis?", [{"role": "user", "content": "and that?"}])
    write(path, [Rollout(f"key{i}", TREE, {"prompt": name}) for i, name in enumerate(names)])
    return path


def shown(capsys, *arguments):
    assert cli.main(["show", *(str(argument) for argument in arguments)]) == 0
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_many_trees_are_listed(file, capsys):
    lines = shown(capsys, file)
    assert len(lines) == 3
    assert lines[1].split() == ["1", "key0", "8", "75%", "2", "7", "what", "is", "this?"]
    assert lines[2].endswith("and that?")


def test_a_long_question_leaves_room_for_everything_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "trees.jsonl"
    write(path, [Rollout(f"key{i}", TREE, {"prompt": "why? " * 100}) for i in range(2)])
    lines = shown(capsys, path)
    assert lines[1].split()[:7] == ["1", "key0", "8", "75%", "2", "7", "why?"]
    assert lines[1].endswith("…")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80


def test_a_terminal_obeys_nothing_in_a_models_text(tmp_path, capsys):
    hostile = "\x1b[2J\x1b]0;title\x07 \u202e42"
    report = saved.report(answer=hostile)
    for part in (*report["nodes"], *report["trajectories"], *report["votes"]):
        part.update(text=hostile) if "text" in part else part.update(answer=hostile)
    path = tmp_path / "saved.json"
    choice = {"message": {"content": hostile}}
    path.write_text(json.dumps({"choices": [choice], "tree": report}))
    assert cli.main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert "\N{REPLACEMENT CHARACTER}[2J" in out


@pytest.mark.parametrize("pick", ["2", "key1"])
def test_one_is_picked_by_number_or_key_and_drawn(file, capsys, pick):
    lines = shown(capsys, file, pick)
    assert lines[0] == "and that?"
    assert "└── 0-3" in lines
    assert any(line.endswith("→ 7.0 (eos, weight 0.250)  so it is 7.0") for line in lines)
    assert any("3-5 → 8 (eos, weight 0.750)  …xxx" in line for line in lines)
    assert any("× pruned" in line for line in lines)
    assert any(line.startswith("answer 8 · agreement 75%") for line in lines)
    assert lines[-1].endswith("it is 8")


def test_a_saved_response_is_drawn_at_once(tmp_path, capsys):
    path = tmp_path / "saved.json"
    path.write_text(saved.response())
    lines = shown(capsys, path)
    assert lines[0] == "saved.json"
    assert any("→ 398 (answer, weight 0.333)" in line for line in lines)


@pytest.mark.parametrize("pick", ["0", "3", "key", "other"])
def test_a_pick_that_names_not_exactly_one_tree_is_refused(file, pick):
    with pytest.raises(ConfigError, match="a number from 1 to 2"):
        picked(list(read_trees(file)), pick)


@pytest.mark.parametrize("content", ["", "hello", '{"choices": []}', "[1]"])
def test_a_file_without_trees_is_refused_with_the_remedy(tmp_path, content):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="neither a rollout file"):
        list(read_trees(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RolloutFileError, match=r"none\.jsonl"):
        list(read_trees(tmp_path / "none.jsonl"))
