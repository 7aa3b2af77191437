"""What the commands that ask a running server have in common: the key, and a model to name.

It knows nothing of trees. Something else that every server has to be asked for is added here.
"""

from __future__ import annotations

import os

from openai import OpenAI


def key_for(flag: str | None) -> str:
    """The server's key: of the flag, else of the environment, else a word that stands for none."""
    return flag or os.environ.get("TREEPO_API_KEY") or "none"


def first_model(client: OpenAI) -> str:
    """The model that a server names first.

    Raises:
        OpenAIError: As the SDK does.
    """
    return client.models.list().data[0].id
