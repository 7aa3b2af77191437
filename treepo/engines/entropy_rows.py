"""Which rows of a step's logits belong to tree requests, and where their entropies go.

vLLM's two model runners say it differently: V1 keeps one batch and reports what is added, moved
and removed; V2 gives every request a number and says at each step in which order they stand. Both
are turned into `Rows`. It measures nothing (`vllm_entropy.py`); a third runner is a third class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from treepo.engines.entropy_writer import TARGET, RingWriter

_GREEDY_BELOW = 1e-5  # vLLM's own bound


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one step to be measured.

    Attributes:
        targets: `TARGET` of each, [n].
        positions: Tokens its request has generated before, [n].
        index: Row numbers on the logits' device, [n]; None where all rows are meant.
        temperatures: What their logits are still to be divided by, [n]; None for 1.
    """

    targets: npt.NDArray[np.void]
    positions: npt.NDArray[np.int64]
    index: torch.Tensor | None = None
    temperatures: torch.Tensor | None = None


class PersistentBatch:
    """Tree rows of the V1 runner, whose logits come divided by the temperature."""

    def __init__(self, writer: RingWriter, device: torch.device) -> None:
        self._writer = writer
        self._device = device
        self._requests: dict[int, tuple[tuple[int, int, int], list[int]]] = {}
        self._outputs: list[list[int]] = []
        self._targets = np.zeros(0, TARGET)
        self._index = torch.zeros(0, dtype=torch.int64)

    def update(self, batch_update: Any) -> None:
        """Follow vLLM's `BatchUpdate`, the way its own processors do."""
        if not process_dict_updates(self._requests, batch_update, self._request):
            return
        rows = sorted(self._requests)
        self._outputs = [self._requests[row][1] for row in rows]
        self._targets = np.array([self._requests[row][0] for row in rows], TARGET)
        self._index = _on_device(np.array(rows, np.int64), self._device)

    def rows(self, num_rows: int) -> Rows | None:
        """The tree rows among the `num_rows` of this step; None if there are none.

        vLLM hands over each request's list of generated tokens, which it goes on extending. Of a
        prompt that is not yet read to its end there is a row too, for a position that is written
        again when it is.
        """
        if not self._outputs:
            return None
        positions = np.fromiter(map(len, self._outputs), np.int64, len(self._outputs))
        index = None if len(positions) == num_rows else self._index
        return Rows(self._targets, positions, index)

    def _request(
        self, params: Any, _: list[int] | None, output_token_ids: list[int]
    ) -> tuple[tuple[int, int, int], list[int]] | None:
        target = self._writer.find(params.extra_args)
        return None if target is None else (target, output_token_ids)


class RequestSlots:
    """Tree rows of the V2 runner without speculative decoding: one row per request.

    Args:
        writer: Where targets are found.
        states: vLLM's `LogitsProcRequestState`.
    """

    def __init__(self, writer: RingWriter, states: Any) -> None:
        self._writer = writer
        self._device = states.device
        self._prompt_tokens = states.prompt_len.np
        self._is_ours = np.zeros(states.max_num_reqs, np.bool_)
        self._targets = np.zeros(states.max_num_reqs, TARGET)
        self._temperatures = np.ones(states.max_num_reqs, np.float32)

    def add(self, req_idx: int, params: Any) -> bool:
        """Take note of a request that enters the batch; whether it is a tree's."""
        target = self._writer.find(params.extra_args)
        self._is_ours[req_idx] = target is not None
        if target is not None:
            self._targets[req_idx] = target
            is_greedy = params.temperature < _GREEDY_BELOW
            self._temperatures[req_idx] = 1.0 if is_greedy else params.temperature
        return target is not None

    def rows(self, ctx: Any) -> Rows | None:
        """The tree rows among this step's; None if there are none.

        Args:
            ctx: vLLM's `LogitsContext`. The number of tokens that each row sees, less the
                prompt's, is its position; a prompt not yet read to its end has none.
        """
        requests = ctx.idx_mapping_np
        seen = ctx.seq_lens_upper_bound_np[: len(requests)].astype(np.int64)
        positions = seen - self._prompt_tokens[requests]
        rows = np.flatnonzero(self._is_ours[requests] & (positions >= 0))
        if not len(rows):
            return None
        chosen = requests[rows]
        temperatures = self._temperatures[chosen]
        return Rows(
            self._targets[chosen],
            positions[rows],
            None if len(rows) == len(requests) else _on_device(rows, self._device),
            _on_device(temperatures, self._device) if (temperatures != 1).any() else None,
        )


def _on_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    # From pinned memory the copy does not hold the host up.
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
