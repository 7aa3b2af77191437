"""The drawing says where a tree branched, how each path ended, and what it cost.

The tree, by hand: a trunk of 33 and 32 tokens, forked at 65 into two, and at 33 by a late child
that forked into three of which one was pruned. 33 + 32 + 40 + 41 + 32 + 30 + 20 + 5 = 233 tokens
generated; complete paths of 105 + 106 + 95 + 85 = 391 tokens; 5 tokens on a pruned one.
"""

import pytest
from rich.console import Console

from treepo.drawing import draw, draw_cost, draw_tree, draw_votes, summary


def node(number, parent, path, start, num_tokens, text, finish=None, *, is_late=False):
    return {
        "id": number,
        "parent": parent,
        "path": path,
        "start": start,
        "num_tokens": num_tokens,
        "mass": 0.25,
        "is_late": is_late,
        "finish": finish,
        "text": text,
    }


def leaf(number, answer, finish):
    return {"leaf": number, "finish": finish, "weight": 0.25, "answer": answer, "text": "a\n b"}


@pytest.fixture
def tree():
    return {
        "id": "tree-1",
        "answer": "408",
        "agreement": 0.75,
        "effective_samples": 2.6,
        "finish": "complete",
        "votes": [
            {"answer": "408", "count": 3, "weight": 0.75, "share": 0.75},
            {"answer": "398", "count": 1, "weight": 0.25, "share": 0.25},
        ],
        "stats": {
            "generated_tokens": 233,
            "trajectory_tokens": 391,
            "discarded_tokens": 5,
            "recomputed_tokens": 4,
        },
        "nodes": [
            node(0, None, 0, 0, 33, "To multiply,\n we "),
            node(1, 0, 0, 33, 32, "split [24]"),
            node(2, 1, 0, 65, 40, "340 and 68", "eos"),
            node(3, 1, 1, 65, 41, "340 and 58", "eos"),
            node(4, 0, 2, 33, 32, "Note", is_late=True),
            node(5, 4, 2, 65, 30, "it is", "answer", is_late=True),
            node(6, 4, 3, 65, 20, "so", "answer", is_late=True),
            node(7, 4, 4, 65, 5, "hm hm", "pruned", is_late=True),
        ],
        "trajectories": [
            leaf(2, "408", "eos"),
            leaf(3, "398", "eos"),
            leaf(5, "408", "answer"),
            leaf(6, "408", "answer"),
        ],
    }


def lines(drawing, width=80):
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(drawing)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_forks_and_endings_are_where_they_happened(tree):
    assert lines(draw_tree(tree)) == [
        "prompt",
        "└── 0-33  To multiply, we",
        "    ├── 33-65  split [24]",
        "    │   ├── 65-105 → 408 (eos, weight 0.250)  340 and 68",
        "    │   └── 65-106 → 398 (eos, weight 0.250)  340 and 58",
        "    └── 33-65 late  Note",
        "        ├── 65-95 late → 408 (answer, weight 0.250)  it is",
        "        ├── 65-85 late → 408 (answer, weight 0.250)  so",
        "        └── 65-70 late × pruned  hm hm",
    ]


def test_segments_without_a_fork_are_one_line(tree):
    tree["nodes"] = tree["nodes"][:3]
    tree["trajectories"] = tree["trajectories"][:1]
    shown = lines(draw_tree(tree), width=120)[1:]
    assert shown == ["└── 0-105 → 408 (eos, weight 0.250)  To multiply, we split [24]340 and 68"]


def test_a_line_ends_where_the_terminal_does(tree):
    assert all(len(line) <= 40 for line in lines(draw_tree(tree), width=40))
    assert len(lines(draw_tree(tree), width=40)) == 9


def test_without_nodes_the_trajectories_stand_side_by_side(tree):
    del tree["nodes"]
    shown = lines(draw_tree(tree))
    assert len(shown) == 5
    assert shown[-1].endswith("→ 408 (answer, weight 0.250)  a b")


def test_a_path_of_any_length_is_one_line(tree):
    tree["nodes"] = [node(i, i - 1 if i else None, 0, i, 1, "x") for i in range(3000)]
    assert len(lines(draw_tree(tree))) == 2


def test_votes_show_every_answer(tree):
    shown = lines(draw_votes(tree))
    assert shown[1].split()[:3] == ["408", "3", "0.75"]
    assert shown[2].endswith("25%")


def test_the_cost_stands_beside_that_of_separate_samples(tree):
    shown = lines(draw_cost(tree))
    assert shown[1].split() == ["this", "tree", "233", "40%", "fewer"]  # 1 - 233 / 391 = 0.404
    assert shown[2].split()[-1] == "391"
    assert [line.split()[-1] for line in shown[3:]] == ["5", "4"]


@pytest.mark.parametrize(
    ("generated", "separate", "note"),
    [(100, 100, "100"), (120, 100, "20 more"), (5, 0, "5 more"), (0, 0, "0")],
)
def test_a_tree_that_saved_nothing_says_so(tree, generated, separate, note):
    tree["stats"] = {"generated_tokens": generated, "trajectory_tokens": separate}
    assert lines(draw_cost(tree))[1].endswith(note)


def test_the_summary_tells_answer_agreement_and_evidence(tree):
    assert summary(tree) == (
        "answer 408 · agreement 75% · 4 trajectories, worth 2.6 independent ones · ended: complete"
    )


def test_a_tree_without_an_answer_is_drawn_too(tree):
    bare = {
        "answer": None,
        "finish": "deadline",
        "votes": [],
        "trajectories": [],
        "stats": {"generated_tokens": 7, "trajectory_tokens": 0, "discarded_tokens": 7},
    }
    assert any("no answer" in line for line in lines(draw(bare)))
