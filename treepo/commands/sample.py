"""`treepo sample PROMPTS -o TREES`: a tree for every prompt of a file, on an engine of its own.

Prompts that already have a tree in the output are passed over, so that a run that was stopped
goes on where it was. It joins the prompts, the batch and the files of `treepo.rollout`; its options
stand in `sample_config.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from treepo.commands.sample_config import SampleConfig, add_arguments, parse
from treepo.commands.watched import watch, work
from treepo.engines.base import Engine, Sampling
from treepo.errors import ConfigError, EngineError
from treepo.growth.decoder import PromptDecoder
from treepo.growth.job import seed_of
from treepo.growth.reference import EntropyReference
from treepo.growth.texts import Texts
from treepo.local.backends import Backend, VllmBackend
from treepo.rollout.batch import default_concurrency, sample_all
from treepo.rollout.files import Rollout, RolloutWriter, prompt_key
from treepo.rollout.prompts import Prompt, read_prompts, token_ids
from treepo.sampler import Job
from treepo.tree import Tree

__all__ = ["add_arguments", "run"]


@dataclass(frozen=True, slots=True)
class _Todo:
    """A prompt without a tree."""

    key: str
    prompt: Prompt
    token_ids: list[int]


@dataclass(slots=True)
class _Counts:
    """What the last line on stdout says; `seconds` are those of sampling, without the start."""

    trees: int = 0
    skipped: int = 0
    failed: int = 0
    trajectories: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0

    def add(self, tree: Tree) -> None:
        self.trees += 1
        self.trajectories += len(tree.trajectories)
        self.generated_tokens += tree.stats.generated_tokens

    def clock(self, seconds: float) -> None:
        self.seconds = round(seconds, 3)
        self.tokens_per_second = round(self.generated_tokens / max(seconds, 1e-9), 1)


def run(args: Namespace, backend: Backend | None = None) -> int:
    """Samples what has no tree yet; returns 0, or 1 where the engine refused some prompts.

    Without a backend vLLM does it, in a process that this one only watches.

    Args:
        args: The parsed arguments.
        backend: Model and engine, to be used in this process.

    Raises:
        TreePOError: The configuration is wrong; with a backend also as `sample` does.
    """
    config = parse(args)
    if backend is not None:
        return sample(config, backend)
    return watch(__name__, config)


def main(argv: Sequence[str]) -> int:
    """The watched process: samples with vLLM as the configuration, a JSON object, says."""
    config = SampleConfig.model_validate_json(argv[0])
    return work(lambda: sample(config, VllmBackend(config.model, config.vllm)))


def sample(config: SampleConfig, backend: Backend) -> int:
    """Samples what has no tree yet; returns 0, or 1 where the engine refused some prompts.

    The last line on stdout is a JSON object with the counts.

    Raises:
        TreePOError: The prompts, the output, the model or the engine is at fault.
    """
    prompts = read_prompts(config.prompts, config.limit)
    with RolloutWriter(config.output) as writer:
        if writer.num_repaired_bytes:
            _note(f"{config.output}: cut off a torn last line ({writer.num_repaired_bytes} bytes)")
        tokenizer = backend.tokenizer()
        todos = _todos(config, prompts, tokenizer)
        missing = [todo for todo in todos if todo.key not in writer.keys]
        counts = _Counts(skipped=len(todos) - len(missing))
        if missing:
            work = _Work(config, tokenizer, writer, counts)
            with backend.engine() as engine:
                _check_lengths(missing, config.max_tokens, engine.info.max_model_len)
                asyncio.run(work.sample(engine, missing))
    print(json.dumps(asdict(counts)))
    return 1 if counts.failed else 0


def _note(text: str) -> None:
    print(f"treepo: {text}", file=sys.stderr)


def _todos(config: SampleConfig, prompts: Sequence[Prompt], tokenizer: Any) -> list[_Todo]:
    settings = config.origin | {"tree": config.tree.model_dump(mode="json")}
    seen: Counter[str] = Counter()
    todos = []
    for prompt in prompts:
        ids = token_ids(prompt, tokenizer)
        name = prompt.columns.get("id")
        same = prompt_key(ids, settings, name)
        todos.append(_Todo(prompt_key(ids, settings, [name, seen[same]]), prompt, ids))
        seen[same] += 1
    return todos


def _check_lengths(todos: Sequence[_Todo], max_tokens: int, max_model_len: int) -> None:
    for todo in todos:
        room = max_model_len - len(todo.token_ids)
        if room < max_tokens:
            raise ConfigError(
                f"{todo.prompt.place}: the prompt has {len(todo.token_ids)} tokens, which leaves "
                f"{max(room, 0)} of the model's {max_model_len}; `--max-tokens` is {max_tokens}"
            )


@dataclass(frozen=True, slots=True)
class _Work:
    """One run: from prompts without a tree to records in the file."""

    config: SampleConfig
    tokenizer: Any
    writer: RolloutWriter
    counts: _Counts
    reference: EntropyReference = field(default_factory=EntropyReference)

    async def sample(self, engine: Engine, todos: Sequence[_Todo]) -> None:
        """Sample a tree for each and write it; raises as `sample_all` does."""
        tree = self.config.tree
        concurrency = self.config.concurrency or default_concurrency(
            engine.info.max_live_paths, tree.width
        )
        by_id = {f"tree-{todo.key}": todo for todo in todos}
        started = time.monotonic()
        with _progress() as progress:
            bar = progress.add_task("trees", total=len(todos), speed=0.0)

            def done(job: Job, result: Tree | EngineError) -> None:
                self._take(by_id[job.id], result)
                self.counts.clock(time.monotonic() - started)
                progress.update(bar, advance=1, speed=self.counts.tokens_per_second)

            jobs = (self._job(id_, todo) for id_, todo in by_id.items())
            await sample_all(engine, jobs, concurrency, done)

    def _job(self, id_: str, todo: _Todo) -> Job:
        config = self.config
        # A seed of its own for every prompt, whichever others are sampled in the same run.
        seed = None if config.seed is None else seed_of(f"{config.seed}/{todo.key}")
        decoder = PromptDecoder(self.tokenizer, todo.token_ids, skip_special_tokens=True)
        return Job(
            prompt_token_ids=todo.token_ids,
            sampling=Sampling(**config.sampling | {"seed": seed}),
            config=config.tree,
            id=id_,
            texts=Texts.from_config(decoder, config.tree),
            entropy_reference=self.reference.value(seed),
        )

    def _take(self, todo: _Todo, result: Tree | EngineError) -> None:
        if isinstance(result, EngineError):
            self.counts.failed += 1
            _note(f"{todo.prompt.place}: no tree: {result}")
            return
        record = Rollout(todo.key, result, todo.prompt.columns, origin=self.config.origin)
        self.writer.append(record)
        self.counts.add(result)
        self.reference.observe(result)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} tokens/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
