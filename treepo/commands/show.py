"""`treepo show FILE`: saved trees in the terminal, listed, or one of them drawn.

It reads rollout files and saved responses of the server and brings both into the shape that
`treepo.drawing` draws. Another format is another branch of `read_trees`.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from treepo.config import Vote
from treepo.drawing import draw, one_line, readable, shape_of
from treepo.errors import ConfigError, RolloutFileError
from treepo.rollout.files import Rollout, read
from treepo.tree import Tree
from treepo.votes.evidence import Sharing, effective_samples
from treepo.votes.voting import choose, vote_weights

_TAIL_CHARS = 120


@dataclass(frozen=True, slots=True)
class Saved:
    """A tree of a file.

    Attributes:
        key: Its name in the file; empty for a response.
        title: The question, as far as the file knows it.
        tree: In the shape of a response's `tree`.
        text: The winner's text, None where the file has none.
    """

    key: str
    title: str
    tree: Mapping[str, Any]
    text: str | None


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of `treepo show`."""
    parser.add_argument(
        "file", type=Path, help="a rollout file of `treepo sample`, or a saved response"
    )
    parser.add_argument(
        "pick",
        nargs="?",
        help="the tree's number, or the beginning of its key; without it many trees are listed",
    )


def run(args: Namespace) -> int:
    """Draws the only tree or the one picked, or lists them all; returns 0.

    Raises:
        ConfigError: The file holds no tree, or not the one picked.
        RolloutFileError: A line of it is wrong.
    """
    trees = list(read_trees(args.file))
    console = Console()
    if args.pick is None and len(trees) != 1:
        console.print(listed(trees))
        return 0
    saved = picked(trees, args.pick) if args.pick is not None else trees[0]
    console.print(Text(readable(saved.title), style="bold"), "", draw(saved.tree), sep="\n")
    if saved.text is not None:
        text = Text(readable(saved.text))
        console.print("", Text("the winning path", style="bold"), text, sep="\n")
    return 0


def read_trees(path: Path) -> Iterator[Saved]:
    """The trees of a file, one in memory at a time.

    Raises:
        ConfigError: It is neither a rollout file nor a saved response.
        RolloutFileError: It cannot be read, or a line of it is wrong.
    """
    try:
        with path.open("rb") as stream:
            start = stream.readline(1 << 20)
    except OSError as error:
        raise RolloutFileError(str(path), 1, str(error.strerror)) from None
    if b'"rollout"' in start[:100]:
        yield from map(_of_rollout, read(path))
        return
    try:
        response = json.loads(path.read_bytes())
    except ValueError:
        response = None
    report = response.get("tree") if isinstance(response, dict) else None
    if not isinstance(report, dict) or "trajectories" not in report:
        message = f"{path} is neither a rollout file of `treepo sample` nor a saved response with a"
        raise ConfigError(f"{message} `tree`: save the whole JSON that the server answered")
    yield Saved("", str(path.name), report, _winner_text(response))


def picked(trees: list[Saved], pick: str) -> Saved:
    """The tree of that number, counted from 1, or whose key begins so.

    Raises:
        ConfigError: There is none, or more than one.
    """
    if pick.isdecimal() and 1 <= int(pick) <= len(trees):
        return trees[int(pick) - 1]
    found = [saved for saved in trees if saved.key and saved.key.startswith(pick)]
    if len(found) != 1:
        how_many = "no tree" if not found else f"{len(found)} trees"
        message = f"{pick!r} names {how_many} of this file; give a number from 1 to {len(trees)}"
        raise ConfigError(f"{message}, or the beginning of one key")
    return found[0]


def listed(trees: list[Saved]) -> Table:
    """A line for each tree."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("", "key", "answer", "agree", "paths", "tokens"):
        is_text = title in ("key", "answer")
        table.add_column(title, justify="left" if is_text else "right", no_wrap=True)
    # The one column that may shrink, or a long question would leave no room for the others.
    table.add_column("question", ratio=1)
    for number, saved in enumerate(trees, 1):
        tree = saved.tree
        answer = tree.get("answer")
        table.add_row(
            str(number),
            saved.key[:8],
            Text("no answer" if answer is None else one_line(str(answer), 20)),
            f"{float(tree.get('agreement') or 0):.0%}",
            str(len(tree["trajectories"])),
            f"{int(tree['stats']['generated_tokens']):,}",
            Text(one_line(saved.title, 400), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _of_rollout(rollout: Rollout) -> Saved:
    tree = rollout.tree
    vote: Vote = next((v for v in get_args(Vote) if v == tree.settings.get("vote")), "majority")
    winner = choose(tree, vote)
    text = tree.trajectories[winner.trajectory].text if winner else None
    return Saved(rollout.key, _title(rollout), _report(tree, vote), text)


def _report(tree: Tree, vote: Vote) -> dict[str, Any]:
    """The shape of a response's `tree`, from a record."""
    winner = choose(tree, vote)
    tails = {t.leaf: _tail(t.text) for t in tree.trajectories if t.text}
    return {
        "answer": winner.text if winner else None,
        "agreement": winner.agreement if winner else None,
        "effective_samples": effective_samples(Sharing.of(tree, vote_weights(tree, vote))),
        "finish": tree.finish,
        "votes": [
            {"answer": v.text, "count": v.count, "weight": v.weight, "share": v.share}
            for v in (winner.votes if winner else ())
        ],
        "stats": asdict(tree.stats),
        **shape_of(tree, tails, (t.answer_text for t in tree.trajectories)),
    }


def _tail(text: str) -> str:
    """How a trajectory ends: a record has token ids, and no text of its segments."""
    return text if len(text) <= _TAIL_CHARS else f"…{text[-_TAIL_CHARS:]}"


def _title(rollout: Rollout) -> str:
    prompt = rollout.columns.get("prompt", rollout.columns.get("question"))
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], dict):
        prompt = prompt[-1].get("content")
    return str(prompt if prompt is not None else rollout.columns.get("id", rollout.key))


def _winner_text(response: Mapping[str, Any]) -> str | None:
    choices = response.get("choices") or [{}]
    first = choices[0]
    text = (first.get("message") or {}).get("content", first.get("text"))
    return text if isinstance(text, str) else None
