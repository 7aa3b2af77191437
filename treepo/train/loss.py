"""The loss of one row: clipped policy gradient from two advantages a token.

One job: log-probabilities of a row's sampled tokens, and PPO's objective on them. It sees tokens,
parents, A+ and A-, and knows neither trees nor estimators: a row of single trajectories gives the
same loss and gradient as the forest they came from. It does not know the optimizer or other ranks
either: it divides by a constant that the caller computes over the whole batch. A new term is a
function of `(logprobs, row, index)` added in `policy_loss`.

Exact because every trajectory through a token has the same ratio there: with r the ratio, the sum
over trajectories of min(r a, clip(r) a) is A+ min(r, 1 + high) - A- max(r, 1 - low). Ratios of a
whole sequence (GSPO) differ between trajectories and have no such form; they are not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from treepo.train.attention import AttentionName, attention_inputs, prepare
from treepo.train.config import LossConfig
from treepo.train.pack import Row

Scored = Float[Tensor, " scored"]
Positions = Int[Tensor, " scored"]
States = Float[Tensor, "scored width"]
Scalar = Float[Tensor, ""]

_MOST_LOG_RATIO = 20.0


class Policy(nn.Module):
    """A causal language model whose forward maps a row to the log-probabilities of its tokens.

    The object to hand to accelerate: FSDP and DDP act on a module's forward, and this forward
    holds both the decoder and the head.

    Args:
        model: A causal language model of transformers, bare or wrapped by peft.
        temperature: What logits are divided by.
        chunk_tokens: Tokens whose logits exist at one time.
        compute_dtype: What attention computes in, where it is not the parameters' type (autocast).

    Raises:
        ConfigError: The model cannot read a tree.
    """

    def __init__(
        self,
        model: Any,
        temperature: float = 1.0,
        chunk_tokens: int = 1024,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._no_split_modules = model._no_split_modules  # what FSDP wraps
        self.temperature = temperature
        self.chunk_tokens = chunk_tokens
        self.attention: AttentionName = prepare(model, compute_dtype)

    def tie_weights(self) -> None:
        """Tie again what FSDP has torn apart in loading."""
        self.model.tie_weights()

    def forward(self, row: Row) -> Scored:
        """Log-probability in nats of each token under `row.loss_mask`, in row order."""
        hidden = self.model.get_decoder()(
            input_ids=row.token_ids[None],
            position_ids=row.positions[None],
            use_cache=False,
            **attention_inputs(row, self.attention),
        ).last_hidden_state[0]
        scored = row.loss_mask.nonzero()[:, 0]
        return token_logprobs(
            hidden[row.parents[scored]],
            row.token_ids[scored],
            self.model.get_output_embeddings(),
            temperature=self.temperature,
            chunk_tokens=self.chunk_tokens,
        )


def token_logprobs(
    hidden: States,
    token_ids: Positions,
    head: Callable[[Tensor], Tensor],
    *,
    temperature: float = 1.0,
    chunk_tokens: int = 1024,
) -> Scored:
    """Log-probability of each token given the hidden state before it, in at least fp32.

    Logits are made chunk by chunk and again in the backward pass, never all at one time.
    """

    def project(states: Tensor, targets: Tensor) -> Tensor:
        logits = head(states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)

    chunks = zip(
        torch.split(hidden, chunk_tokens), torch.split(token_ids, chunk_tokens), strict=True
    )
    return torch.cat([checkpoint(project, *chunk, use_reentrant=False) for chunk in chunks])


def policy_loss(
    logprobs: Scored,
    row: Row,
    config: LossConfig,
    divisor: float,
    *,
    anchor: Scored | None = None,
    reference: Scored | None = None,
) -> tuple[Scalar, dict[str, float]]:
    """The row's share of the batch loss, and the row's sums for `mean_metrics`.

    Args:
        logprobs: Of the row's scored tokens under the model that learns; what `Policy` returns.
        row: The row.
        config: See there.
        divisor: Sum of `TreeAdvantages.divisor` over the whole batch and all ranks.
        anchor: The scored tokens' log-probabilities before the first step on this batch; the
            ratio is to them. None: the ratio is to the sampler's.
        reference: The same under the reference model; needed when `kl_coef` is not 0.

    Raises:
        ValueError: `kl_coef` is not 0 and there is no reference.
    """
    if config.kl_coef and reference is None:
        raise ValueError("`kl_coef` is not 0, but there are no reference log-probabilities")
    scored = row.loss_mask.nonzero()[:, 0]
    sampled, up, down = (c[scored] for c in (row.sampling_logprobs, row.positive, row.negative))
    old = sampled if anchor is None else anchor.detach()
    ratio = (logprobs - old).clamp(-_MOST_LOG_RATIO, _MOST_LOG_RATIO).exp()
    correction = torch.ones_like(ratio)
    if config.importance_cap is not None:
        correction = (old - sampled).exp().clamp(max=config.importance_cap)
    terms = correction * clipped(ratio, up, down, config)
    kl = torch.zeros_like(ratio) if reference is None else k3(logprobs, reference.detach())
    if config.kl_coef:
        terms = terms + config.kl_coef * row.weights[scored] * kl
    gap = (logprobs - sampled).abs()
    return terms.sum() / divisor, _sums(ratio, up, down, config, gap, correction, kl)


def clipped(ratio: Scored, up: Scored, down: Scored, config: LossConfig) -> Scored:
    """Each token's loss before the division: DAPO's clip-higher, with dual clip on A- only.

    Args:
        ratio: pi / pi_old.
        up: A+.
        down: A-.
        config: The clip's bounds.
    """
    push = ratio.clamp(min=1 - config.clip_ratio_low, max=config.dual_clip)
    return down * push - up * ratio.clamp(max=1 + config.clip_ratio_high)


def k3(logprobs: Scored, reference: Scored) -> Scored:
    """Schulman's third KL estimator, exp(d) - d - 1 with d = reference - logprobs; never < 0."""
    gap = (reference - logprobs).clamp(-_MOST_LOG_RATIO, _MOST_LOG_RATIO)
    return gap.exp() - gap - 1


@torch.no_grad()
def _sums(
    ratio: Scored,
    up: Scored,
    down: Scored,
    config: LossConfig,
    gap: Scored,
    correction: Scored,
    kl: Scored,
) -> dict[str, float]:
    """What `mean_metrics` takes of a row, in one transfer from the device."""
    columns = {
        "tokens": torch.ones_like(ratio),
        "logprob_diff": gap,
        "ratio": ratio,
        "clip_high": (ratio > 1 + config.clip_ratio_high) & (up > 0),
        "clip_low": (ratio < 1 - config.clip_ratio_low) & (down > 0),
        "clip_dual": (ratio > (config.dual_clip or float("inf"))) & (down > 0),
        "importance": correction,
        "kl": kl,
    }
    totals = torch.stack([column.sum().to(ratio.dtype) for column in columns.values()]).tolist()
    return dict(zip(columns, totals, strict=True))


def mean_metrics(sums: list[dict[str, float]]) -> dict[str, float]:
    """Means over the distinct scored tokens of many rows; `tokens` stays their number."""
    tokens = sum((row["tokens"] for row in sums), 0.0)
    names = [name for name in (sums[0] if sums else {}) if name != "tokens"]
    means = {name: sum(row[name] for row in sums) / max(tokens, 1.0) for name in names}
    return {"tokens": tokens, **means}
