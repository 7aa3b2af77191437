"""An engine that reports no entropies is told apart by what is in the way, and leaves no ring."""

from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

from vllm.exceptions import VLLMValidationError

from treepo.engines import entropy_link, entropy_ring, entropy_writer
from treepo.engines.entropy_ring import EntropyRing
from treepo.engines.entropy_writer import RingWriter


class Client:
    """An engine whose logits processor finds the slot of a request, if it is told to look."""

    def __init__(self, *, is_sharing=True, is_failing=False, error=None):
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=2))
        self.is_sharing, self.is_failing, self.error = is_sharing, is_failing, error

    async def generate(self, prompt, params, request_id):
        if self.error is not None:
            raise self.error
        writer = RingWriter()
        if self.is_sharing:
            assert writer.find(params.extra_args) is not None
        if self.is_failing:
            writer.give_up()
        yield prompt


@pytest.fixture(autouse=True)
def shared(monkeypatch, tmp_path):
    """The folder that stands for shared memory; every engine has the processor."""
    monkeypatch.setattr(entropy_link, "entropy_is_available", lambda config: (True, ""))
    for module in (entropy_ring, entropy_writer):
        monkeypatch.setattr(module, "directory", lambda: tmp_path)
    return tmp_path


async def test_an_engine_that_reports_is_linked_and_its_slots_are_free():
    link = await entropy_link.connect(Client())
    assert link.reason == ""
    assert link.ring.num_free == 4
    link.ring.close()


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (Client(is_sharing=False), "does not share memory"),
        (Client(is_failing=True), "could not measure"),
        (Client(error=VLLMValidationError("no such token")), "refused a probe: no such token"),
    ],
    ids=["apart", "failing", "refusing"],
)
async def test_the_reason_is_what_is_in_the_way_and_the_ring_is_gone(shared, client, reason):
    link = await entropy_link.connect(client)
    assert link.ring is None
    assert reason in link.reason
    assert not list(shared.iterdir())


async def test_full_shared_memory_is_said_to_be_full(monkeypatch):
    monkeypatch.setattr(EntropyRing, "acquire", lambda ring: None)
    link = await entropy_link.connect(Client())
    assert (link.ring, "full" in link.reason) == (None, True)
