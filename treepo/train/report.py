"""What a run shows: a progress bar, a line a step, trees with rewards, `metrics.jsonl`, warnings.

It decides nothing about the run. `metrics.jsonl` is cut back to the checkpoint when a run is
resumed, so that it reads as if the run had never been interrupted. accelerate's trackers get the
same figures. A new warning is a line in `Watch`.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from treepo.drawing import draw_tree, shape_of
from treepo.rollout.files import RolloutWarning
from treepo.train.checkpoint import named_writing, replace_file
from treepo.train.collect import Batch, Group

_PATIENCE = 3
_FAR = 1.0
_SHOWN_PROMPT = 120
_EVALUATION = "eval/"


class TrainWarning(UserWarning):
    """Something that lets a run go on, but probably not learn."""


class Report:
    """Shows one run; only the main rank has one.

    Args:
        folder: The run's `output_dir`.
        steps: How many there will be.
        accelerator: accelerate's, for the trackers.
        tokenizer: To show trees as text.
    """

    def __init__(self, folder: Path, steps: int, accelerator: Any, tokenizer: Any) -> None:
        self._file = folder / "metrics.jsonl"
        self._accelerator = accelerator
        self._tokenizer = tokenizer
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("steps", total=steps)

    def __enter__(self) -> Report:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def cut_back(self, step: int, *, evaluated: bool) -> None:
        """Forget what was written after a step, and go on from it.

        Args:
            step: The last step whose figures stay.
            evaluated: Whether an evaluation after it stays too.
        """
        self._bar.update(self._task, completed=step)
        if self._file.exists():
            lines = self._file.read_text().splitlines()
            kept = [line for line in lines if _moment(line) <= (step, evaluated)]
            with named_writing(self._file):
                replace_file(self._file, "".join(f"{line}\n" for line in kept))

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """One step's figures."""
        self._write({"step": step, **metrics})
        self._bar.update(self._task, completed=step)
        shown = "  ".join(f"{name} {_short(metrics[name])}" for name in _SHOWN if name in metrics)
        self.say(f"step {step}  {shown}")

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """An evaluation's figures."""
        named = {f"{_EVALUATION}{name}": value for name, value in figures.items()}
        self._write({"step": step, **named})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self.say(f"evaluation after step {step}  {shown}")

    def say(self, text: str) -> None:
        """A line for the reader."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tree(self, group: Group) -> None:
        """One tree below the end of its prompt, each trajectory with its reward."""
        prompt = self._tokenizer.decode(list(group.tree.prompt_token_ids))
        self.say(f"a tree of {group.example.place}: {prompt[-_SHOWN_PROMPT:]!r}")
        self._console.print(draw_tree(_picture(group, self._tokenizer)))

    def _write(self, record: Mapping[str, float]) -> None:
        with named_writing(self._file), self._file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        values = {name: value for name, value in record.items() if name != "step"}
        self._accelerator.log(values, step=int(record["step"]))


_SHOWN = (
    "reward",
    "loss",
    "logprob_diff",
    "grad_norm",
    "prompts_kept",
    "generated_tokens",
    "tokens",
    "seconds",
)


def _short(value: float) -> str:
    """Three digits; a count as it is."""
    is_count = float(value).is_integer() or abs(value) >= 1000
    return f"{value:.0f}" if is_count else f"{value:.3g}"


def _moment(line: str) -> tuple[int, bool]:
    """The step of a line, and whether it is an evaluation; a torn one is after all that is kept."""
    try:
        record = json.loads(line)
        return int(record["step"]), any(name.startswith(_EVALUATION) for name in record)
    except (ValueError, KeyError):
        return 1 << 62, True


def _picture(group: Group, tokenizer: Any) -> dict[str, Any]:
    texts = {node.id: tokenizer.decode(list(node.token_ids)) for node in group.tree.nodes}
    rewards = ("no reward" if r is None else f"reward {r:g}" for r in group.rewards)
    return shape_of(group.tree, texts, rewards)


@dataclass(slots=True)
class Watch:
    """Looks out for runs that cannot learn, and warns once for each reason."""

    flat_batches: int = 0
    said: set[str] = field(default_factory=set)

    def see(self, batch: Batch) -> None:
        """Look at a batch.

        Warns:
            TrainWarning: Rewards never differ, or the model ends at once.
        """
        self.missing("a batch", batch.failures, batch.reasons)
        self.flat_batches = 0 if batch.groups else self.flat_batches + 1
        if self.flat_batches == _PATIENCE:
            _warn(_flat(batch))
        if batch.empty_trajectories > 0.9 * max(batch.num_trajectories, 1):
            self._once(
                "empty",
                "nearly all trajectories end with their first token: the model emits only the end "
                "of sequence. Check the prompts' format (a chat template for a chat model, few "
                "examples in a plain text) and `sampling.stop`.",
            )

    def missing(self, where: str, failures: Mapping[str, int], reasons: Sequence[str]) -> None:
        """Look at the rewards that failed, by kind, and at why prompts got no tree.

        Warns:
            TrainWarning: There are any.
        """
        for kind, count in failures.items():
            self._once(kind, f"{count} rewards of {where} are missing: {_FAILURES[kind]}")
        for reason in reasons:
            self._once("tree", f"a prompt of {where} got no tree: {reason}")

    def compare(self, logprob_diff: float) -> None:
        """Look at how far the sampler of stored trees is from the model, in nats a token.

        Warns:
            TrainWarning: So far that it was another one.
        """
        if logprob_diff > _FAR:
            self._once(
                "far",
                f"the log-probabilities in the file differ from the model's by {logprob_diff:.3g} "
                "nats a token: its trees were sampled with another model, or with a much older "
                "one, and most of their tokens will be clipped. See `model`.",
            )

    def _once(self, kind: str, text: str) -> None:
        if kind not in self.said:
            self.said.add(kind)
            _warn(text)


_FAILURES = {
    "raised": "a reward function raised, or did not return one finite number or None for each "
    "completion; its traceback stands above. Mend it, or give such trajectories a value with "
    "`rewards.missing_reward`.",
    "timeout": "a reward function took longer than `rewards.limit_s` and was ended. Raise the "
    "limit, or give such trajectories a value with `rewards.missing_reward`.",
    "crash": "a reward function ended its process (out of memory, or a fault in a library). Mend "
    "it, or give such trajectories a value with `rewards.missing_reward`.",
}


def _flat(batch: Batch) -> str:
    if not batch.rewards:
        return (
            f"for {_PATIENCE} batches in a row no trajectory got a reward, so nothing was learnt: "
            "the reward functions failed on all of them, or returned None."
        )
    values = set(batch.rewards)
    what = f"a reward of {next(iter(values)):g}" if len(values) == 1 else "equal rewards"
    return (
        f"for {_PATIENCE} batches in a row all trajectories of each prompt got {what}, so nothing "
        "was learnt from them. A reward that never fires: look at the printed tree and at what the "
        "reward expects (its columns, the answer's format), try easier prompts, examples in the "
        "prompt, or more `tree.width`. One that always fires: the task is solved."
    )


def _warn(text: str) -> None:
    warnings.warn(text, TrainWarning, stacklevel=4)


def warn_plainly() -> None:
    """Show warnings of ours as a line for the reader instead of as a place in the source."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, TrainWarning | RolloutWarning):
            print(f"treepo: warning: {message}", file=sys.stderr)
        else:
            shown(message, category, *where, **more)

    warnings.showwarning = show
