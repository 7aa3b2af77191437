"""Two pictures of a verdict: accuracy against tokens, and where in a path trees branched.

It needs matplotlib, the extra `bench`. Another picture is another function beside these.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from treepo.errors import ConfigError
from treepo.tree import Tree
from treepo.verdict.plans import POOL
from treepo.verdict.verdict import Verdict

_BINS = 20


def plot_accuracy(verdict: Verdict, path: Path) -> None:
    """Accuracy against generated tokens: the independent curve, and a point for each plan.

    Raises:
        ConfigError: matplotlib is missing.
    """
    figure, axes = _figure()
    length = float(verdict.curve.lengths.mean())
    tokens_at = np.arange(1, verdict.curve.num_samples + 1) * length
    points = verdict.curve.intervals()
    axes.plot(tokens_at, [point.value for point in points], label="independent", color="k")
    lows, highs = [point.low for point in points], [point.high for point in points]
    axes.fill_between(tokens_at, lows, highs, color="k", alpha=0.12, linewidth=0)
    for row in verdict.rows:
        if row.plan == POOL:
            continue
        tokens, right = row.comparison.tokens, row.comparison.accuracy
        below, above = right.value - right.low, right.high - right.value
        axes.errorbar(
            tokens.value, right.value, yerr=[[below], [above]], fmt="o", capsize=3, label=row.plan
        )
    axes.set_xlabel("generated tokens a problem")
    axes.set_ylabel("majority is right")
    axes.set_title(f"{len(verdict.problems)} problems; band and bars are 95 %")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))  # covers nothing
    _save(figure, path)


def plot_branches(trees: Iterable[Tree], path: Path) -> None:
    """Where children were opened, as a share of the mean length of the tree's trajectories.

    Raises:
        ConfigError: matplotlib is missing.
    """
    figure, axes = _figure()
    places = [place for tree in trees for place in branch_places(tree)]
    axes.hist(places, bins=_BINS, range=(0, max([1.0, *places])), color="tab:blue")
    axes.set_xlabel("position in the trajectory (0: the prompt, 1: the mean length)")
    axes.set_ylabel("children opened")
    axes.set_title("where trees branched")
    _save(figure, path)


def branch_places(tree: Tree) -> list[float]:
    """For each child beside a trunk, its start over the tree's mean trajectory length."""
    lengths = [tree.nodes[t.leaf].end for t in tree.trajectories]
    if not lengths:
        return []
    mean = sum(lengths) / len(lengths)
    firsts = {node.path: node for node in reversed(tree.nodes)}
    return [node.start / mean for node in firsts.values() if node.path != 0]


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError('plots need matplotlib: pip install "treepo[bench]"') from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
