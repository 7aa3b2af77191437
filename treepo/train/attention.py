"""Attention over a row: each token sees its ancestors and itself, and nothing else.

One job: make an unmodified transformers model read a forest. Two ways, the same numbers: `sdpa`
with an ancestor mask on any device, and `treepo_tree`, which gathers every run's root path into
plain causal sequences for a variable-length flash kernel on CUDA. It knows neither rewards nor
the loss. Models whose layers look at neighbours in the row instead of ancestors (sliding windows,
linear and state-space layers) are refused in `check_supported`.

With depth-first order the ancestors of query q are exactly the keys k <= q whose subtree has not
ended at q. A run is a stretch in which each token's parent is the token before it; its queries see
the whole path before the run and then a triangle, which is what flash kernels call causal when
there are more keys than queries: the mask is aligned to the lower right corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from treepo.errors import ConfigError
from treepo.train.pack import Ids, Row

Mask = Bool[Tensor, "1 1 tokens tokens"]
Queries = Float[Tensor, "tokens heads size"]
Keys = Float[Tensor, "tokens kv_heads size"]
RowQueries = Float[Tensor, "1 heads tokens size"]
RowKeys = Float[Tensor, "1 kv_heads tokens size"]
RowOutput = Float[Tensor, "1 tokens heads size"]
Bounds = Int[Tensor, " runs_and_one"]
Attended = Int[Tensor, " attended"]

AttentionName = Literal["sdpa", "treepo_tree"]

_UNSUPPORTED_SETTINGS = (
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
)


@dataclass(frozen=True, slots=True)
class GatherPlan:
    """Which keys each run of a row reads.

    Attributes:
        keys: The runs' root paths laid end to end, as indices into the row.
        query_bounds: Where each run begins in the row, and the row's end.
        key_bounds: Where each run's path begins in `keys`, and the end.
        longest_run: Most queries of a run.
        longest_path: Most keys of a run.
    """

    keys: Attended
    query_bounds: Bounds
    key_bounds: Bounds
    longest_run: int
    longest_path: int


def ancestor_mask(subtree_ends: Ids) -> Mask:
    """Whether a query (third axis) sees a key (last axis): k <= q < subtree_ends[k]."""
    place = torch.arange(len(subtree_ends), device=subtree_ends.device)
    sees = (place[None, :] <= place[:, None]) & (place[:, None] < subtree_ends[None, :])
    return sees[None, None]


def gather_plan(parents: Ids) -> GatherPlan:
    """The runs of a row and their root paths, on the row's device."""
    above = parents.cpu().numpy()
    starts = np.flatnonzero(above != np.arange(len(above)) - 1)
    starts = np.unique(np.append(0, starts))
    ends = np.append(starts[1:], len(above))
    before: list[np.ndarray] = []
    paths: list[np.ndarray] = []
    for start, end in zip(starts, ends, strict=True):
        parent = int(above[start])
        run = int(np.searchsorted(starts, parent, side="right")) - 1
        upward = [before[run], np.arange(starts[run], parent + 1)] if parent >= 0 else []
        before.append(np.concatenate([np.zeros(0, np.int64), *upward]))
        paths.append(np.concatenate([before[-1], np.arange(start, end)]))
    sizes = np.array([len(path) for path in paths])
    device = parents.device
    return GatherPlan(
        keys=torch.from_numpy(np.concatenate(paths)).to(device),
        query_bounds=torch.from_numpy(np.append(starts, len(above))).to(device, torch.int32),
        key_bounds=torch.from_numpy(np.append(0, sizes.cumsum())).to(device, torch.int32),
        longest_run=int((ends - starts).max()),
        longest_path=int(sizes.max()),
    )


def attention_inputs(row: Row, name: AttentionName) -> dict[str, Any]:
    """What to pass to the model's forward beside the tokens and their positions."""
    if name == "sdpa":
        return {"attention_mask": ancestor_mask(row.subtree_ends)}
    return {"attention_mask": None, "tree_plan": gather_plan(row.parents)}


