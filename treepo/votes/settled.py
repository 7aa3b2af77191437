"""Whether votes still to come can change the winner: the lossless rules of `until: settled`.

Each rule says yes only where every way of finishing the tree has the same winner under
`voting.tally`, ties included. What is not protected: the winner's text, the agreement and the
weights. It does not know paths or slots; the sampler says what is outstanding. A rule for a new
vote is a function in `_RULES`; a vote without one is never settled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from treepo.config import Vote
from treepo.votes.voting import Ballot, tally

_MARGIN: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What a tree may still bring.

    Attributes:
        slots: Most trajectories that may still finish.
        mass: Prospective mass of the live paths and of root slots not yet opened, in the unit of
            the ballots' masses. Mass of pruned and failed paths is gone and not in it.
        may_open_late: Whether late nodes may still be opened or are running (fallback, waves,
            slots of pruned paths).
        logprob: Log of the summed probability of the live paths' prefixes, in nats; +inf where
            sequences may still be opened from elsewhere.
    """

    slots: int
    mass: float = 0.0
    may_open_late: bool = True
    logprob: float = math.inf


def is_settled(ballots: Sequence[Ballot], outstanding: Outstanding, vote: Vote) -> bool:
    """Whether the leader wins however the tree goes on; see the rules for what that takes.

    Args:
        ballots: The finished trajectories.
        outstanding: What may still come.
        vote: How the winner will be chosen. `none` is never settled.
    """
    votes = tally(ballots, vote)
    rule = _RULES.get(vote)
    if rule is None or not votes:
        return False
    return rule(votes[0].answer, ballots, outstanding)


def _majority(leader: str, ballots: Sequence[Ballot], outstanding: Outstanding) -> bool:
    """c1 - c2 > slots: all of them may go to the runner-up, or to an unseen answer."""
    return _lead(leader, _sums(ballots, lambda _: 1.0)) > outstanding.slots


def _confidence(leader: str, ballots: Sequence[Ballot], outstanding: Outstanding) -> bool:
    """The lead exceeds a full weight of 1 for each slot."""
    lead = _lead(leader, _sums(ballots, lambda ballot: ballot.confidence))
    return lead > outstanding.slots + _MARGIN * len(ballots)


def _likelihood(leader: str, ballots: Sequence[Ballot], outstanding: Outstanding) -> bool:
    """The lead exceeds the live prefixes' probability, all that new sequences can have."""
    top = max(*(ballot.logprob for ballot in ballots), outstanding.logprob)
    if math.isinf(top):
        return False
    lead = _lead(leader, _sums(ballots, lambda ballot: math.exp(ballot.logprob - top)))
    return lead > math.exp(outstanding.logprob - top) + _MARGIN


def _weighted(leader: str, ballots: Sequence[Ballot], outstanding: Outstanding) -> bool:
    """The ledger of `leaf_weights` stays in the leader's favour.

    With `p` prospective leaves finished and `k` more to come, an answer's weight times the number
    of leaves is (p + k) * mass + late leaves. At worst all outstanding mass U and all other slots
    go to one rival: (p + k) * (m1 - m2 - U) + (l1 - l2) - (slots - k) must stay positive. That is
    linear in k, so its ends decide. Mass lost to pruning later only helps the leader. Without
    late nodes this is m1 - m2 > U.
    """
    prospective = [ballot for ballot in ballots if not ballot.is_late]
    masses = _sums(prospective, lambda ballot: ballot.mass)
    total = math.fsum(ballot.mass for ballot in prospective) + outstanding.mass
    late = _sums([ballot for ballot in ballots if ballot.is_late], lambda _: 1.0)
    slots = outstanding.slots if outstanding.may_open_late else 0

    def worst(rival: str | None) -> float:
        gap = masses.get(leader, 0.0) - masses.get(rival, 0.0) - outstanding.mass
        gap = gap / total if total > 0 else 0.0
        ahead = late.get(leader, 0.0) - late.get(rival, 0.0)
        few = len(prospective) * gap + ahead - slots
        many = (len(prospective) + outstanding.slots) * gap + ahead
        return min(few, many)

    rivals: set[str | None] = {ballot.answer for ballot in ballots} - {leader} | {None}
    least = min(worst(rival) for rival in rivals)
    return least > _MARGIN * (len(ballots) + outstanding.slots)


def _sums(
    ballots: Sequence[Ballot], value: Callable[[Ballot], float]
) -> Mapping[str | None, float]:
    """The sum of a figure for each answer; abstentions are left out."""
    groups: dict[str | None, list[float]] = {}
    for ballot in ballots:
        if ballot.answer is not None:
            groups.setdefault(ballot.answer, []).append(value(ballot))
    return {answer: math.fsum(values) for answer, values in groups.items()}


def _lead(leader: str, sums: Mapping[str | None, float]) -> float:
    """By how much the leader is ahead of the next answer; one not seen yet has 0."""
    others = (value for answer, value in sums.items() if answer != leader)
    return sums[leader] - max(others, default=0.0)


_RULES: Final[dict[Vote, Callable[[str, Sequence[Ballot], Outstanding], bool]]] = {
    "majority": _majority,
    "weighted": _weighted,
    "confidence": _confidence,
    "likelihood": _likelihood,
}
