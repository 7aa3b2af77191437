"""Every example runs as it stands against a real server, and prints what its reader expects."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import MODEL

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "clients" / "examples"
OTHER_PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"
LIMIT_S = 120


@pytest.fixture
def run(server):
    def run(*command):
        environment = {
            **os.environ,
            "TREEPO_URL": f"{server.url}/v1",
            "TREEPO_MODEL": MODEL,
            "PYTHONPATH": str(ROOT / "clients" / "python"),
        }
        done = subprocess.run(
            [str(word) for word in command],
            env=environment,
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("name", ["openai_sdk", "typed_client", "agent"])
def test_examples_of_the_openai_sdk(run, name):
    said = run(sys.executable, f"{name}.py")
    assert "answer " in said
    assert "agreement " in said


def test_an_agents_calls_are_chosen_by_vote(run):
    votes = [line for line in run(sys.executable, "agent.py").splitlines() if "the vote" in line]
    assert votes
    assert all("price" in vote or "done" in vote for vote in votes)


@pytest.mark.parametrize("name", ["langchain_chat", "litellm_chat"])
def test_examples_of_other_libraries(run, name):
    if not OTHER_PYTHON.exists():
        pytest.skip(f"no environment with LangChain and LiteLLM: {OTHER_PYTHON.parent.parent}")
    assert "agreement " in run(OTHER_PYTHON, f"{name}.py")


def test_the_example_of_curl(run):
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: apt-get install curl")
    tree = json.loads(run("sh", "ask.sh"))["tree"]
    assert len(tree["trajectories"]) == 4
    assert all(node["entropy"] is not None for node in tree["nodes"])


def test_the_example_of_javascript(run):
    if shutil.which("node") is None:
        pytest.skip("node is missing: apt-get install nodejs npm")
    if not (EXAMPLES / "javascript" / "node_modules").exists():
        pytest.skip("its packages are missing: npm install --prefix clients/examples/javascript")
    said = run("node", "javascript/ask.mjs")
    assert "winner of the second tree: " in said
