"""Whole runs of the trainer on a tiny model."""

import asyncio
from dataclasses import replace

import pytest

from tests.support.letters import larger, letter_config
from tests.support.model_engine import ModelEngine, letter_model, letter_tokenizer
from tests.support.threads import one_thread
from treepo.rollout.files import Rollout, write
from treepo.train.collect import sampling
from treepo.train.config_file import build
from treepo.train.data import load
from treepo.train.rollouts import Ask, EngineRollouts

__all__ = ["one_thread"]


@pytest.fixture(scope="session")
def rollouts(tmp_path_factory):
    """A tree of the untrained letter model for each prompt, rewarded, as records."""
    config = build(letter_config(tmp_path_factory.mktemp("prompts")))
    tokenizer = letter_tokenizer()
    engine = ModelEngine(letter_model(), tokenizer.eos_token_id)
    examples = load(config.data.train, tokenizer, name=None, split="train", limit=None)
    asks = [
        Ask(f"tree-{at}", e.token_ids, config.tree, sampling(config, f"tree-{at}"))
        for at, e in enumerate(examples)
    ]
    trees = asyncio.run(EngineRollouts(engine, None, tokenizer).sample(asks))
    return [
        Rollout(
            key=e.place,
            tree=tree,
            columns={"prompt": e.prompt, **e.columns},
            rewards=tuple(larger([t.text for t in tree.trajectories], [e.columns["answer"]] * 8)),
        )
        for e, tree in zip(examples, trees, strict=True)
    ]


@pytest.fixture(scope="session")
def rollout_file(tmp_path_factory, rollouts):
    """The records in a file."""
    path = tmp_path_factory.mktemp("rollouts") / "trees.jsonl"
    write(path, rollouts)
    return path


@pytest.fixture(scope="session")
def flat_rollout_file(tmp_path_factory, rollouts):
    """The same trees with equal rewards."""
    path = tmp_path_factory.mktemp("rollouts") / "flat.jsonl"
    write(path, [replace(r, rewards=(0.0,) * len(r.rewards)) for r in rollouts])
    return path
