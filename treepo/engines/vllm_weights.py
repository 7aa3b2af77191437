"""Other weights for a running `VllmEngine`, and nothing left of the old ones.

One job: the steps around a load. Nothing may run meanwhile, the prefix cache has to be empty
afterwards, since it holds keys and values of the old weights, and vLLM is told the version, which
it then reports with every request. It does not know where weights come from. Engines behind HTTP
get the same steps in `treepo.train.remote_hosts`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from treepo.engines.vllm_requests import FIRST_VERSION
from treepo.errors import EngineDeadError, EngineError

if TYPE_CHECKING:
    from treepo.engines.vllm import VllmEngine

_LIMIT_S = 600.0


async def load_folder(engine: VllmEngine, folder: Path, version: str) -> None:
    """Sample with the weights of a folder from now on.

    Args:
        engine: One that `VllmEngine.start` started, without an open request.
        folder: Safetensors under the names of a Hugging Face folder, where the engine reads them.
        version: Their name; trees carry it as `weight_version`. Empty for the first ones.

    Raises:
        EngineError: Requests are open, or the folder holds no weights; the engine is as it was.
        EngineDeadError: Loading broke off and left weights that are neither old nor new. Requests
            raise it too, until another load succeeds; after weights of other shapes vLLM may
            refuse the next ones once more.
    """
    _check(engine, folder)
    engine.set_weights("", EngineDeadError(f"loading the weights in {folder} was broken off"))
    try:
        async with asyncio.timeout(_LIMIT_S):
            await _load(engine, folder, version)
    except Exception as error:  # vLLM hands on what failed in a worker as no other class
        raise EngineDeadError(f"the weights in {folder} could not be loaded: {error}") from error
    engine.set_weights(version)


def _check(engine: VllmEngine, folder: Path) -> None:
    if engine.num_open:
        raise EngineError(
            f"{engine.num_open} requests are open, and a tree never mixes weights: wait until the "
            "trees that run have ended"
        )
    if not any(folder.glob("*.safetensors")):
        raise EngineError(f"{folder} holds no *.safetensors; save the model there first")


async def _load(engine: VllmEngine, folder: Path, version: str) -> None:
    client = engine.client
    # Requests that come now wait; blocks that vLLM has yet to take back are taken back.
    await client.pause_generation(mode="wait", clear_cache=True)
    try:
        await client.collective_rpc("treepo_load_folder", args=(str(folder),))
        if not await client.reset_prefix_cache(reset_connector=True):
            raise EngineError("vLLM did not give up its prefix cache, which is of the old weights")
        await client.update_weight_version(version or FIRST_VERSION)
    finally:
        await client.resume_generation()
