"""One vLLM engine for the whole session, on one event loop that all tests of this folder share.

`engine` is a `VllmEngine` on `tiny_model`, `tokenizer` is the model's and `reference` the same
model in transformers. Paths report entropies, as every engine of ours does that can;
`VllmEngine(engine.client)` is a view of it that reports surprisal. Start-up takes longer than all
tests together, so nothing here starts a second engine.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

HERE = Path(__file__).parent
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # else vLLM reports the machine to its makers
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # So small a model is fastest on one thread, several times so on a busy machine.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": "1",  # its workers use up what they are given
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.engine)
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.engine.tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="session")
def reference(tiny_model):
    from tests.engine.tiny import Reference

    return Reference(tiny_model)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(tiny_model) -> AsyncIterator:
    from tests.engine.tiny import MAX_MODEL_LEN
    from treepo.engines.vllm import VllmEngine

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        engine = VllmEngine.start(
            str(tiny_model),
            max_model_len=MAX_MODEL_LEN,
            kv_cache_memory_bytes=128 * 1024**2,
            disable_log_stats=False,
        )
    yield engine
    await asyncio.wait_for(engine.drain(), timeout=30)
    engine.close()
