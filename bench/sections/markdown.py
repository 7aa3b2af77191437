"""Tables and figures as Markdown, for the sections beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def percent(value: float) -> str:
    """A share, in percent."""
    return f"{100 * value:.1f} %"


def spread(value: float, ends: Sequence[float]) -> str:
    """A ratio, and between which it lay."""
    return f"{value:.2f} ({' to '.join(f'{end:.2f}' for end in ends)})"


def points(gap: Json) -> str:
    """A difference of shares with its interval, in points."""
    return f"{100 * gap['value']:+.1f} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"
