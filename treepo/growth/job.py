"""What a tree is asked for: its `Job`, who is told about it, and what each path asks the engine.

It starts nothing; `sampler.py` does.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from treepo.config import TreeConfig
from treepo.engines.base import Chunk, PathRequest, Sampling
from treepo.errors import FieldError
from treepo.growth.reference import DEFAULT_NATS
from treepo.growth.state import Growth, Path
from treepo.growth.texts import Texts
from treepo.tree import TreeFinish


class Observer(Protocol):
    """Told what happens to a tree's paths, in the order in which it happens."""

    def opened(self, path: Path) -> None:
        """A path was opened; its request starts now."""

    def extended(self, path: Path, chunk: Chunk, num_kept: int) -> None:
        """A path grew by the first `num_kept` tokens of `chunk`."""

    def ended(self, path: Path) -> None:
        """A path has ended; where an answer was looked for, it is known now."""


class Silent:
    """An observer that does nothing."""

    def opened(self, path: Path) -> None:
        """Do nothing."""

    def extended(self, path: Path, chunk: Chunk, num_kept: int) -> None:
        """Do nothing."""

    def ended(self, path: Path) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Job:
    """One tree to sample.

    Attributes:
        prompt_token_ids: The prompt.
        sampling: How tokens are drawn; `max_tokens` is the longest trajectory.
        config: The caller's settings; they are resolved against the engine.
        id: Unique name; request ids start with it.
        texts: Tokenizer and answer reader; None where only tokens matter.
        observer: Told what happens.
        entropy_reference: Threshold of `branching: entropy` where the caller gave none, in nats.
        ending: Resolved by whoever must end the tree early, with what it has, and says why.
    """

    prompt_token_ids: Sequence[int]
    sampling: Sampling
    config: TreeConfig
    id: str = ""
    texts: Texts | None = None
    observer: Observer = field(default_factory=Silent)
    entropy_reference: float = DEFAULT_NATS
    ending: asyncio.Future[TreeFinish] | None = None


def path_request(
    job: Job, tree_id: str, growth: Growth, path: Path, tokens_left: int | None
) -> PathRequest:
    """What a path asks the engine: its prefix, and what is left of its lengths.

    Args:
        job: The tree's job.
        tree_id: The tree's name.
        growth: The tree so far.
        path: A path that was opened and has not run yet.
        tokens_left: What is left of the whole tree's token budget, None for no limit.
    """
    sampling, start = job.sampling, path.start
    budget = min(sampling.max_tokens, growth.boundary(growth.config.max_depth or 1)) - start
    if tokens_left is not None:
        budget = min(budget, tokens_left)
    budget = max(budget, 1)
    prefix = path.parent.prefix(start) if path.parent else []
    return PathRequest(
        id=request_id(tree_id, path.id),
        tree_id=tree_id,
        token_ids=[*growth.prompt_token_ids, *prefix],
        num_inherited_tokens=start,
        sampling=replace(
            sampling,
            max_tokens=budget,
            min_tokens=min(max(sampling.min_tokens - start, 0), budget),
            # A seed of its own for every path, a function of the tree's seed and the path's place.
            seed=None if sampling.seed is None else seed_of(f"{sampling.seed}{path.key}"),
            stop=sampling.stop if _starts_whole(path) else (),
        ),
        may_branch=not path.is_late and growth.config.width * path.mass >= 2,
    )


def request_id(tree_id: str, path: int) -> str:
    """The name of a path's engine request."""
    return f"{tree_id}-{path}"


def _starts_whole(path: Path) -> bool:
    """Whether the path does not start inside a character.

    vLLM's detokenizer takes the whole prompt for new text where it ends in half a character, and
    would find stop strings in it.
    """
    return path.transcript is None or path.transcript.is_whole


def caveats(job: Job) -> list[str]:
    """What a caller should know of the trajectories that such a job gives, in words."""
    if job.sampling.temperature > 0 or job.config.width == 1:
        return []
    return ["at a temperature of 0 all trajectories are the same text, paid for again and again"]


def check_length(
    num_prompt_tokens: int, max_tokens: int, max_model_len: int, field: str = "max_tokens"
) -> None:
    """See that prompt and completion fit the model.

    Raises:
        FieldError: They do not; it names the field that bounds the completion.
    """
    room = max_model_len - num_prompt_tokens
    if max_tokens < 1 or max_tokens > room:
        raise FieldError(
            field,
            max_tokens,
            f"1 to {max(room, 0)} beside a prompt of {num_prompt_tokens} tokens "
            f"(the model's length is {max_model_len})",
            "Shorten the prompt or ask for fewer tokens.",
        )


def seed_of(name: str) -> int:
    """A seed of 63 bits that is a function of a name; other names have others."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1
