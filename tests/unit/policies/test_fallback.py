"""Where finished paths are branched again."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from treepo.config import TreeConfig
from treepo.engines.base import Chunk
from treepo.growth.state import Branch, Growth, Path
from treepo.policies.fallback import FALLBACKS
from treepo.tree import Finish


def forest(*roots, width=16, factor=2) -> tuple[Growth, list[Path]]:
    """Finished root paths from (length, finish, uncertainties or None); segments of 4 tokens."""
    config = TreeConfig(
        width=width, segment_tokens=4, branching="even", branching_factor=factor
    ).resolve(4, 100, 0.5)
    growth = Growth([1], config, 4)
    paths = growth.open_wave(width, len(roots))
    for path, (length, finish, uncertainty) in zip(paths, roots, strict=True):
        path.extend(Chunk([path.id] * length, uncertainty=uncertainty or ()))
        growth.end(path, finish, length)
    return growth, paths


def branches(name: str, growth: Growth, seed: int = 0) -> list[Branch]:
    return list(FALLBACKS[name](growth, growth.waves[-1], random.Random(seed)))


@pytest.mark.parametrize("name", ["random", "entropy", "disagreement"])
def test_only_paths_that_ended_well_are_sources(name):
    growth, paths = forest(
        (9, Finish.LENGTH, None),
        (9, Finish.EOS, None),
        (9, Finish.REPETITION, None),
        (9, Finish.DEPTH, None),
        (9, Finish.ANSWER, None),
        (9, Finish.PRUNED, None),
        (9, Finish.STOP, None),
    )
    for seed in range(20):
        sources = {b.path for b in branches(name, growth, seed)}
        assert sources == {paths[1], paths[4], paths[6]}


@pytest.mark.parametrize("name", ["random", "entropy", "disagreement"])
def test_without_a_source_all_that_is_missing_starts_afresh_at_once(name):
    growth, _ = forest((9, Finish.LENGTH, None), width=16)
    assert branches(name, growth) == [Branch(None, 0, 15, is_late=True)]


def test_random_cuts_are_uniform_over_the_boundaries_inside_the_path():
    growth, _ = forest((13, Finish.EOS, None))
    # Boundaries at 4, 8, 12; the prompt's end counts too, and the part behind 12 is dropped at
    # least. The paper's law: keep (B - k) windows, k uniform from 1 to B = ceil(13 / 4).
    starts = Counter(branches("random", growth, seed)[0].position for seed in range(4000))
    assert set(starts) == {0, 4, 8, 12}
    assert all(abs(count - 1000) < 4.5 * (4000 * 0.25 * 0.75) ** 0.5 for count in starts.values())


@pytest.mark.parametrize("length", [1, 4, 5, 8, 9])
def test_a_cut_drops_at_least_one_token(length):
    growth, _ = forest((length, Finish.EOS, None))
    cuts = {branches("random", growth, seed)[0].position for seed in range(200)}
    assert max(cuts) < length
    assert cuts == {p for p in (0, 4, 8) if p < length}


@pytest.mark.parametrize("name", ["random", "entropy", "disagreement"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_each_source_is_handed_up_to_the_factor_until_the_width_is_reached(name, factor):
    growth, _ = forest(*[(9, Finish.EOS, None)] * 5, width=12, factor=factor)
    found = branches(name, growth)
    assert sum(b.children for b in found) == min(5 * factor, 12 - 5)
    assert all(b.is_late and 1 <= b.children <= factor for b in found)


def test_entropy_cuts_where_most_uncertainty_per_token_lies_behind():
    growth, (calm, wild) = forest(
        (9, Finish.EOS, [0.1] * 9),
        (9, Finish.EOS, [0.0] * 4 + [2.0] * 4 + [0.2]),
        factor=1,
    )
    # Behind 4: (4 * 2.0 + 0.2) / 5 = 1.64; behind 0: 8.2 / 9 = 0.91; behind 8: 0.2. The calm
    # path's prompt is the wild one's and is not taken twice.
    found = branches("entropy", growth)
    assert [(b.path, b.position) for b in found[:3]] == [(wild, 4), (wild, 0), (wild, 8)]
    assert [(b.path, b.position) for b in found[3:]] == [(calm, 4), (calm, 8)]


def test_entropy_takes_a_shared_boundary_once_and_reads_lost_values_as_certain():
    growth, (path,) = forest((9, Finish.EOS, [1.0] * 9), width=16, factor=1)
    (child,) = growth.open_branch(Branch(path, 8, 1), path.wave)
    child.extend(Chunk([9, 9], uncertainty=[float("nan"), 0.5]))
    growth.end(child, Finish.EOS, 10)
    places = [(b.path.owner(b.position), b.position) for b in branches("entropy", growth)]
    assert len(places) == len(set(places))
    assert {position for _, position in places} == {0, 4, 8}


def test_without_uncertainties_entropy_falls_back_to_random():
    growth, _ = forest((9, Finish.EOS, None), (13, Finish.EOS, None))
    assert branches("entropy", growth, 5) == branches("random", growth, 5)


def answered(path: Path, key: str | None) -> None:
    path.answer = SimpleNamespace(key=key, text=key) if key else None


def test_disagreement_forks_again_where_subtrees_answered_differently_latest_first():
    growth, (root,) = forest((13, Finish.EOS, None), factor=1)
    (early,) = growth.open_branch(Branch(root, 4, 1), root.wave)
    (late,) = growth.open_branch(Branch(root, 8, 1), root.wave)
    (calm,) = growth.open_branch(Branch(root, 12, 1), root.wave)
    for path in (early, late, calm):
        path.extend(Chunk([1]))
        growth.end(path, Finish.EOS, path.end)
    for path, key in ((root, "1"), (calm, "1"), (late, "2"), (early, "1")):
        answered(path, key)
    # Through 12: answers 1 and 1. Through 8: 1, 1 and 2. Through 4: all of them.
    found = branches("disagreement", growth)
    assert [(b.path, b.position) for b in found] == [(root, 8), (root, 4)]


def test_without_disagreement_it_falls_back_to_entropy():
    growth, paths = forest((9, Finish.EOS, [0.5] * 9), (9, Finish.EOS, [0.1] * 9))
    for path in paths:
        answered(path, "same")
    assert branches("disagreement", growth) == branches("entropy", growth)


def test_none_opens_nothing():
    growth, _ = forest((9, Finish.EOS, None))
    assert branches("none", growth) == []
