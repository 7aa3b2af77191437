"""A command's work in a process of its own: told to stop, it closes what it has opened."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from treepo.commands.bench_config import BenchConfig
from treepo.commands.sample_config import SampleConfig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc and prctl")

ROOT = Path(__file__).parents[3]

WORK = """
import sys, time
from treepo.commands.watched import work

def wait() -> int:
    try:
        print("at work", flush=True)
        time.sleep(600)
    finally:
        print("closed", flush=True)

sys.exit(work(wait))
"""

WATCH = """
import sys
from pydantic import BaseModel
from treepo.commands.watched import watch

class Config(BaseModel):
    pass

sys.exit(watch("waiting", Config()))
"""

# A command whose engine has this process terminated as soon as a path is asked for.
TERMINATED = """
import signal, sys
from contextlib import contextmanager
from tests.support.machines import coin
from tests.unit.commands.test_sample_command import ToyTokenizer
from treepo.commands import {command}
from treepo.engines.scripted import Script, ScriptedEngine

class Backend:
    def __init__(self, model, arguments):
        pass

    def tokenizer(self):
        return ToyTokenizer()

    @contextmanager
    def engine(self):
        script = Script(failure=lambda request: signal.raise_signal(signal.SIGTERM))
        engine = ScriptedEngine(coin(), script)
        try:
            yield engine
        finally:
            print("closed,", engine.counters.running, "running")

{command}.VllmBackend = Backend
sys.exit({command}.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_the_watcher_has_the_work_closed(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "waiting.py").write_text(WORK)
    command = [sys.executable, "-c", WATCH]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "at work\n"
        watcher.send_signal(number)
        assert watcher.stdout.read() == "closed\n"
    assert watcher.returncode == 130


@pytest.mark.parametrize(
    ("command", "model"),
    [("sample", SampleConfig), ("bench", BenchConfig)],
    ids=["sample", "bench"],
)
def test_a_terminated_command_ends_its_trees_and_its_engine(
    tmp_path: Path, command: str, model: type[BaseModel]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "one", "answer": "1"}) + "\n")
    config = model.model_validate({"prompts": prompts, "output": tmp_path / "out"})
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED.format(command=command), config.model_dump_json()],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (130, "closed, 0 running\n")
