"""Two processes make the run that one makes."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from tests.support.letters import letter_config, metrics, train_letters

# Rows so short that a batch is an odd number of them: a rank has to fill up with an empty one.
CHANGES = {"steps": 3, "update": {"row_tokens": 40, "mini_batches": 2}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    train_letters(letter_config(folder, **CHANGES))
    return folder / "run"


@pytest.mark.parametrize("words", [(), ("--fsdp",)], ids=["copies", "FSDP2"])
def test_two_processes_equal_one_also_when_they_are_resumed(tmp_path, alone, words):
    values = letter_config(tmp_path, **CHANGES)
    train_in_two(values | {"steps": 2}, words)
    train_in_two(values, words)  # goes on from the checkpoint of the first
    both = [line for line in metrics(tmp_path / "run") if "reward" in line]
    for one, two in zip([x for x in metrics(alone) if "reward" in x], both, strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
    weights = load_file(alone / "model" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "run" / "model" / "model.safetensors").items():
        assert (tensor - weights[name]).abs().max() < 1e-4


def train_in_two(values, words):
    """Train in two processes."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *("-m", "tests.support.letters", json.dumps(values), *words),
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
