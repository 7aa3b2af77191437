"""What goes wrong in a run is said in words that name what to do, and costs nothing else."""

import errno
import warnings

import pytest

from tests.support.letters import letter_config, metrics, train_letters
from treepo.errors import CheckpointError, ConfigError
from treepo.train.checkpoint import Checkpoints
from treepo.train.report import TrainWarning

REWARDS = """
import time

def raises(completions, **_):
    raise KeyError("gold")

def hangs(completions, **_):
    time.sleep(60)

def short(completions, **_):
    return [1.0] * (len(completions) + 1)

def nothing(completions, **_):
    return [None] * len(completions)

def digits(completions, answer, **_):
    return [float(text[:1] == str(int(gold))) for text, gold in zip(completions, answer)]
"""


@pytest.fixture
def reward_module(tmp_path, monkeypatch):
    (tmp_path / "faulty_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    return "faulty_rewards"


def small_run(folder, function, steps=1):
    """The configuration of a run with a reward."""
    rewards = {"functions": [function], "limit_s": 0.3, "num_workers": 1}
    tree = {"width": 2, "segment_tokens": 1}
    small = {"steps": steps, "prompts_per_step": 1, "max_top_ups": 0, "eval": {"samples": 1}}
    return letter_config(folder, rewards=rewards, tree=tree, **small)


def run_with(folder, function, steps=1):
    """Train with a reward; returns what was warned about."""
    values = small_run(folder, function, steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_letters(values | {"data": {"train": values["data"]["train"]}})
    return [str(w.message) for w in caught if w.category is TrainWarning]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "a reward function raised"),
        ("short", "did not return one finite number or None for each completion"),
        ("hangs", "took longer than `rewards.limit_s`"),
    ],
)
def test_a_reward_that_fails_is_counted_and_warned_about(
    tmp_path, reward_module, function, message
):
    said = run_with(tmp_path, f"{reward_module}:{function}")
    assert len(said) == 1
    assert message in said[0]
    assert "`rewards.missing_reward`" in said[0]
    assert metrics(tmp_path / "run")[0]["rewards_failed"] == 2


def test_an_evaluation_whose_rewards_all_fail_has_no_mean_and_is_warned_about(
    tmp_path, reward_module
):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"prompt": "01>", "answer": "one"}\n')
    values = small_run(tmp_path, f"{reward_module}:digits")
    values["data"]["eval"] = str(held_out)
    with pytest.warns(TrainWarning, match="1 rewards of an evaluation are missing: a reward func"):
        summary = train_letters(values)
    assert summary["mean@1_before"] is summary["mean@1_after"] is None
    assert metrics(tmp_path / "run")[0] == {"step": 0, "eval/num_prompts": 0}


def test_rewards_of_nothing_are_told_from_rewards_that_never_fire(tmp_path, reward_module):
    [said] = run_with(tmp_path, f"{reward_module}:nothing", steps=3)
    assert "no trajectory got a reward" in said


def test_a_reward_that_is_not_there_ends_the_run_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"'no_such_module:f' cannot be loaded: No module named"):
        run_with(tmp_path, "no_such_module:f")


def test_a_damaged_checkpoint_says_what_to_remove(tmp_path):
    values = letter_config(tmp_path, steps=2, checkpoint={"every": 1})
    train_letters(values)
    newest = tmp_path / "run" / "checkpoints" / "step-000002"
    for file in newest.rglob("*.bin"):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"step-000002 cannot be read .*remove this folder"):
        train_letters(values)
    newest.rename(tmp_path / "elsewhere")
    assert train_letters(values)["steps"] == 2


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    commit = Checkpoints.commit

    def full(self, partial, run):
        if partial.name.startswith("step-000002"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return commit(self, partial, run)

    values = letter_config(tmp_path, steps=3, checkpoint={"every": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "commit", full)
        with pytest.raises(CheckpointError, match=r"step-000002 .* No space left"):
            train_letters(values)
    assert train_letters(values)["steps"] == 3
    assert [m["step"] for m in metrics(tmp_path / "run") if "reward" in m] == [1, 2, 3]


@pytest.mark.parametrize(
    ("target", "message"),
    [("no_such_layer", "not found"), ("embed_tokens", "only linear layers are merged")],
)
def test_adapters_that_cannot_be_merged_are_refused(tmp_path, target, message):
    values = letter_config(tmp_path, lora={"r": 2, "target_modules": [target]})
    with pytest.raises(ConfigError, match=rf"`lora\.target_modules`.*{message}"):
        train_letters(values)
