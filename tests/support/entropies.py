"""Logits whose entropies are known, for the tests of the entropy processor."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsContext,
    LogitsProcRequestState,
)

from treepo.engines.entropy_ring import Slot
from treepo.engines.vllm_entropy import EntropyProcessor

VOCABULARY = 50
CONFIG = SimpleNamespace(speculative_config=None)
"""As much of a `VllmConfig` as the processor looks at."""


def some_logits(num_rows: int, seed: int, vocabulary: int = VOCABULARY, scale: float = 3.0) -> Any:
    """Random logits, [num_rows, vocabulary]."""
    return torch.randn(num_rows, vocabulary, generator=torch.manual_seed(seed)) * scale


def full_sum(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Minus the sum of p log p, term by term, in float64."""
    logprobs = torch.log_softmax(logits.double() / temperature, -1)
    terms = torch.where(logprobs.isneginf(), 0.0, logprobs.exp() * logprobs)
    return -terms.sum(-1)


def params(slot: Slot | None = None, **options: Any) -> SamplingParams:
    """The parameters of a tree's request, or of another."""
    return SamplingParams(extra_args=slot.extra_args if slot else None, **options)


def v1_processor() -> EntropyProcessor:
    """A processor as the V1 runner makes it."""
    return EntropyProcessor(CONFIG, torch.device("cpu"), is_pin_memory=False)


def v2_states(num_requests: int = 6) -> LogitsProcRequestState:
    """What the V2 runner knows of its requests; only the prompts' lengths are looked up."""
    unused: Any = None
    return LogitsProcRequestState(
        device=torch.device("cpu"),
        max_num_reqs=num_requests,
        vocab_size=VOCABULARY,
        all_token_ids=unused,
        prompt_len=SimpleNamespace(np=np.zeros(num_requests, np.int32)),
        prefill_len=unused,
        total_len=unused,
    )


def v2_processor() -> tuple[EntropyProcessor, Any]:
    """A processor as the V2 runner makes it, and the prompt lengths that it will look up."""
    states = v2_states()
    return EntropyProcessor(CONFIG, states), states.prompt_len.np


def context(requests: Sequence[int], seen: Sequence[int]) -> LogitsContext:
    """A step of the V2 runner: which request each row is of, and how many tokens it sees."""
    mapping, unused = torch.tensor(requests, dtype=torch.int32), torch.zeros(0)
    return LogitsContext(
        expanded_idx_mapping=mapping,
        idx_mapping=mapping,
        idx_mapping_np=mapping.numpy(),
        expanded_local_pos=unused,
        input_ids=unused,
        pos=unused,
        seq_lens_upper_bound_np=np.array(seen, np.int32),
    )
