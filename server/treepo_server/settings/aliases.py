"""Model names that stand for a model with a default `tree`: for clients without extra fields.

The operator sets them once, in the environment, so that `treepo serve` and vLLM's own server obey
the same ones:

    TREEPO_ALIASES    {"name": {<tree>}, ...} as JSON, or the path of a file that holds it

(`treepo serve --tree-alias 'name={<tree>}'` adds to that.)

A `model` beside the fields of the tree names the served model or adapter; without it, it is the
server's first. It knows nothing of routes; what a tree may be is `treepo.config`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treepo.config import parse_tree_config
from treepo.errors import ConfigError, FieldError
from treepo_server.settings.limits import Limits

KEY = "TREEPO_ALIASES"


@dataclass(frozen=True, slots=True)
class Alias:
    """What a name stands for; `model` None is the server's first model."""

    tree: dict[str, Any]
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Aliases:
    """The aliases of a server, by name."""

    by_name: Mapping[str, Alias] = field(default_factory=dict)

    @classmethod
    def from_env(cls, environment: Mapping[str, str], limits: Limits) -> Aliases:
        """The aliases that the environment sets.

        Raises:
            ConfigError: They are no JSON object, or a tree is wrong or above a limit.
        """
        text = environment.get(KEY, "").strip()
        return cls({name: _alias(name, value, limits) for name, value in _read(text).items()})

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.by_name)

    def check(self, served: Iterable[str]) -> None:
        """See that no alias hides a model.

        Raises:
            ConfigError: One does.
        """
        hidden = sorted(set(self.by_name) & set(served))
        if hidden:
            raise ConfigError(f"{KEY} names a served model, {hidden[0]!r}: choose another name")

    def apply(self, request: Any) -> None:
        """Let a request that names an alias ask for its model and its tree.

        Fields of the request's own `tree` win. A `tree` that is no object stays as it is, to be
        refused.
        """
        alias = self.by_name.get(request.model) if self.by_name and request.model else None
        if alias is None:
            return
        request.model = alias.model
        own = request.model_extra.get("tree")
        if own is None or isinstance(own, dict):
            request.model_extra["tree"] = {**alias.tree, **(own or {})}

    def cards(self, models: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Entries for `/v1/models`, made from those of the models they stand for."""
        by_id = {model["id"]: model for model in models}
        return [
            {**card, "id": name, "parent": card["id"], "tree": alias.tree}
            for name, alias in self.by_name.items()
            if (card := by_id.get(alias.model or models[0]["id"])) is not None
        ]


def with_flags(text: str, flags: Iterable[str]) -> str:
    """The value of `TREEPO_ALIASES` with what `--tree-alias NAME={...}` adds to it.

    Raises:
        ConfigError: A flag is no name with a JSON object.
    """
    aliases = _read(text.strip())
    for flag in flags:
        name, _, tree = flag.partition("=")
        try:
            aliases[name] = json.loads(tree)
        except ValueError:
            message = f"--tree-alias {flag!r} has no JSON object; write it like "
            raise ConfigError(message + """--tree-alias 'name={"width": 8}'""") from None
    return json.dumps(aliases)


def _read(text: str) -> dict[str, Any]:
    if not text:
        return {}
    source = KEY if text.startswith("{") else text
    try:
        value = json.loads(text if source is KEY else Path(text).read_text())
    except OSError as error:
        raise ConfigError(
            f"{KEY}: {error}; set it to a JSON object or to a readable file"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{source} is no JSON ({error}); {_SHAPE}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{source} is no JSON object; {_SHAPE}")
    return value


_SHAPE = 'write it like {"name": {"width": 8}}'


def _alias(name: str, value: object, limits: Limits) -> Alias:
    if not name or not isinstance(value, dict):
        raise ConfigError(f"{KEY}: {name!r} is {value!r}; {_SHAPE}")
    tree = dict(value)
    model = tree.pop("model", None)
    if model is not None and not isinstance(model, str):
        raise ConfigError(f"{KEY}: {name!r}: `model` is {model!r}; name a served model")
    try:
        limits.apply(parse_tree_config(tree))
    except FieldError as error:
        raise ConfigError(f"{KEY}: {name!r}: {error}") from None
    return Alias(tree, model)
