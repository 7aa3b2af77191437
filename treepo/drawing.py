"""A tree drawn for the terminal: where it branched, how each path ended, what it cost.

Pure functions from the `tree` object of a response (or of a record, which `shape_of` turns into the
same shape) to things that `rich` prints; it knows neither HTTP nor how the tree was sampled. Fields
that a caller did not ask for are left out of the picture. Another view is another function beside
these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree as RichTree

from treepo.tree import GIVEN_UP, Tree

Json = Mapping[str, Any]

_BAR_WIDTH = 24
# Escape sequences, other controls, and what turns a line's direction: a terminal obeys them.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(slots=True)
class _Stretch:
    """Segments of one path without a fork between them, drawn as one line."""

    nodes: list[Json]
    below: list[_Stretch] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return sum(int(node["num_tokens"]) for node in self.nodes)

    @property
    def text(self) -> str:
        return "".join(node.get("text") or "" for node in self.nodes)


def shape_of(tree: Tree, texts: Mapping[int, str], answers: Iterable[str | None]) -> dict[str, Any]:
    """A record's `nodes` and `trajectories` as a response's `tree` has them.

    Args:
        tree: The record.
        texts: What to show of nodes, by their ids: a record has their token ids only.
        answers: What to show as the answer of each trajectory.
    """
    return {
        "nodes": [
            {
                "id": node.id,
                "parent": node.parent,
                "path": node.path,
                "start": node.start,
                "num_tokens": len(node.token_ids),
                "is_late": node.is_late,
                "finish": node.finish,
                "text": texts.get(node.id, ""),
            }
            for node in tree.nodes
        ],
        "trajectories": [
            {"leaf": t.leaf, "finish": t.finish, "weight": t.weight, "answer": answer}
            for t, answer in zip(tree.trajectories, answers, strict=True)
        ],
    }


def draw(tree: Json) -> Group:
    """The whole picture: the tree, its votes and its cost, one below the other.

    Args:
        tree: `response.tree`; needs `trajectories` and `stats`, better with `nodes`.
    """
    head = Text(summary(tree), style="bold")
    return Group(draw_tree(tree), "", head, "", draw_votes(tree), "", draw_cost(tree))


def draw_tree(tree: Json) -> RichTree:
    """The branches: on each line which tokens it adds, how it ended if it did, and its text.

    A line ends where the terminal does. Without `nodes` the trajectories stand side by side.
    """
    winner = tree.get("answer")
    leaves = {leaf["leaf"]: leaf for leaf in tree.get("trajectories", ())}
    drawing = RichTree(Text("prompt", style="bold"), guide_style="dim")
    nodes = tree.get("nodes") or ()
    if not nodes:
        for leaf in leaves.values():
            drawing.add(_one_line(_ending(leaf, winner), leaf.get("text") or ""))
    # A stack, since a deep tree is deeper than Python's recursion limit.
    todo = [(drawing, stretch) for stretch in reversed(_stretches(nodes))]
    while todo:
        above, stretch = todo.pop()
        branch = above.add(_one_line(_stretch_head(stretch, leaves, winner), stretch.text))
        todo.extend((branch, below) for below in reversed(stretch.below))
    return drawing


def draw_votes(tree: Json) -> Table:
    """How the answers stand: trajectories, weight, and share as a bar."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("answer", "paths", "weight", "share"):
        table.add_column(title, justify="left" if title in ("answer", "share") else "right")
    for vote in tree.get("votes", ()):
        is_winner = vote["answer"] == tree.get("answer")
        share = float(vote["share"])
        bar = "█" * round(share * _BAR_WIDTH)
        table.add_row(
            Text(one_line(str(vote["answer"]), 32), style="bold green" if is_winner else ""),
            str(vote["count"]),
            f"{float(vote['weight']):.2f}",
            Text(f"{bar} {share:.0%}", style="green" if is_winner else "dim"),
        )
    return table


