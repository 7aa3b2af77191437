"""Weights from this process's GPU to the GPUs of `treepo serve` hosts, by vLLM's NCCL transfer.

One job: vLLM's trainer side of it, for several hosts in one group. It needs GPUs that NCCL
connects and hosts started with `--weight-transfer-config '{"backend": "nccl"}'`. **It has not been
run on GPUs**: tests cover the handshake and what is sent, with the broadcast itself left out. When
to send, and what has to be done around it, stands in `treepo.train.weights_transfer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any

from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.clients import HTTPVLLMWeightSyncClient
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

Pairs = Callable[[], Iterator[tuple[str, Tensor]]]
"""Gives name and full tensor of every weight, in the same order with every call."""


class Transfer:
    """An open NCCL group: this process as rank 0, and all workers of all hosts behind it.

    Args:
        urls: The hosts.
        world_sizes: How many workers each has.
        address: Of this machine, as hosts reach it.
        port: A free one of this machine, on which the group meets.
        pairs: The weights.
        device: Where tensors are broadcast from; a GPU of this process.
    """

    def __init__(
        self,
        urls: Sequence[str],
        world_sizes: Sequence[int],
        address: str,
        port: int,
        pairs: Pairs,
        device: str = "cuda",
    ) -> None:
        self._device = device
        info = NCCLTrainerInitInfo(
            master_address=address,
            master_port=port,
            world_size=1 + sum(world_sizes),
            rank=0,
        )
        self._engine = WeightTransferTrainerFactory.trainer_init(
            info, client=HostsClient(urls, world_sizes), source=Pushed(pairs, device)
        )

    def send(self, pairs: Pairs) -> None:
        """Replace the weights of every host; blocks until all of them have them."""
        self._engine.source = Pushed(pairs, self._device)
        self._engine.send_weights()


class Pushed(WeightSource):  # type: ignore[misc] # vLLM is not typed here
    """A trainer's weights as vLLM wants them.

    Args:
        pairs: The weights.
        device: Where vLLM needs them.
    """

    def __init__(self, pairs: Pairs, device: str) -> None:
        self._pairs = pairs
        self._device = device

    def metadata(self) -> list[ParamMeta]:
        """Name, type and shape of every weight."""
        return [ParamMeta(name, t.dtype, tuple(t.shape)) for name, t in self._pairs()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._pairs():
            yield name, tensor.detach().to(self._device)


class HostsClient:
    """vLLM's `VLLMWeightSyncClient` for several hosts, which are told everything at the same time.

    Args:
        urls: The hosts.
        world_sizes: How many workers each has; ranks follow the order of hosts.
    """

    def __init__(self, urls: Sequence[str], world_sizes: Sequence[int]) -> None:
        self._clients = [HTTPVLLMWeightSyncClient(url) for url in urls]
        self._offsets = list(accumulate(world_sizes, initial=0))

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have every host join the group with ranks of its own."""
        first = init_info["rank_offset"]
        infos = [{**init_info, "rank_offset": first + offset} for offset in self._offsets]
        self._each(lambda number, client: client.init_weight_transfer_engine(infos[number]))

    def start_weight_update(self) -> None:
        """Have every host make room for new weights."""
        self._each(lambda _, client: client.start_weight_update())

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Have every host receive them; returns once all have."""
        self._each(lambda _, client: client.update_weights(update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Have every host use them."""
        self._each(lambda _, client: client.finish_weight_update(weight_version))

    def _each(self, call: Callable[[int, Any], None]) -> None:
        with ThreadPoolExecutor(len(self._clients)) as threads:
            list(threads.map(call, range(len(self._clients)), self._clients))
