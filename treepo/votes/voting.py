"""Votes: what each trajectory's ballot weighs, how the answers stand, and which one wins.

Everything is a pure function of finished trajectories; their order never matters. It does not know
how a text became an answer (`reader.py`), how much evidence the ballots are (`evidence.py`) or
whether those still to come could change the result (`settled.py`). A new vote is a case in
`ballot_weights`, and a rule in `settled.py` if it has one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from treepo.config import Vote
from treepo.tree import Node, Trajectory, Tree

_DIGITS = 9
_WINDOW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one complete trajectory brings to a vote.

    Attributes:
        answer: The canonical key; None abstains, and still counts in every denominator.
        text: The answer as written.
        mass: Its leaf's share of the prompt's unit mass; of no meaning where `is_late`.
        is_late: Whether it hangs under a node that was opened late.
        confidence: Its weight in a vote by confidence, from 0 to 1 (`leaf_confidence`).
        logprob: Summed log-probability of its tokens, in nats; -inf where it is not known or
            another ballot stands for the same tokens.
    """

    answer: str | None
    text: str = ""
    mass: float = 1.0
    is_late: bool = False
    confidence: float = 1.0
    logprob: float = -math.inf


@dataclass(frozen=True, slots=True)
class VoteShare:
    """How one answer stands.

    Attributes:
        answer: The canonical key.
        text: The way it was written most often.
        count: Trajectories that gave it.
        weight: Sum of those trajectories' weights (`leaf_weights`), whatever the vote.
        share: Its part of all ballots of the vote, from 0 to 1; abstentions are the rest.
    """

    answer: str
    text: str
    count: int
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class Winner:
    """The result of a vote.

    Attributes:
        trajectory: Index into `Tree.trajectories`.
        answer: The winning key, None where no trajectory had an answer.
        text: The answer as the chosen trajectory wrote it.
        agreement: The winning answer's share of the ballots, 0 where no vote was held.
        fail_soft: Whether no answer was found anywhere, so that the likeliest trajectory stands in.
        votes: All answers, the leader first.
    """

    trajectory: int
    answer: str | None
    text: str | None
    agreement: float
    fail_soft: bool
    votes: tuple[VoteShare, ...] = ()


def leaf_weights(masses: Sequence[float], is_late: Sequence[bool]) -> list[float]:
    """The weight of each complete leaf; they sum to 1.

    With `p` prospective leaves (no late node above them) and `l` late ones, a late leaf weighs
    1 / (p + l) and a prospective one of mass m weighs m / M * p / (p + l). M is the mass of all
    complete prospective leaves: mass on pruned, failed or unfinished paths (1 - M) is lost and
    the survivors are scaled up, which is biased, so that such a tree has no exact weights.
    """
    num_leaves, num_prospective = len(masses), list(is_late).count(False)
    resolved = math.fsum(m for m, late in zip(masses, is_late, strict=True) if not late)
    if resolved <= 0:
        return [1 / num_leaves for _ in masses]
    return [
        (1.0 if late else mass / resolved * num_prospective) / num_leaves
        for mass, late in zip(masses, is_late, strict=True)
    ]


def ballot_weights(ballots: Sequence[Ballot], vote: Vote) -> list[float]:
    """What each ballot weighs in a vote; the weights sum to 1.

    `majority` and `none`: all the same. `weighted`: `leaf_weights`. `confidence`: the ballots' own
    confidence. `likelihood`: the probability of the trajectory's tokens, each sequence once, so
    that an answer's sum is a lower bound (up to scale) of the probability that the model gives
    it, however the tree grew; a mean log-prob would be no probability and could never be settled.
    Where no ballot has any weight all weigh the same.
    """
    if vote == "weighted":
        return leaf_weights([b.mass for b in ballots], [b.is_late for b in ballots])
    if vote == "confidence":
        raw = [b.confidence for b in ballots]
    elif vote == "likelihood":
        highest = max((b.logprob for b in ballots), default=-math.inf)
        raw = [math.exp(b.logprob - highest) if highest > -math.inf else 0.0 for b in ballots]
    else:
        raw = [1.0] * len(ballots)
    total = math.fsum(raw)
    return [weight / total if total > 0 else 1 / len(raw) for weight in raw]


def tally(ballots: Sequence[Ballot], vote: Vote) -> list[VoteShare]:
    """The answers that were given, the leader first.

    Equal shares (to nine digits) are ordered by count and then by the answer's key, never by
    arrival. Sums are exactly rounded, so the order of the ballots changes nothing.
    """
    groups: dict[str, list[int]] = {}
    for index, ballot in enumerate(ballots):
        if ballot.answer is not None:
            groups.setdefault(ballot.answer, []).append(index)
    shares = ballot_weights(ballots, vote)
    weights = ballot_weights(ballots, "weighted")
    votes = [
        VoteShare(
            answer=answer,
            text=_usual(ballots[i].text for i in members),
            count=len(members),
            weight=math.fsum(weights[i] for i in members),
            share=math.fsum(shares[i] for i in members),
        )
        for answer, members in groups.items()
    ]
    return sorted(votes, key=lambda v: (-round(v.share, _DIGITS), -v.count, v.answer))


def _usual(texts: Iterable[str]) -> str:
    return min(Counter(texts).items(), key=lambda item: (-item[1], item[0]))[0]


def worst_mean(uncertainty: Sequence[float], window: int) -> float:
    """Highest mean uncertainty of `window` tokens in a row, in nats; unknown ones count as 0.

    0.0 where there are fewer tokens than that.
    """
    values = np.nan_to_num(np.asarray(uncertainty, dtype=np.float64))
    if not 0 < window <= len(values):
        return 0.0
    sums = np.cumsum(np.concatenate(([0.0], values)))
    return float((sums[window:] - sums[:-window]).max() / window)