def draw_cost(tree: Json) -> Table:
    """Generated tokens, beside those of as many separate samples of the same lengths."""
    stats = tree["stats"]
    generated, separate = int(stats["generated_tokens"]), int(stats["trajectory_tokens"])
    num_leaves = len(tree.get("trajectories", ()))
    table = Table("cost", box=None, pad_edge=False, header_style="dim")
    table.add_column("tokens", justify="right")
    table.add_column("")
    table.add_row("this tree", f"{generated:,}", Text(_saving(generated, separate), style="green"))
    table.add_row(f"{num_leaves} separate samples of these lengths", f"{separate:,}")
    details = {
        "of the tree, on paths given up": int(stats.get("discarded_tokens", 0)),
        "of the prompt, computed again at forks": int(stats.get("recomputed_tokens", 0)),
    }
    for title, num_tokens in details.items():
        if num_tokens:
            table.add_row(Text(title, style="dim"), Text(f"{num_tokens:,}", style="dim"))
    return table


def summary(tree: Json) -> str:
    """One line: the answer, how far the paths agree, and how much evidence they are."""
    answer = tree.get("answer")
    parts = ["no answer" if answer is None else f"answer {one_line(str(answer), 400)}"]
    if tree.get("agreement") is not None:
        parts.append(f"agreement {float(tree['agreement']):.0%}")
    count = f"{len(tree.get('trajectories', ()))} trajectories"
    if tree.get("effective_samples") is not None:
        count += f", worth {float(tree['effective_samples']):.1f} independent ones"
    return " · ".join([*parts, count, f"ended: {tree['finish']}"])


def readable(text: str) -> str:
    """A model's text with everything that a terminal would obey made visible instead."""
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str, most: int) -> str:
    """A text in one readable line of at most so many characters."""
    flat = " ".join(readable(text).split())
    return flat if len(flat) <= most else flat[: most - 1].rstrip() + "…"


def _stretches(nodes: Sequence[Json]) -> list[_Stretch]:
    """The root stretches; parents come before children in `nodes`."""
    children: dict[Any, list[Json]] = {}
    for node in nodes:
        children.setdefault(node["parent"], []).append(node)
    of: dict[Any, _Stretch] = {}
    roots: list[_Stretch] = []
    for node in nodes:
        above = of.get(node["parent"])
        is_alone = len(children[node["parent"]]) == 1
        if above is not None and is_alone and above.nodes[-1]["path"] == node["path"]:
            above.nodes.append(node)
            of[node["id"]] = above
            continue
        of[node["id"]] = stretch = _Stretch([node])
        (roots if above is None else above.below).append(stretch)
    return roots


def _stretch_head(stretch: _Stretch, leaves: Mapping[Any, Json], winner: object) -> Text:
    last = stretch.nodes[-1]
    start = int(stretch.nodes[0]["start"])
    head = Text(f"{start}-{start + stretch.num_tokens}", style="cyan")
    if stretch.nodes[0].get("is_late"):
        head.append(" late", style="magenta")
    leaf = leaves.get(last["id"])
    if leaf is not None:
        return head.append_text(_ending(leaf, winner))
    if last.get("finish") in GIVEN_UP:
        head.append(f" × {last['finish']}", style="red")
    return head


def _ending(leaf: Json, winner: object) -> Text:
    """How a trajectory ended: its answer, why, and its weight in the vote."""
    answer = leaf.get("answer")
    shown = "no answer" if answer is None else one_line(str(answer), 24)
    is_winner = answer is not None and answer == winner
    text = Text(" → ").append(shown, style="bold green" if is_winner else "yellow")
    return text.append(f" ({leaf['finish']}, weight {float(leaf['weight']):.3f})", style="dim")


def _one_line(head: Text, text: str) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis").append_text(head)
    return line.append("  ").append(" ".join(readable(text).split()))


def _saving(generated: int, separate: int) -> str:
    if separate > generated:
        return f"{1 - generated / separate:.0%} fewer"
    return "" if separate == generated else f"{generated - separate:,} more"
