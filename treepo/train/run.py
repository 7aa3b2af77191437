"""A run from its configuration: model, data, engine and rewards put together around `Trainer`.

One job: to open what a run needs, in the order that fails early and cheaply, and to close it.
Another place to sample is another `OpenRollouts`; `open_rollouts` knows an engine of this process
and a pool of hosts.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from treepo.errors import ConfigError
from treepo.local.backends import Backend
from treepo.rollout.files import read
from treepo.train.collect import Online, Stored, Stream, check_origin, stored_groups
from treepo.train.config import TrainConfig
from treepo.train.data import Example, load
from treepo.train.learner import Learner
from treepo.train.report import Report
from treepo.train.reward_pool import RewardPool
from treepo.train.rollouts import EngineRollouts, Rollouts
from treepo.train.trainer import Sampling, Trainer, check_resumable

API_KEY_VARIABLE = "TREEPO_API_KEY"
"""Environment variable with the key of the hosts."""

OpenRollouts = Callable[[], AbstractContextManager[Rollouts]]
"""Starts whoever samples; called once, on the main rank of an online run."""


def run_training(
    config: TrainConfig,
    tokenizer: Any,
    load_model: Callable[[], Any],
    open_rollouts: OpenRollouts,
) -> dict[str, Any]:
    """Train as the configuration says; returns the summary.

    Args:
        config: The run's.
        tokenizer: The model's.
        load_model: Makes the transformers model that learns.
        open_rollouts: See there.

    Raises:
        TreePOError: Data, model, engine or `output_dir` is at fault.
    """
    started = time.monotonic()
    check_resumable(config)
    if config.engine.threads is not None:
        torch.set_num_threads(config.engine.threads)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        log_with=list(config.log.trackers) or None,
        project_dir=str(config.output_dir),
    )
    set_seed(config.seed)
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        sampling, report = None, None
        if accelerator.is_main_process:
            pool = stack.enter_context(RewardPool(config.rewards))
            sampling = _open(config, tokenizer, pool, open_rollouts, runner, stack)
            report = _report(config, accelerator, tokenizer, stack)
        learner = Learner(load_model(), tokenizer, config, accelerator)
        gc.collect()
        trainer = Trainer(config, accelerator, learner, sampling, report, runner, started)
        return trainer.train()


@contextmanager
def open_rollouts(config: TrainConfig, backend: Backend) -> Iterator[Rollouts]:
    """The hosts of the configuration, or the backend's engine where it names none.

    Raises:
        ConfigError: The engine does not start.
    """
    from treepo.train.weights import open_sync

    kind, folder = config.engine.weights, config.output_dir.absolute() / "weights"
    if config.engine.hosts:
        from treepo.train.remote import HostRollouts
        from treepo.train.remote_hosts import CONCURRENCY, HostPool
        from treepo.train.weights_transfer import TransferSync

        pool = HostPool(
            config.engine.hosts,
            concurrency=config.sampling.concurrency or CONCURRENCY,
            api_key=os.environ.get(API_KEY_VARIABLE),
        )
        nccl = kind == "nccl"
        yield HostRollouts(pool, TransferSync(pool) if nccl else open_sync(kind, pool, folder))
        return
    with backend.engine() as engine:
        sync = open_sync(kind, engine, folder)
        yield EngineRollouts(engine, sync, backend.tokenizer(), config.sampling.concurrency)


def load_transformers(config: TrainConfig, name: str) -> Any:
    """The model that learns, in the dtype that is stored.

    Raises:
        ConfigError: It cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, config.dtype))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"`model` {name!r} cannot be loaded: {reason}") from None


def _open(
    config: TrainConfig,
    tokenizer: Any,
    pool: RewardPool,
    open_rollouts: OpenRollouts,
    runner: asyncio.Runner,
    stack: ExitStack,
) -> Sampling:
    if config.trees is not None:
        rollouts_read = list(read(config.trees))
        check_origin(rollouts_read, config)
        groups = stored_groups(rollouts_read, tokenizer, pool)
        stored: Stream = Stored(config, groups)
        return Sampling(stored, None, pool, ())
    data = config.data
    examples = _examples(config, data.train, tokenizer, data.split, data.limit)
    held_out = _examples(config, data.eval, tokenizer, data.eval_split, data.eval_limit)
    rollouts = stack.enter_context(open_rollouts())
    stack.callback(lambda: runner.run(rollouts.close()))
    return Sampling(Online(config, examples, rollouts, pool), rollouts, pool, held_out)


def _examples(
    config: TrainConfig, source: str | None, tokenizer: Any, split: str, limit: int | None
) -> list[Example]:
    if source is None:
        return []
    return load(source, tokenizer, name=config.data.name, split=split, limit=limit)


def _report(
    config: TrainConfig, accelerator: Accelerator, tokenizer: Any, stack: ExitStack
) -> Report:
    config.output_dir.mkdir(parents=True, exist_ok=True)
    if config.log.trackers:
        accelerator.init_trackers("treepo")
    stack.callback(accelerator.end_training)
    report = Report(config.output_dir, config.steps, accelerator, tokenizer)
    return stack.enter_context(report)
