"""From text to answer: what a trajectory says, and the key under which it votes.

`AnswerReader` reads finished texts, `AnswerWatch` says when a growing text may stop. Where an
answer stands is for `extraction.py`, which answers are one vote for `normalise.py`; what needs
algebra, a caller's pattern or an installed extractor runs in a child process that is killed when
it takes too long (`pool.py`, `worker.py`). Nothing here knows trees or votes.
Importing it loads neither sympy nor math-verify. Another kind of answer is a line in `_KINDS` or,
without touching this package, an entry point of the group `treepo.answer_extractors`.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Final

from treepo.answers.extraction import box_end, json_end, last_boxed, last_json_field, last_number
from treepo.answers.normalise import plain_key
from treepo.answers.pool import WorkerError, WorkerPool, shared_pool
from treepo.answers.worker import EXTRACTORS
from treepo.errors import FieldError

LIMIT_S: Final = 1.0
"""Seconds one text may cost a child process."""

_FIELD = "tree.answer"
_LONGEST_PATTERN_CHARS = 1000
_MOST_TIMEOUTS = 3
_AT_ONCE = 2
"""Texts of one reader at the children: one whose rule never ends learns of it before it has asked
for all of its texts, and leaves other readers their turn."""

Find = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: the `key` it votes under and the `text` as it was written."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """How answers are read: `kind` and, for `regex`, `json` and `named`, its parameter."""

    kind: str
    rule: str = ""


def _auto(text: str) -> str | None:
    boxed = last_boxed(text)
    return last_number(text) if boxed is None else boxed


_KINDS: Final[dict[str, Find]] = {
    "auto": _auto,
    "boxed": last_boxed,
    "last_number": last_number,
    "none": lambda _: None,
}


_OBJECTS: Final = ("regex", "json")
"""Kinds that are asked for by an object: `{kind: rule}`."""


def answer_words() -> list[str]:
    """What `tree.answer` takes: names, keys of objects, names of installed extractors."""
    return [*_KINDS, *_OBJECTS, *sorted(entry_points(group=EXTRACTORS).names)]


def parse_rule(answer: str | dict[str, str]) -> Rule:
    """The rule that a `tree.answer` asks for.

    Raises:
        FieldError: The name is neither built in nor installed, the object is neither `regex` nor
            `json`, or the pattern is none.
    """
    if not _is_text(answer):
        raise FieldError(_FIELD, answer, "text without halves of characters", "Send it in UTF-8.")
    if isinstance(answer, str):
        return Rule(answer) if answer in _KINDS else Rule("named", _installed(answer))
    if len(answer) != 1 or not answer.keys() <= set(_OBJECTS):
        raise FieldError(
            _FIELD, answer, "an object with one key, `regex` or `json`", 'Send {"json": "answer"}.'
        )
    kind, rule = next(iter(answer.items()))
    if kind == "regex":
        _check_pattern(rule)
    elif not all(rule.split(".")) or len(rule) > _LONGEST_PATTERN_CHARS:
        allowed = f"a dotted field name of at most {_LONGEST_PATTERN_CHARS} characters"
        raise FieldError(_FIELD, answer, allowed, 'Send {"json": "result.value"}.')
    return Rule(kind, rule)


def _is_text(answer: str | dict[str, str]) -> bool:
    """Whether it can be written as UTF-8; JSON can spell halves of a character, which cannot."""
    words = [answer] if isinstance(answer, str) else [*answer, *answer.values()]
    return not any("\ud800" <= letter <= "\udfff" for word in words for letter in word)


def _installed(name: str) -> str:
    known = sorted(entry_points(group=EXTRACTORS).names)
    if name in known:
        return name
    allowed = ", ".join(f"`{n}`" for n in [*_KINDS, *known])
    raise FieldError(
        _FIELD, name, allowed, f"Install an extractor under the entry point group `{EXTRACTORS}`."
    )


def _check_pattern(pattern: str) -> None:
    """Compile with `re`, whose compiler takes no more time or memory for nested repeats."""
    allowed = f"a Python regular expression of at most {_LONGEST_PATTERN_CHARS} characters"
    if len(pattern) > _LONGEST_PATTERN_CHARS:
        raise FieldError(_FIELD, pattern, allowed, "Send a shorter pattern.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise FieldError(_FIELD, pattern, allowed, f"Correct the pattern: {error}.") from None


class AnswerReader:
    """Reads the answers of one tree's texts.

    Plain cases (numbers and words in a box, at the end of a text or in a JSON field) are read at
    once; the rest goes to a child process, at most `limit_s` seconds a time. After three timeouts
    the reader asks no more, so that one caller's pattern does not hold up the others' answers.

    Attributes:
        failures: How many texts have no answer because reading it went wrong, by kind:
            `timeout`, `crash` (the child died), `raised` (an exception) and `gave_up`.
    """

    def __init__(
        self, rule: Rule, *, pool: WorkerPool | None = None, limit_s: float = LIMIT_S
    ) -> None:
        self.failures: Counter[str] = Counter()
        self._rule = rule
        self._pool = pool
        self._limit_s = limit_s
        self._keys: dict[str, str | None] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._find = (
            partial(last_json_field, path=rule.rule)
            if rule.kind == "json"
            else _KINDS.get(rule.kind)
        )

    @classmethod
    def from_config(
        cls,
        answer: str | dict[str, str],
        *,
        pool: WorkerPool | None = None,
        limit_s: float = LIMIT_S,
    ) -> AnswerReader:
        """The reader for a `TreeConfig.answer`; without a pool, the process's shared one.

        Raises:
            FieldError: `tree.answer` cannot be used; see `parse_rule`.
        """
        return cls(parse_rule(answer), pool=pool, limit_s=limit_s)

    async def read(self, text: str) -> Answer | None:
        """The answer of a text, None where it has none or none could be read in time."""
        if self._find is not None:
            written = self._find(text)
        else:
            written = await self._ask(self._rule.kind, text, self._rule.rule)
        if written is None or not written.strip():
            return None
        # JSON can spell halves of a character, which no response could be encoded with.
        written = written.encode("utf-8", "replace").decode("utf-8").strip()
        key = plain_key(written)
        if key is None:
            key = await self._algebra(written)
        return Answer(key, written) if key else None

    def notes(self) -> list[str]:
        """What is to be said of the texts that could not be read, one line for each kind."""
        return [
            f"the answer of {count} trajectories could not be read ({kind})"
            for kind, count in sorted(self.failures.items())
        ]

    async def _algebra(self, written: str) -> str | None:
        if written not in self._keys:
            self._keys[written] = await self._ask("algebra", written, "")
        return self._keys[written]

    async def _ask(self, kind: str, text: str, rule: str) -> str | None:
        async with self._turns:
            return await self._asked(kind, text, rule)

    async def _asked(self, kind: str, text: str, rule: str) -> str | None:
        if self.failures["timeout"] >= _MOST_TIMEOUTS:
            self.failures["gave_up"] += 1
            return None
        job = {"kind": kind, "text": text, "rule": rule}
        try:
            reply = await (self._pool or shared_pool()).ask(job, self._limit_s)
        except WorkerError as error:
            self.failures[error.kind] += 1
            return None
        if reply["raised"] is not None:
            self.failures["raised"] += 1
        found: str | None = reply["found"]
        return found


class AnswerWatch:
    r"""Says where the first complete answer of a growing text ends.

    Only what cannot grow any more stops a path: a closed `\boxed{...}` (`auto`, `boxed`) and a
    closed JSON object with the field (`json`). It keeps no state, so a fork needs no copy of it.

    Attributes:
        can_stop: Whether texts of this kind can be stopped at all.
    """

    def __init__(self, answer: str | dict[str, str]) -> None:
        rule = parse_rule(answer)
        self._end: Callable[[str, int], int | None] | None = None
        if rule.kind in {"auto", "boxed"}:
            self._end = box_end
        elif rule.kind == "json":
            self._end = partial(json_end, path=rule.rule)
        self.can_stop = self._end is not None

    def __call__(self, text: str, since: int) -> int | None:
        """The end, in characters, of the first complete answer that ends behind `since`.

        Args:
            text: The text so far.
            since: How much of it was given before; the caller may then clear all of `text`.

        The work is the characters behind `since`, plus a bounded look back (4,096 characters
        for a box, 16,384 for JSON) only where they hold a closing brace.
        """
        return self._end(text, since) if self._end else None
