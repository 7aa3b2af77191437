"""From a checked request and vLLM's sampling parameters to a `Job` for the sampler.

Here HTTP's words become the core's: stop strings, log-probs, seeds, answers, what cannot be
branched. It reads vLLM's objects by their fields and starts nothing.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.errors import FieldError
from treepo.growth.decoder import PromptDecoder
from treepo.growth.texts import Texts
from treepo.sampler import Job
from treepo_server.request.journal import Journal
from treepo_server.request.tree_request import TreeRequest

_NEED_LOGPROBS = ("low_prob", "high_prob")
_INDEPENDENT = (
    "{what} would start afresh in every branch, so the {width} trajectories were sampled "
    "independently from the prompt"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A tree that is ready to be sampled.

    Attributes:
        request: What the caller asked for.
        job: What the sampler gets.
        journal: Its observer.
        decoder: Token ids to text.
        notes: What is done otherwise than asked, in words.
        request_id: vLLM's name of the request.
    """

    request: TreeRequest
    job: Job
    journal: Journal
    decoder: PromptDecoder
    notes: tuple[str, ...]
    request_id: str

    @property
    def has_logprobs(self) -> bool:
        """Whether choices carry log-probs."""
        return self.job.sampling.logprobs is not None


def make_plan(
    request: TreeRequest, prompt: dict[str, Any], params: Any, request_id: str, tokenizer: Any
) -> Plan:
    """The plan for one request.

    Args:
        request: The checked `tree` part.
        prompt: vLLM's engine input.
        params: vLLM's `SamplingParams` for the whole request.
        request_id: vLLM's id; the tree's begins with it.
        tokenizer: vLLM's tokenizer.

    Raises:
        FieldError: `tree.answer` is wrong, or the prompt is not made of tokens.
    """
    if prompt.get("type") != "token":
        raise FieldError(
            request.prompt_field,
            prompt.get("type"),
            "text, beside `tree`",
            "Leave out images and embeddings.",
        )
    prompt_token_ids = prompt["prompt_token_ids"]
    decoder = PromptDecoder(
        tokenizer, prompt_token_ids, skip_special_tokens=params.skip_special_tokens
    )
    config, notes = _branchable(request.config, params)
    sampling = sampling_of(params, config)
    journal = Journal(sampling)
    job = Job(
        prompt_token_ids=prompt_token_ids,
        sampling=sampling,
        config=config,
        id=f"tree-{request_id}-{uuid.uuid4().hex[:8]}",
        texts=Texts.from_config(decoder, config),
        observer=journal,
    )
    return Plan(request, job, journal, decoder, notes, request_id)


def sampling_of(params: Any, config: TreeConfig) -> Sampling:
    """VLLM's parameters in the core's words; the engine takes the rest from a copy of them."""
    template = copy.copy(params)
    template.n = 1
    wants = config.branching in _NEED_LOGPROBS or config.vote == "likelihood"
    wants = wants or "record" in config.include
    return Sampling(
        max_tokens=params.max_tokens,
        min_tokens=params.min_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=max(params.top_k, 0),
        seed=params.seed,
        stop=tuple(params.stop or ()),
        include_stop=params.include_stop_str_in_output,
        stop_token_ids=tuple(params.stop_token_ids or ()),
        ignore_eos=params.ignore_eos,
        logprobs=params.num_logprobs,
        wants_logprobs=wants or params.num_logprobs is not None,
        native=template,
    )


def needs_uncertainty(config: TreeConfig) -> bool:
    """Whether anything reads entropies or surprisals.

    Where paths share tokens, `effective_samples` does, whatever the caller wants to see.
    """
    has_late = config.fallback != "none" if config.fallback else config.is_paper_policy
    is_shared = config.branching_factor != 1 or has_late
    is_read = "confidence" in (config.prune, config.vote) or isinstance(config.until, float)
    return is_shared or is_read or bool(config.include)


def _branchable(config: TreeConfig, params: Any) -> tuple[TreeConfig, tuple[str, ...]]:
    what = list(_restarting(params))
    if not what:
        return config, ()
    return config.independent(), (_INDEPENDENT.format(what=" and ".join(what), width=config.width),)


def _restarting(params: Any) -> Iterator[str]:
    """What the engine would begin anew in a branch, whose inherited tokens are its prompt."""
    if params.structured_outputs is not None:
        yield "a grammar"
    if params.thinking_token_budget is not None:
        yield "a thinking budget"
    # Repetition penalties count prompts as well, so they hold in a branch.
    for name in ("presence_penalty", "frequency_penalty", "bad_words"):
        if getattr(params, name):
            yield f"`{name}`"
