"""The logits processor with which vLLM itself reports the next-token entropy of tree rows.

It only looks: logits pass through untouched, and rows of requests without our key cost nothing.
It knows no trees, and nothing of who reads what it measures (`entropy_ring.py`). One class serves
both of vLLM's processor interfaces, that of the V1 model runner (CPU) and that of the V2 one
(GPU); how each tells which row is whose stands in `entropy_rows.py`.

What is measured is the distribution that tokens are drawn from, in nats: at the request's own
temperature, after penalties, biases and masks, before top-k and top-p. Under V1 vLLM calls a
processor that never changes the best token after temperature and min-p, so min-p is in it; under
V2 it is not. Of greedy requests it is the entropy at temperature 1, which V1 measures only in
steps that hold a request that is not greedy.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as V1Processor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as V2Processor

from treepo.engines.entropy_rows import PersistentBatch, RequestSlots
from treepo.engines.entropy_writer import RingWriter

Deliver = Callable[[npt.NDArray[np.float32]], None]

_log = logging.getLogger(__name__)

_CHUNK_LOGITS = {"cpu": 1 << 19}
_ACCELERATOR_CHUNK_LOGITS = 1 << 24
"""Logits measured at a time, 4 bytes each, with two temporaries as large: a CPU's cache holds
few, and vLLM leaves little of an accelerator's memory free."""

_MAX_IN_FLIGHT = 64


def processor_fqcn() -> str:
    """What `--logits-processors` takes to load `EntropyProcessor`."""
    return f"{EntropyProcessor.__module__}:{EntropyProcessor.__qualname__}"


def entropy_is_available(vllm_config: Any) -> tuple[bool, str]:
    """Whether this engine can report entropies, and in words why not.

    It cannot see whether both processes share memory in other ways, such as two containers:
    `EntropyRing.is_attached` tells, once a request with a slot has run.

    Args:
        vllm_config: The engine's `VllmConfig`.
    """
    parallel = vllm_config.parallel_config
    names = [
        name if isinstance(name, str) else f"{name.__module__}:{name.__qualname__}"
        for name in vllm_config.model_config.logits_processors or ()
    ]
    is_spread = not parallel.local_engines_only and (
        parallel.data_parallel_size_local < parallel.data_parallel_size
    )
    if vllm_config.speculative_config is not None:
        return False, (
            "speculative decoding: the V1 model runner takes no logits processor with it, and under"
            " V2 rows are of draft tokens that may be rejected"
        )
    if parallel.nnodes > 1 or parallel.use_ray or is_spread:
        return False, "the engine may run on more than one node, and entropies travel in memory"
    if processor_fqcn() not in names:
        return False, f"the engine was started without --logits-processors {processor_fqcn()}"
    return True, ""


def row_entropies(
    logits: torch.Tensor, index: torch.Tensor | None, temperatures: torch.Tensor | None
) -> torch.Tensor:
    """Entropies of softmax(logits / temperature), in nats, float32, [n].

    NaN for a row without any finite logit.

    Args:
        logits: [rows, vocabulary]; -inf marks what cannot be drawn.
        index: The rows wanted, [n]; None for all.
        temperatures: Of the wanted rows, [n], above 0; None for 1.
    """
    num_rows = len(logits) if index is None else len(index)
    chunk = _CHUNK_LOGITS.get(logits.device.type, _ACCELERATOR_CHUNK_LOGITS)
    step = max(1, chunk // logits.shape[1])
    parts = []
    for start in range(0, num_rows, step):
        at = slice(start, start + step)
        rows = logits[at] if index is None else logits.index_select(0, index[at])
        shifted = rows.float() - rows.amax(1, keepdim=True)
        if temperatures is not None:
            shifted /= temperatures[at].unsqueeze(1)
        # With the best at 0 all terms have one sign and nothing cancels; 0 * -inf is no term.
        weights = shifted.softmax(1)
        parts.append(0 - weights.amax(1).log() - weights.mul_(shifted).nansum(1))
    return torch.cat(parts)


class Outbox:
    """Measured values on their way to the host, delivered in order and never waited for.

    On a CPU they are there at once. On an accelerator the host runs ahead: a step's values are
    delivered at the first later step that finds them copied.
    """

    def __init__(self) -> None:
        self._in_flight: deque[tuple[Any, torch.Tensor, Deliver]] = deque(maxlen=_MAX_IN_FLIGHT)

    def send(self, values: torch.Tensor, deliver: Deliver) -> None:
        """Have `deliver` called with these values."""
        if values.device.type == "cpu":
            deliver(values.numpy())
            return
        host = values.to("cpu", non_blocking=True)
        event = torch.Event(device=values.device)
        event.record()
        self._in_flight.append((event, host, deliver))

    def flush(self) -> None:
        """Deliver what has arrived."""
        while self._in_flight and self._in_flight[0][0].query():
            _, host, deliver = self._in_flight.popleft()
            deliver(host.numpy())


class EntropyProcessor(V1Processor, V2Processor):  # type: ignore[misc]
    """Writes the entropy of every tree row, at every step, into the ring its request names.

    An error of its own switches it off for the life of the process: the engine goes on, without
    entropies.
    """

    def __init__(self, vllm_config: Any, where: Any, is_pin_memory: bool = False) -> None:
        """Called by vLLM.

        Args:
            vllm_config: The engine's `VllmConfig`.
            where: The device (V1), or the runner's request states (V2).
            is_pin_memory: V1 only; not needed.
        """
        self._is_off = vllm_config.speculative_config is not None
        self._writer = RingWriter()
        self._outbox = Outbox()
        self._slots: RequestSlots | None = None
        self._batch: PersistentBatch | None = None
        self._safely(self._set_up, where)

    def is_argmax_invariant(self) -> bool:
        """True: logits are not changed (V1)."""
        return True

    def update_state(self, batch_update: Any) -> None:
        """Follow requests through the persistent batch (V1)."""
        if batch_update is not None and self._batch is not None:
            self._safely(self._batch.update, batch_update)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Whether this request's rows are to be measured (V2)."""
        if self._slots is None:
            return False
        return bool(self._safely(self._slots.add, req_idx, sampling_params))

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """The logits as they are, after measuring them."""
        self._safely(self._measure, logits, ctx)
        return logits

    def _set_up(self, where: Any) -> None:
        if isinstance(where, str | torch.device):
            self._batch = PersistentBatch(self._writer, torch.device(where))
        else:
            self._slots = RequestSlots(self._writer, where)

    def _measure(self, logits: torch.Tensor, ctx: Any) -> None:
        self._outbox.flush()
        if self._slots is not None:
            rows = self._slots.rows(ctx)
        else:
            rows = self._batch.rows(len(logits)) if self._batch is not None else None
        if rows is None:
            return
        values = row_entropies(logits, rows.index, rows.temperatures)
        self._outbox.send(values, partial(self._writer.write, rows.targets, rows.positions))

    def _safely(self, step: Callable[..., Any], *args: Any) -> Any:
        if self._is_off:
            return None
        try:
            return step(*args)
        except Exception:  # noqa: BLE001 - whatever is raised in a processor ends the engine
            self._is_off = True
            self._writer.give_up()
            _log.warning("entropies are switched off after an error", exc_info=True)
            return None
