"""Drives this project's own server as a caller does: the `openai` SDK, with `tree` in the request.

It keeps to the protocol of the other drivers, so that all are timed alike.
"""

from __future__ import annotations

from openai import AsyncOpenAI

from bench.peers.driver import Ask, Reply, Settings, main

_TIMEOUT_S = 3600.0


def tree(settings: Settings) -> Ask:
    """Ask for a tree; `options` are its settings beside the width."""
    client = AsyncOpenAI(base_url=settings.base_url, api_key="none", timeout=_TIMEOUT_S)

    async def ask(question: str) -> Reply:
        answer = await client.chat.completions.create(
            model=settings.model,
            messages=settings.turns(question),  # type: ignore[arg-type]
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            extra_body={"tree": {"width": settings.width, **settings.options}},
        )
        found = answer.model_dump()
        return Reply(
            text=found["choices"][0]["message"]["content"],
            reported_tokens=found["usage"]["completion_tokens"],
            answers=[trajectory["answer"] for trajectory in found["tree"]["trajectories"]],
        )

    return ask


if __name__ == "__main__":
    main({"tree": tree})
