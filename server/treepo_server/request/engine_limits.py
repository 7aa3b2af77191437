"""What the engine behind this server cannot do, whoever asks: refused by name, never ignored.

vLLM itself would take these requests and not do what they say. What no tree can honour on any
engine stands in `tree_request.py`. A further limit is a check here.
"""

from __future__ import annotations

from typing import Any

from treepo.errors import FieldError


def check_seed(seed: int | None, scheduler: Any) -> None:
    """See that a seed does not kill the engine: vLLM's does on a CPU that splits prefills.

    Args:
        seed: The caller's.
        scheduler: vLLM's `SchedulerConfig`.

    Raises:
        FieldError: It would.
    """
    from vllm.platforms import current_platform

    if seed is not None and current_platform.is_cpu() and scheduler.enable_chunked_prefill:
        remedy = "Leave it out, or have the server started with --no-enable-chunked-prefill."
        raise FieldError("seed", seed, "none: this CPU engine splits prefills", remedy)


def check_priority(priority: int, scheduler: Any) -> None:
    """See that a priority counts: vLLM takes any and orders by them only where told to.

    Args:
        priority: The caller's, from the body or a header; 0 is none.
        scheduler: vLLM's `SchedulerConfig`.

    Raises:
        FieldError: It does not.
    """
    if priority and scheduler.policy != "priority":
        remedy = "Leave it out, or have the server started with --scheduling-policy priority."
        raise FieldError("priority", priority, "0: this engine serves all alike", remedy)
