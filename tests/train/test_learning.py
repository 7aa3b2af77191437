"""A tiny random model learns, and says so; what it was given wrong is named."""

import warnings

import pytest
import torch

from tests.support.letters import STEPS, letter_config, metrics, train_letters
from tests.support.model_engine import DirectSync
from treepo.errors import ConfigError
from treepo.train.report import TrainWarning


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learnt")
    return folder / "run", train_letters(letter_config(folder))


def test_a_tiny_model_learns_from_trees(learnt):
    folder, summary = learnt
    assert summary["mean@4_before"] < 0.15
    assert summary["mean@4_after"] > 0.45
    assert summary["steps"] == STEPS
    steps = [line for line in metrics(folder) if "reward" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))


def test_the_sampler_has_the_weights_that_learn(learnt):
    folder, _ = learnt
    steps = [line for line in metrics(folder) if "logprob_diff" in line]
    assert max(line["logprob_diff"] for line in steps) < 1e-5


def test_the_model_that_comes_out_is_a_folder_that_transformers_loads(learnt):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, summary = learnt
    tokenizer = AutoTokenizer.from_pretrained(summary["model"])
    model = AutoModelForCausalLM.from_pretrained(summary["model"])
    prompt = tokenizer("13>", return_tensors="pt").input_ids
    logits = model(prompt).logits[0, -1]
    assert logits.softmax(-1)[3] > 0.3  # before training every letter had about 1/44


def test_a_policy_that_ends_at_once_and_a_reward_that_never_fires_are_warned_about(tmp_path):
    def mute(engine):
        engine.model.lm_head.forward = lambda states: _only_end(states, engine.model.vocab_size)
        return DirectSync(engine)

    values = letter_config(tmp_path, steps=3, update={"max_logprob_diff": None}, eval={})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_letters(values | {"data": {"train": values["data"]["train"]}}, mute)
    said = [str(w.message) for w in caught if w.category is TrainWarning]
    assert any("only the end of sequence" in text and "`sampling.stop`" in text for text in said)
    assert any("never fires" in text and "`tree.width`" in text for text in said)


def _only_end(states, vocabulary):
    logits = torch.full((*states.shape[:-1], vocabulary), -100.0)
    logits[..., -1] = 0.0
    return logits


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": {"r": 4}, "log": {"tree_every": 1, "trackers": ["tensorboard"]}},
        {"update": {"mini_batches": 2, "checkpoint_activations": True, "row_tokens": 64}},
        {"advantages": {"estimator": "mass_loo"}, "optimizer": {"lr": 1e-2, "warmup_steps": 2}},
        {"loss": {"anchor": "trainer", "kl_coef": 0.1}},
    ],
    ids=["lora", "mini-batches", "mass_loo", "anchor and KL"],
)
def test_every_way_to_update_leaves_sampler_and_trainer_with_the_same_weights(
    tmp_path, changes, capsys
):
    values = letter_config(tmp_path, steps=3, eval={"samples": 2, "pass_at": 1}, **changes)
    train_letters(values)
    steps = [line for line in metrics(tmp_path / "run") if "logprob_diff" in line]
    assert len(steps) == 3
    assert max(line["logprob_diff"] for line in steps) < 1e-5
    assert steps[0]["optimizer_steps"] == changes.get("update", {}).get("mini_batches", 1)
    if "log" in changes:
        assert any((tmp_path / "run" / "treepo").iterdir())
        assert "reward 0" in capsys.readouterr().err


def test_a_sampler_with_other_weights_ends_the_run_before_it_learns(tmp_path):
    class Forgetful(DirectSync):
        """Takes the first weights only."""

        async def push(self, source, version):
            if version == 0:
                await super().push(source, version)

    values = letter_config(tmp_path, steps=9, update={"max_logprob_diff": 0.01})
    with pytest.raises(ConfigError, match=r"`update\.max_logprob_diff`.*holds other weights"):
        train_letters(values, Forgetful)
    assert not (tmp_path / "run" / "checkpoints").exists()
