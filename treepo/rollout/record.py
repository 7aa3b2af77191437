"""One line of a rollout file: a sampled tree with what belongs to it, to JSON and back.

It checks that what it reads is a whole and consistent tree, so that nobody behind it has to. It
knows neither files (`files.py`) nor what columns and rewards mean. A new field of `Tree` needs
no line here as long as it has a default, and readers leave out fields they do not know; a change
that old readers must not overlook raises `VERSION`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from treepo.tree import Node, Tree

VERSION = 1
"""Version of a line's layout, written into each line under `rollout`."""

DIGITS = 6
"""Decimals kept of per-token figures, in nats: an error of at most 5e-7 a token."""

_VERSION_KEY = "rollout"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A tree and what belongs to it.

    Attributes:
        key: Names the prompt and the settings; see `prompt_key`.
        tree: The tree; its `settings` are the resolved tree configuration.
        columns: What the prompt's line in its data set holds, `id` included; JSON values.
        rewards: One per trajectory, in their order, None where a reward does not apply; None
            as a whole before anything was rewarded.
        origin: What the tree was sampled with beside its `settings`: model, sampling, version.
    """

    key: str
    tree: Tree
    columns: Mapping[str, Any] = field(default_factory=dict)
    rewards: tuple[float | None, ...] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)


_ROLLOUT = TypeAdapter(Rollout)


def prompt_key(
    prompt_token_ids: Sequence[int], settings: Mapping[str, Any], name: Any = None
) -> str:
    """32 hexadecimal digits that agree where prompt, settings and name agree.

    Args:
        prompt_token_ids: The prompt as the model reads it.
        settings: Everything the sampling depends on, as JSON values.
        name: Tells equal prompts apart: the prompt's own `id`, how many equal ones stand before
            it, or both.
    """
    content = json.dumps([list(prompt_token_ids), settings, name], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def encode(rollout: Rollout) -> bytes:
    """The record as one line of strict JSON, line break included.

    Log-probs and uncertainties are rounded to `DIGITS` decimals; everything else is exact.
    Fields that have their default are left out, and a node's id is its place in the list.

    Raises:
        ValueError: Columns, rewards or origin hold a number that JSON has not.
    """
    record = {_VERSION_KEY: VERSION, **_changed(rollout)}
    del record["tree"]  # the longest field goes last, for those who read the file
    record["tree"] = tree_values(rollout.tree)
    line = json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return line.encode() + b"\n"


def tree_values(tree: Tree) -> dict[str, Any]:
    """The tree as it stands in a line, JSON values only; `decode_values` reads it back."""
    values = _changed(tree)
    values["nodes"] = [_node(node) for node in tree.nodes]
    values["trajectories"] = [_changed(t) for t in tree.trajectories]
    if "stats" in values:
        values["stats"] = _changed(tree.stats)
    return values


def _changed(record: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, values as they are."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {
        f.name: values[f.name]
        for f in fields(record)
        if values[f.name] != (f.default_factory() if f.default_factory != MISSING else f.default)
    }


def _node(node: Node) -> dict[str, Any]:
    values = _changed(node)
    del values["id"]
    for name in ("logprobs", "uncertainty"):
        if name in values:
            values[name] = _rounded(values[name])
    return values


def _rounded(values: Sequence[float]) -> list[Any]:
    """`values` to `DIGITS` decimals; JSON has no infinities, so those are strings."""
    rounded = np.round(values, DIGITS)
    if np.isfinite(rounded).all():
        return list(rounded.tolist())
    return [value if np.isfinite(value) else str(value) for value in rounded.tolist()]


def decode(line: bytes) -> Rollout:
    """The record of one line.

    Raises:
        ValueError: It is no JSON, of another version, or no whole and consistent tree.
    """
    return decode_values(_parse(line))


def decode_values(record: Any) -> Rollout:
    """The record of a line's JSON value.

    Raises:
        ValueError: It is of another version, or no whole and consistent tree.
    """
    if not isinstance(record, dict) or _VERSION_KEY not in record:
        raise ValueError(f"no rollout record: it has no `{_VERSION_KEY}`")
    version = record.pop(_VERSION_KEY)
    if version != VERSION:
        remedy = "use the one that wrote it, or sample anew"
        raise ValueError(f"rollout version {version!r}; this treepo reads {VERSION}: {remedy}")
    _number_nodes(record)
    try:
        rollout = _ROLLOUT.validate_python(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"`{place}`: {first['msg']}") from None
    _check(rollout)
    return rollout


def _parse(line: bytes) -> Any:
    try:
        return from_json(line.rstrip())
    except ValueError as error:
        raise ValueError(f"no JSON: {error}".replace("at line 1 column", "at column")) from None


def _number_nodes(record: dict[str, Any]) -> None:
    tree = record.get("tree")
    nodes = tree.get("nodes") if isinstance(tree, dict) else None
    for number, node in enumerate(nodes if isinstance(nodes, list) else ()):
        if isinstance(node, dict):
            node["id"] = number


def _check(rollout: Rollout) -> None:
    tree = rollout.tree
    for node in tree.nodes:
        _check_node(tree, node)
    for index, trajectory in enumerate(tree.trajectories):
        if not 0 <= trajectory.leaf < len(tree.nodes):
            raise ValueError(f"`tree.trajectories.{index}.leaf`: no node {trajectory.leaf}")
    if rollout.rewards is not None and len(rollout.rewards) != len(tree.trajectories):
        raise ValueError("`rewards`: not one per trajectory")


def _check_node(tree: Tree, node: Node) -> None:
    where = f"tree.nodes.{node.id}"
    if node.parent is not None and not 0 <= node.parent < node.id:
        raise ValueError(f"`{where}.parent`: {node.parent} is no earlier node")
    start = 0 if node.parent is None else tree.nodes[node.parent].end
    if node.start != start:
        raise ValueError(f"`{where}.start`: {node.start}, but its parent ends at {start}")
    for name, values in (("logprobs", node.logprobs), ("uncertainty", node.uncertainty)):
        if len(values) not in (0, len(node.token_ids)):
            raise ValueError(f"`{where}.{name}`: {len(values)} for {len(node.token_ids)} tokens")
