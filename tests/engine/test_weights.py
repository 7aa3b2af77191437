"""Other weights in a running engine: it samples with them, and nothing is left of the old ones."""

from pathlib import Path

import pytest
import pytest_asyncio
import torch

from tests.engine.conftest import ENVIRONMENT
from tests.engine.runs import prompt, read_until, request, run
from tests.support.weights import SavedWeights
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.errors import EngineDeadError, EngineError
from treepo.sampler import Job, sample_tree

LENGTH = 48


@pytest.fixture(scope="module")
def other_model(tmp_path_factory) -> Path:
    from tests.engine.tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("other-model"), seed=8)


@pytest_asyncio.fixture(loop_scope="session")
async def restored(engine, tiny_model, reference):
    """The session's engine, which has its first weights again afterwards, and nothing cached."""
    yield engine
    await engine.load_folder(tiny_model, "")
    await expect(engine, reference, prompt(80, seed=700), version="")


async def expect(engine, reference, token_ids, version, *, num_cached=0):
    """Greedy tokens and their log-probs are the reference's, from as much of the cache."""
    seen = await run(engine, request(token_ids, max_tokens=LENGTH))
    assert seen.token_ids == reference.greedy(token_ids, seen.token_ids)
    sampled = await run(engine, request([*token_ids, 1], max_tokens=LENGTH, temperature=1.0))
    wanted = reference.logprobs([*token_ids, 1], sampled.token_ids)
    drawn = wanted.gather(1, torch.tensor(sampled.token_ids)[:, None])[:, 0]
    assert sampled.logprobs == pytest.approx(drawn.tolist(), abs=1e-4)
    assert seen.num_cached_tokens == num_cached
    assert seen.chunks[-1].weight_versions == [version]
    assert engine.info.weight_version == version


async def test_after_a_push_the_engine_is_transformers_on_the_new_weights(
    restored, reference, other_model
):
    from tests.engine.tiny import Reference
    from treepo.train.weights import FolderSync, memory_folder

    sync = FolderSync(restored, memory_folder())
    token_ids = prompt(3 * 32 + 1, seed=701)
    await expect(restored, reference, token_ids, "")
    await expect(restored, reference, token_ids, "", num_cached=3 * 32)
    await sync.push(SavedWeights(other_model), 1)
    await expect(restored, Reference(other_model), token_ids, "1")
    await expect(restored, Reference(other_model), token_ids, "1", num_cached=3 * 32)
    job = Job(token_ids, Sampling(LENGTH, ignore_eos=True), TreeConfig(width=4))
    assert (await sample_tree(restored, job)).weight_version == "1"


async def test_weights_are_refused_while_anything_is_sampled(restored, reference, other_model):
    token_ids = prompt(40, seed=702)
    stream = restored.generate(request(token_ids, max_tokens=400))
    chunks = await read_until(stream, 16)
    with pytest.raises(EngineError, match="1 requests are open"):
        await restored.load_folder(other_model, "1")
    chunks += [chunk async for chunk in stream]
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert tokens == reference.greedy(token_ids, tokens)


async def test_a_load_that_breaks_off_leaves_an_engine_that_refuses_until_the_next(
    restored, reference, tiny_model, tmp_path
):
    with pytest.raises(EngineError, match="holds no"):
        await restored.load_folder(tmp_path, "1")
    await expect(restored, reference, prompt(40, seed=703), "")
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(EngineDeadError, match="could not be loaded"):
        await restored.load_folder(tmp_path, "1")
    with pytest.raises(EngineDeadError, match="broken off"):
        await run(restored, request(prompt(40, seed=704)))
    await restored.load_folder(tiny_model, "2")
    await expect(restored, reference, prompt(40, seed=705), "2")


async def test_a_tied_head_follows_its_embedding(tmp_path):
    from tests.engine.tiny import Reference, write_tiny_model
    from treepo.engines.vllm import VllmEngine
    from treepo.train.weights import FolderSync

    first = write_tiny_model(tmp_path / "first", is_tied=True)
    second = write_tiny_model(tmp_path / "second", seed=9, is_tied=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        limits = {"max_model_len": 256, "max_num_seqs": 4, "kv_cache_memory_bytes": 32 * 1024**2}
        engine = VllmEngine.start(str(first), **limits)
    try:
        token_ids = prompt(2 * 32 + 1, seed=706)
        await expect(engine, Reference(first), token_ids, "")
        await FolderSync(engine, tmp_path / "shared").push(SavedWeights(second), 1)
        await expect(engine, Reference(second), token_ids, "1")
        assert not any((tmp_path / "shared").iterdir())
    finally:
        engine.close()
