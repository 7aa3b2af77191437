"""The policy that learns: model, optimizer, and one batch of trees -> optimizer steps.

One job: what happens on the devices. It knows neither where trees come from nor what is stored
when. All ranks get the same batch, compute the same advantages and rows, and each takes its share
of the rows, so that n processes make the step that one would have made. Another optimizer is a
line in `make_optimizer`; what a row's loss is stands in `loss.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from treepo.errors import ConfigError
from treepo.train.advantage import TreeAdvantages, advantages
from treepo.train.collect import Group
from treepo.train.config import LoraConfig, OptimizerConfig, TrainConfig
from treepo.train.export import Export, full_state
from treepo.train.loss import Policy, mean_metrics, policy_loss
from treepo.train.pack import Row, pack, padding_row
from treepo.tree import Tree

_COUNTS = ("tokens", "rows")
"""Figures of a mini-batch that are added up over the batch; the others are averaged."""


class Learner:
    """A policy under training on this rank.

    Args:
        load_model: Makes a causal language model of transformers, full, in the dtype that is to be
            stored: the one that learns and, for a KL term, the one it is held to.
        tokenizer: Its tokenizer, for exports.
        config: The run's.
        accelerator: accelerate's.

    Raises:
        ConfigError: The model cannot read a tree.
    """

    def __init__(
        self, load_model: Callable[[], Any], tokenizer: Any, config: TrainConfig, accelerator: Any
    ) -> None:
        self._config = config
        self._accelerator = accelerator
        self._tokenizer = tokenizer
        self._base = model = load_model().to(accelerator.device)
        self._reference = self._held_to(load_model) if config.loss.kl_coef else None
        if config.update.checkpoint_activations:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if config.lora is not None:
            model = _with_adapters(model, config.lora)
        policy = self._policy(model.train())
        optimizer = make_optimizer(policy, config.optimizer)
        self.policy, self.optimizer = accelerator.prepare(policy, optimizer)
        self.num_updates = 0

    def update(self, groups: Sequence[Group], *, check_sampler: bool) -> dict[str, float]:
        """Learn from a batch; returns figures for the log.

        Args:
            groups: The batch, the same on every rank.
            check_sampler: Whether the sampler held these very weights, so that its
                log-probabilities must be ours.

        Raises:
            ConfigError: They are not, a gradient is not finite, or the trees hold tokens that the
                model has not; no step was made with it.
        """
        trees = [group.tree for group in groups]
        scores = advantages(trees, [group.rewards for group in groups], self._config.advantages)
        count = min(self._config.update.mini_batches, len(groups))
        parts = [self._part(trees[number::count], scores[number::count]) for number in range(count)]
        self._anchor(parts[1:])
        return _of_batch(
            [self._step(part, check_sampler and number == 0) for number, part in enumerate(parts)]
        )

    def export(self) -> Export:
        """The weights as they are now; call it on every rank, use it on the main one."""
        lora = self._config.lora
        scale = None if lora is None else lora.alpha / lora.r
        state = full_state(self._accelerator.get_state_dict(self.policy), self._base, scale)
        return Export(state, self._base, self._tokenizer)

    def _policy(self, model: Any) -> Policy:
        config = self._config
        return Policy(
            model,
            temperature=config.sampling.temperature,
            chunk_tokens=config.update.chunk_tokens,
            compute_dtype=torch.bfloat16 if config.mixed_precision == "bf16" else None,
        )

    def _held_to(self, load_model: Callable[[], Any]) -> Policy:
        model = load_model().to(self._accelerator.device)
        return self._policy(model.requires_grad_(requires_grad=False).eval())

    def _part(self, trees: Sequence[Tree], scores: Sequence[TreeAdvantages]) -> _Part:
        """This rank's rows of a mini-batch."""
        rows = pack(trees, scores, self._config.update.row_tokens)
        accelerator, ranks = self._accelerator, self._accelerator.num_processes
        mine = rows[accelerator.process_index :: ranks]
        # Collectives of FSDP and DDP have to match, so that ranks without a row take an empty one.
        mine += [padding_row()] * (math.ceil(len(rows) / ranks) - len(mine))
        known = self._base.config.get_text_config().vocab_size
        if any(int(row.token_ids.max()) >= known for row in rows):
            raise ConfigError(
                f"the trees hold tokens that `model` has not (it has {known}); name the model that "
                "they were sampled with"
            )
        rows_here = [row.to(accelerator.device) for row in mine]
        return _Part(rows_here, sum(score.divisor for score in scores), len(rows))

    def _anchor(self, parts: Sequence[_Part]) -> None:
        """Note the policy's log-probabilities before the first step, where ratios are to them.

        In the first mini-batch they are those of its own forward pass.
        """
        if self._config.loss.anchor == "trainer":
            for part in parts:
                part.anchors = [self._quiet(self.policy, row) for row in part.rows]

    def _quiet(self, policy: Any, row: Row) -> Tensor:
        with torch.no_grad(), self._accelerator.autocast():
            logprobs: Tensor = policy(row)
        return logprobs

    def _step(self, part: _Part, check_sampler: bool) -> dict[str, float]:
        accelerator = self._accelerator
        loss, sums = 0.0, []
        for index in range(len(part.rows)):
            is_last = index == len(part.rows) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.policy):
                share, row_sums = self._backward(part, index)
            loss += share
            sums.append(row_sums)
        metrics = self._gather(loss, sums)
        if check_sampler:
            self._check(metrics["logprob_diff"])
        norm = accelerator.clip_grad_norm_(
            self.policy.parameters(), self._config.optimizer.max_grad_norm
        )
        metrics["grad_norm"] = float(norm)
        metrics["lr"] = self._apply(metrics["grad_norm"])
        metrics["rows"] = part.num_rows
        return metrics

    def _backward(self, part: _Part, index: int) -> tuple[float, dict[str, float]]:
        """One micro-batch: its share of the loss, and its sums."""
        row, config = part.rows[index], self._config.loss
        logprobs = self.policy(row)
        anchor = None
        if config.anchor == "trainer":
            anchor = part.anchors[index] if part.anchors else logprobs.detach()
        reference = None if self._reference is None else self._quiet(self._reference, row)
        loss, sums = policy_loss(
            logprobs, row, config, part.divisor, anchor=anchor, reference=reference
        )
        # DDP and FSDP average over ranks; the divisor already counts all of them.
        self._accelerator.backward(loss * self._accelerator.num_processes)
        return float(loss.detach()), sums

    def _gather(self, loss: float, sums: list[dict[str, float]]) -> dict[str, float]:
        names = list(sums[0])
        mine = torch.tensor([loss, *(math.fsum(row[n] for row in sums) for n in names)])
        total: Tensor = self._accelerator.reduce(mine.to(self._accelerator.device), "sum")
        values = total.tolist()
        means = mean_metrics([dict(zip(names, values[1:], strict=True))])
        return {"loss": values[0], **means}

    def _check(self, difference: float) -> None:
        limit = self._config.update.max_logprob_diff
        if limit is not None and not difference <= limit:
            self.optimizer.zero_grad()
            raise ConfigError(
                f"sampler and trainer disagree on the sampled tokens' log-probabilities by "
                f"{difference:.3g} nats on average; allowed: `update.max_logprob_diff`, "
                f"{limit:g}. The engine holds other weights (see `engine.weights`), computes in a "
                "coarser type (`engine.vllm.dtype`), or draws in another way; if that is meant, "
                "raise the limit."
            )

    def _apply(self, norm: float) -> float:
        if not math.isfinite(norm):
            self.optimizer.zero_grad()
            raise ConfigError(
                f"the gradient's norm is {norm}; no step was made. Resume from the last "
                "checkpoint with a lower `optimizer.lr`, or with `mixed_precision: no`."
            )
        options = self._config.optimizer
        self.num_updates += 1
        lr = options.lr * min(1.0, self.num_updates / max(options.warmup_steps, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return lr


@dataclass(slots=True)
class _Part:
    """A mini-batch on this rank.

    Attributes:
        rows: This rank's, as many as every other rank has.
        divisor: What the loss is divided by, over all ranks.
        num_rows: Rows of all ranks.
        anchors: Log-probabilities of each row's tokens before the batch's first step; empty where
            they are not needed.
    """

    rows: list[Row]
    divisor: float
    num_rows: int
    anchors: list[Tensor] = field(default_factory=list)


def make_optimizer(policy: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """What moves the parameters of a policy that learn."""
    return torch.optim.AdamW(
        [p for p in policy.parameters() if p.requires_grad],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _of_batch(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """A batch's figures from those of its mini-batches.

    `logprob_diff` is the first one's: after a step the sampler is of other weights.
    """
    count = len(metrics)
    figures = {
        name: sum(m[name] for m in metrics) / (1 if name in _COUNTS else count)
        for name in metrics[0]
    }
    return figures | {"logprob_diff": metrics[0]["logprob_diff"], "optimizer_steps": count}


def _with_adapters(model: Any, config: LoraConfig) -> Any:
    import peft

    wanted = config.target_modules
    options = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=wanted if isinstance(wanted, str) else list(wanted),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = peft.get_peft_model(model, options)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"`lora.target_modules` is {wanted!r}: {reason}") from None
    adapters = [m for m in adapted.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    if odd := {type(m).__name__ for m in adapters if not isinstance(m.base_layer, nn.Linear)}:
        raise ConfigError(
            f"`lora.target_modules` is {wanted!r}, which also names layers of kind "
            f"{', '.join(sorted(odd))}; only linear layers are merged for the engine"
        )
    return adapted
