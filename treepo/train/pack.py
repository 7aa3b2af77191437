"""Packing: trees and their advantages -> rows of tokens in which shared tokens stand once.

One job: lay a forest out in depth-first order with everything the loss needs beside each token.
It knows neither the model nor the loss; how a row is attended stands in `attention.py`. The same
row type holds whole trees, pieces of a tree that is too large, and single trajectories
(`unpack`), so whatever reads a row cannot tell them apart. A new per-token quantity is a field of
`Row` and a line in `_lay_out`.

A token's log-probability is read from its parent's hidden state, so `parents` replaces the usual
shift by one, and one position may predict several tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from treepo.errors import ConfigError
from treepo.train.advantage import TreeAdvantages
from treepo.tree import Node, Tree

Ids = Int[Tensor, " tokens"]
Numbers = Float[Tensor, " tokens"]
Flags = Bool[Tensor, " tokens"]
NodeFlags = npt.NDArray[np.bool_]
NodeNumbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Row:
    """A forest of tokens in depth-first order, prompts included.

    Attributes:
        token_ids: The tokens.
        parents: Index of the token before each one on its path, -1 for a prompt's first.
        positions: Tokens before it on its path: its position id.
        subtree_ends: One past the last token of the subtree that begins with the token.
        sampling_logprobs: Log-probability under the sampler, in nats; 0 on prompts.
        positive: A+, see `TreeAdvantages.positive`.
        negative: A-, see `TreeAdvantages.negative`.
        weights: What a term common to all trajectories through the token is multiplied by.
        loss_mask: Whether the token has a loss here; every sampled token has one in one row only.
    """

    token_ids: Ids
    parents: Ids
    positions: Ids
    subtree_ends: Ids
    sampling_logprobs: Numbers
    positive: Numbers
    negative: Numbers
    weights: Numbers
    loss_mask: Flags

    def __len__(self) -> int:
        """How many tokens the model has to read."""
        return len(self.token_ids)

    def to(self, device: torch.device | str) -> Row:
        """The same row on another device."""
        return Row(*(getattr(self, f.name).to(device) for f in fields(self)))


def pack(
    trees: Sequence[Tree],
    advantages: Sequence[TreeAdvantages],
    max_tokens: int,
    dtype: torch.dtype = torch.float32,
) -> list[Row]:
    """Rows of at most `max_tokens` tokens that hold every tree, largest pieces first.

    Nodes on no trajectory that counts are left out. A tree that is larger than a row is cut into
    pieces that each repeat the path from the prompt; a repeated token has its loss in the first
    piece only, and passes gradient in all of them.

    Args:
        trees: The records.
        advantages: One for each tree.
        max_tokens: Tokens of a row, prompts and repeated tokens included.
        dtype: Of the log-probabilities and advantages.

    Raises:
        ConfigError: A single trajectory is longer than a row, or the trees carry no log-probs.
    """
    rows: list[Row] = []
    for tree, advantage in zip(trees, advantages, strict=True):
        scores = advantage.positive, advantage.negative, advantage.weight
        rows += [
            _lay_out(tree, nodes, scored, scores, dtype)
            for nodes, scored in _pieces(tree, advantage.n_leaves > 0, max_tokens)
        ]
    return [join(group) for group in bins(rows, max_tokens)]


def unpack(
    trees: Sequence[Tree], advantages: Sequence[TreeAdvantages], dtype: torch.dtype = torch.float32
) -> list[Row]:
    """One row for each trajectory that counts, sharing nothing: what `pack` has to equal.

    Raises:
        ConfigError: The trees carry no log-probabilities.
    """
    rows = []
    for tree, advantage in zip(trees, advantages, strict=True):
        everything = np.ones(len(tree.nodes), dtype=bool)
        for index in np.flatnonzero((advantage.weights > 0).any(1)):
            nodes = [node.id for node in tree.lineage(tree.trajectories[index].leaf)]
            values = advantage.values[index]
            scores = np.maximum(values, 0), np.maximum(-values, 0), advantage.weights[index]
            rows.append(_lay_out(tree, nodes, everything, scores, dtype))
    return rows


def bins(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """The rows in groups of at most `max_tokens` tokens each: first fit, largest first."""
    groups: list[list[Row]] = []
    room: list[int] = []
    for row in sorted(rows, key=len, reverse=True):
        index = next((i for i, left in enumerate(room) if left >= len(row)), len(room))
        if index == len(room):
            groups.append([])
            room.append(max_tokens)
        groups[index].append(row)
        room[index] -= len(row)
    return groups


def join(rows: Sequence[Row]) -> Row:
    """One row that holds the forests of all of them, none of which attends to another."""
    columns = {f.name: torch.cat([getattr(row, f.name) for row in rows]) for f in fields(Row)}
    sizes = torch.tensor([len(row) for row in rows])
    shift = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    columns["parents"] = torch.where(columns["parents"] < 0, -1, columns["parents"] + shift)
    columns["subtree_ends"] = columns["subtree_ends"] + shift
    return Row(**columns)


def padding_row(dtype: torch.dtype = torch.float32) -> Row:
    """A row of one token without loss, for ranks that have run out of rows."""
    zero, number = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=dtype)
    return Row(
        token_ids=zero,
        parents=zero - 1,
        positions=zero,
        subtree_ends=zero + 1,
        sampling_logprobs=number,
        positive=number,
        negative=number,
        weights=number,
        loss_mask=torch.zeros(1, dtype=torch.bool),
    )


def _pieces(tree: Tree, used: NodeFlags, max_tokens: int) -> list[tuple[list[int], NodeFlags]]:
    """Node sets that fit a row, each closed under ancestors, and which nodes have their loss."""
    order = [node.id for _, node in tree.walk() if used[node.id]]
    if not order:
        return []
    lengths = [len(node.token_ids) for node in tree.nodes]
    prompt = len(tree.prompt_token_ids)
    if prompt + sum(lengths[node] for node in order) <= max_tokens:
        return [(order, used)]
    inner = {tree.nodes[node].parent for node in order}
    pieces: list[set[int]] = [set()]
    size = prompt
    for leaf in (node for node in order if node not in inner):
        path = {node.id for node in tree.lineage(leaf)}
        added = sum(lengths[node] for node in path - pieces[-1])
        if size + added > max_tokens and pieces[-1]:
            pieces.append(set())
            size, added = prompt, sum(lengths[node] for node in path)
        if size + added > max_tokens:
            raise ConfigError(
                f"`update.row_tokens` is {max_tokens}, but a trajectory of tree {tree.id!r} has "
                f"{size + added} tokens with its prompt; allow at least that many."
            )
        pieces[-1] |= path
        size += added
    scored, out = used.copy(), []
    for piece in pieces:
        out.append(([node for node in order if node in piece], scored.copy()))
        scored[list(piece)] = False
    return out


def _lay_out(
    tree: Tree,
    order: Sequence[int],
    scored: NodeFlags,
    scores: tuple[NodeNumbers, NodeNumbers, NodeNumbers],
    dtype: torch.dtype,
) -> Row:
    """One tree's nodes, depth-first, behind its prompt."""
    nodes = [tree.nodes[node] for node in order]
    _check(tree, nodes)
    lengths = np.array([len(tree.prompt_token_ids)] + [len(node.token_ids) for node in nodes])
    starts = np.array([0] + [lengths[0] + node.start for node in nodes])
    parents, ends = _skeleton(nodes, lengths)
    silence = (0.0,) * len(tree.prompt_token_ids)

    def spread(values: npt.NDArray[np.generic]) -> Tensor:
        """A value of each node on each of its tokens, zero on the prompt."""
        column = np.append(np.zeros(1, values.dtype), values[list(order)])
        return torch.from_numpy(np.repeat(column, lengths))

    tokens = chain(tree.prompt_token_ids, *(node.token_ids for node in nodes))
    logprobs = chain(silence, *(node.logprobs for node in nodes))
    shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return Row(
        token_ids=torch.tensor(list(tokens), dtype=torch.int64),
        parents=torch.from_numpy(parents),
        positions=torch.from_numpy(np.arange(len(parents)) + shift),
        subtree_ends=torch.from_numpy(np.repeat(ends, lengths)),
        sampling_logprobs=torch.tensor(list(logprobs), dtype=dtype),
        positive=spread(scores[0]).to(dtype),
        negative=spread(scores[1]).to(dtype),
        weights=spread(scores[2]).to(dtype),
        loss_mask=spread(scored),
    )


