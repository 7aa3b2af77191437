"""A trainer's trees from a live `treepo serve`, and its weights into one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.contract.conftest import PROMPT
from tests.support.server import serve
from tests.support.weights import SavedWeights
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.errors import EngineError
from treepo.train.remote import HostRollouts
from treepo.train.remote_hosts import HostPool
from treepo.train.rollouts import Ask
from treepo.train.weights import FolderSync

TREE = TreeConfig(width=4, branching="even", segment_tokens=32, fallback="none")
SAMPLING = Sampling(96, temperature=1.0, seed=11)


def asks(folder: Path, count: int, sampling: Sampling = SAMPLING) -> list[Ask]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer.encode(f"{PROMPT} {number}: " * 3) for number in range(count)]
    return [Ask(f"ask-{n}", tuple(ids), TREE, sampling) for n, ids in enumerate(prompts)]


def sampled(url: str, wanted: list[Ask], *, after: tuple[SavedWeights, int, Path] | None = None):
    """Trees of a host, after it was given other weights."""

    async def run():
        pool = HostPool([url])
        rollouts = HostRollouts(pool, FolderSync(pool, after[2] if after else Path()))
        try:
            if after is not None:
                await rollouts.push(after[0], after[1])
            return await rollouts.sample(wanted)
        finally:
            await rollouts.close()

    return asyncio.run(run())


def check_logprobs(tree, model) -> None:
    """Every token has the log-prob that the model gives it."""
    for trajectory in tree.trajectories:
        tokens = tree.token_ids(trajectory)
        row = torch.tensor([[*tree.prompt_token_ids, *tokens]])
        with torch.inference_mode():
            logits = model(row).logits[0, len(tree.prompt_token_ids) - 1 : -1]
        wanted = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert tree.logprobs(trajectory) == pytest.approx(wanted.tolist(), abs=1e-4)


def drawn(tree):
    """What was drawn, without what hangs on clocks, caches and who shared a batch."""
    nodes = [(node.parent, node.token_ids, node.mass, node.finish) for node in tree.nodes]
    return nodes, [(t.leaf, t.weight, t.text, t.answer) for t in tree.trajectories]


def test_trees_have_the_tokens_and_log_probs_that_training_needs(server):
    folder = server.log.parent / "model"
    model = SavedWeights(folder).model
    wanted = asks(folder, 3)
    trees = sampled(server.url, wanted)
    for ask, tree in zip(wanted, trees, strict=True):
        assert (tree.id, tree.prompt_token_ids) == (ask.id, ask.prompt_token_ids)
        assert len(tree.trajectories) == 4
        assert tree.weight_version == ""
        assert tree.stats.generated_tokens > 0
        check_logprobs(tree, model)
    again = sampled(server.url, wanted)
    assert [drawn(tree) for tree in again] == [drawn(tree) for tree in trees]


def test_a_refused_prompt_is_the_error_of_its_own_ask(server):
    folder = server.log.parent / "model"
    fine, long = asks(folder, 2)
    long = replace(long, prompt_token_ids=long.prompt_token_ids * 100)
    tree, error = sampled(server.url, [fine, long])
    assert len(tree.trajectories) == 4
    assert isinstance(error, EngineError)
    assert "refused: 400" in str(error)


def exported(folder: Path, target: Path):
    """What a run with adapters leaves in its `model/`, and the model that it trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from treepo.train.export import Export, full_state
    from treepo.train.loss import Policy

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    options = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(base, options)
    state = full_state(Policy(adapted).state_dict(), base, 2.0)
    Export(state, base, AutoTokenizer.from_pretrained(folder)).save(target)
    return target, adapted


def test_a_host_serves_what_was_exported_and_samples_with_weights_that_were_pushed(tmp_path):
    from tests.support.tiny_chat import build

    first, trained = exported(build(tmp_path / "base"), tmp_path / "first")
    second = build(tmp_path / "second", seed=1)
    flags = ["--kv-cache-memory-bytes", str(64 * 1024**2)]
    wanted, shared = asks(first, 2), tmp_path / "shared"
    with serve(first, tmp_path / "log", *flags, VLLM_SERVER_DEV_MODE="1") as host:
        old = sampled(host.url, wanted)
        new = sampled(host.url, wanted, after=(SavedWeights(second), 1, shared))
        restored = sampled(host.url, wanted, after=(SavedWeights(first), 2, shared))
    for tree in old:
        check_logprobs(tree, trained)
    model = SavedWeights(second).model
    for tree in new:
        assert tree.weight_version == "1"
        assert tree.stats.prompt_cached_tokens == 0
        check_logprobs(tree, model)
    assert {tree.weight_version for tree in restored} == {"2"}
    assert [drawn(tree) for tree in restored] == [drawn(tree) for tree in old]
    assert not any(shared.iterdir())
