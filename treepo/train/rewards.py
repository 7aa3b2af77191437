r"""Reward functions: what a completion is worth.

One job: the contract, which is TRL's, and the functions that come with the package. A reward is

    f(prompts, completions, completion_ids, **columns) -> list[float | None]

with one entry a completion in every argument, the data set's other columns repeated, and None for
a completion the function has nothing to say about. Where functions run, and what happens to one
that raises or hangs, stands in `reward_pool.py`. A new built-in is a function here and a line in
`_BUILT_IN`; anyone else's is named as `module:function`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, cast

from treepo.answers.extraction import last_boxed
from treepo.errors import ConfigError

Messages = list[dict[str, Any]]
Completion = str | Messages
RewardFunction = Callable[..., Sequence[float | None] | Awaitable[Sequence[float | None]]]

_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_GOLD_COLUMNS = ("answer", "solution", "ground_truth")


def resolve(spec: str) -> RewardFunction:
    """The function a configuration names.

    Args:
        spec: `math_verify`, `exact_match`, `overlong:MAX_TOKENS,BUFFER_TOKENS`,
            `reasoning_gym:NAME` or `module:function`.

    Raises:
        ConfigError: There is no such function, or what it needs is not installed.
    """
    name, _, parameter = spec.partition(":")
    if name in _BUILT_IN:
        return _BUILT_IN[name](parameter)
    if not parameter:
        known = ", ".join(f"`{known}`" for known in _BUILT_IN)
        raise ConfigError(f"reward is {spec!r}; allowed: {known}, or `module:function`.")
    try:
        function = getattr(import_module(name), parameter)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"reward {spec!r} cannot be loaded: {error}.") from error
    if not callable(function):
        raise ConfigError(f"reward {spec!r} is a {type(function).__name__}, not a function.")
    return cast("RewardFunction", function)


def call(
    function: RewardFunction,
    prompt: str | Messages,
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    columns: Mapping[str, Any],
) -> list[float | None]:
    """The function's rewards for the completions of one prompt.

    As in TRL, a prompt of messages makes each completion a list with one assistant message.

    Raises:
        ValueError: It did not return one finite number or None for each completion.
        Exception: Whatever the function raises.
    """
    count = len(completions)
    texts: list[Completion] = list(completions)
    if not isinstance(prompt, str):
        texts = [[{"role": "assistant", "content": text}] for text in completions]
    repeated = {name: [value] * count for name, value in columns.items()}
    result = function(
        prompts=[prompt] * count,
        completions=texts,
        completion_ids=[list(ids) for ids in completion_ids],
        **repeated,
    )
    if inspect.isawaitable(result):
        result = asyncio.run(_finish(result))
    rewards = [None if reward is None else float(reward) for reward in result]
    if len(rewards) != count or not all(r is None or math.isfinite(r) for r in rewards):
        raise ValueError(f"{count} completions were given these rewards: {rewards}")
    return rewards


async def _finish(result: Awaitable[Sequence[float | None]]) -> Sequence[float | None]:
    return await result


def text_of(completion: Completion) -> str:
    """A completion's text, whether it came as text or as messages."""
    if isinstance(completion, str):
        return completion
    return str(completion[-1]["content"]) if completion else ""


def exact_match(*, completions: list[Completion], **columns: Any) -> list[float | None]:
    """1 where the stripped completion is the stripped `answer` column, else 0."""
    golds = [str(gold).strip() for gold in _gold(columns)]
    return [float(text_of(c).strip() == g) for c, g in zip(completions, golds, strict=True)]


def math_verify(*, completions: list[Completion], **columns: Any) -> list[float | None]:
    r"""1 where the last `\boxed{...}` equals the `answer` column by math-verify, else 0.

    The column may hold the bare answer, a solution that boxes it, or one that ends in `#### it`;
    None where it cannot be parsed. No box is 0.
    """
    golds = _gold(columns)
    return [_equal(text_of(c), str(g)) for c, g in zip(completions, golds, strict=True)]


