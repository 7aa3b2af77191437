"""Drives `optillm`: self-consistency, its majority vote, and tree search by a language model.

The functions are called that its proxy calls, since the proxy itself writes `User: ` before every
question and cannot be told how many samples its self-consistency takes. What has no other setting
keeps the package's: the search has two simulations of depth one, three actions a node, and the
model's own rating as its value. It runs in the environment of `requirements/peers-optillm.lock`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from openai import OpenAI
from optillm.mcts import chat_with_mcts
from optillm.plugins import majority_voting_plugin
from optillm.self_consistency import AdvancedSelfConsistency

from bench.peers.driver import Ask, Reply, Settings, main

_TIMEOUT_S = 3600.0


def use(answer: Callable[[Settings, OpenAI, str], Reply], settings: Settings) -> Ask:
    """Ask by one of its functions, each question in a thread of its own."""
    client = OpenAI(base_url=settings.base_url, api_key="none", timeout=_TIMEOUT_S)

    async def ask(question: str) -> Reply:
        return await asyncio.to_thread(answer, settings, client, question)

    return ask


def self_consistency(settings: Settings, client: OpenAI, question: str) -> Reply:
    """The first text of the largest cluster of similar texts."""
    method = AdvancedSelfConsistency(
        client, settings.model, num_samples=settings.width, request_config=_request(settings)
    )
    clusters = method.evaluate(settings.system, question)["aggregated_result"]["clusters"]
    text = clusters[0]["answer"] if clusters else ""
    return Reply(text, method.self_consistency_completion_tokens, len(clusters))


def majority_voting(settings: Settings, client: OpenAI, question: str) -> Reply:
    """A text with the most frequent answer."""
    request = {**_request(settings), "k": settings.width}
    found = majority_voting_plugin.run(settings.system, question, client, settings.model, request)
    return Reply(*found)


def mcts(settings: Settings, client: OpenAI, question: str) -> Reply:
    """The answer that its search of the conversation visits most."""
    request = _request(settings)
    return Reply(
        *chat_with_mcts(settings.system, question, client, settings.model, request_config=request)
    )


def _request(settings: Settings) -> dict[str, Any]:
    return {"max_tokens": settings.max_tokens, "temperature": settings.temperature}


if __name__ == "__main__":
    main(
        {
            "self-consistency": lambda settings: use(self_consistency, settings),
            "majority voting": lambda settings: use(majority_voting, settings),
            "mcts": lambda settings: use(mcts, settings),
        }
    )
