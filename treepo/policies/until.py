"""When a tree may end before its paths do: `until: settled` and `until: 0.95`.

It turns a growing tree into ballots and what is still outstanding, and asks `settled.py` or
`evidence.py`; it stands here and not beside them since votes know no growing tree. It stops nothing
itself: the sampler asks it after each trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from treepo.config import TreeConfig
from treepo.growth.segments import segments
from treepo.growth.state import Growth, Path
from treepo.tree import TreeFinish
from treepo.votes.evidence import Sharing, confidence, effective_votes
from treepo.votes.settled import Outstanding, is_settled
from treepo.votes.voting import Ballot, ballot_weights, leaf_confidence, tally

Until = Callable[[Growth], TreeFinish | None]
"""From a tree with one more trajectory, why it may end now, or None."""


def make_until(config: TreeConfig) -> Until:
    """What `config.until` asks for, as a function of the growing tree."""
    if config.until == "settled":
        return _settled
    if config.until == "complete":
        return _never
    return lambda growth: _confident(growth, float(config.until))


def _never(growth: Growth) -> TreeFinish | None:
    return None


def _settled(growth: Growth) -> TreeFinish | None:
    ballots = _ballots(growth, _voters(growth))
    is_over = is_settled(ballots, _outstanding(growth), growth.config.vote)
    return TreeFinish.SETTLED if is_over else None


def _confident(growth: Growth, target: float) -> TreeFinish | None:
    voters = _voters(growth)
    if len(voters) < 2 or len(voters) % _stride(growth.config.width):
        return None
    vote = growth.config.vote
    ballots = _ballots(growth, voters)
    shares = [standing.share for standing in tally(ballots, vote)]
    if not shares:
        return None
    nodes, tips = segments(growth)
    leaves = [tips[path.id] for path in voters]
    sharing = Sharing.of_nodes(nodes, leaves, ballot_weights(ballots, vote))
    reached = confidence(shares, effective_votes(sharing))
    return TreeFinish.CONFIDENT if reached >= target else None


def _stride(width: int) -> int:
    """Trajectories between two looks: sharing costs the square of the width to compare."""
    return max(1, width // 64)


def _voters(growth: Growth) -> list[Path]:
    return [path for path in growth.paths if path.is_trajectory and path.is_answered]


def _ballots(growth: Growth, voters: list[Path]) -> list[Ballot]:
    ballots = [_ballot(growth, path) for path in voters]
    if growth.config.vote != "likelihood":
        return ballots
    seen: set[tuple[int, ...]] = set()
    for i, path in enumerate(voters):
        tokens = tuple(path.prefix(path.end))
        if tokens in seen:
            ballots[i] = replace(ballots[i], logprob=-math.inf)
        seen.add(tokens)
    return ballots


def _ballot(growth: Growth, path: Path) -> Ballot:
    vote, answer = growth.config.vote, path.answer
    sure = 1.0
    if vote == "confidence":
        sure = leaf_confidence(path.joined_uncertainty(), growth.config.prune_window)
    logprob = path.joined_logprob() if vote == "likelihood" else -math.inf
    return Ballot(
        answer=answer.key if answer else None,
        text=answer.text if answer else "",
        mass=path.mass,
        is_late=path.is_late,
        confidence=sure,
        logprob=logprob,
    )


def _outstanding(growth: Growth) -> Outstanding:
    """What may still come, counting trajectories whose answer is still being read as open."""
    config = growth.config
    width = config.width
    pending = [path for path in growth.paths if path.finish is None or _is_unread(path)]
    unopened = width - sum(wave.width for wave in growth.waves)
    may_fall_back = config.fallback != "none"
    # The slot of a path that will be pruned goes to a late leaf; the paper's budget hands it on.
    may_reuse = config.prune != "none" and not config.is_paper_policy
    is_open = may_fall_back or may_reuse or unopened > 0
    if may_fall_back or config.is_paper_policy:
        slots = width - len(_voters(growth))
    else:
        slots = unopened + sum(max(1, math.floor(width * p.mass + 1e-9)) for p in pending)
    return Outstanding(
        slots=slots,
        mass=sum(p.mass for p in pending if not p.is_late) + unopened / width,
        may_open_late=is_open or growth.has_late,
        logprob=math.inf if is_open else _log_sum(pending),
    )


def _is_unread(path: Path) -> bool:
    return path.is_trajectory and not path.is_answered


def _log_sum(paths: list[Path]) -> float:
    logprobs = [path.joined_logprob() for path in paths]
    highest = max(logprobs, default=-math.inf)
    if math.isinf(highest):
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in logprobs))
