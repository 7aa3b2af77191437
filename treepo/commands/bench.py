"""`treepo bench --prompts FILE`: does a tree pay for this model and these prompts?

It samples independent trajectories and trees of every prompt, compares them at matched generated
tokens, and says so in a table, a sentence, a results file and two plots. The sampling and the
statistics are those of `treepo.verdict`; its options stand in `bench_config.py`.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from openai import OpenAI, OpenAIError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import treepo
from treepo.commands.asking import first_model, key_for
from treepo.commands.bench_config import TREE, BenchConfig, add_arguments, parse
from treepo.commands.watched import watch, work
from treepo.errors import ConfigError, EngineError
from treepo.local.backends import Backend, VllmBackend
from treepo.rollout.files import RolloutWriter, read
from treepo.rollout.prompts import Prompt, read_prompts
from treepo.tree import Tree
from treepo.verdict.collect import LocalSampler, Problem, Study, Task, Told, known
from treepo.verdict.outcomes import gold_key
from treepo.verdict.plots import plot_accuracy, plot_branches
from treepo.verdict.remote import RemoteSampler
from treepo.verdict.report import report
from treepo.verdict.verdict import Verdict, make_verdict

__all__ = ["add_arguments", "run"]


class _Filler(Protocol):
    """An engine of our own, or a server."""

    async def fill(
        self, writer: RolloutWriter, tasks: Sequence[Task], told: Told, at_once: int
    ) -> None: ...


def run(args: Namespace, backend: Backend | None = None) -> int:
    """Samples what is missing, compares, says; 0 whichever way the verdict falls.

    Without a backend or a server, vLLM samples in a process that this one only watches.

    Args:
        args: The parsed arguments.
        backend: Model and engine, to be used in this process.

    Raises:
        TreePOError: The configuration, the prompts, the engine or the server is at fault.
    """
    config = parse(args)
    if backend is not None or config.base_url is not None:
        return bench(config, backend)
    return watch(__name__, config)


def main(argv: Sequence[str]) -> int:
    """The watched process: samples with vLLM as the configuration, a JSON object, says."""
    config = BenchConfig.model_validate_json(argv[0])
    return work(lambda: bench(config, VllmBackend(config.model, config.vllm)))


def bench(config: BenchConfig, backend: Backend | None) -> int:
    """Samples what is missing, compares and says; the last line on stdout is a JSON object.

    Raises:
        TreePOError: The prompts, the model, the engine or the server is at fault.
    """
    problems = asyncio.run(read_problems(config))
    if config.base_url is not None and config.model is None:
        config = config.model_copy(update={"model": _first_model(config)})
    sampled = [plan for plan in config.plans if plan.source is None]
    study = Study(problems, sampled, {}, config.sampling, config.origin)
    trees_file = config.output / "trees.jsonl"
    config.output.mkdir(parents=True, exist_ok=True)
    with RolloutWriter(trees_file) as writer:
        missing = [task for task in study.tasks() if task.key not in writer.keys]
        if missing:
            _fill(config, backend, study, writer, missing)
    trees = known(trees_file, study)
    verdict = make_verdict(problems, config.plans, trees)
    Console(width=None if sys.stdout.isatty() else 160).print(report(verdict, TREE))
    plot_accuracy(verdict, config.output / "accuracy.png")
    mine = [tree for (plan, _), tree in trees.items() if plan == TREE]
    plot_branches(mine, config.output / "branches.png")
    results = config.output / "results.json"
    results.write_text(json.dumps(_results(config, verdict), indent=2) + "\n")
    print(json.dumps({"results": str(results), "verdict": verdict.sentence(TREE)}))
    return 0


async def read_problems(config: BenchConfig) -> list[Problem]:
    """The prompts with their right answers.

    Raises:
        ConfigError: A prompt has no answer, or none that can be read; it names the line and the
            remedy.
    """
    prompts = read_prompts(config.prompts, config.limit)
    golds = _golds(config.answers, prompts)
    return [
        Problem(f"{number}", prompt, await _gold_key(prompt, gold))
        for number, (prompt, gold) in enumerate(zip(prompts, golds, strict=True))
    ]


async def _gold_key(prompt: Prompt, gold: object) -> str:
    try:
        return await gold_key(gold)
    except ConfigError as error:
        message = f"{prompt.place}: {error}; correct it, or name others with `--answers`"
        raise ConfigError(message) from None


def _golds(answers: str, prompts: Sequence[Prompt]) -> list[object]:
    file = Path(answers)
    if file.is_file():
        lines: list[object] = [line for line in file.read_text().splitlines() if line.strip()]
        if len(lines) < len(prompts):
            counts = f"{len(lines)} answers for {len(prompts)} prompts"
            raise ConfigError(f"{answers}: {counts}; add the others, or take fewer with `--limit`")
        return lines[: len(prompts)]
    for prompt in prompts:
        if prompt.columns.get(answers) is None:
            raise ConfigError(
                f"{prompt.place}: no column `{answers}` with the right answer; name another "
                "column, or a file with one answer a line, with `--answers`"
            )
    return [prompt.columns[answers] for prompt in prompts]


def _fill(
    config: BenchConfig,
    backend: Backend | None,
    study: Study,
    writer: RolloutWriter,
    missing: Sequence[Task],
) -> None:
    if config.base_url is not None:
        remote = RemoteSampler(config.base_url, key_for(config.api_key), study)
        _sample(remote, config, writer, missing)
        return
    assert backend is not None
    tokenizer = backend.tokenizer()
    with backend.engine() as engine:
        sampler = LocalSampler(engine, tokenizer, study)
        for rollout in read(config.output / "trees.jsonl"):
            sampler.reference.observe(rollout.tree)
        _sample(sampler, config, writer, missing)


def _first_model(config: BenchConfig) -> str:
    try:
        with OpenAI(base_url=config.base_url, api_key=key_for(config.api_key)) as client:
            return first_model(client)
    except OpenAIError as error:
        raise EngineError(f"{config.base_url}: {error}") from error


def _sample(
    sampler: _Filler, config: BenchConfig, writer: RolloutWriter, missing: Sequence[Task]
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("trees", total=len(missing))

        def told(task: Task, result: Tree | EngineError) -> None:
            if isinstance(result, EngineError):
                place, plan = task.problem.prompt.place, task.plan.name
                message = f"treepo: {place}: no tree for `{plan}`: {result}"
                progress.console.print(message, markup=False, soft_wrap=True)
            progress.update(bar, advance=1)

        asyncio.run(sampler.fill(writer, missing, told, config.concurrency))


def _results(config: BenchConfig, verdict: Verdict) -> dict[str, Any]:
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "treepo": treepo.__version__,
        "python": platform.python_version(),
        "config": config.model_dump(mode="json", exclude={"api_key"}),
        "verdict": verdict.sentence(TREE),
        "independent": verdict.curve.accuracy.mean(axis=0).tolist(),
        "path_tokens": float(verdict.curve.lengths.mean()),
        "rows": [row.summary() for row in verdict.rows],
        "outcomes": [asdict(outcome) for row in verdict.rows for outcome in row.outcomes],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
