r"""Where in a text its answer stands: boxes, numbers and JSON fields.

This module returns pieces of the text as they were written. It does not know when two pieces mean
the same (`normalise.py`), runs no pattern of a caller's and starts no process (`reader.py`). Each
scan is linear in the text, because it runs inside a server's event loop. Another built-in place to
look for an answer is another function here and a line in `reader.py`.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

_BOX: Final = re.compile(r"\\boxed\s{0,4}\{")
_BRACE: Final = re.compile(r"\\boxed\s{0,4}\{|\\.|[{}]", re.DOTALL)
_BOX_LOOKBACK_CHARS: Final = 4096
_JSON_LOOKBACK_CHARS: Final = 16384

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_EXPONENT = r"(?:\{[-+]?[0-9]{1,3}\}|[0-9])"
_POWER = rf"(?:[eE][-+]?[0-9]{{1,3}}(?!\w)|\s?(?:\\times|\\cdot|×)\s?10\^{_EXPONENT})"
_PART = rf"(?:\{{\s?[-+−]?(?:{_DIGITS})\s?\}}|[0-9])"
_SIGN = r"(?:(?<![\w)\]}.])[-+−])?"
_NUMBER: Final = re.compile(
    rf"{_SIGN}(?:(?<![\w.])[0-9]+\s?)?\\[dtc]?frac\s?{_PART}\s?{_PART}"
    rf"|{_SIGN}(?<![\w.])(?:\\?\$)?(?:{_DIGITS})"
    rf"(?:{_POWER}|\s?/\s?(?:{_DIGITS})(?!\s?/))?(?:\s?\\?%)?"
)


def boxes(text: str, since: int = 0) -> Iterator[tuple[int, int, bool]]:
    r"""Each complete `\boxed{...}` after position `since`, in the order in which they close.

    Yields the span of its contents in characters and whether no other box is open around it.
    Braces nest to any depth, `\{` and `\}` are text, and stray braces outside a box do not count.
    """
    opened: list[int | None] = []
    num_boxes = 0
    while (token := (_BRACE if num_boxes else _BOX).search(text, since)) is not None:
        since = token.end()
        if token[0].startswith(r"\boxed"):
            opened.append(since)
            num_boxes += 1
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and (start := opened.pop()) is not None:
            num_boxes -= 1
            yield start, since - 1, num_boxes == 0


def last_boxed(text: str) -> str | None:
    r"""The contents of the `\boxed{...}` that closes last, None where none is complete."""
    last = deque(boxes(text), maxlen=1)
    return text[last[0][0] : last[0][1]] if last else None


def box_end(text: str, since: int) -> int | None:
    r"""Where the first complete `\boxed{...}` that ends behind `since` ends, None without one.

    A box inside another one does not count before the other has closed, nor one of more than
    4,096 characters. A text without a closing brace behind `since` costs only those characters.
    """
    if text.find("}", since) < 0:
        return None
    for _, end, is_outermost in boxes(text, max(0, since - _BOX_LOOKBACK_CHARS)):
        if is_outermost and end >= since:
            return end + 1
    return None


def last_number(text: str) -> str | None:
    r"""The last number of a text as written, None without one.

    Signs, thousands separators, decimals, powers of ten, `a/b`, `\frac` and a per cent sign
    belong to a number; a hyphen after a digit, a letter or a closing bracket does not.
    """
    last = deque(_NUMBER.finditer(text), maxlen=1)
    return last[0].group() if last else None


_JSON: Final = json.JSONDecoder(parse_int=str, parse_float=str)
_JSON_OPENING: Final = re.compile(r'\{\s{0,64}"')
_CUT: Final = re.compile(
    r"\s*(?:-|\.|[eE][-+]?|t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?|\\?u?[0-9A-Fa-f]{0,4})\Z"
)
_LEAST_COST_CHARS: Final = 256


def last_json_field(text: str, path: str) -> str | None:
    """The value of a field in the last JSON object that has it, None without one.

    Args:
        text: Prose with JSON objects in it, fenced or not.
        path: Dotted names; a number is an index into a list.

    Strings come back bare, numbers as written, lists and objects as JSON with sorted keys. The
    characters read again after failed attempts are limited to four times the text's length.
    """
    found: str | None = None
    at, budget = _opening(text, 0), 4 * len(text) + 4096
    while at >= 0 and budget > 0:
        value, end = _object_at(text, at)
        if value is None:
            budget -= max(end - at, _LEAST_COST_CHARS)
            end = at + 1
        elif (field := _field(value, path)) is not None:
            found = field
        at = _opening(text, end)
    return found


def json_end(text: str, since: int, path: str) -> int | None:
    """Where the first JSON object with the field that ends behind `since` ends, None without one.

    An object inside an unfinished one does not count, nor one of more than 16,384 characters; one
    inside braces that turn out to be no JSON may be overlooked. `last_json_field` finds them all.
    """
    if text.find("}", since) < 0:
        return None
    at, budget = _opening(text, max(0, since - _JSON_LOOKBACK_CHARS)), 4 * _JSON_LOOKBACK_CHARS
    while at >= 0 and budget > 0:
        value, end = _object_at(text, at)
        if value is None:
            if end == len(text):
                return None
            budget -= max(end - at, _LEAST_COST_CHARS)
            end = at + 1
        elif end > since and _field(value, path) is not None:
            return end
        at = _opening(text, end)
    return None


def _opening(text: str, since: int) -> int:
    match = _JSON_OPENING.search(text, since)
    return match.start() if match else -1


def _object_at(text: str, at: int) -> tuple[Any, int]:
    """The JSON object at `at` and its end; None and the place where it fails to be one.

    An object that the text's end cuts off fails at the text's end.
    """
    try:
        return _JSON.raw_decode(text, at)
    except json.JSONDecodeError as error:
        is_cut = error.msg.startswith("Unterminated") or _CUT.match(text, error.pos)
        return None, len(text) if is_cut else max(error.pos, at + 1)
    except RecursionError:
        return None, at + 1024


def _field(value: Any, path: str) -> str | None:
    for name in path.split("."):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
