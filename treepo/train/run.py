"""A run from its configuration: model, data, engine and rewards put together around `Trainer`.

One job: to open what a run needs, in the order that fails early and cheaply, and to close it.
Another place to sample is another `StartRollouts`; `open_rollouts` knows an engine of this process
and a pool of hosts.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed

from treepo.errors import ConfigError
from treepo.local.backends import Backend
from treepo.rollout.files import read
from treepo.train.checkpoint import make_folder
from treepo.train.collect import Online
from treepo.train.config import TrainConfig
from treepo.train.data import Example, load
from treepo.train.learner import Learner
from treepo.train.report import Report
from treepo.train.reward_pool import RewardPool
from treepo.train.rollouts import EngineRollouts, Rollouts
from treepo.train.stored import Stored, check_origin, stored_groups
from treepo.train.trainer import Source, Trainer, check_resumable

API_KEY_VARIABLE = "TREEPO_API_KEY"
"""Environment variable with the key of the hosts."""

_LONGEST_WAIT = timedelta(days=1)

StartRollouts = Callable[[], AbstractContextManager[Rollouts]]
"""Starts whoever samples; called once, on the main rank of an online run."""


def run_training(
    config: TrainConfig,
    tokenizer: Any,
    load_model: Callable[[], Any],
    start_rollouts: StartRollouts,
) -> dict[str, Any]:
    """Train as the configuration says; returns the summary.

    Args:
        config: The run's.
        tokenizer: The model's.
        load_model: Makes the transformers model that learns.
        start_rollouts: See there.

    Raises:
        TreePOError: Data, model, engine or `output_dir` is at fault.
    """
    started = time.monotonic()
    make_folder(config.output_dir)
    check_resumable(config)
    if config.engine.threads is not None:
        torch.set_num_threads(config.engine.threads)
    accelerator = _accelerator(config)
    set_seed(config.seed)
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        source, report = None, None
        if accelerator.is_main_process:
            source, report = _open(config, accelerator, tokenizer, start_rollouts, runner, stack)
        learner = Learner(load_model, tokenizer, config, accelerator)
        gc.collect()
        trainer = Trainer(config, accelerator, learner, source, report, runner, started)
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

        pool = HostPool(
            config.engine.hosts,
            concurrency=config.sampling.concurrency or CONCURRENCY,
            api_key=os.environ.get(API_KEY_VARIABLE),
        )
        yield HostRollouts(pool, open_sync(kind, pool, folder))
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


def _accelerator(config: TrainConfig) -> Accelerator:
    return Accelerator(
        mixed_precision=config.mixed_precision,
        log_with=list(config.log.trackers) or None,
        project_dir=str(config.output_dir),
        # Ranks wait for the one that samples, however long that takes.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)],
    )


def _open(
    config: TrainConfig,
    accelerator: Accelerator,
    tokenizer: Any,
    start_rollouts: StartRollouts,
    runner: asyncio.Runner,
    stack: ExitStack,
) -> tuple[Source, Report]:
    """What only the main rank has; `stack` closes it."""
    pool = stack.enter_context(RewardPool(config.rewards))
    if config.trees is not None:
        source = _offline(config, tokenizer, pool)
        return source, _report(config, accelerator, tokenizer, stack)
    prompts = _prompts(config, tokenizer)
    report = _report(config, accelerator, tokenizer, stack)
    report.say(
        f"{len(prompts.train)} prompts to learn from, {len(prompts.held_out)} to evaluate on; "
        "starting the engine"
    )
    rollouts = stack.enter_context(start_rollouts())
    stack.callback(lambda: runner.run(rollouts.close()))
    stream = Online(config, prompts.train, rollouts, pool)
    return Source(stream, rollouts, pool, prompts.held_out), report


@dataclass(frozen=True, slots=True)
class _Prompts:
    """What a run learns from, and what it is evaluated on."""

    train: list[Example]
    held_out: list[Example]


def _prompts(config: TrainConfig, tokenizer: Any) -> _Prompts:
    data = config.data

    def read_from(source: str | None, split: str, limit: int | None) -> list[Example]:
        if source is None:
            return []
        return load(source, tokenizer, name=data.name, split=split, limit=limit)

    return _Prompts(
        train=read_from(data.train, data.split, data.limit),
        held_out=read_from(data.eval, data.eval_split, data.eval_limit),
    )


def _offline(config: TrainConfig, tokenizer: Any, pool: RewardPool) -> Source:
    assert config.trees is not None
    records = list(read(config.trees))
    check_origin(records, config, tokenizer)
    return Source(Stored(config, *stored_groups(records, tokenizer, pool)), None, pool, ())


def _report(
    config: TrainConfig, accelerator: Accelerator, tokenizer: Any, stack: ExitStack
) -> Report:
    if config.log.trackers:
        accelerator.init_trackers("treepo")
    stack.callback(accelerator.end_training)
    report = Report(config.output_dir, config.steps, accelerator, tokenizer)
    return stack.enter_context(report)