def leaf_confidence(uncertainty: Sequence[float], window: int = _WINDOW_TOKENS) -> float:
    """The weight of a trajectory in a vote by confidence, in (0, 1].

    The geometric mean probability of its least certain stretch: exp of minus the highest mean
    uncertainty (nats) of `window` tokens in a row, after DeepConf's lowest group confidence. It
    depends on the trajectory's own tokens only; 1 where no uncertainty is known.
    """
    worst = worst_mean(uncertainty, min(window, len(uncertainty)))
    return float(np.exp(-max(0.0, worst)))


def ballots_of(tree: Tree, vote: Vote) -> list[Ballot]:
    """The ballots of a tree's trajectories for a vote, in their order.

    `mass` is the trajectory's weight, which has the late leaves already in it. Log-probs and
    confidences, which cost a walk over all tokens, are filled in for the votes that read them.
    """
    ballots = [
        Ballot(t.answer, t.answer_text or t.answer or "", t.weight) for t in tree.trajectories
    ]
    if vote == "likelihood":
        logprobs = _distinct(tree, _sequence_logprobs(tree))
        return [replace(b, logprob=known) for b, known in zip(ballots, logprobs, strict=True)]
    if vote == "confidence":
        window = int(tree.settings.get("prune_window", _WINDOW_TOKENS))
        sure = [leaf_confidence(_uncertainty(tree, t), window) for t in tree.trajectories]
        return [replace(b, confidence=own) for b, own in zip(ballots, sure, strict=True)]
    return ballots


def vote_weights(tree: Tree, vote: Vote) -> list[float]:
    """What each of a tree's trajectories weighs in a vote; the weights sum to 1."""
    return ballot_weights(ballots_of(tree, vote), vote)


def choose(tree: Tree, vote: Vote) -> Winner | None:
    """The winner of a vote and the trajectory that speaks for it; None without a trajectory.

    Among the trajectories with the winning answer, one that ended by itself goes before one that
    was cut or looped (loops are likely), then the highest mean log-prob decides, then the tokens.
    The same rule picks the trajectory for `none` and where no answer was found.
    """
    if not tree.trajectories:
        return None
    votes = tuple(tally(ballots_of(tree, vote), vote))
    if vote == "none" or not votes:
        index = _likeliest(tree, range(len(tree.trajectories)))
        own = tree.trajectories[index]
        return Winner(index, own.answer, own.answer_text, 0.0, not votes, votes)
    leader = votes[0]
    index = _likeliest(
        tree, [i for i, t in enumerate(tree.trajectories) if t.answer == leader.answer]
    )
    text = tree.trajectories[index].answer_text
    return Winner(index, leader.answer, text, leader.share, fail_soft=False, votes=votes)


def _likeliest(tree: Tree, candidates: Sequence[int]) -> int:
    means = mean_logprobs(tree)
    ranks = {
        i: (not tree.trajectories[i].finish.is_natural, -round(means[i], _DIGITS))
        for i in candidates
    }
    best = min(ranks.values())
    tied = [i for i in candidates if ranks[i] == best]
    return min(tied, key=lambda i: tree.token_ids(tree.trajectories[i])) if tied[1:] else tied[0]


def mean_logprobs(tree: Tree) -> list[float]:
    """The mean log-prob per token of each trajectory, in nats.

    Where the engine gave no log-probs, minus the mean uncertainty, which estimates it; 0 where
    there is neither.
    """
    known = _along(tree, lambda node: _total(node.logprobs, node))
    estimated = _along(tree, lambda node: -_total(node.uncertainty, node))
    lengths = [max(1, tree.nodes[t.leaf].end) for t in tree.trajectories]
    return [
        next((total for total in totals if not math.isnan(total)), 0.0) / length
        for *totals, length in zip(known, estimated, lengths, strict=True)
    ]


def _sequence_logprobs(tree: Tree) -> list[float]:
    known = _along(tree, lambda node: _total(node.logprobs, node))
    if tree.uncertainty_kind == "surprisal":
        drawn = _along(tree, lambda node: -_total(node.uncertainty, node))
        known = [b if math.isnan(a) else a for a, b in zip(known, drawn, strict=True)]
    return [-math.inf if math.isnan(total) else total for total in known]


def _distinct(tree: Tree, logprobs: list[float]) -> list[float]:
    seen: dict[tuple[int, ...], int] = {}
    for index, trajectory in enumerate(tree.trajectories):
        tokens = tuple(tree.token_ids(trajectory))
        if seen.setdefault(tokens, index) != index:
            logprobs[index] = -math.inf
    return logprobs


def _along(tree: Tree, value: Callable[[Node], float]) -> list[float]:
    """The sum of a node's figure along each trajectory."""
    sums: list[float] = []
    for node in tree.nodes:
        sums.append(value(node) + (0.0 if node.parent is None else sums[node.parent]))
    return [sums[trajectory.leaf] for trajectory in tree.trajectories]


def _total(values: Sequence[float], node: Node) -> float:
    return math.fsum(values) if len(values) == len(node.token_ids) else math.nan


def _uncertainty(tree: Tree, trajectory: Trajectory) -> list[float]:
    """Of each position, nan where the engine gave none; empty where it gave none at all."""
    parts = [(n.uncertainty, len(n.token_ids)) for n in tree.lineage(trajectory.leaf)]
    if not any(values for values, _ in parts):
        return []
    return [value for values, length in parts for value in values or (math.nan,) * length]
