"""One response's tree, from its plan to its end.

It joins the plan, the growing journal and the finished tree into the `tree` objects of chunks,
choices and the response; their shapes stand in `wire.py`, how they are sent in `sse.py` and
`ways_in/`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from treepo.growth.state import Path
from treepo.tree import Tree
from treepo_server.request.plan import Plan
from treepo_server.response import wire
from treepo_server.response.choices import Choice, Outcome


class TreeAnswer:
    """The tree's part of one response; the `StreamedTree` of a streamed one."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._streamed: list[Path] = []
        self._num_told = 0
        self._outcome: Outcome | None = None

    def give_index(self, path: Path) -> int:
        """The index of the next choice, for a path that is streamed as it grows."""
        self._streamed.append(path)
        return len(self._streamed) - 1

    @property
    def has_news(self) -> bool:
        """Whether a path is streamed that no progress chunk has told of."""
        return len(self._streamed) > self._num_told

    def finish(self, tree: Tree) -> None:
        """Take the finished tree."""
        self._outcome = Outcome(tree, self._plan.journal, self._plan.job.config.vote)

    @property
    def is_finished(self) -> bool:
        """Whether the tree has ended and can be described."""
        return self._outcome is not None

    @property
    def outcome(self) -> Outcome:
        """The finished tree and its vote."""
        assert self._outcome is not None
        return self._outcome

    @cached_property
    def choices(self) -> list[Choice]:
        """The choices of the response, by their index."""
        if self._plan.request.streams_all:
            return [self.outcome.of_path(path) for path in self._streamed]
        return self.outcome.choices(self._plan.request.num_choices)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self._plan.job.prompt_token_ids)

    def num_tokens(self) -> int:
        """Tokens generated so far; once the tree has ended, exactly."""
        if self._outcome is None:
            return self._plan.journal.num_tokens
        return self._outcome.tree.stats.generated_tokens

    def num_cached(self) -> int:
        """Tokens of the prompt that the prefix cache held; 0 while the tree grows."""
        return self._outcome.tree.stats.prompt_cached_tokens if self._outcome else 0

    def progress(self) -> dict[str, Any]:
        """The `tree` of a progress chunk; each streamed path is told of once."""
        since, self._num_told = self._num_told, len(self._streamed)
        indices = {path.id: index for index, path in enumerate(self._streamed)}
        opened = [
            wire.OpenedReport(
                index=indices[path.id],
                parent=indices.get(path.parent.id) if path.parent else None,
                start=path.start,
                is_late=path.is_late,
            )
            for path in self._streamed[since:]
        ]
        return wire.progress_report(self._plan.job.id, self._plan.journal, opened)

    def choice(self, index: int) -> dict[str, Any]:
        """The `tree` of a choice; before the tree has ended, what is known of it."""
        if self._outcome is None:
            path = self._streamed[index]
            answer = path.answer.text if path.answer else None
            return wire.dumped(wire.ChoiceReport(answer=answer, finish=path.finish))
        known = self.choices[index] if index < len(self.choices) else Choice(None)
        return wire.dumped(wire.choice_report(known, self._outcome.tree))

    def report(self) -> dict[str, Any] | None:
        """The `tree` of the response; where choices cannot carry theirs, it names them."""
        if self._outcome is None:
            return None
        plan = self._plan
        report = wire.tree_report(self._outcome, plan.job.config, plan.decoder, plan.notes)
        if plan.request.is_stream or plan.request.is_single:
            report.winner = self._winner()
            report.choices = [
                wire.IndexedChoiceReport(index=index, **self.choice(index))
                for index in range(len(self.choices))
            ]
        return wire.dumped(report)

    def _winner(self) -> int | None:
        """The winner's index; where it is not among the choices, the best one that is."""
        ranked = self.outcome.choices(len(self.outcome.tree.trajectories))
        places = {choice.leaf: index for index, choice in enumerate(self.choices)}
        return next((places[choice.leaf] for choice in ranked if choice.leaf in places), None)
