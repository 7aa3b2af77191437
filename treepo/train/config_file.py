"""A YAML file and `key=value` words -> a `TrainConfig`, or an error that names the key.

Defaults < file < words. Keys have dots between sections (`optimizer.lr=1e-5`); values are YAML.
It knows no option: a new one is a field in `config.py`.
"""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from treepo.errors import ConfigError
from treepo.train.config import TrainConfig

_Values = dict[str, Any]
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes `1e-5` for a text; everybody who writes it means a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load(path: str | os.PathLike[str] | None, words: Sequence[str] = ()) -> TrainConfig:
    """The configuration of a file, with the words on top.

    File names in it are relative to the working directory, then to the file.

    Args:
        path: A YAML file; None for the words alone.
        words: `key=value`, with dots between the sections.

    Raises:
        ConfigError: The file cannot be read, a key is unknown (the nearest one is named), or a
            value is out of range.
    """
    values = {} if path is None else _read(path)
    beside = Path(path).parent if path is not None else Path()
    _relocate(values, beside)
    for word in words:
        _set(values, word)
    return build(values)


def build(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration these values make.

    Raises:
        ConfigError: See `load`.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def dump(config: TrainConfig) -> str:
    """The whole configuration as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read(path: str | os.PathLike[str]) -> _Values:
    where = os.fspath(path)
    try:
        values = yaml.load(Path(where).read_text(), Loader=_Loader)  # noqa: S506
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: not `key: value` lines; see docs/training.md")
    return values


def _relocate(values: _Values, beside: Path) -> None:
    """File names that are there beside the configuration, but not in the working directory."""
    data = values.get("data")
    for section, key in ((data, "train"), (data, "eval"), (values, "trees"), (values, "model")):
        if not isinstance(section, dict) or not isinstance(section.get(key), str):
            continue
        name = Path(section[key])
        if not name.exists() and (beside / name).exists():
            section[key] = str(beside / name)


def _set(values: _Values, word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not all(part.isidentifier() for part in key.split(".")):
        raise ConfigError(f"{word!r} is no setting; write key=value, for example optimizer.lr=1e-5")
    *sections, last = key.split(".")
    at = values
    for section in sections:
        if at.get(section) is None:
            at[section] = {}
        if not isinstance(at[section], dict):
            raise ConfigError(f"`{key}`: `{section}` has no keys; it is {at[section]!r}")
        at = at[section]
    try:
        at[last] = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError:
        at[last] = text


def _explain(error: ValidationError) -> str:
    # A misspelt key is named before the required one that is missing for it.
    found = error.errors(include_url=False)
    first = next((e for e in found if e["type"] in _UNKNOWN), found[0])
    path = _path(first["loc"])
    key = ".".join(path)
    if first["type"] in _UNKNOWN:
        known = _names(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.0)
        hint = f"did you mean `{'.'.join([*path[:-1], near[0]])}`?" if near else "remove it"
        return f"`{key}`: no such key; {hint}"
    if first["type"] == "missing":
        return f"`{key}` is missing; add it to the file or write {key}=..."
    if not path:
        return str(first["msg"]).removeprefix("Value error, ")
    return f"`{key}` is {first['input']!r}: {_wanted(first, path)}"


def _path(places: Sequence[str | int]) -> list[str]:
    """The keys of a place, without what pydantic adds behind them for entries and alternatives."""
    path: list[str] = []
    for part in places:
        if path and not _names(path):
            break
        path.append(str(part))
    return path


def _wanted(error: Any, path: Sequence[str]) -> str:
    key, given = ".".join(path), error["input"]
    if error["type"] in ("tuple_type", "list_type"):
        return f"a list is wanted; write {key}=[{given}]"
    if names := _names(path):
        return f"a section is wanted; write for example {key}.{names[0]}=..."
    return str(error["msg"])


def _names(path: Sequence[str]) -> list[str]:
    """The keys of the section that the path leads to."""
    kind: Any = TrainConfig
    for part in path:
        kind = _section(_annotations(kind).get(part))
    return list(_annotations(kind))


def _annotations(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {field.name: hints[field.name] for field in fields(kind)}
    return {}


def _section(annotation: Any) -> Any:
    """The class in `Section | None`."""
    choices = get_args(annotation) or (annotation,)
    return next((c for c in choices if isinstance(c, type) and c is not type(None)), None)
