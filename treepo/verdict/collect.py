"""Samples every plan on every problem into one rollout file, which a later run goes on with.

All plans of a problem stand beside each other in the queue, so that they meet the same load and a
run that was stopped compares what it has. It judges nothing. How a running server is asked
instead of an engine stands in `remote.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from treepo.engines.base import Engine, Sampling
from treepo.errors import EngineError
from treepo.growth.decoder import PromptDecoder
from treepo.growth.reference import EntropyReference
from treepo.growth.texts import Texts
from treepo.rollout.batch import sample_all
from treepo.rollout.files import Rollout, RolloutWriter, prompt_key, read
from treepo.rollout.prompts import Prompt, token_ids
from treepo.sampler import Job
from treepo.tree import Tree
from treepo.verdict.plans import Plan


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt whose answer is known.

    Attributes:
        name: Unique among the problems.
        prompt: The prompt.
        gold: The right answer's key.
    """

    name: str
    prompt: Prompt
    gold: str


@dataclass(frozen=True, slots=True)
class Task:
    """One tree to sample: `key` names it in the file."""

    key: str
    problem: Problem
    plan: Plan


Told = Callable[[Task, Tree | EngineError], None]
"""Told of each tree as it is finished, or why there is none."""


@dataclass(frozen=True, slots=True)
class Study:
    """What is sampled, and how.

    Attributes:
        problems: The problems.
        plans: The plans that need sampling.
        base: `TreeConfig` fields of all plans.
        sampling: Fields of `Sampling`.
        origin: What the trees depend on beside that, such as the model.
    """

    problems: Sequence[Problem]
    plans: Sequence[Plan]
    base: Mapping[str, Any]
    sampling: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def tasks(self) -> list[Task]:
        """Every plan of the first problem, then of the second, and so on."""
        return [
            Task(self._key(problem, plan), problem, plan)
            for problem in self.problems
            for plan in self.plans
        ]

    def _key(self, problem: Problem, plan: Plan) -> str:
        config = plan.config(self.base).model_dump(mode="json")
        settings = {"tree": config, "sampling": dict(self.sampling), "origin": dict(self.origin)}
        return prompt_key([], settings, [problem.name, problem.prompt.content])

    def record(self, task: Task, tree: Tree) -> Rollout:
        """A tree as it stands in the file."""
        columns = {**task.problem.prompt.columns, "plan": task.plan.name}
        origin = {**self.origin, "sampling": dict(self.sampling)}
        return Rollout(task.key, tree, columns, origin=origin)


def known(path: Any, study: Study) -> dict[tuple[str, str], Tree]:
    """The study's trees that are in the file, by the names of plan and problem."""
    trees = {rollout.key: rollout.tree for rollout in read(path)}
    return {
        (task.plan.name, task.problem.name): trees[task.key]
        for task in study.tasks()  # plans of the same settings share their trees
        if task.key in trees
    }


@dataclass(slots=True)
class LocalSampler:
    """Samples the missing trees of a study on an engine.

    Attributes:
        engine: The engine.
        tokenizer: The model's tokenizer.
        study: What to sample.
        reference: Running mean entropy, as a server keeps it.
    """

    engine: Engine
    tokenizer: Any
    study: Study
    reference: EntropyReference = field(default_factory=EntropyReference)

    async def fill(
        self, writer: RolloutWriter, tasks: Sequence[Task], told: Told, at_once: int
    ) -> None:
        """Sample `tasks` and write each tree as it is finished; raises as `sample_all` does.

        Args:
            writer: The file.
            tasks: What is missing in it.
            told: Told of each tree.
            at_once: Trees that grow at one time.
        """
        by_id = {f"tree-{task.key}": task for task in tasks}

        def done(job: Job, result: Tree | EngineError) -> None:
            task = by_id[job.id]
            if isinstance(result, Tree):
                self.reference.observe(result)
                writer.append(self.study.record(task, result))
            told(task, result)

        await sample_all(self.engine, self._jobs(by_id), at_once, done)

    def _jobs(self, by_id: Mapping[str, Task]) -> Iterator[Job]:
        for id_, task in by_id.items():
            ids = token_ids(task.problem.prompt, self.tokenizer)
            config = task.plan.config(self.study.base)
            decoder = PromptDecoder(self.tokenizer, ids, skip_special_tokens=True)
            yield Job(
                prompt_token_ids=ids,
                sampling=Sampling(**self.study.sampling),
                config=config,
                id=id_,
                texts=Texts.from_config(decoder, config),
                entropy_reference=self.reference.value(None),
            )
