"""New weights from the trainer's GPU straight into the GPUs of `treepo serve` hosts.

One job: `TransferSync`, the `WeightSync` for hosts on GPUs of their own. Nothing is written; all
hosts receive one broadcast, so all of them have to be there. The broadcast itself is vLLM's
(`treepo.engines.vllm_transfer`) and **has not been run on GPUs**.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from treepo.train.remote_hosts import HostPool
from treepo.train.rollouts import WeightSource

if TYPE_CHECKING:
    from treepo.engines.vllm_transfer import Transfer

PORT = 29511
"""Where the group meets on the trainer's machine, unless said otherwise."""


class TransferSync:
    """A `WeightSync` over vLLM's NCCL transfer.

    Args:
        pool: The hosts, started with `--weight-transfer-config '{"backend": "nccl"}'`.
        address: Of the trainer's machine, as hosts reach it; None for what its name stands for.
        port: A free one of that machine.
    """

    def __init__(self, pool: HostPool, address: str | None = None, port: int = PORT) -> None:
        self._pool = pool
        self._address = address or socket.gethostbyname(socket.gethostname())
        self._port = port
        self._transfer: Transfer | None = None

    async def push(self, source: WeightSource, version: int) -> None:
        """Return once every host samples with these weights and its prefix cache is empty.

        Raises:
            EngineDeadError: A host did not take them; the group is broken then.
        """
        if self._transfer is None:
            self._transfer = await self._open(source)
        transfer = self._transfer
        await self._pool.take(
            lambda: asyncio.to_thread(transfer.send, source.tensors), str(version)
        )

    async def _open(self, source: WeightSource) -> Transfer:
        from treepo.engines.vllm_transfer import Transfer

        sizes = await self._pool.world_sizes()
        urls = [host.url for host in self._pool.hosts]
        return await asyncio.to_thread(
            Transfer, urls, sizes, self._address, self._port, source.tensors
        )
