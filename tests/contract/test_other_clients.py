"""Clients that hold openai 2.x read a tree, whole and streamed, as they read any answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import ALIAS, MODEL

CLIENTS = Path(sys.prefix) / "clients" / "bin" / "python"
SCRIPT = Path(__file__).with_name("other_clients.py")
LIMIT_S = 300


@pytest.fixture(scope="module")
def read(server):
    """What the clients have read."""
    command = [CLIENTS, SCRIPT, f"{server.url}/v1", MODEL, ALIAS]
    # litellm would fetch a price list, langchain report its runs.
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
    done = subprocess.run(
        command,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


CLIENTS_READ = ["langchain", "langchain, by alias", "langchain, responses"]
CLIENTS_READ += ["litellm", "litellm, by alias"]


@pytest.mark.parametrize("name", CLIENTS_READ)
def test_a_stream_joins_to_the_whole_answer(read, name):
    seen = read[name]
    assert seen["whole"]
    assert seen["streamed"] == seen["whole"]
    assert seen["streamed_tokens"] == seen["whole_tokens"]


@pytest.mark.parametrize("name", CLIENTS_READ)
def test_usage_counts_the_whole_tree(read, name):
    assert read[name]["whole_tokens"] > len(read[name]["whole"])


def test_the_openai_sdk_2_accumulates_every_choice(read):
    assert read["openai_version"].startswith("2.")
    assert read["openai"]["ends"] == [0, 1, 2]
    assert 0 <= read["openai"]["tree"]["winner"] < 3


def test_litellm_keeps_the_tree(read):
    assert len(read["litellm"]["tree"]["trajectories"]) == 3
