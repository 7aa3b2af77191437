"""The policy that learns: model, optimizer, and one batch of trees -> optimizer steps.

One job: what happens on the devices. It knows neither where trees come from nor what is stored
when. All ranks get the same batch, compute the same advantages and rows, and each takes its share
of the rows, so that n processes make the step that one would have made. Another optimizer is a
line in `Learner.__init__`; what a row's loss is stands in `loss.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from treepo.errors import ConfigError
from treepo.train.advantage import TreeAdvantages, advantages
from treepo.train.collect import Group
from treepo.train.config import LoraConfig, TrainConfig
from treepo.train.export import Export, full_state
from treepo.train.loss import Policy, mean_metrics, policy_loss
from treepo.train.pack import Row, pack, padding_row


class Learner:
    """A policy under training on this rank.

    Args:
        model: A causal language model of transformers, full, in the dtype that is to be stored.
        tokenizer: Its tokenizer, for exports.
        config: The run's.
        accelerator: accelerate's.

    Raises:
        ConfigError: The model cannot read a tree.
    """

    def __init__(self, model: Any, tokenizer: Any, config: TrainConfig, accelerator: Any) -> None:
        self._config = config
        self._accelerator = accelerator
        self._tokenizer = tokenizer
        self._base = model
        model.to(accelerator.device)
        if config.update.checkpoint_activations:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if config.lora is not None:
            model = _with_adapters(model, config.lora)
        policy = Policy(
            model.train(),
            temperature=config.sampling.temperature,
            chunk_tokens=config.update.chunk_tokens,
            compute_dtype=torch.bfloat16 if config.mixed_precision == "bf16" else None,
        )
        policy._no_split_modules = self._base._no_split_modules  # what FSDP wraps
        options = config.optimizer
        optimizer = torch.optim.AdamW(
            [p for p in policy.parameters() if p.requires_grad],
            lr=options.lr,
            betas=options.betas,
            weight_decay=options.weight_decay,
        )
        self.policy, self.optimizer = accelerator.prepare(policy, optimizer)
        self.num_updates = 0

    def update(self, groups: Sequence[Group], *, check_sampler: bool) -> dict[str, float]:
        """Learn from a batch; returns figures for the log.

        Args:
            groups: The batch, the same on every rank.
            check_sampler: Whether the sampler held these very weights, so that its
                log-probabilities must be ours.

        Raises:
            ConfigError: They are not, or a gradient is not finite; no step was made with it.
        """
        trees = [group.tree for group in groups]
        scores = advantages(trees, [group.rewards for group in groups], self._config.advantages)
        count = min(self._config.update.mini_batches, len(groups))
        metrics: list[dict[str, float]] = []
        for number in range(count):
            part = slice(number, None, count)
            rows = pack(trees[part], scores[part], self._config.update.row_tokens)
            metrics.append(self._step(rows, scores[part], check_sampler and number == 0))
        return {
            "logprob_diff": metrics[0]["logprob_diff"],
            **{
                name: sum(m[name] for m in metrics) / count
                for name in metrics[0]
                if name != "logprob_diff"
            },
            "optimizer_steps": count,
        }

    def export(self) -> Export:
        """The weights as they are now; call it on every rank, use it on the main one."""
        lora = self._config.lora
        scale = None if lora is None else lora.alpha / lora.r
        state = full_state(self._accelerator.get_state_dict(self.policy), self._base, scale)
        return Export(state, self._base, self._tokenizer)

    def _step(
        self, rows: list[Row], scores: Sequence[TreeAdvantages], check_sampler: bool
    ) -> dict[str, float]:
        accelerator, divisor = self._accelerator, sum(score.divisor for score in scores)
        ranks = accelerator.num_processes
        mine = rows[accelerator.process_index :: ranks]
        # Collectives of FSDP and DDP have to match, so that ranks without a row take an empty one.
        mine += [padding_row()] * (math.ceil(len(rows) / ranks) - len(mine))
        loss, sums = 0.0, []
        for index, row in enumerate(mine):
            is_last = index == len(mine) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.policy):
                part, row_sums = self._backward(row.to(accelerator.device), divisor)
            loss += part
            sums.append(row_sums)
        metrics = self._gather(loss, sums)
        if check_sampler:
            self._check(metrics["logprob_diff"])
        norm = accelerator.clip_grad_norm_(
            self.policy.parameters(), self._config.optimizer.max_grad_norm
        )
        metrics["grad_norm"] = float(norm)
        metrics["lr"] = self._apply(metrics["grad_norm"])
        metrics["rows"] = len(rows)
        return metrics

    def _backward(self, row: Row, divisor: float) -> tuple[float, dict[str, float]]:
        """One micro-batch: its share of the loss, and its sums."""
        loss, sums = policy_loss(self.policy(row), row, self._config.loss, divisor)
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


def _with_adapters(model: Any, config: LoraConfig) -> Any:
    import peft

    wanted = config.target_modules
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.r,
            lora_alpha=config.alpha,
            lora_dropout=0.0,
            target_modules=wanted if isinstance(wanted, str) else list(wanted),
            task_type="CAUSAL_LM",
        ),
    )
