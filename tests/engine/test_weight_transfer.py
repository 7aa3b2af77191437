"""The trainer's side of vLLM's NCCL transfer, without GPUs: all but the broadcast is real.

Hosts are loopback servers that write down what vLLM's own client tells them.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
import torch

from treepo.errors import EngineDeadError
from treepo.train.remote_hosts import HostPool
from treepo.train.weights_transfer import TransferSync

STATE = {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}


class Source:
    """A `WeightSource` of given tensors."""

    model = None

    def tensors(self):
        yield from STATE.items()


@contextmanager
def host(world_size: int, calls: list[tuple[str, dict]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            calls.append((self.path.partition("?")[0], json.loads(body or "{}")))
            self._answer({"success": True})

        def do_GET(self) -> None:
            self._answer({"world_size": world_size})

        def _answer(self, value: dict) -> None:
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture
def broadcast(monkeypatch) -> list[tuple[str, torch.Tensor]]:
    """What would have been broadcast; checked by vLLM against what workers were told."""
    from vllm.distributed.weight_transfer import nccl_engine

    from treepo.engines import vllm_transfer

    sent: list[tuple[str, torch.Tensor]] = []
    trainer = nccl_engine.NCCLTrainerWeightTransferEngine

    def record(self, source, meta) -> None:
        sent.extend(trainer._checked_iter(source, meta))

    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: object())
    monkeypatch.setattr(trainer, "_broadcast", record)
    monkeypatch.setattr(trainer, "_post_send_sync", lambda self: None)
    monkeypatch.setattr(vllm_transfer.Transfer.__init__, "__defaults__", ("cpu",))
    return sent


async def test_every_host_joins_with_ranks_of_its_own_and_gets_all_weights(broadcast):
    calls: list[list[tuple[str, dict]]] = [[], []]
    with ExitStack() as stack:
        urls = [stack.enter_context(host(n, calls[i])) for i, n in enumerate((2, 4))]
        pool = HostPool(urls)
        sync = TransferSync(pool, "10.0.0.1", 29511)
        await sync.push(Source(), 1)
        await sync.push(Source(), 2)
        await pool.close()
    joined = [dict(told)["/init_weight_transfer_engine"]["init_info"] for told in calls]
    assert [(info["rank_offset"], info["world_size"]) for info in joined] == [(1, 7), (3, 7)]
    assert {info["master_address"] for info in joined} == {"10.0.0.1"}
    update = ["pause", "start_weight_update", "update_weights", "finish_weight_update"]
    update += ["reset_prefix_cache", "update_weight_version", "resume"]
    for told in calls:
        paths = [path.removeprefix("/") for path, _ in told]
        assert paths == ["init_weight_transfer_engine", *update, *update]
        info = dict(told)["/update_weights"]["update_info"]
        assert info["names"] == ["a", "b"]
        assert info["dtype_names"] == ["float32", "bfloat16"]
        assert info["shapes"] == [[2, 3], [4]]
        assert dict(told)["/update_weight_version"] == {"new_version": "2"}
    assert [name for name, _ in broadcast] == ["a", "b", "a", "b"]
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in broadcast)


async def test_a_host_that_is_missing_ends_the_run(broadcast):
    with ExitStack() as stack:
        calls: list[tuple[str, dict]] = []
        url = stack.enter_context(host(1, calls))

        def gone(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/pause":
                raise httpx.ConnectError("refused")
            return httpx.Response(200, json={"world_size": 1})

        pool = HostPool([url], transport=httpx.MockTransport(gone))
        with pytest.raises(EngineDeadError, match="ConnectError"):
            await TransferSync(pool, "10.0.0.1").push(Source(), 1)
    assert not broadcast
