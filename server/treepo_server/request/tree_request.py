"""What a request asks for: its `tree`, and whether all the rest of it can be honoured.

It reads vLLM's request objects by their fields and needs no vLLM. What a tree cannot honour is
refused by name, never ignored; a new one is a line in `_REFUSED`. What the engine checks anyway is
left to vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from treepo.config import TreeConfig, parse_tree_config
from treepo.engines.entropy_segment import ENTROPY_KEY
from treepo.errors import FieldError
from treepo_server.settings.limits import Limits

_REFUSED = {
    "use_beam_search": "Leave it out: a tree is a search of its own.",
    "best_of": "Leave it out: `tree.width` says how many trajectories are compared.",
    "echo": "Leave it out and put the prompt before the text yourself.",
    "prompt_logprobs": "Leave it out, or ask for them in a request without `tree`.",
    "prompt_embeds": "Send the prompt as text or token ids.",
    "kv_transfer_params": "Leave it out: a tree prefills and decodes on one engine.",
    "ec_transfer_params": "Leave it out: a tree prefills and decodes on one engine.",
    "background": "Leave it out and stream instead: a tree ends when its caller leaves.",
}

_GREEDY_BELOW = 1e-5
"""Temperature below which vLLM takes the likeliest token, and no more than one choice."""


@dataclass(frozen=True, slots=True)
class TreeRequest:
    """The part of a request that concerns its tree.

    Attributes:
        config: The caller's settings within the server's limits, not yet resolved.
        num_choices: Choices that come back (`n`).
        is_stream: Whether the answer is streamed.
        max_tokens: The caller's own bound on a completion, None where they set none.
        max_tokens_field: The name under which they set it.
        prompt_field: The name under which the route takes its prompt.
        is_single: Whether the route has room for one output only, in every piece of a stream.
        counts_always: Whether every chunk of the stream carries usage.
    """

    config: TreeConfig
    num_choices: int = 1
    is_stream: bool = False
    max_tokens: int | None = None
    max_tokens_field: str = "max_tokens"
    prompt_field: str = "messages"
    is_single: bool = False
    counts_always: bool = False

    @property
    def streams_all(self) -> bool:
        """Whether every path is streamed as it grows; otherwise the chosen ones follow the end.

        A single path is not: one that replaced it if it was lost would have no index.
        """
        is_each = self.num_choices == self.config.width > 1
        return self.is_stream and is_each and not self.is_single

    @property
    def num_indices(self) -> int:
        """Most choices of a stream of all paths: the sampler replaces up to `width + 1` of them."""
        return 1 if self.num_choices == 1 else 2 * self.num_choices + 1


def has_tree(request: Any) -> bool:
    """Whether a request asks for a tree; `tree: null` does not."""
    return (request.model_extra or {}).get("tree") is not None


def strip_private(request: Any) -> None:
    """Take the key out of `vllm_xargs` by which our own requests name their shared memory."""
    if request.vllm_xargs:
        request.vllm_xargs.pop(ENTROPY_KEY, None)


def read_request(request: Any, limits: Limits, *, is_single: bool = False) -> TreeRequest:
    """The tree that a request asks for.

    Args:
        request: As vLLM parsed it.
        limits: Of this server.
        is_single: Whether the route has room for one output only.

    Raises:
        FieldError: A field of `tree` is wrong or above the server's limit, or another field of
            the request cannot be honoured by a tree.
    """
    config = _read_config(request.model_extra["tree"], limits)
    _check_honoured(request)
    num_choices = _num_choices(request, 1 if is_single else config.width)
    field, max_tokens = _max_tokens(request)
    return TreeRequest(
        config,
        num_choices,
        is_stream=bool(request.stream),
        max_tokens=max_tokens,
        max_tokens_field=field,
        prompt_field="input" if hasattr(request, "input") else "messages",
        is_single=is_single,
    )


def _read_config(value: object, limits: Limits) -> TreeConfig:
    try:
        return limits.apply(parse_tree_config(value))
    except FieldError as error:
        if error.field != "tree.width":
            raise
        # The range that holds here is narrower than the one that `TreeConfig` names.
        allowed = f"an integer from 1 to {limits.max_width}"
        raise FieldError(error.field, error.value, allowed, "Send a width in range.") from None


def _check_honoured(request: Any) -> None:
    for name, remedy in _REFUSED.items():
        value = getattr(request, name, None)
        if value is not None and value is not False:
            raise FieldError(name, value, "nothing, beside `tree`", remedy)
    prompt = getattr(request, "prompt", None)
    if isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int):
        raise FieldError(
            "prompt", f"a list of {len(prompt)}", "one prompt, beside `tree`", "Send one at a time."
        )


def _num_choices(request: Any, most: int) -> int:
    asked = getattr(request, "n", None)
    if asked is None:
        return 1
    if not isinstance(asked, int) or not 1 <= asked <= most:
        allowed = f"1 to `tree.width` ({most})" if most > 1 else "1: only the winner comes back"
        raise FieldError("n", asked, allowed, "Send a larger width or fewer choices.")
    temperature = getattr(request, "temperature", None)
    if asked > 1 and temperature is not None and 0 <= temperature < _GREEDY_BELOW:
        remedy = "Ask for one choice, or set a temperature."
        raise FieldError("n", asked, f"1, at a temperature of {temperature:g}", remedy)
    return asked


def _max_tokens(request: Any) -> tuple[str, int | None]:
    """The bound that the caller set; a default of the protocol is none."""
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        value = getattr(request, name, None)
        if name in request.model_fields_set and isinstance(value, int):
            return name, value
    return "max_tokens", None
