"""Finds out whether an engine can report entropies, and opens the ring for it if it can.

What it takes: the logits processor on the engine's side, and memory that both processes share.
The second shows only when a request with a slot has run, so a probe of two tokens is sent. Without
either the sampler works with surprisal, and the reason is kept for whoever asks.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from vllm.exceptions import VLLMError
from vllm.inputs import tokens_input
from vllm.sampling_params import SamplingParams

from treepo.engines.entropy_ring import EntropyRing
from treepo.engines.vllm_entropy import entropy_is_available

_MOST_SLOTS = 1024


@dataclass(frozen=True, slots=True)
class EntropyLink:
    """The ring through which an engine reports, or in words why there is none."""

    ring: EntropyRing | None
    reason: str = ""


def open_ring(config: Any) -> EntropyLink:
    """A ring for an engine of this `VllmConfig`, if such an engine can report entropies."""
    is_available, reason = entropy_is_available(config)
    if not is_available:
        return EntropyLink(None, reason)
    try:
        return EntropyLink(
            EntropyRing.create(min(2 * config.scheduler_config.max_num_seqs, _MOST_SLOTS))
        )
    except OSError as error:
        return EntropyLink(None, f"no shared memory for entropies: {error}")


async def connect(client: Any) -> EntropyLink:
    """A ring that this engine client's engine is known to write into.

    Args:
        client: vLLM's `EngineClient`; the engine may have been started by somebody else.
    """
    link = open_ring(client.vllm_config)
    if link.ring is None:
        return link
    reason = await _probe(client, link.ring)
    if not reason:
        return link
    link.ring.close()
    return EntropyLink(None, reason)


async def _probe(client: Any, ring: EntropyRing) -> str:
    """Run a request with a slot; in words why the engine does not report into it, or nothing."""
    slot = ring.acquire()
    if slot is None:
        return "shared memory is full; give the process more of it"
    # Two tokens: an accelerator's value is delivered at the next step, and may fail only then.
    params = SamplingParams(max_tokens=2, extra_args=slot.extra_args, detokenize=False)
    try:
        name = f"treepo-probe-{uuid.uuid4().hex}"
        async for _ in client.generate(tokens_input([0]), params, name):
            pass
    except VLLMError as error:
        return f"the engine refused a probe: {error}"
    finally:
        slot.release()
    if not ring.is_attached:
        return "the engine does not share memory with this process"
    return "the engine could not measure them; its log says why" if ring.has_failed else ""
