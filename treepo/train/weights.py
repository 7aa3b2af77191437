"""New weights into an engine by way of a folder, on disk or in memory.

One job: `FolderSync`, the `WeightSync` for an engine in this process and for hosts that share a
disk. The engine reads what it is given as it read its first weights, whatever its parallelism and
quantisation. It knows neither the model nor what an engine does around a load. Weights that go
from GPU to GPU over NCCL are `weights_transfer.py`.
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError

from treepo.errors import ConfigError, EngineError
from treepo.train.rollouts import WeightSource, WeightSync

SHARD_BYTES = 2 * 1024**3
"""Largest file of weights, in bytes, unless one tensor is larger: what is held in memory twice."""

_PREFIX = "treepo-weights-"
_MARK = "in-use"

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


@runtime_checkable
class Receiver(Protocol):
    """Whoever loads weights from a folder: a `VllmEngine`, or a `HostPool`."""

    async def load_folder(self, folder: Path, version: str) -> None:
        """Sample with the weights of a folder from now on; nothing is cached of the old ones.

        Raises:
            EngineError: It did not.
        """
        ...


def open_sync(kind: str, engine: object, folder: Path) -> WeightSync:
    """The `WeightSync` of a configuration's `engine.weights`.

    Args:
        kind: `reload` by way of `folder`, `memory` by way of this machine's memory, and for a pool
            of hosts also `nccl`, from GPU to GPU.
        engine: Who gets the weights; a `Receiver`.
        folder: Where `reload` writes; hosts have to see it under the same path.

    Raises:
        ConfigError: Another kind, or an engine that takes no weights.
    """
    from treepo.train.remote_hosts import HostPool
    from treepo.train.weights_transfer import TransferSync

    if not isinstance(engine, Receiver):
        raise ConfigError(f"{type(engine).__name__} takes no other weights; train with vLLM")
    if kind == "nccl" and isinstance(engine, HostPool):
        return TransferSync(engine)
    if kind not in ("reload", "memory"):
        raise ConfigError(
            f"`engine.weights` is {kind!r}; allowed: `reload`, `memory`, and with `engine.hosts` "
            "also `nccl`"
        )
    return FolderSync(engine, folder if kind == "reload" else memory_folder())


class FolderSync:
    """A `WeightSync` that writes a folder, has it loaded and removes it.

    Args:
        receiver: Who loads it.
        parent: Where folders are made; every host has to see it under this path.
    """

    def __init__(self, receiver: Receiver, parent: Path) -> None:
        self._receiver = receiver
        self._parent = parent

    async def push(self, source: WeightSource, version: int) -> None:
        """Return once the engine samples with these weights and its prefix cache is empty.

        Raises:
            EngineError: There is no room for them, or the engine did not take them.
        """
        try:
            self._parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self._parent)
            prefix = f"{_PREFIX}{version}-"
            with TemporaryDirectory(prefix=prefix, dir=self._parent) as name, held(Path(name)):
                await asyncio.to_thread(write_weights, source, Path(name))
                await self._receiver.load_folder(Path(name), str(version))
        except (OSError, SafetensorError) as error:
            raise EngineError(
                f"the weights could not be written to {self._parent}: {error}; make room there, or "
                "choose another way with `engine.weights`"
            ) from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Mark a folder as in use; the system takes the mark away when this process dies."""
    with (folder / _MARK).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of runs that were killed while they pushed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            with (folder / _MARK).open() as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # held, of another user, or not yet marked
            continue


def memory_folder() -> Path:
    """A folder in the memory of this machine; where there is none, that for temporary files."""
    return _MEMORY if _MEMORY.is_dir() else Path(gettempdir())


def write_weights(source: WeightSource, folder: Path) -> None:
    """Write all tensors of a source as safetensors, and nothing else.

    Args:
        source: The weights.
        folder: It exists and is empty; everybody may read it.
    """
    folder.chmod(0o755)  # hosts may run as another user
    shard: dict[str, torch.Tensor] = {}
    size = num_shards = 0
    for name, tensor in source.tensors():
        kept = tensor.detach().cpu()
        if shard and size + kept.nbytes > SHARD_BYTES:
            _write(shard, folder, num_shards)
            shard, size, num_shards = {}, 0, num_shards + 1
        shard[name] = kept.contiguous()
        size += kept.nbytes
    _write(shard, folder, num_shards)


def _write(shard: dict[str, torch.Tensor], folder: Path, number: int) -> None:
    from safetensors.torch import save_file

    save_file(shard, folder / f"model-{number:05}.safetensors", {"format": "pt"})
