"""A tree from a server: what a completion asks for it, and the `Tree` in its answer.

What comes back is what an engine of this process would have given. It neither sends anything nor
knows prompts, models and hosts: whoever asks a server puts those around it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.errors import EngineError
from treepo.rollout.record import decode_values
from treepo.tree import Tree


def tree_fields(config: TreeConfig, sampling: Sampling) -> dict[str, Any]:
    """The fields of a completion, or a chat completion, that ask for such a tree.

    Every sampling parameter is among them, since a server fills in what is left out from the
    model's own generation settings.
    """
    return {
        "tree": {**config.model_dump(mode="json"), "include": ["record"]},
        "max_tokens": sampling.max_tokens,
        "min_tokens": sampling.min_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
        "include_stop_str_in_output": sampling.include_stop,
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": sampling.ignore_eos,
    }


def tree_in(answer: Any, config: TreeConfig) -> Tree:
    """The tree of an answer, with the settings that were asked for.

    Raises:
        EngineError: The answer holds no whole tree.
    """
    try:
        tree = decode_values(answer["tree"]["record"]).tree
    except (KeyError, TypeError):
        raise EngineError("the answer has no `tree.record`: is it a `treepo serve`?") from None
    except ValueError as error:
        raise EngineError(f"the answer's `tree.record` is wrong: {error}") from None
    return replace(tree, settings={**tree.settings, "include": list(config.include)})
