"""Whole trees on real vLLM: what they cost, that they follow the model, that nothing is left."""

import asyncio
import math
from dataclasses import replace

import pytest
from vllm import SamplingParams
from vllm.inputs import tokens_input

from tests.engine.runs import is_left_empty, num_generated_tokens, prompt
from treepo.config import TreeConfig
from treepo.engines.base import Sampling, Uncertainty
from treepo.engines.vllm import STREAM_INTERVAL
from treepo.growth.decoder import PromptDecoder
from treepo.growth.texts import Texts
from treepo.sampler import Job, Silent, sample_tree
from treepo.tree import Finish, TreeFinish

POLICIES = [
    {"branching": "even"},
    {"branching": "low_prob", "root_branching": 3},
    {"branching": "entropy", "branching_factor": 2},
]


def job(seed: int, *, max_tokens: int = 128, extra_prompt: int = 0, **fields) -> Job:
    root = prompt(65 + extra_prompt, seed=seed)
    config = TreeConfig(**{"width": 6, "segment_tokens": 32, **fields})
    return Job(root, Sampling(max_tokens, ignore_eos=True), config, entropy_reference=4.0)


@pytest.mark.parametrize("fields", POLICIES, ids=lambda f: f["branching"])
async def test_log_probs_of_every_trajectory_are_the_models(engine, reference, fields):
    sampling = job(200, **fields)
    tree = await sample_tree(engine, sampling)
    assert tree.finish is TreeFinish.COMPLETE
    assert tree.stats.branches > 0
    for trajectory in tree.trajectories:
        token_ids = tree.token_ids(trajectory)
        known = reference.logprobs(sampling.prompt_token_ids, token_ids)
        drawn = known[range(len(token_ids)), token_ids].tolist()
        assert tree.logprobs(trajectory) == pytest.approx(drawn, abs=1e-3)
    assert await is_left_empty(engine)


async def test_every_branch_at_a_boundary_recomputes_one_token(engine):
    tree = await sample_tree(engine, job(201, branching="even", root_branching=1, fallback="none"))
    assert tree.stats.branches == 5
    assert tree.stats.recomputed_tokens == tree.stats.branches
    assert len(tree.trajectories) == 6
    assert await is_left_empty(engine)


async def test_an_entropy_fork_stands_before_a_token_as_uncertain_as_it_says(engine, reference):
    assert engine.info.uncertainty is Uncertainty.ENTROPY
    sampling = job(202, branching="entropy", branching_factor=2, width=4)
    tree = await sample_tree(engine, sampling)
    assert tree.stats.branches == 3
    for trajectory in tree.trajectories:
        token_ids = tree.token_ids(trajectory)
        logprobs = reference.logprobs(sampling.prompt_token_ids, token_ids)
        exact = -(logprobs.exp() * logprobs).sum(-1)
        values = [u for node in tree.lineage(trajectory.leaf) for u in node.uncertainty]
        pairs = [(a, b) for a, b in zip(values, exact.tolist(), strict=True) if not math.isnan(a)]
        assert len(pairs) == len(values)
        assert all(abs(a - b) < 5e-3 for a, b in pairs)
    assert await is_left_empty(engine)


async def test_counts_equal_the_engines_own_also_when_paths_are_cut(engine):
    before = num_generated_tokens()
    limited = await sample_tree(engine, job(203, branching="even", max_total_tokens=200))
    assert limited.finish is TreeFinish.MAX_TOTAL_TOKENS
    assert num_generated_tokens() - before == limited.stats.generated_tokens
    assert limited.stats.discarded_tokens > 0
    assert await is_left_empty(engine)


LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
"""Stop strings, of which the tiny model writes one in ten tokens."""


@pytest.mark.parametrize("min_tokens", [0, 1, 8, 30])
async def test_a_path_ends_at_its_stop_string_where_vllm_itself_does(engine, tokenizer, min_tokens):
    # Whole characters only: half ones are shown a little later here than in vLLM.
    ascii_ids = tokenizer.encode("".join(map(chr, range(32, 127))))
    own = {"temperature": 0.0, "ignore_eos": True, "allowed_token_ids": ascii_ids}
    limits = {"max_tokens": 96, "min_tokens": min_tokens}
    num_stopped = 0
    for seed in range(240, 252):
        root = tokenizer.encode(f"{seed} is the number of this test: ")
        params = SamplingParams(stop=list("aeiou"), **limits, **own)
        name = f"plain-{min_tokens}-{seed}"
        async for output in engine.client.generate(tokens_input(root), params, name):
            plain = output.outputs[0]
        texts = Texts(PromptDecoder(tokenizer, root, skip_special_tokens=True))
        one = TreeConfig(width=1, stop_on_answer=False, repetition=False)
        sampling = Sampling(stop=tuple("aeiou"), native=SamplingParams(**own), **limits)
        tree = await sample_tree(engine, Job(root, sampling, one, texts=texts))
        (trajectory,) = tree.trajectories
        assert (tree.token_ids(trajectory), trajectory.text) == (list(plain.token_ids), plain.text)
        assert (trajectory.finish is Finish.STOP) == (plain.finish_reason == "stop")
        assert tree.stats.discarded_tokens == 0
        num_stopped += trajectory.finish is Finish.STOP
    assert num_stopped > 3


async def test_stop_strings_are_not_overrun(engine, tokenizer):
    before = num_generated_tokens()
    stopped = job(205, branching="even", max_tokens=256, width=8, stop_on_answer=False)
    decoder = PromptDecoder(tokenizer, stopped.prompt_token_ids, skip_special_tokens=True)
    sampling = replace(stopped.sampling, stop=LETTERS)
    tree = await sample_tree(engine, replace(stopped, sampling=sampling, texts=Texts(decoder)))
    assert sum(t.finish is Finish.STOP for t in tree.trajectories) > 4
    assert tree.stats.discarded_tokens == 0
    assert num_generated_tokens() - before == tree.stats.generated_tokens
    assert await is_left_empty(engine)


async def test_a_budget_is_passed_by_no_more_than_two_chunks_of_each_running_path(engine):
    limited = job(206, branching="even", max_tokens=400, root_branching=6, max_total_tokens=600)
    tree = await sample_tree(engine, limited)
    assert tree.finish is TreeFinish.MAX_TOTAL_TOKENS
    most = 2 * STREAM_INTERVAL * tree.stats.max_live_paths
    print(f"{tree.stats.generated_tokens} tokens at a budget of 600 and {most} more at most")
    assert 600 <= tree.stats.generated_tokens < 600 + most


class Started(Silent):
    """Says when a tree has its first tokens."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def extended(self, path, chunk, num_kept) -> None:
        self.event.set()


async def test_a_cancelled_tree_leaves_nothing_in_the_engine(engine):
    started = Started()
    long = replace(job(204, branching="even", max_tokens=1500), observer=started)
    task = asyncio.create_task(sample_tree(engine, long))
    await started.event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_left_empty(engine)


async def test_many_trees_at_once_are_each_whole(engine):
    jobs = [job(210 + i, branching="even", max_tokens=96, width=4) for i in range(12)]
    trees = await asyncio.gather(*(sample_tree(engine, one) for one in jobs))
    for tree in trees:
        assert len(tree.trajectories) == 4
        assert {t.finish for t in tree.trajectories} <= {Finish.LENGTH}
        stats = tree.stats
        assert (
            stats.trajectory_tokens + stats.discarded_tokens
            == stats.generated_tokens + stats.reused_tokens
        )
    assert await is_left_empty(engine)
