"""`TreeConfig`: what a caller may say about a tree, and what is filled in for them.

This is the request's `tree` object, the CLI's `--tree` and the trainer's `tree:` section. A new
option is a field here with its range in words; what it does stands in the module that reads it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from treepo.errors import FieldError

Branching = Literal["entropy", "even", "low_prob", "high_prob"]
Fallback = Literal["random", "entropy", "disagreement", "none"]
Vote = Literal["majority", "weighted", "confidence", "likelihood", "none"]
Include = Literal["nodes", "entropies", "texts", "record"]


def _as_tuple(value: object) -> object:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _in_range(roots: int | tuple[int, int]) -> int | tuple[int, int]:
    least, most = roots if isinstance(roots, tuple) else (roots, roots)
    if not 1 <= least <= most <= 1024:
        raise ValueError("give a number from 1 to 1024, or two such, the smaller first")
    return roots


Pair = Annotated[tuple[int, int], BeforeValidator(_as_tuple)]
Roots = Annotated[int | Pair, AfterValidator(_in_range)]
Includes = Annotated[tuple[Include, ...], BeforeValidator(_as_tuple)]
Share = Annotated[float, Field(gt=0.5, lt=1)]


def _option(default: Any, allowed: str, meaning: str, **limits: Any) -> Any:
    return Field(
        default=default, description=meaning, json_schema_extra={"allowed": allowed}, **limits
    )


class TreeConfig(BaseModel):
    """How to sample one tree. Every field may be left alone.

    None stands for a default that depends on the policy or the engine; `resolve` fills those in,
    and every response and rollout record carries the filled-in settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: int = _option(
        16, "an integer from 1 to 1024", "complete trajectories wanted (paper: w)", ge=1, le=1024
    )
    segment_tokens: int = _option(
        64,
        "an integer from 1 to 65536",
        "tokens between boundaries (paper: l); rounded up to the engine's block size",
        ge=1,
        le=65536,
    )
    max_depth: int | None = _option(
        None,
        "an integer from 1 to 65536, or null for as many as `max_tokens` allows",
        "most segments in a path (paper: D)",
        ge=1,
        le=65536,
    )
    branching_factor: int | None = _option(
        None,
        "an integer from 1 to 1024, or null: 2 for the paper's policies, `width` for `entropy`",
        "most children of a node (paper: N)",
        ge=1,
        le=1024,
    )
    root_branching: Roots | None = _option(
        None,
        "an integer from 1 to 1024, or [min, max] with min <= max; null: `branching_factor`, or 1"
        " for `entropy` (`width` where `branching_factor` is 1)",
        "forks of the prompt (paper: init divergence)",
    )
    branching: Branching = _option(
        "entropy", " or ".join(f"`{b}`" for b in get_args(Branching)), "where paths branch"
    )
    branching_temperature: float = _option(
        1.0,
        "a number above 0, at most 100",
        "tau of `low_prob` and `high_prob`",
        gt=0,
        le=100,
    )
    entropy_threshold: float | None = _option(
        None,
        "a number of nats from 0 to 20, or null for the engine's running reference",
        "reference entropy per token: a position of that much forks into all (`entropy`)",
        ge=0,
        le=20,
    )
    fallback: Fallback | None = _option(
        None,
        " or ".join(f"`{f}`" for f in get_args(Fallback)) + ", or null: `random` for the paper's"
        " policies, `none` for `entropy`",
        "where finished paths are branched again when trajectories are missing",
    )
    stop_on_answer: bool = _option(True, "true or false", "end a path when its answer is complete")
    repetition: bool = _option(True, "true or false", "end a path that loops")
    prune: Literal["none", "confidence"] = _option(
        "none", "`none` or `confidence`", "give up paths while they run"
    )
    prune_window: int = _option(
        64,
        "an integer from 8 to 4096",
        "tokens of the sliding entropy window, of `prune` and of `vote: confidence`",
        ge=8,
        le=4096,
    )
    prune_warmup: int = _option(
        4,
        "an integer from 1 to 1024",
        "trajectories that must have finished before any path is pruned",
        ge=1,
        le=1024,
    )
    prune_quantile: float = _option(
        0.9,
        "a number from 0.5 to 1",
        "quantile of the finished trajectories' worst windows above which a path is pruned",
        ge=0.5,
        le=1,
    )
    answer: str | dict[str, str] = _option(
        "auto",
        "`auto`, `boxed`, `last_number`, `none`, the name of an installed extractor, "
        '{"regex": "..."} or {"json": "field"}',
        "how an answer is read from a text",
    )
    vote: Vote = _option(
        "majority", " or ".join(f"`{v}`" for v in get_args(Vote)), "how the answer is chosen"
    )
    until: Literal["complete", "settled"] | Share = _option(
        "complete",
        "`complete`, `settled` or a confidence above 0.5 and below 1",
        "when the tree may end; a confidence is overstated among problems that are nearly ties",
    )
    start: int | None = _option(
        None,
        "an integer from 1 to 1024, or null for all at once",
        "trajectories to begin with; more are opened in waves while `until` is not met",
        ge=1,
        le=1024,
    )
    max_total_tokens: int | None = _option(
        None,
        "an integer of at least 1, or null",
        "tokens the whole tree may generate; each path that runs then may add up to two chunks"
        " (of 16 tokens on vLLM)",
        ge=1,
    )
    deadline_ms: int | None = _option(
        None,
        "an integer from 1 to 86400000, or null",
        "milliseconds after which the best answer so far is returned; answers that are being read"
        " then have another second",
        ge=1,
        le=86_400_000,
    )
    include: Includes = _option(
        (),
        "a list of `nodes`, `entropies`, `texts`, `record`",
        "extra detail in the response; `record` is the whole tree as a rollout file has it",
    )

    @property
    def is_paper_policy(self) -> bool:
        """Whether branching is decided per depth with the paper's budget transfer."""
        return self.branching != "entropy"

    def independent(self) -> TreeConfig:
        """The same width as trajectories that share the prompt only; what else ends them stays."""
        return self.model_copy(
            update={"branching_factor": 1, "root_branching": self.width, "fallback": "none"}
        )

    def whole_samples(self, width: int) -> TreeConfig:
        """So many independent trajectories that all run to their end; how they are read stays."""
        update = {
            "width": width,
            "branching": "even",  # one word for all, where no path forks
            "max_depth": None,
            "prune": "none",
            "until": "complete",
            "start": None,
            "max_total_tokens": None,
            "deadline_ms": None,
        }
        return self.model_copy(update=update).independent()

    def resolve(self, block_size: int, max_tokens: int, threshold: float) -> TreeConfig:
        """The same settings with every policy- or engine-dependent default filled in.

        Args:
            block_size: The engine's KV block, in tokens.
            max_tokens: Longest completion, in tokens.
            threshold: The engine's running entropy reference, in nats.
        """
        segment = -(-self.segment_tokens // block_size) * block_size
        factor = self.branching_factor or (2 if self.is_paper_policy else self.width)
        most = -(-max_tokens // segment) + 1
        return self.model_copy(
            update={
                "segment_tokens": segment,
                "max_depth": min(self.max_depth or most, most),
                "branching_factor": min(factor, self.width),
                "root_branching": self._resolved_root(factor),
                "entropy_threshold": (
                    threshold if self.entropy_threshold is None else self.entropy_threshold
                ),
                "fallback": self.fallback or ("random" if self.is_paper_policy else "none"),
                "start": min(self.start or self.width, self.width),
            }
        )

    def _resolved_root(self, factor: int) -> int | tuple[int, int]:
        root = self.root_branching
        if root is None and self.is_paper_policy:
            return min(factor, self.width)
        if root is None:  # paths that may not fork are independent samples
            return self.width if factor == 1 else 1
        if isinstance(root, tuple):
            return min(root[0], self.width), min(root[1], self.width)
        return min(root, self.width)


def parse_tree_config(value: object, field: str = "tree") -> TreeConfig:
    """A caller's `tree` object as a `TreeConfig`.

    Raises:
        FieldError: A field is unknown, of the wrong type or out of range; it names the field,
            the value, the allowed range and the remedy.
    """
    if not isinstance(value, dict):
        raise FieldError(field, value, "an object", f"Send `{field}: {{}}` for the defaults.")
    try:
        return TreeConfig.model_validate(value)
    except ValidationError as error:
        raise _field_error(error, value, field) from None


def _allowed(name: str) -> str:
    extra = TreeConfig.model_fields[name].json_schema_extra
    return str(extra["allowed"]) if isinstance(extra, dict) else ""


def _field_error(error: ValidationError, value: dict[str, object], field: str) -> FieldError:
    place = error.errors()[0]["loc"]
    if not place:  # pydantic does not name a field whose name is no text
        names = [ascii(name) for name in value]
        return FieldError(field, names, "names in UTF-8", "Leave out what is no field's name.")
    name = str(place[0])
    if name not in TreeConfig.model_fields:
        known = ", ".join(sorted(TreeConfig.model_fields))
        return FieldError(f"{field}.{name}", value.get(name), "no such field", f"Known: {known}.")
    default = TreeConfig.model_fields[name].default
    remedy = f"Leave it out for the default ({default!r}) or send a value in range."
    return FieldError(f"{field}.{name}", value.get(name), _allowed(name), remedy)
