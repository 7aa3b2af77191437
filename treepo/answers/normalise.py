r"""When two answers are one vote: exact keys for numbers and words, without algebra.

`plain_key` settles what needs no computer algebra and says None for the rest, which
`worker.py` reads with math-verify. Keys of numbers are reduced fractions (`1/2`, `-3`), keys
of words are folded to one case and one kind of space. What counts as the same follows the usual
graders of mathematics: a unit, a currency or a per cent sign behind or before a number is
dropped, and `x = 5` is `5`. Where that would be a guess, two answers stay two votes. A new spelling
of a number is a case in `_value`; a new unit is a word in `_UNITS`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

LONGEST_CHARS: Final = 512
"""Longer answers are compared as text."""

_LAYOUT: Final = re.compile(
    r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|\\!|\\[Bb]igg?[lr]?(?![A-Za-z])"
)
_SPACES: Final = re.compile(r"(?:\s|(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~)+")
_WRAPPERS: Final = tuple(
    pair.split() for pair in ("$$ $$", "$ $", r"\( \)", r"\[ \]", "** **", "` `", '" "', "“ ”")
)
_TEXT: Final = r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mbox|operatorname)\s?"
_ALL_TEXT: Final = re.compile(rf"{_TEXT}\{{([^{{}}]*)\}}")
_ASSIGNED: Final = re.compile(
    r"(?:[A-Za-z]|\\[a-z]{2,8})(?:_(?:\w|\{\w{1,8}\}))?(?:\([a-z]\))?\s?=\s?([^=<>]+)"
)

_UNITS: Final = (
    "mm|cm|km|meters?|metres?|inch(?:es)?|feet|foot|ft|yards?|miles?|mg|kg|grams?|kilograms?|pounds?"
    "|lbs?|ounces?|oz|ml|liters?|litres?|gallons?|seconds?|minutes?|hours?|days?|weeks?|months?"
    "|years?|mph|degrees?|dollars?|cents?|units?|percent|per cent"
)
_SQUARED = r"(?:\s?\^\s?(?:[23]|\{[23]\}))?"
_UNIT: Final = re.compile(
    rf"(?<=[0-9}}])\s?(?:(?:square |cubic |sq\.? )?(?:{_UNITS}){_SQUARED}"
    rf"|{_TEXT}\{{\s?(?!(?:[ap]\.?\s?m\b|and\b|or\b|hundred|thousand|[mbtr]+illion|dozen))"
    rf"[A-Za-z][A-Za-z ./-]*{_SQUARED}\s?\}}{_SQUARED}|%|°|\^\s?(?:\\circ|\{{\s?\\circ\s?\}}))\.?",
    re.IGNORECASE,
)
_CURRENCY: Final = re.compile(r"([-+]?)\s?(?:\$|€|£|¥|USD |EUR )\s?(?=[-+.0-9])")

_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]{1,2})?"
_INNER = rf"\{{\s?([-+]?{_DECIMAL})\s?\}}|([0-9])"
_PLAIN: Final = re.compile(rf"[-+]?{_DECIMAL}", re.IGNORECASE)
_RATIO: Final = re.compile(rf"([-+]?{_DECIMAL})\s?/\s?([-+]?{_DECIMAL})", re.IGNORECASE)
_MIXED: Final = re.compile(r"([-+]?)([0-9]+) ([0-9]+)\s?/\s?([0-9]+)")
_FRAC: Final = re.compile(rf"([-+]?)([0-9]*)\s?\\frac\s?(?:{_INNER})\s?(?:{_INNER})", re.IGNORECASE)
_POWER: Final = re.compile(
    rf"([-+]?{_DECIMAL})\s?(?:\\times|\\cdot|×|\*)\s?10\s?\^\s?(?:\{{([-+]?[0-9]{{1,2}})\}}|([0-9]))"
)

_CHOICE: Final = re.compile(r"\(?([A-Za-z])\)?[.:)]?")
_PUNCTUATION: Final = re.compile(r"\s?([:,;=<>()\[\]{}|/])\s?")
_ENVIRONMENT: Final = re.compile(r"\\(?:begin|end)\{[A-Za-z]+\*?\}")
_WORD: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_FUNCTIONS: Final = re.compile(
    "(?:a(?:rc)?)?(?:sin|cos|tan|cot|sec|csc)h?|log|exp|sqrt", re.IGNORECASE
)
_LATEX_WORD: Final = re.compile(rf"{_TEXT}\{{(?!\s*(?:or|and)\s*\}})[^{{}}]*\}}")
_DATE_OR_SCORE: Final = re.compile(r"[0-9]+(?:\s?-\s?[0-9]+)+|[0-9]+(?:\s?/\s?[0-9]+){2,}")
_FORMULA: Final = re.compile(
    r"\\[A-Za-z]|[\^+*=<>√π]|(?<![A-Za-z])[A-Za-z]?[0-9]*\s?[-/]\s?[0-9A-Za-z(]|[0-9][A-Za-z]\b"
    r"|[\[({].*[0-9].*[\])}]|[0-9],"
)


def tidy(written: str) -> str:
    r"""An answer without layout: dollar signs, `\left`, thin spaces, a final full stop, `x =`."""
    text = written.replace("−", "-").replace("{,}", ",").replace(r"\%", "%")
    text = re.sub(r"\\[dtc]frac", r"\\frac", re.sub(r"(?<=[0-9])\\,(?=[0-9]{3})", "", text))
    text = _SPACES.sub(" ", _LAYOUT.sub("", text)).strip()
    for _ in range(4):
        shorter = _unwrap(text)
        if shorter == text:
            break
        text = shorter
    text = text.replace(r"\$", "$")
    assigned = _ASSIGNED.fullmatch(text)
    return assigned.group(1).strip() if assigned else text


def _unwrap(text: str) -> str:
    text = text.rstrip(".,;").strip() if not text.endswith("...") else text
    for left, right in _WRAPPERS:
        inner = text[len(left) : len(text) - len(right)]
        if len(text) > len(left) + len(right) and text == left + inner + right:
            return text if left in inner else inner.strip()
    whole = _ALL_TEXT.fullmatch(text)
    return whole.group(1).strip() if whole else text


def number_key(text: str) -> str | None:
    """The key of a tidy text that is one exact number, None for anything else."""
    bare = _CURRENCY.sub(r"\1", text, count=1)
    unit = _UNIT.search(bare)
    if unit and unit.end() == len(bare):
        bare = bare[: unit.start()]
    if bare.startswith("(") and bare.endswith(")") and "," not in bare:
        bare = bare[1:-1]
    value = _value(re.sub(r"^([-+]) ", r"\1", bare.strip()))
    return None if value is None else str(value)


def _value(text: str) -> Fraction | None:
    try:
        if _PLAIN.fullmatch(text):
            return _decimal(text)
        if match := _RATIO.fullmatch(text):
            return _decimal(match[1]) / _decimal(match[2])
        if match := _FRAC.fullmatch(text):
            return _signed(match[1], match[2], match[3] or match[4], match[5] or match[6])
        if match := _MIXED.fullmatch(text):
            return _signed(*match.groups())
        if match := _POWER.fullmatch(text):
            return _decimal(match[1]) * Fraction(10) ** int(match[2] or match[3])
    except ZeroDivisionError:
        return None
    return None


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _signed(sign: str, whole: str, numerator: str, denominator: str) -> Fraction:
    value = int(whole or 0) + _decimal(numerator) / _decimal(denominator)
    return -value if sign == "-" else value


def text_key(text: str) -> str:
    """The key of words: one case, single spaces, none around punctuation; `(B)` is `b`."""
    choice = _CHOICE.fullmatch(text)
    if choice:
        return choice.group(1).casefold()
    folded = " ".join(_ALL_TEXT.sub(r"\1", text).casefold().split()).strip("*_`\"' .!?;")
    return _PUNCTUATION.sub(r"\1", folded)


def is_formula(text: str) -> bool:
    """Whether algebra may tell whether a tidy text equals another.

    Words are not formulas (as products of letters, anagrams would be one vote), nor are dates,
    times, ratios and scores (as differences and quotients, different ones would be).
    """
    if len(text) > LONGEST_CHARS or ":" in text or _DATE_OR_SCORE.fullmatch(text):
        return False
    if _LATEX_WORD.search(text) or not _FORMULA.search(text):
        return False
    words = _WORD.findall(_ENVIRONMENT.sub("", text))
    return all(_FUNCTIONS.fullmatch(word) for word in words)


def plain_key(written: str) -> str | None:
    """The key of an answer as it was written, None where only algebra can tell.

    An answer that is empty once its layout is gone has the key "".
    """
    if len(written) > LONGEST_CHARS:
        return text_key(written)
    text = tidy(written)
    return number_key(text) or (None if is_formula(text) else text_key(text))
