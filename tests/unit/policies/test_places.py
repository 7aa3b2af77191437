"""Where the next wave and a free slot are worth most.

Worth is n_eff per token: with n equal leaves whose correlations sum to Q, n * n / Q / tokens. Four
roots of 16 tokens that share nothing have n = Q = 4: 4 / 64. A fifth from the prompt makes it
5 / 80, which is the same.
"""

from collections import Counter

import numpy as np
import pytest

from treepo.config import TreeConfig
from treepo.engines.base import Chunk
from treepo.growth.segments import segments
from treepo.growth.state import Branch, Growth, Path
from treepo.policies.places import better_place, next_wave
from treepo.tree import Finish
from treepo.votes.evidence import Sharing, effective_samples, information

LENGTH = 16
LATE = [0.0] * 12 + [1.0] * 4
EARLY = LATE[::-1]
EVEN = [0.25] * 16


def roots(*entropies, factor=None, running=(), width=16) -> tuple[Growth, list[Path]]:
    """Root paths of these entropies, finished but for those in `running`; segments of 4 tokens."""
    config = TreeConfig(width=width, segment_tokens=4, branching_factor=factor, start=4)
    growth = Growth([1], config.resolve(4, 100, 0.5), 4)
    paths = growth.open_wave(len(entropies), len(entropies))
    for i, (path, values) in enumerate(zip(paths, entropies, strict=True)):
        path.extend(Chunk([path.id] * len(values), uncertainty=values))
        if i not in running:
            growth.end(path, Finish.EOS, len(values))
    return growth, paths


def worth(growth: Growth) -> float:
    nodes, tips = segments(growth)
    leaves = [tips[path.id] for path in growth.paths]
    nats = [information(node) for node in nodes]
    sharing = Sharing([node.parent for node in nodes], nats, leaves, [1.0] * len(leaves))
    return effective_samples(sharing) / sum(len(path.token_ids) for path in growth.paths)


def test_a_wave_starts_behind_what_is_certain_and_costs_only_the_tails():
    growth, paths = roots(LATE, LATE, LATE, LATE)
    branches = next_wave(growth, 4)
    assert [(b.path, b.position, b.children, b.is_late) for b in branches] == [
        (path, 12, 1, True) for path in paths
    ]


@pytest.mark.parametrize("entropies", [EARLY, EVEN], ids=["early", "even"])
def test_where_no_late_stretch_decides_a_wave_starts_at_the_prompt(entropies):
    growth, _ = roots(*[entropies] * 4)
    assert next_wave(growth, 4) == []


def test_a_wave_goes_where_it_makes_a_token_worth_more():
    growth, paths = roots(LATE, EARLY, LATE, EVEN)
    before = worth(growth)
    for branch in next_wave(growth, 2):
        assert branch.path in (paths[0], paths[2])
        (child,) = growth.open_branch(branch, paths[0].wave)
        child.extend(Chunk([9] * (LENGTH - branch.position), uncertainty=LATE[branch.position :]))
    assert len(growth.paths) == 6
    assert worth(growth) > 1.2 * before


@pytest.mark.parametrize("factor", [2, 3])
def test_a_place_takes_no_more_children_than_the_branching_factor(factor):
    growth, _ = roots(LATE, EARLY, EARLY, EARLY, factor=factor)
    counts = [branch.children for branch in next_wave(growth, 6) if branch.position]
    assert counts
    assert max(counts) <= factor


def test_siblings_count_the_children_of_a_boundary_they_share_together():
    growth, paths = roots(LATE, LATE, factor=2)
    for path in paths:  # a sibling that shares the certain part
        (child,) = growth.open_branch(Branch(path, 12, 1), path.wave)
        child.extend(Chunk([7] * 4, uncertainty=LATE[12:]))
        growth.end(child, Finish.EOS, LENGTH)
    counts: Counter[tuple[int, int]] = Counter()
    for branch in next_wave(growth, 12):
        owner = branch.path.owner(branch.position) if branch.path else None
        counts[owner.id if owner else -1, branch.position] += branch.children
    assert sum(counts.values()) == 12
    assert max(count for (owner, _), count in counts.items() if owner >= 0) == 2


def test_a_wide_tree_is_judged_by_the_part_that_is_looked_at():
    late = [*[0.0] * 12, *[2.0] * 4]
    few, many = (roots(*[late] * num, width=256)[0] for num in (64, 128))
    assert all(branch.position == 12 for branch in [*next_wave(few, 8), *next_wave(many, 8)])
    assert next_wave(many, 8)


def test_independent_samples_stay_independent():
    growth, _ = roots(LATE, LATE, LATE, LATE, factor=1)
    assert next_wave(growth, 4) == []
    assert better_place(growth) == [Branch(None, 0, 1, is_late=True)]


def test_a_free_slot_may_go_to_an_earlier_boundary_of_a_running_path():
    growth, paths = roots(EVEN, EVEN, [*[0.0] * 12, 1.0], running=(2,))
    (branch,) = better_place(growth)
    assert (branch.path, branch.position) == (paths[2], 12)
    assert branch.is_late
    assert better_place(roots(LATE, running=(0,))[0]) == []


def test_without_entropies_nothing_is_known_to_be_late():
    growth, _ = roots(*[[np.nan] * LENGTH] * 4)
    assert next_wave(growth, 4) == []
