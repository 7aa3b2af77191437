"""A growing tree is what its stream has told: forks where they were opened, texts behind them."""

from tests.support import saved
from treepo.commands.growing import Growing


def progress(*opened, **counts):
    paths = [{"index": i, "parent": p, "start": s, "is_late": False} for i, p, s in opened]
    return {"tree": {"id": "t", "progress": {"live_paths": 1, "opened": paths, **counts}}}


def piece(index, text, num_tokens, **fields):
    choice = {"index": index, "delta": {"content": text}, "token_ids": [1] * num_tokens}
    return {"choices": [{**choice, **fields}]}


def grown(*chunks):
    growing = Growing()
    for chunk in chunks:
        growing.take(chunk)
    return growing


FORKED = (
    progress((0, None, 0)),
    piece(0, "abc", 3),
    piece(0, "defg", 4),
    progress((1, 0, 3)),
    piece(1, "abc", 3),
    piece(1, "xy", 2),
)


def test_a_fork_cuts_its_parent_and_keeps_its_own_text_only():
    nodes = grown(*FORKED).tree()["nodes"]
    assert [(n["id"], n["parent"], n["path"], n["start"], n["num_tokens"]) for n in nodes] == [
        (0, None, 0, 0, 3),
        (1, 0, 0, 3, 4),
        (2, 0, 1, 3, 2),
    ]
    assert [n["text"] for n in nodes] == ["abc", "defg", "xy"]


def test_what_a_path_thinks_comes_before_what_it_says():
    thought = {"index": 0, "delta": {"reasoning": "hm ", "content": None}, "token_ids": [1]}
    growing = grown(progress((0, None, 0)), {"choices": [thought]}, piece(0, "7", 1))
    assert growing.text(0) == "hm 7"
    assert [node["num_tokens"] for node in growing.tree()["nodes"]] == [2]


def test_a_fork_at_the_prompt_has_no_parent():
    nodes = grown(progress((0, None, 0), (1, None, 0)), piece(0, "a", 1), piece(1, "b", 1)).tree()
    assert [node["parent"] for node in nodes["nodes"]] == [None, None]


def test_ended_paths_are_leaves_unless_they_were_given_up():
    ended = {"finish_reason": "stop", "tree": {"finish": "answer", "answer": "7"}}
    pruned = {"finish_reason": "stop", "tree": {"finish": "pruned", "answer": None}}
    tree = grown(*FORKED, piece(0, "", 0, **ended), piece(1, "", 0, **pruned)).tree()
    assert tree["trajectories"] == [{"leaf": 1, "answer": "7", "weight": 0.0, "finish": "answer"}]
    assert [node["finish"] for node in tree["nodes"]] == [None, "answer", "pruned"]


def test_the_last_chunk_is_the_report():
    growing = grown(*FORKED, {"tree": saved.report(), "choices": []})
    assert growing.report is not None
    assert growing.text(1) == "abcxy"


def test_chunks_of_choices_that_were_not_announced_are_passed_over():
    assert grown(piece(5, "a", 1)).tree()["nodes"] == []
