"""`train`: the loop. Sample, reward, update, push, log; now and then evaluate and store.

One job: the order in which things happen, and what a run remembers between processes. It joins
`collect` (batches), `learner` (the policy), `rollouts` (the engine), `evaluate`, `checkpoint` and
`report`, and knows the inside of none. On several ranks the main one samples and the others get
its batches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from treepo.errors import CheckpointError
from treepo.train.checkpoint import (
    Checkpoints,
    named_reading,
    named_writing,
    read_run,
    replace_file,
    replace_folder,
)
from treepo.train.collect import Batch, Stream
from treepo.train.config import TrainConfig
from treepo.train.config_file import dump
from treepo.train.data import Example
from treepo.train.evaluate import evaluate
from treepo.train.learner import Learner
from treepo.train.report import Report, Watch
from treepo.train.reward_pool import RewardPool
from treepo.train.rollouts import Rollouts

MODEL_FOLDER = "model"
"""Where in `output_dir` the finished policy goes: a folder that `treepo serve` takes."""

CHECKPOINTS = "checkpoints"
"""Where in `output_dir` checkpoints go."""

_FREE = ("output_dir", "steps", "eval", "checkpoint", "log", "engine")
"""Sections that may change when a run is resumed."""


@dataclass(slots=True)
class Progress:
    """What a run remembers: stored in every checkpoint.

    Attributes:
        step: Batches learnt from.
        cursor: Prompts drawn.
        num_updates: Optimizer steps, which are also the version of the weights.
        seconds: Time spent, start-up and evaluations included.
        before: Evaluation of the untrained policy.
    """

    step: int = 0
    cursor: int = 0
    num_updates: int = 0
    seconds: float = 0.0
    before: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """What the main rank has: batches, and who samples and rewards for evaluations.

    Attributes:
        stream: Batches.
        rollouts: The engine; None offline.
        rewards: Where rewards come from.
        held_out: Examples of the evaluation.
    """

    stream: Stream
    rollouts: Rollouts | None
    rewards: RewardPool
    held_out: Sequence[Example]


class Trainer:
    """One run on this rank.

    Args:
        config: The run's.
        accelerator: accelerate's.
        learner: The policy.
        source: Where batches and evaluations come from, on the main rank.
        report: What shows the run, on the main rank.
        runner: The event loop the engine lives on.
        started: When this process began with the run, on the monotonic clock in seconds.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Any,
        learner: Learner,
        source: Source | None,
        report: Report | None,
        runner: asyncio.Runner,
        started: float,
    ) -> None:
        self._config = config
        self._accelerator = accelerator
        self._learner = learner
        self._source = source
        self._report = report
        self._runner = runner
        self._progress = Progress()
        self._watch = Watch()
        self._checkpoints = Checkpoints(config.output_dir / CHECKPOINTS, config.checkpoint.keep)
        self._since = started

    def train(self) -> dict[str, Any]:
        """Train to the last step, from the newest checkpoint on; returns the run's summary.

        Raises:
            TreePOError: See `Learner.update` and `Online.next`.
        """
        self._resume()
        config, progress = self._config, self._progress
        self._push()
        if not progress.before:
            progress.before = self._evaluate()
        while progress.step < config.steps:
            self._one_step()
            is_last = progress.step == config.steps
            if not is_last and _is_due(progress.step, config.eval.every):
                self._evaluate()
            if is_last or _is_due(progress.step, config.checkpoint.every):
                self._store()
        after = self._evaluate()
        self._publish()
        return self._summary(after)

    def _one_step(self) -> None:
        started, progress = time.monotonic(), self._progress
        batch = self._next_batch()
        sampled = time.monotonic()
        progress.step += 1
        metrics = batch.metrics
        if batch.groups:
            metrics |= self._learner.update(batch.groups, check_sampler=self._config.trees is None)
            progress.num_updates = self._learner.num_updates
            if self._config.trees is not None:
                self._watch.compare(metrics["logprob_diff"])
        updated = time.monotonic()
        if batch.groups:
            self._push()
        ended = time.monotonic()
        metrics |= {
            "weight_version": progress.num_updates,
            "sampling_seconds": round(sampled - started, 3),
            "update_seconds": round(updated - sampled, 3),
            "push_seconds": round(ended - updated, 3),
            "seconds": round(ended - started, 3),
        }
        if self._report is not None:
            self._report.step(progress.step, metrics)
            if batch.shown and _is_due(progress.step, self._config.log.tree_every):
                self._report.tree(batch.shown)

    def _next_batch(self) -> Batch:
        batch: list[Any] = [None]
        if self._source is not None:
            batch = [self._runner.run(self._source.stream.next())]
            self._watch.see(batch[0])
            self._progress.cursor = self._source.stream.cursor
        broadcast_object_list(batch)
        found: Batch = batch[0]
        return found

    def _push(self) -> None:
        if self._config.trees is not None:
            return
        export = self._learner.export()
        if self._source is not None and self._source.rollouts is not None:
            self._runner.run(self._source.rollouts.push(export, self._progress.num_updates))

    def _evaluate(self) -> dict[str, float]:
        source = self._source
        if source is None or source.rollouts is None or not source.held_out:
            return {}
        started = time.monotonic()
        found = self._runner.run(
            evaluate(source.rollouts, source.rewards, source.held_out, self._config)
        )
        self._watch.missing("an evaluation", found.failures, found.reasons)
        figures = {name: round(value, 6) for name, value in found.figures.items()}
        if self._report is not None:
            seconds = round(time.monotonic() - started, 3)
            self._report.evaluation(self._progress.step, figures | {"seconds": seconds})
        return figures

    # storing

    def _resume(self) -> None:
        is_main = self._accelerator.is_main_process
        if is_main:
            self._checkpoints.tidy()
        self._accelerator.wait_for_everyone()
        latest = self._checkpoints.latest()
        if latest is not None:
            self._load(latest)
        elif is_main:
            target = self._config.output_dir / "config.yaml"
            with named_writing(target):
                replace_file(target, dump(self._config))
        if self._report is not None:
            # The evaluations before the first step and after the last are made again.
            step = self._progress.step
            self._report.cut_back(step, evaluated=0 < step < self._config.steps)

    def _load(self, checkpoint: Path) -> None:
        run = read_run(checkpoint)
        with named_reading(checkpoint):
            self._accelerator.load_state(str(checkpoint))
            self._progress = Progress(**run["progress"])
        self._learner.num_updates = self._progress.num_updates
        if self._source is not None:
            self._source.stream.cursor = self._progress.cursor
        if self._report is not None:
            self._report.say(f"resumed from {checkpoint}")

    def _store(self) -> None:
        self._clock()
        name = self._checkpoints.name(self._progress.step)
        with named_writing(name):
            folder: list[Any] = [None]
            if self._accelerator.is_main_process:
                folder = [self._checkpoints.begin(self._progress.step)]
            broadcast_object_list(folder)
            self._accelerator.save_state(str(folder[0]), safe_serialization=False)
            self._accelerator.wait_for_everyone()
            if self._accelerator.is_main_process:
                run = {
                    "progress": asdict(self._progress),
                    "config": self._config.model_dump(mode="json"),
                }
                self._checkpoints.commit(folder[0], run)
        self._accelerator.wait_for_everyone()

    def _publish(self) -> None:
        export, target = self._learner.export(), self._config.output_dir / MODEL_FOLDER
        if self._accelerator.is_main_process:
            with named_writing(target):
                replace_folder(target, export.save)
        self._accelerator.wait_for_everyone()

    def _clock(self) -> None:
        now = time.monotonic()
        self._progress.seconds += now - self._since
        self._since = now

    def _summary(self, after: dict[str, float]) -> dict[str, Any]:
        self._clock()
        name = f"mean@{self._config.eval.samples}"
        return {
            "model": str(self._config.output_dir / MODEL_FOLDER),
            f"{name}_before": self._progress.before.get("mean"),
            f"{name}_after": after.get("mean"),
            "steps": self._progress.step,
            "optimizer_steps": self._progress.num_updates,
            "seconds": round(self._progress.seconds, 1),
        }


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def check_resumable(config: TrainConfig) -> None:
    """See that what is in `output_dir`, if anything, is this run: before anything is started.

    Raises:
        CheckpointError: It is another run, or cannot be read.
    """
    checkpoints = Checkpoints(config.output_dir / CHECKPOINTS, config.checkpoint.keep)
    latest = checkpoints.latest()
    if latest is None:
        return
    stored, now = read_run(latest)["config"], config.model_dump(mode="json")
    for name in sorted((set(stored) | set(now)) - set(_FREE)):
        if stored.get(name) != now.get(name):
            raise CheckpointError(
                f"{latest} belongs to a run with other settings: `{name}` was "
                f"{stored.get(name)!r} and is {now.get(name)!r}. Go on with the old settings, or "
                "name another `output_dir`."
            )