def _skeleton(nodes: Sequence[Node], lengths: Indices) -> tuple[Indices, Indices]:
    """For each token its parent, and for the prompt and each node the end of its subtree."""
    place: dict[int | None, int] = {node.id: at for at, node in enumerate(nodes, start=1)}
    above = np.array([0] + [place.get(node.parent, 0) for node in nodes])
    ends = np.cumsum(lengths)
    begins, last = ends - lengths, ends - 1
    for at in np.flatnonzero(lengths == 0):
        last[at] = last[above[at]]
    parents = np.arange(ends[-1]) - 1
    filled = np.flatnonzero(lengths[1:]) + 1
    parents[begins[filled]] = last[above[filled]]
    for at in range(len(nodes), 0, -1):
        ends[above[at]] = max(ends[above[at]], ends[at])
    return parents, ends


def _check(tree: Tree, nodes: Sequence[Node]) -> None:
    if not tree.prompt_token_ids:
        raise ConfigError(f"tree {tree.id!r} has an empty prompt; training needs a token at least")
    for node in nodes:
        if len(node.logprobs) != len(node.token_ids):
            raise ConfigError(
                f"tree {tree.id!r}, node {node.id}: {len(node.token_ids)} tokens but "
                f"{len(node.logprobs)} sampling log-probabilities; sample with log-probabilities."
            )
