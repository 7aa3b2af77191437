"""`treepo bench --base-url`: the verdict of a running server, on chats and on texts."""

import json
from pathlib import Path

from tests.support.server import Server
from treepo.cli import main
from treepo.rollout.files import read


def test_a_running_server_is_judged_as_an_engine_would_be(server: Server, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    rows = [
        {"messages": [{"role": "user", "content": "What is 1 + 1?"}], "answer": "2"},
        {"prompt": "What is 2 + 2? It is", "answer": 4},
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["bench", "--prompts", str(prompts), "--base-url", f"{server.url}/v1", "-o", str(out)]
    code = main([*words, "--max-tokens", "48", "--tree", "width=4", "--tree", "answer=last_number"])
    assert code == 0
    results = json.loads((out / "results.json").read_text())
    assert len(results["outcomes"]) == 2 * len(results["rows"])
    trees = [rollout.tree for rollout in read(out / "trees.jsonl")]
    assert len(trees) == 4
    for tree in trees:
        assert tree.settings["width"] == 4
        assert all(tree.token_ids(trajectory) for trajectory in tree.trajectories)