def prepare(model: Any, compute_dtype: torch.dtype | None = None) -> AttentionName:
    """Set the model's attention and return its name, which `attention_inputs` wants.

    Args:
        model: A causal language model of transformers, bare or wrapped by peft.
        compute_dtype: What attention computes in, where it is not the parameters' type (autocast).

    Raises:
        ConfigError: The model cannot read a tree; see `check_supported`.
    """
    check_supported(model)
    dtype = compute_dtype or model.dtype
    half = dtype in (torch.float16, torch.bfloat16)
    name: AttentionName = "treepo_tree" if model.device.type == "cuda" and half else "sdpa"
    model.set_attn_implementation(name)
    return name


def check_supported(model: Any) -> None:
    """Refuse a model on which a packed row would not equal its trajectories one by one.

    Raises:
        ConfigError: Some layer does not attend to all ancestors, logits are rescaled outside of
            the head, or dropout is on.
    """
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if layers is None:
        layers = ["full_attention" if window is None else "sliding_attention"]
    odd = sorted({kind for kind in layers if kind != "full_attention"})
    if getattr(model, "_is_stateful", False):
        odd.append("recurrent state")
    if odd:
        raise _refusal(model, f"has layers of kind {', '.join(odd)}; only full attention is packed")
    for name in _UNSUPPORTED_SETTINGS:
        if getattr(config, name, None) not in (None, 1):
            raise _refusal(model, f"sets `{name}`, which the packed loss does not apply")
    dropout = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    if max([*dropout, getattr(config, "attention_dropout", 0.0) or 0.0]) > 0:
        raise _refusal(model, "has dropout, which differs between copies of a token; set it to 0")


def _refusal(model: Any, reason: str) -> ConfigError:
    return ConfigError(f"`model`: {type(model).__name__} {reason}.")


def gathered_attention(
    query: Queries, key: Keys, value: Keys, plan: GatherPlan, scale: float
) -> Queries:
    """Attention run by run in plain tensor operations: what the flash kernel has to equal."""
    groups = query.shape[1] // key.shape[1]
    k = key[plan.keys].repeat_interleave(groups, 1).transpose(0, 1)
    v = value[plan.keys].repeat_interleave(groups, 1).transpose(0, 1)
    q_at, k_at = plan.query_bounds.tolist(), plan.key_bounds.tolist()
    outputs = []
    for index in range(len(q_at) - 1):
        q = query[q_at[index] : q_at[index + 1]].transpose(0, 1)
        here = slice(k_at[index], k_at[index + 1])
        scores = q @ k[:, here].transpose(1, 2) * scale
        lower_right = torch.ones_like(scores[0], dtype=torch.bool).tril(
            scores.shape[2] - scores.shape[1]
        )
        weights = scores.masked_fill(~lower_right, float("-inf")).softmax(-1)
        outputs.append((weights @ v[:, here]).transpose(0, 1))
    return torch.cat(outputs)


def tree_attention(
    module: nn.Module,
    query: RowQueries,
    key: RowKeys,
    value: RowKeys,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    tree_plan: GatherPlan | None = None,
    **kwargs: Any,
) -> tuple[RowOutput, None]:
    """The attention transformers calls under the name `treepo_tree`; one row at a time.

    Half precision on CUDA runs `torch.nn.attention.varlen.varlen_attn`; everything else runs
    `gathered_attention`, which is slow.

    Raises:
        ValueError: There is no plan, or the layer asks for a window or for attention sinks.
    """
    del module, attention_mask
    if tree_plan is None:
        raise ValueError("`treepo_tree` attention needs what `attention_inputs(row, ...)` returns")
    for name in ("sliding_window", "softcap", "s_aux"):
        if kwargs.get(name) is not None:
            raise ValueError(f"`treepo_tree` attention does not apply the layer's `{name}`")
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        return _flash(q, k, v, tree_plan, scale)[None], None
    return gathered_attention(q, k, v, tree_plan, scale)[None], None


def _flash(query: Queries, key: Keys, value: Keys, plan: GatherPlan, scale: float) -> Queries:
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        query.contiguous(),
        key.index_select(0, plan.keys),
        value.index_select(0, plan.keys),
        plan.query_bounds,
        plan.key_bounds,
        plan.longest_run,
        plan.longest_path,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


def _no_mask(**_: Any) -> None:
    """The plan says who sees whom."""


AttentionInterface.register("treepo_tree", tree_attention)
AttentionMaskInterface.register("treepo_tree", _no_mask)
