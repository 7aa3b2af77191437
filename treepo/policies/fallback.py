"""Where finished paths are branched again when trajectories are missing.

Called only when a wave has no live path left but fewer trajectories than its width (TreePO
§2.2, depth-first-search fallback). What is opened here was decided knowing how paths ended, so
it is late and the tree's weights are not exact. A new policy is a function with the signature of
`random_boundaries` and a line in `FALLBACKS`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from treepo.growth.state import Branch, Growth, Path, Wave

FallbackPolicy = Callable[[Growth, Wave, random.Random], Iterator[Branch]]


def _sources(wave: Wave) -> list[Path]:
    """Finished paths that ended well: at an answer, the end of sequence or a stop."""
    # By place, not by the order in which they were opened: that depends on the engine's timing.
    return sorted((p for p in wave.paths if p.is_natural), key=lambda path: path.key)


def _handed_out(growth: Growth, wave: Wave, places: Sequence[tuple[Path, int]]) -> Iterator[Branch]:
    """Up to `branching_factor` children at each place until the wave's width is reached."""
    missing = wave.width - wave.num_finished
    factor = growth.config.branching_factor or 1
    for path, position in places:
        if missing <= 0:
            return
        count = min(factor, missing)
        missing -= count
        yield Branch(path, position, count, is_late=True)


def random_boundaries(growth: Growth, wave: Wave, rng: random.Random) -> Iterator[Branch]:
    """The paper's: sources in random order, each cut at a uniform boundary before its last part.

    The prompt's end is among the boundaries, so a path may be started afresh. Without any source
    all that is missing starts afresh, at once: one after another would take as many times as long
    (the paper's code opens one a round).
    """
    sources = _sources(wave)
    rng.shuffle(sources)
    places = [(path, rng.choice(growth.boundaries(path))) for path in sources]
    if not places:
        yield Branch(None, 0, wave.width - wave.num_finished, is_late=True)
        return
    yield from _handed_out(growth, wave, places)


def uncertain_boundaries(growth: Growth, wave: Wave, rng: random.Random) -> Iterator[Branch]:
    """Boundaries of finished paths, the one with most uncertainty per token behind it first.

    The figure of a boundary is the mean entropy from there to the path's end: what a child would
    write anew instead of copying. Ties go to the earlier path and the earlier boundary.
    """
    rated: list[tuple[float, int, int, Path]] = []
    for path in _sources(wave):
        values = np.nan_to_num(path.joined_uncertainty())
        if not len(values):
            continue
        rated += [
            (-float(values[position:].mean()), path.id, position, path)
            for position in growth.boundaries(path)
        ]
    places = [(path, position) for _, _, position, path in sorted(rated, key=lambda r: r[:3])]
    if not places:
        yield from random_boundaries(growth, wave, rng)
        return
    yield from _handed_out(growth, wave, _distinct(places))


def disagreeing_boundaries(growth: Growth, wave: Wave, rng: random.Random) -> Iterator[Branch]:
    """Forks whose finished subtrees answered differently, the latest fork first.

    Such a fork is where the answer was decided; a child there costs only the tail. Without any
    disagreement it falls back to `uncertain_boundaries`.
    """
    answers: dict[tuple[int, int], set[str | None]] = {}
    for path in _sources(wave):
        key = path.answer.key if path.answer else None
        for owner, end in path.ancestry():
            for cut in owner.cuts:
                if cut <= end:
                    answers.setdefault((owner.id, cut), set()).add(key)
    split = sorted(((cut, -owner) for (owner, cut), keys in answers.items() if len(keys) > 1))
    places = [(growth.paths[-owner], cut) for cut, owner in reversed(split)]
    if not places:
        yield from uncertain_boundaries(growth, wave, rng)
        return
    yield from _handed_out(growth, wave, places)


def _distinct(places: Sequence[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """The first place for each shared prefix: two paths may share the same boundary."""
    seen: set[tuple[int, int]] = set()
    kept = []
    for path, position in places:
        owner = path.owner(position)
        key = (owner.id if owner else -1, position)
        if key not in seen:
            seen.add(key)
            kept.append((path, position))
    return kept


def no_fallback(growth: Growth, wave: Wave, rng: random.Random) -> Iterator[Branch]:
    """Nothing is opened; the tree has fewer trajectories than its width."""
    return iter(())


FALLBACKS: dict[str, FallbackPolicy] = {
    "random": random_boundaries,
    "entropy": uncertain_boundaries,
    "disagreement": disagreeing_boundaries,
    "none": no_fallback,
}
