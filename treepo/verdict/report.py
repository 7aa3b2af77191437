"""A verdict for the terminal: one table and one sentence.

It prints nothing itself. Pictures of the same stand in `plots.py`.
"""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from treepo.verdict.plans import POOL
from treepo.verdict.verdict import Row, Verdict


def report(verdict: Verdict, plan: str) -> Group:
    """The table of all plans, and what is to be said of one of them."""
    return Group(table(verdict), "", Text(verdict.sentence(plan), style="bold"))


def table(verdict: Verdict) -> Table:
    """A line for each plan; the independent samples at smaller numbers come first."""
    title = f"{len(verdict.problems)} problems; intervals are 95 %, paired by problem"
    grid = Table(title=title, title_justify="left")
    grid.add_column("plan")
    for name in ("leaves", "tokens", "paths", "right", "independent there", "difference", "pass",
                 "effective", "per path", "s"):  # fmt: skip
        grid.add_column(name, justify="right")
    size = verdict.curve.num_samples
    for count in [2**i for i in range(size.bit_length()) if 2**i < size]:
        grid.add_row(*_sample_cells(verdict, count))
    for row in verdict.rows:
        grid.add_row(*_cells(row))
    return grid


def _sample_cells(verdict: Verdict, count: int) -> list[str]:
    tokens = count * float(verdict.curve.lengths.mean())
    passed = float(verdict.curve.passed[:, count - 1].mean())
    right = f"{verdict.curve.at(count):.1%}"
    shown = [f"{POOL}, {count}", str(count), f"{tokens:.0f}", f"{count:.1f}", right, right, ""]
    return [*shown, f"{passed:.1%}", f"{count:.1f}", "1.00", ""]


def _cells(row: Row) -> list[str]:
    found, gap = row.comparison, row.comparison.difference
    is_curve = row.plan == POOL
    seconds = row.mean("seconds")
    return [
        row.plan,
        f"{row.mean('leaves'):.1f}",
        f"{found.tokens.value:.0f}",
        f"{found.paths:.1f}",
        f"{found.accuracy.value:.1%}",
        f"{found.independent:.1%}",
        ""
        if is_curve
        else f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})",
        f"{row.mean('passed'):.1%}",
        f"{row.mean('effective'):.1f}",
        f"{row.mean('effective') / found.paths:.2f}",
        f"{seconds:.1f}" if seconds else "",
    ]
