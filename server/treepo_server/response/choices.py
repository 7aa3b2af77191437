"""Which trajectories come back as choices, in which order, and what each of them says.

The first choice is the winner; the others follow by the votes for their answers. Where no
trajectory was completed in time, the longest path stands in, so that a caller always has a
choice. It knows neither vLLM's objects (`outputs.py`) nor the wire (`wire.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from treepo.config import Vote
from treepo.growth.state import Path
from treepo.tree import Finish, Trajectory, Tree
from treepo.votes.evidence import Sharing, effective_samples
from treepo.votes.voting import Winner, choose, vote_weights
from treepo_server.request.journal import Journal


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to the caller.

    Attributes:
        path: What is returned; None where the tree ended before its first token.
        leaf: Its last node.
        trajectory: Its part in the vote; None for a path that was not completed.
    """

    path: Path | None
    leaf: int | None = None
    trajectory: Trajectory | None = None


@dataclass(frozen=True)
class Outcome:
    """A finished tree, its journal and the vote over it."""

    tree: Tree
    journal: Journal
    vote: Vote

    @cached_property
    def winner(self) -> Winner | None:
        """The result of the vote; None without a complete trajectory."""
        return choose(self.tree, self.vote)

    @cached_property
    def effective_samples(self) -> float:
        """Independent samples that would be as much evidence as this vote."""
        return effective_samples(Sharing.of(self.tree, vote_weights(self.tree, self.vote)))

    def choices(self, count: int) -> list[Choice]:
        """At most `count` choices and at least one, the winner first."""
        if self.winner is None:
            return [self._best_unfinished()]
        return [self.choice(t) for t in self._ranked(self.winner)[:count]]

    def choice(self, trajectory: Trajectory) -> Choice:
        """A trajectory as a choice."""
        path = self.journal.paths[self.tree.nodes[trajectory.leaf].path]
        return Choice(path, trajectory.leaf, trajectory)

    def of_path(self, path: Path) -> Choice:
        """A path as a choice, complete or not."""
        for trajectory in self.tree.trajectories:
            if self.tree.nodes[trajectory.leaf].path == path.id:
                return Choice(path, trajectory.leaf, trajectory)
        own = [node.id for node in self.tree.nodes if node.path == path.id]
        return Choice(path, own[-1] if own else None)

    def _ranked(self, winner: Winner) -> list[Trajectory]:
        places = {share.answer: place for place, share in enumerate(winner.votes)}
        first = self.tree.trajectories[winner.trajectory]
        others = [t for t in self.tree.trajectories if t is not first]
        last = len(places)
        others.sort(key=lambda t: (places.get(t.answer or "", last), -t.weight, t.order))
        return [first, *others]

    def _best_unfinished(self) -> Choice:
        started = [path for path in self.journal.paths if path.end > 0]
        if not started:
            return Choice(None)
        return self.of_path(max(started, key=lambda path: (path.end, -path.id)))


def finish_reason(path: Path | None) -> str:
    """OpenAI's word for how a path ended: `length` where it ran into its bound, else `stop`.

    Paths that this server ends (answer, loop, depth, the tree's own end) say `stop`: to an SDK
    `length` is an error where it parses. The cause stands in the choice's `tree.finish`.
    """
    return "length" if path is not None and path.finish is Finish.LENGTH else "stop"
