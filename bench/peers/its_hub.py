r"""Drives `its-hub`: self-consistency, and its two variants that stop early.

Votes are on what the package's own regular-expression projection finds, with the pattern that its
documentation gives for `\boxed`. Its limit of 32 requests at a time is lifted, since no other
method has one. It runs in the environment of `requirements/peers-its-hub.lock`.
"""

from __future__ import annotations

from typing import Any

from its_hub import (
    AdaptiveSelfConsistency,
    BetaSelfConsistency,
    LMOrchestrator,
    OpenAICompatibleLanguageModel,
    SelfConsistency,
)
from its_hub.api import ChatMessage
from its_hub.core.algorithms.self_consistency import create_regex_projection_function

from bench.peers.driver import Ask, Reply, Settings, main

BOXED = r"\\boxed\{([^}]+)\}"


def use(algorithm: Any, settings: Settings) -> Ask:
    """Ask by one of its algorithms, `width` as its budget."""
    vote = create_regex_projection_function(BOXED)
    scaling = algorithm(
        consistency_space_projection_func=vote, orchestrator=LMOrchestrator(max_concurrency=-1)
    )

    async def ask(question: str) -> Reply:
        turns = [ChatMessage(**turn) for turn in settings.turns(question)]
        async with OpenAICompatibleLanguageModel(
            settings.base_url,
            "none",
            settings.model,
            max_completion_tokens=settings.max_tokens,
            temperature=settings.temperature,
        ) as model:
            found = await scaling.ainfer(model, turns, settings.width, return_response_only=False)
        return Reply(
            text=found.the_one["content"],
            reported_tokens=found.usage.completion_tokens,
            groups=len(found.response_counts),
        )

    return ask


if __name__ == "__main__":
    main(
        {
            "self-consistency": lambda settings: use(SelfConsistency, settings),
            "adaptive": lambda settings: use(AdaptiveSelfConsistency, settings),
            "beta": lambda settings: use(BetaSelfConsistency, settings),
        }
    )
