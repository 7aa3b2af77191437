"""Prompt files: JSON lines with one prompt each, and how a prompt becomes tokens.

Everything else on a line is kept as its columns, for rewards and for whoever reads the trees.
It knows nothing of sampling. Another way to write a prompt is a line in `_FORMS` and a case in
`token_ids`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import from_json

from treepo.errors import ConfigError


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a text."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any:
        """A conversation as one text, up to where the assistant begins to speak."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of a prompt file.

    Attributes:
        place: `file:line`, for messages.
        content: A text, chat messages or token ids.
        columns: The line as it was read, without its token ids.
    """

    place: str
    content: str | list[dict[str, Any]] | list[int]
    columns: Mapping[str, Any]


def read_prompts(path: str | os.PathLike[str], limit: int | None = None) -> list[Prompt]:
    """The prompts of a file, the first `limit` of them where that is given.

    A line is an object with one of `prompt` (a text, or chat messages), `messages` (chat
    messages) and `prompt_token_ids`. Empty lines are passed over.

    Raises:
        ConfigError: The file cannot be read, has no prompt, or a line has none; it names the line.
    """
    where = os.fspath(path)
    try:
        with Path(where).open("rb") as stream:
            prompts = list(islice(parse_prompts(where, stream), limit))
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    if not prompts:
        raise ConfigError(f'{where}: no prompts; write lines like {{"prompt": "1 + 1 ="}}')
    return prompts


def parse_prompts(where: str, lines: Iterable[bytes]) -> Iterator[Prompt]:
    """The prompts of JSON lines; see `read_prompts`.

    Args:
        where: What the lines come from, for messages.
        lines: The lines; each is one object.

    Raises:
        ConfigError: A line has no prompt; it names the line.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _prompt(f"{where}:{number}", line)
            except ValueError as error:
                raise ConfigError(f"{where}:{number}: {error}") from None


def _prompt(place: str, line: bytes) -> Prompt:
    try:
        row = from_json(line.strip(), allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"no JSON: {error}".replace("at line 1 column", "at column")) from None
    if not isinstance(row, dict):
        raise ValueError('not an object; write {"prompt": "..."}')
    names = [name for name in _FORMS if name in row]
    if len(names) != 1:
        found = " and ".join(f"`{name}`" for name in names) or "none of them"
        raise ValueError(
            f"a line has one of `prompt`, `messages`, `prompt_token_ids`; here {found}"
        )
    name = names[0]
    fits, wanted = _FORMS[name]
    if not fits(row[name]):
        raise ValueError(f"`{name}` must be {wanted}")
    columns = {key: value for key, value in row.items() if key != "prompt_token_ids"}
    return Prompt(place, row[name], columns)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_chat(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(
            isinstance(turn, dict)
            and all(isinstance(turn.get(k), str) for k in ("role", "content"))
            for turn in value
        )
    )


def _is_tokens(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(type(token) is int and token >= 0 for token in value)
    )


_CHAT = 'a list of messages, {"role": "...", "content": "..."} each, and not empty'
_FORMS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "prompt": (lambda value: _is_text(value) or _is_chat(value), f"a text, or {_CHAT}"),
    "messages": (_is_chat, _CHAT),
    "prompt_token_ids": (_is_tokens, "a list of token ids, and not empty"),
}


def token_ids(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    """The prompt as the model reads it.

    A text gets the special tokens that the tokenizer puts before every text; messages get those
    of the chat template and the beginning of the assistant's turn.

    Raises:
        ConfigError: The model has no chat template, or its template refuses the messages.
    """
    content = prompt.content
    if isinstance(content, str):
        return tokenizer.encode(content)
    if isinstance(content[0], int):
        return [token for token in content if isinstance(token, int)]
    turns = [turn for turn in content if isinstance(turn, dict)]
    return tokenizer.encode(_chat_text(prompt.place, turns, tokenizer), add_special_tokens=False)


def _chat_text(place: str, turns: list[dict[str, Any]], tokenizer: Tokenizer) -> str:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{place}: the model's chat template cannot be used: {reason}") from None
    return str(text)
