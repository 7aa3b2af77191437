"""`treepo chat` against a real server: one question, a conversation, and what goes wrong."""

import os
import subprocess
import sys

import pytest

TREE = '{"width": 3, "branching": "even", "segment_tokens": 32}'


@pytest.fixture
def chat(server):
    def chat(*arguments, says=None, url=None):
        base_url = url or f"{server.url}/v1"
        command = [sys.executable, "-P", "-m", "treepo.cli", "chat", "--base-url", base_url]
        command += ["--tree", TREE, "--max-tokens", "60", "--seed", "1", *arguments]
        return subprocess.run(
            command,
            input=says,
            env={**os.environ, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return chat


def test_a_question_is_answered_with_its_tree(chat, client):
    done = chat("What is 1 + 1?")
    assert done.returncode == 0, done.stderr
    assert "3 trajectories, worth" in done.stdout
    assert "├──" in done.stdout
    whole = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "What is 1 + 1?"}],
        max_tokens=60,
        seed=1,
        extra_body={"tree": {"width": 3, "branching": "even", "segment_tokens": 32}},
    )
    assert whole.choices[0].message.content.split()[-1] in done.stdout


def test_a_conversation_goes_on_until_its_input_ends(chat):
    done = chat(says="one\n\ntwo\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 trajectories, worth") == 2


def test_what_goes_wrong_is_one_line(chat):
    refused = chat("hi", "--model", "other")
    assert refused.returncode == 2
    assert "other" in refused.stderr
    absent = chat("hi", url="http://127.0.0.1:9/v1")
    assert absent.returncode == 2
    assert "no server answers at http://127.0.0.1:9/v1: start one with" in absent.stderr
    wrong = chat("hi", "--tree", '{"width": 0}')
    assert "`tree.width` is 0" in wrong.stderr
