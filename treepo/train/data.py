"""The prompts of a run: from a JSONL file or a data set to tokens and reward columns.

It knows nothing of sampling. What a line may hold stands in `treepo.rollout.prompts`; another
source of lines is a branch in `_lines`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from treepo.errors import ConfigError
from treepo.rollout.prompts import Prompt, parse_prompts, read_prompts, token_ids
from treepo.train.rewards import Messages

_SAVED = ("state.json", "dataset_dict.json")
"""Files that `save_to_disk` of a data set, or of several splits, leaves."""

_PROMPT_COLUMNS = ("prompt", "messages", "prompt_token_ids")


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt to learn from.

    Attributes:
        place: Where it stands, for messages.
        prompt: Text or messages, as rewards get it.
        token_ids: The prompt as the model reads it.
        columns: What rewards get beside it.
    """

    place: str
    prompt: str | Messages
    token_ids: tuple[int, ...]
    columns: dict[str, Any]


def load(
    source: str, tokenizer: Any, *, name: str | None, split: str, limit: int | None
) -> list[Example]:
    """The examples of a file or a data set, the first `limit` of them where that is given.

    Args:
        source: A JSONL file, a folder that `datasets` saved, or what `datasets.load_dataset` takes.
        tokenizer: Of the model.
        name: Configuration of the data set.
        split: Split of the data set.
        limit: Most examples.

    Raises:
        ConfigError: There are none, or one cannot be read.
    """
    if Path(source).is_file() or source.endswith((".jsonl", ".json")):
        prompts = read_prompts(source, limit)
    else:
        rows = _rows(source, name, split)
        prompts = list(islice(parse_prompts(f"{source}[{split}]", rows), limit))
        if not prompts:
            raise ConfigError(f"{source}, split {split!r}: no prompts; name another split")
    return [example(prompt, tokenizer) for prompt in prompts]


def example(prompt: Prompt, tokenizer: Any) -> Example:
    """A prompt with its tokens.

    Raises:
        ConfigError: The model has no chat template for its messages.
    """
    ids = token_ids(prompt, tokenizer)
    shown = prompt.columns.get("prompt", prompt.columns.get("messages"))
    columns = {k: v for k, v in prompt.columns.items() if k not in _PROMPT_COLUMNS}
    text = tokenizer.decode(ids) if shown is None else shown
    return Example(prompt.place, text, (*ids,), columns)


def draw(count: int, seed: int, cursor: int) -> int:
    """Which of `count` examples comes after `cursor` others: each once an epoch, shuffled."""
    return _order(count, seed, cursor // count)[cursor % count]


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def _rows(source: str, name: str | None, split: str) -> Iterator[bytes]:
    import datasets

    try:
        if any((Path(source) / file).is_file() for file in _SAVED):
            rows = _split_of(datasets.load_from_disk(source), split)
        else:
            rows = datasets.load_dataset(source, name, split=split)
    except IndexError:  # what an empty one that was saved is answered with
        rows = ()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"data {source!r}, split {split!r}: {reason}; name a JSONL file, or a data set "
            "and a split that exist"
        ) from None
    return (json.dumps(row, default=str).encode() for row in rows)


def _split_of(saved: Any, split: str) -> Any:
    """A split of what `load_from_disk` returns: a data set without a name, or several with."""
    if not isinstance(saved, dict):
        return saved
    if split not in saved:
        raise ValueError(f"there is no such split, only {', '.join(map(repr, saved))}")
    return saved[split]
