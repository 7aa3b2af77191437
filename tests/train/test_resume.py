"""A run that is killed and resumed is the run that was never interrupted."""

import json
import subprocess
import sys

import pytest

from tests.support.letters import letter_config, metrics, train_letters
from tests.support.model_engine import DirectSync
from treepo.errors import CheckpointError

STORING = {"steps": 8, "checkpoint": {"every": 2, "keep": 2}, "eval": {"every": 4}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the run writes that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    train_letters(letter_config(folder, **STORING))
    return metrics(folder / "run")


@pytest.mark.parametrize("where", ["update", "checkpoint"])
def test_a_killed_run_goes_on_as_if_it_had_not_been_killed(tmp_path, whole, where):
    values = letter_config(tmp_path, **STORING)
    command = [sys.executable, "-m", "tests.support.letters", json.dumps(values), "--die", where]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -9, killed.stderr
    run = tmp_path / "run"
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["step-000002", "step-000004"][: 1 + (where == "update")] + (
        ["step-000004", "step-000006.partial"] if where == "checkpoint" else []
    )
    pushed: list[DirectSync] = []
    train_letters(values, lambda engine: pushed.append(DirectSync(engine)) or pushed[-1])
    assert metrics(run) == whole
    assert pushed[0].versions[0] == 4  # before the first sample
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-000006",
        "step-000008",
    ]


def test_a_finished_run_has_nothing_left_to_do_and_another_run_is_refused(tmp_path):
    values = letter_config(tmp_path, steps=2)
    first = train_letters(values)
    lines = metrics(tmp_path / "run")
    again = train_letters(values)
    assert again["mean@4_after"] == first["mean@4_after"]
    assert metrics(tmp_path / "run") == lines
    with pytest.raises(CheckpointError, match=r"`optimizer` was .* name another `output_dir`"):
        train_letters(values | {"optimizer": {"lr": 1e-4}})