def _equal(text: str, gold: str) -> float | None:
    from math_verify import parse, verify

    boxed_gold = last_boxed(gold)
    bare = gold.rsplit("####", 1)[-1].strip().strip("$") if boxed_gold is None else boxed_gold
    expected = parse(rf"\boxed{{{bare}}}", parsing_timeout=None)
    found = last_boxed(text)
    if not expected:
        return None
    if found is None:
        return 0.0
    read = parse(rf"\boxed{{{found}}}", parsing_timeout=None)
    return float(verify(expected, read, timeout_seconds=None))


def overlong(
    *,
    completion_ids: list[list[int]],
    max_tokens: int,
    buffer_tokens: int,
    **_: Any,
) -> list[float | None]:
    """DAPO's soft penalty on length: 0 up to `max_tokens - buffer_tokens`, then linear to -1."""
    start = max_tokens - buffer_tokens
    return [min(-(len(ids) - start) / buffer_tokens, 0.0) for ids in completion_ids]


def reasoning_gym(
    *,
    completions: list[Completion],
    scorer: Callable[..., float],
    **columns: Any,
) -> list[float | None]:
    r"""The score reasoning-gym gives each answer, from 0 to 1.

    The answer is the last `<answer>...</answer>`, else the last `\boxed{...}`, else the whole text.
    The entry is the column `entry`, or one made of `question`, `answer` and `metadata`; JSON text
    is decoded.
    """
    rewards: list[float | None] = []
    for index, completion in enumerate(completions):
        text = text_of(completion)
        tagged = _ANSWER_TAG.findall(text)
        boxed = last_boxed(text)
        answer = tagged[-1] if tagged else text if boxed is None else boxed
        rewards.append(scorer(answer=answer.strip(), entry=_entry(columns, index)))
    return rewards


def _entry(columns: Mapping[str, Any], index: int) -> Any:
    if "entry" in columns:
        return _decoded(columns["entry"][index])
    entry = {name: columns[name][index] for name in ("question", "answer") if name in columns}
    return {**entry, "metadata": _decoded(columns["metadata"][index])}


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _gold(columns: Mapping[str, Any]) -> Sequence[Any]:
    for name in _GOLD_COLUMNS:
        if name in columns:
            return cast("Sequence[Any]", columns[name])
    raise ConfigError(
        f"the reward needs one of the columns {', '.join(_GOLD_COLUMNS)}; the data has "
        f"{', '.join(sorted(columns)) or 'none'}. Rename a column or name another reward."
    )


def _make_math_verify(_: str) -> RewardFunction:
    # Its import takes longer than a reward, and it warns once that time is not limited.
    import_module("math_verify")
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify


def _make_overlong(parameter: str) -> RewardFunction:
    numbers = re.fullmatch(r"(\d+),(\d+)", parameter)
    if numbers is None or not 0 < int(numbers[2]) <= int(numbers[1]):
        raise ConfigError(
            f"reward is 'overlong:{parameter}'; allowed: `overlong:MAX_TOKENS,BUFFER_TOKENS` with "
            "a buffer from 1 to the maximum, for example `overlong:7168,512`."
        )
    return partial(overlong, max_tokens=int(numbers[1]), buffer_tokens=int(numbers[2]))


def _make_reasoning_gym(parameter: str) -> RewardFunction:
    try:
        library = import_module("reasoning_gym")
    except ImportError as error:
        raise ConfigError(
            f"reward 'reasoning_gym:{parameter}' needs the package reasoning-gym ({error}); "
            "`pip install reasoning-gym`."
        ) from error
    try:
        scorer = library.get_score_answer_fn(parameter)
    except ValueError as error:
        raise ConfigError(f"reward 'reasoning_gym:{parameter}': {error}.") from error
    return partial(reasoning_gym, scorer=scorer)


_BUILT_IN: dict[str, Callable[[str], RewardFunction]] = {
    "math_verify": _make_math_verify,
    "exact_match": lambda _: exact_match,
    "overlong": _make_overlong,
    "reasoning_gym": _make_reasoning_gym,
}
