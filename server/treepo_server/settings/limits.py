"""What one request may ask of this server, as its operator set it.

Read once from the environment, so that `treepo serve` and vLLM's own server obey the same limits:
each field is the variable `TREEPO_` with its name. A request above a limit is refused; where the
request says nothing, the limit holds. A new limit is a field here, with a flag in
`launch/options.py`. What all trees together may use is `capacity.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from treepo.config import TreeConfig
from treepo.errors import ConfigError, FieldError

PREFIX = "TREEPO_"


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest values a request may carry; None is no limit."""

    max_width: int = 64
    max_depth: int | None = None
    max_total_tokens: int | None = None

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Limits:
        """The limits that the environment sets.

        Raises:
            ConfigError: A variable is not an integer of at least 1; it is named.
        """
        names = ("max_width", "max_depth", "max_total_tokens")
        keys = {name: PREFIX + name.upper() for name in names}
        return cls(
            **{n: positive(k, environment[k]) for n, k in keys.items() if environment.get(k)}
        )

    def apply(self, config: TreeConfig) -> TreeConfig:
        """The settings with the limits filled in where the caller set nothing.

        Raises:
            FieldError: A setting is above its limit.
        """
        is_said = "width" in config.model_fields_set
        width = config.width if is_said else min(config.width, self.max_width)
        held = {
            "width": _check("width", width, self.max_width),
            "max_depth": _check("max_depth", config.max_depth, self.max_depth),
            "max_total_tokens": _check(
                "max_total_tokens", config.max_total_tokens, self.max_total_tokens
            ),
        }
        return config.model_copy(update=held)


def _check(name: str, asked: int | None, limit: int | None) -> int | None:
    if asked is None or limit is None:
        return limit if asked is None else asked
    if asked > limit:
        remedy = f"Send `{name}: {limit}` or less; the limit is this server's."
        raise FieldError(f"tree.{name}", asked, f"1 to {limit}", remedy)
    return asked


def positive(key: str, text: str) -> int:
    """The integer that an environment variable sets.

    Raises:
        ConfigError: It is none, or below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{key} is {text!r}; set it to an integer of at least 1 or unset it")
    return int(text)
