"""Learning from a rollout file, without an engine; a damaged file is named or mended."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.letters import letter_config, metrics, train_letters
from tests.support.model_engine import letter_model
from treepo.errors import ConfigError, RolloutFileError
from treepo.rollout.files import RolloutWarning, write
from treepo.train.report import TrainWarning


def offline(folder, file, **changes):
    """A run that learns from `file`."""
    return letter_config(folder, trees=str(file), data={}, steps=4, **changes)


def test_stored_trees_teach_what_they_teach_online(tmp_path, rollouts, rollout_file):
    summary = train_letters(offline(tmp_path, rollout_file))
    assert summary["optimizer_steps"] == 4
    assert metrics(tmp_path / "run")[0]["logprob_diff"] < 1e-5  # the file rounds
    learnt = AutoModelForCausalLM.from_pretrained(summary["model"])
    assert right(learnt, rollouts) > 1.4 * right(letter_model(), rollouts)


def right(model, rollouts):
    """Mean probability of the larger digit."""
    heads = torch.stack(
        [model(torch.tensor([r.tree.prompt_token_ids])).logits[0, -1] for r in rollouts]
    ).softmax(-1)
    gold = torch.tensor([[int(r.columns["answer"])] for r in rollouts])
    return heads.gather(1, gold).mean()


def test_an_anchor_of_the_trainer_corrects_for_trees_of_older_weights(tmp_path, rollout_file):
    anchored = {"anchor": "trainer", "kl_coef": 0.1}
    changes = {"loss": anchored, "update": {"mini_batches": 2}, "optimizer": {"lr": 1e-3}}
    train_letters(offline(tmp_path, rollout_file, **changes))
    steps = metrics(tmp_path / "run")
    assert steps[0]["importance"] == pytest.approx(1.0, abs=1e-4)
    assert steps[0]["ratio"] != pytest.approx(1.0, abs=1e-4)  # of the second mini-batch
    assert abs(steps[-1]["importance"] - 1.0) > 1e-3
    assert 0 < steps[0]["kl"] < steps[-1]["kl"]


def test_counts_are_those_of_the_batch_however_many_mini_batches_it_has(tmp_path, rollout_file):
    train_letters(offline(tmp_path, rollout_file))
    [whole, *_] = metrics(tmp_path / "run")
    halves = {"update": {"mini_batches": 2}, "output_dir": str(tmp_path / "halves")}
    train_letters(offline(tmp_path, rollout_file, **halves))
    [halved, *_] = metrics(tmp_path / "halves")
    assert halved["tokens"] == whole["tokens"]
    assert (whole["rows"], halved["rows"]) == (1, 2)  # a mini-batch has rows of its own


def test_stored_trees_of_another_model_are_warned_about_or_refused(tmp_path, rollouts):
    def far(node):
        return replace(node, logprobs=tuple(x - 2.0 for x in node.logprobs))

    trees = [replace(r.tree, nodes=tuple(map(far, r.tree.nodes))) for r in rollouts]
    write(
        tmp_path / "far.jsonl", [replace(r, tree=t) for r, t in zip(rollouts, trees, strict=True)]
    )
    with pytest.warns(TrainWarning, match=r"differ .* by 2 nats a token.*another model"):
        train_letters(offline(tmp_path, tmp_path / "far.jsonl"))

    def unknown(node):
        return replace(node, token_ids=(9999,) * len(node.token_ids))

    trees = [replace(r.tree, nodes=tuple(map(unknown, r.tree.nodes))) for r in rollouts]
    write(
        tmp_path / "big.jsonl", [replace(r, tree=t) for r, t in zip(rollouts, trees, strict=True)]
    )
    with pytest.raises(ConfigError, match="tokens that `model` has not"):
        train_letters(offline(tmp_path, tmp_path / "big.jsonl", output_dir=str(tmp_path / "b")))


def test_a_torn_last_line_is_left_out_and_a_bad_line_is_named(tmp_path, rollout_file):
    lines = rollout_file.read_bytes().splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(b"".join(lines[:-1]) + lines[-1][:100])
    with pytest.warns(RolloutWarning, match="torn"):
        train_letters(offline(tmp_path, torn))
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(lines[0] + lines[1][:100] + b"\n" + lines[2])
    with pytest.raises(RolloutFileError, match=r"bad\.jsonl:2: no JSON"):
        train_letters(offline(tmp_path, bad, output_dir=str(tmp_path / "other")))


def test_trees_whose_rewards_never_differ_are_refused(tmp_path, flat_rollout_file):
    with pytest.raises(ConfigError, match="in none of 16 trees do rewards differ"):
        train_letters(offline(tmp_path, flat_rollout_file))
