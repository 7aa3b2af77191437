"""The demo shows a tree or says why not, and never leaves a server behind."""

import json
import os
import sys

import pytest

from tools import demo

# Answers like the server, with what the test put into `answer.json`, and notes its pid.
SERVER = """
import http.server, json, os, pathlib, signal, sys

here = pathlib.Path(__file__).parent
(here / "pid").write_text(str(os.getpid()))
answer = json.loads((here / "answer.json").read_text())

class Handler(http.server.BaseHTTPRequestHandler):
    def reply(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        model = {"id": "tiny", "object": "model", "created": 0, "owned_by": "us"}
        self.reply({"object": "list", "data": [model]} if "models" in self.path else {})

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (here / "sent.json").write_text(json.dumps(sent))
        self.reply(answer, 200 if "choices" in answer else 400)

port = int(sys.argv[sys.argv.index("--port") + 1])
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

STATS = {"generated_tokens": 12, "trajectory_tokens": 20}
LEAF = {"leaf": 0, "finish": "eos", "weight": 1.0, "answer": "50"}
TREE = {"answer": "50", "finish": "complete", "votes": [], "stats": STATS, "trajectories": [LEAF]}
MESSAGE = {"role": "assistant", "content": "Half of 100 is [50]."}
CHOICE = {"index": 0, "message": MESSAGE, "finish_reason": "stop"}
COMPLETION = {"id": "c", "object": "chat.completion", "created": 0, "model": "tiny"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Makes the demo start a stand-in that gives this answer; returns its folder."""
    monkeypatch.setattr(sys, "argv", ["demo"])

    def stand_in(answer, script=SERVER):
        (tmp_path / "server.py").write_text(script)
        (tmp_path / "answer.json").write_text(json.dumps(answer))
        monkeypatch.setattr(demo, "SERVE", [sys.executable, str(tmp_path / "server.py")])
        return tmp_path

    return stand_in


def assert_gone(folder):
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


def test_the_demo_asks_for_one_tree_and_shows_it(server, capsys):
    folder = server({**COMPLETION, "choices": [CHOICE], "tree": TREE})
    assert demo.main() == 0
    sent = json.loads((folder / "sent.json").read_text())
    assert sent["n"] == 1
    assert sent["tree"] == demo.TREE
    shown = capsys.readouterr().out
    assert "→ 50 (eos, weight 1.000)" in shown
    assert "40% fewer" in shown
    assert "Half of 100 is [50]." in shown
    assert_gone(folder)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({**COMPLETION, "choices": [CHOICE]}, "its plugin is not loaded"),
        ({"error": {"message": "`tree.width` is 0"}}, "`tree.width` is 0"),
    ],
)
def test_an_answer_without_a_tree_is_a_failure(server, capsys, answer, reason):
    folder = server(answer)
    assert demo.main() == 1
    shown = capsys.readouterr().err
    assert reason in shown
    assert "  listening" in shown
    assert_gone(folder)


def test_a_server_that_ends_is_a_failure_with_its_last_words(server, capsys):
    server({}, script="print('no room for the cache'); raise SystemExit(3)")
    assert demo.main() == 1
    shown = capsys.readouterr().err
    assert "the server ended with code 3" in shown
    assert "  no room for the cache" in shown


def test_a_server_that_is_never_healthy_is_given_up(server, capsys, monkeypatch):
    monkeypatch.setattr(demo, "START_LIMIT_S", 2.0)
    monkeypatch.setattr(demo, "_is_healthy", lambda url: False)
    folder = server({})
    assert demo.main() == 1
    assert "was not healthy after 2 s" in capsys.readouterr().err
    assert_gone(folder)
