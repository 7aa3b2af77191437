"""The child process that runs what must not run in a server: algebra, patterns, extractors.

It reads one job a line from its standard input and writes one reply a line, both JSON, and ends
with its input. It never decides how long a job may take beyond a last alarm that ends it should
its parent have died: the parent (`pool.py`) waits and kills. A new kind of job is a function
in `_JOBS`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Final

from treepo.answers.normalise import text_key, tidy

EXTRACTORS: Final = "treepo.answer_extractors"
"""Entry point group of named extractors: `text -> str | None`."""

_MEMORY_BYTES: Final = 4 << 30
_DIGITS: Final = 20
_ROOT: Final = re.compile(r"√\s?([0-9]+|[A-Za-z])")


def last_match(text: str, pattern: str) -> str | None:
    """The first group (the whole match without groups) of the last match of a pattern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = re.compile(pattern)
    found = None
    for match in compiled.finditer(text):
        found = match[1] if compiled.groups else match[0]
    return found


def extract(text: str, name: str) -> str | None:
    """What the installed extractor of this name makes of a text."""
    found = _extractor(name)(text)
    return None if found is None else str(found)


@lru_cache
def _extractor(name: str) -> Callable[[str], str | None]:
    loaded: Callable[[str], str | None] = entry_points(group=EXTRACTORS)[name].load()
    return loaded


def algebra_key(text: str, _: str = "") -> str:
    """The key of a formula, read by math-verify; that of its text where it is not one.

    Numbers are reduced fractions where they are rational, else their first twenty digits; rational
    functions are written as one expanded quotient, sets sorted, decimals taken as exact.
    """
    from math_verify import LatexExtractionConfig, parse

    latex = _ROOT.sub(r"\\sqrt{\1}", tidy(text)).replace("π", r"\pi ").replace("$", "")
    found = parse(
        f"${latex}$",
        [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=_normalisation())],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return canonical(found[0]) if found else text_key(tidy(text))


@lru_cache
def _normalisation() -> Any:
    """math-verify's own, but without its units, which take `5 pm` for `5`."""
    from math_verify import LatexExtractionConfig

    return replace(LatexExtractionConfig().normalization_config, units=False, boxed="none")


def canonical(value: Any) -> str:
    """One spelling for each value, so that equal values have equal keys."""
    import sympy

    if isinstance(value, sympy.MatrixBase):
        rows = (",".join(map(canonical, row)) for row in value.tolist())
        return f"[{';'.join(rows)}]"
    if isinstance(value, sympy.Interval):
        left, right = "(" if value.left_open else "[", ")" if value.right_open else "]"
        return f"{left}{canonical(value.start)},{canonical(value.end)}{right}"
    if isinstance(value, sympy.Tuple):
        return f"({','.join(map(canonical, value.args))})"
    if isinstance(value, sympy.FiniteSet | sympy.Union):
        return "{" + ",".join(sorted(map(canonical, value.args))) + "}"
    if isinstance(value, sympy.core.relational.Relational):
        return _relation(value)
    return _expression(value) if isinstance(value, sympy.Expr) else str(value)


def _relation(value: Any) -> str:
    import sympy

    if isinstance(value, sympy.Eq) and value.lhs.is_Symbol:
        return canonical(value.rhs)
    turned = value.reversed if value.rel_op in {">", ">="} else value
    return f"{canonical(turned.lhs)}{turned.rel_op}{canonical(turned.rhs)}"


def _expression(value: Any) -> str:
    import sympy

    exact = value.xreplace({f: sympy.Rational(str(f)) for f in value.atoms(sympy.Float)}).doit()
    if exact.is_Rational:
        return str(exact)
    if exact.free_symbols:
        return str(sympy.cancel(sympy.together(sympy.expand(exact))))
    simple = sympy.simplify(exact)
    return str(simple if simple.is_Rational else sympy.N(simple, _DIGITS))


_JOBS: Final[dict[str, Callable[[str, str], str | None]]] = {
    "algebra": algebra_key,
    "regex": last_match,
    "named": extract,
}


def answer(job: dict[str, Any]) -> dict[str, str | None]:
    """The reply to one job: `found`, or the name of what was `raised`."""
    try:
        return {"found": _JOBS[job["kind"]](job["text"], job["rule"]), "raised": None}
    except Exception as error:  # noqa: BLE001 - sympy and installed extractors may raise anything
        return {"found": None, "raised": type(error).__name__}


def _limit_memory() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main() -> None:
    """Serve jobs until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        _limit_memory()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        # What an extractor prints must not be taken for a reply.
        os.dup2(2, 1)
        print(algebra_key(r"\frac{\sqrt{4}}{x}"), file=replies, flush=True)
        for line in sys.stdin:
            job = json.loads(line)
            signal.setitimer(signal.ITIMER_REAL, job["limit_s"] + 5)
            print(json.dumps(answer(job)), file=replies, flush=True)
            signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
