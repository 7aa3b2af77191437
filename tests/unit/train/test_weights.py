"""Weights on their way to an engine: what is written, and what a record says of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file

from tests.support.machines import coin
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, EngineInfo, PathRequest, Sampling
from treepo.engines.scripted import ScriptedEngine
from treepo.errors import ConfigError, EngineError
from treepo.sampler import Job, sample_tree
from treepo.train import weights
from treepo.train.weights import FolderSync, held, open_sync


@dataclass
class Source:
    """A `WeightSource` of given tensors."""

    state: dict[str, torch.Tensor]
    model: object = None

    def tensors(self):
        yield from self.state.items()


class Reader:
    """A `Receiver` that keeps what it was given."""

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self.files: list[int] = []
        self.version = ""

    async def load_folder(self, folder, version: str) -> None:
        for file in sorted(folder.glob("*.safetensors")):
            self.state |= load_file(file)
            self.files.append(len(load_file(file)))
        self.version = version


STATE = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(4), "steps": torch.tensor(3)}


async def test_a_receiver_reads_what_the_source_gives_and_nothing_is_left(tmp_path):
    reader = Reader()
    await FolderSync(reader, tmp_path / "weights").push(Source(STATE), 4)
    assert reader.version == "4"
    assert all(torch.equal(reader.state[name], STATE[name]) for name in STATE)
    assert not any((tmp_path / "weights").iterdir())


async def test_what_a_killed_run_left_is_removed_and_what_another_run_uses_is_not(tmp_path):
    for name in ("treepo-weights-1-dead", "treepo-weights-1-live"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "in-use").touch()
    with held(tmp_path / "treepo-weights-1-live"):
        await FolderSync(Reader(), tmp_path).push(Source(STATE), 2)
        assert [path.name for path in tmp_path.iterdir()] == ["treepo-weights-1-live"]


async def test_a_full_disk_is_an_error_that_names_the_setting(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"could not be written to .*`engine\.weights`"):
        await FolderSync(Reader(), tmp_path / "file").push(Source(STATE), 1)


async def test_large_weights_are_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHARD_BYTES", 24)
    reader = Reader()
    await FolderSync(reader, tmp_path).push(Source(STATE), 1)
    assert reader.files == [1, 2]
    assert all(torch.equal(reader.state[name], STATE[name]) for name in STATE)


def test_an_unknown_kind_and_an_engine_that_takes_no_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="`reload`, `memory`"):
        open_sync("nccl", Reader(), tmp_path)
    with pytest.raises(ConfigError, match="ScriptedEngine takes no other weights"):
        open_sync("reload", ScriptedEngine(coin()), tmp_path)


class Changing:
    """A scripted engine whose weights change between one path and the next."""

    def __init__(self, versions: list[str]) -> None:
        self._engine = ScriptedEngine(coin())
        self._versions = versions

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    async def abort(self, request_ids) -> None:
        await self._engine.abort(request_ids)

    async def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        version = self._versions.pop()
        async for chunk in self._engine.generate(request):
            yield replace(chunk, weight_versions=[version] if chunk.finish_reason else ())


@pytest.mark.parametrize(
    ("versions", "is_mixed"), [(["1"] * 4, False), (["1", "1", "2", "1"], True)]
)
async def test_no_tree_mixes_weights(versions, is_mixed):
    tree = TreeConfig(width=4, branching="even", segment_tokens=16)
    job = Job((1, 2, 3), Sampling(64, seed=1), tree)
    if not is_mixed:
        assert (await sample_tree(Changing(versions), job)).weight_version == "1"
        return
    with pytest.raises(EngineError, match="mixes the weights '1' and '2'") as caught:
        await sample_tree(Changing(versions), job)
    assert caught.value.is_retryable
