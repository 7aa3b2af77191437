"""The laws of a sampled tree, as assertions that hold it against what the engine emitted."""

from __future__ import annotations

import pytest

from tests.support.scenarios import Sampled, boundaries
from treepo.engines.scripted import EOS
from treepo.tree import Finish


def assert_joins(sampled: Sampled) -> None:
    """Nodes, lineages and requests all tell the same tokens as the engine emitted."""
    tree = sampled.tree
    for node in tree.nodes:
        sent = sampled.engine.sent[f"t-{node.path}"]
        first = sent.request.num_inherited_tokens
        part = slice(node.start - first, node.end - first)
        assert node.token_ids, "no node is empty"
        assert list(node.token_ids) == sent.token_ids[part]
        assert list(node.logprobs) == sent.logprobs[part]
        assert list(node.uncertainty) == sent.uncertainty[part]
        walk = tree.lineage(node.id)
        assert [n.start for n in walk] == [0, *(n.end for n in walk[:-1])]
    for node in tree.nodes:
        if node.parent is None or tree.nodes[node.parent].path != node.path:
            sent = sampled.engine.sent[f"t-{node.path}"]
            inherited = [t for n in tree.lineage(node.id)[:-1] for t in n.token_ids]
            assert list(sent.request.token_ids) == [*tree.prompt_token_ids, *inherited]
            assert sent.request.num_inherited_tokens == len(inherited)
    for trajectory in tree.trajectories:
        assert len(tree.logprobs(trajectory)) == len(tree.token_ids(trajectory))


def assert_counts(sampled: Sampled) -> None:
    tree, stats = sampled.tree, sampled.tree.stats
    lengths = [tree.nodes[t.leaf].end for t in tree.trajectories]
    on_trajectory = {n.id for t in tree.trajectories for n in tree.lineage(t.leaf)}
    kept = sum(len(tree.nodes[i].token_ids) for i in on_trajectory)
    assert stats.generated_tokens == sampled.engine.num_generated_tokens
    assert stats.trajectory_tokens == sum(lengths)
    assert stats.reused_tokens == sum(lengths) - kept
    assert stats.discarded_tokens == stats.generated_tokens - kept
    assert (
        stats.trajectory_tokens + stats.discarded_tokens
        == stats.generated_tokens + stats.reused_tokens
    )
    cached = [sent.cached for sent in sampled.engine.sent.values()]
    assert stats.cached_tokens == sum(c or 0 for c in cached)
    waves = {id(p.wave): p.wave for p in sampled.watch.paths}
    num_roots = sum(wave.num_roots for wave in waves.values())
    assert stats.branches + stats.fallbacks + num_roots == len(sampled.watch.paths)
    assert stats.max_live_paths <= sampled.tree.settings["width"]


def assert_weights(sampled: Sampled) -> None:
    tree = sampled.tree
    if tree.trajectories:
        assert sum(t.weight for t in tree.trajectories) == pytest.approx(1.0)
    if tree.weights_exact:
        masses = [tree.nodes[t.leaf].mass for t in tree.trajectories]
        assert sum(masses) == pytest.approx(1.0)
        assert masses == pytest.approx([t.weight for t in tree.trajectories])
        for node, children in zip(tree.nodes, tree.children()[:-1], strict=True):
            if children:
                shares = [tree.nodes[child].mass for child in children]
                assert sum(shares) == pytest.approx(node.mass)


def assert_lengths(sampled: Sampled) -> None:
    tree, sampling = sampled.tree, sampled.scenario.sampling
    marks = boundaries(tree, sampled.scenario.script.block_size)
    last = marks[tree.settings["max_depth"]]
    for trajectory in tree.trajectories:
        end = tree.nodes[trajectory.leaf].end
        assert end <= sampling.max_tokens
        assert end <= last
        ends_itself = tree.nodes[trajectory.leaf].token_ids[-1] == EOS
        assert (trajectory.finish is Finish.EOS) == ends_itself
        assert (trajectory.finish is Finish.DEPTH) <= (end == last)
        assert (trajectory.finish is Finish.LENGTH) <= (end == sampling.max_tokens)
    for sent in sampled.engine.sent.values():
        request = sent.request
        assert request.sampling.max_tokens + request.num_inherited_tokens <= sampling.max_tokens
        assert request.sampling.min_tokens <= request.sampling.max_tokens


def assert_late_cuts(sampled: Sampled) -> None:
    """A late path starts at a boundary, or where a fork stood already."""
    marks = set(boundaries(sampled.tree, sampled.scenario.script.block_size))
    forks = {(p.parent, p.start) for p in sampled.watch.paths if not p.is_late}
    for path in sampled.watch.paths:
        if path.is_late:
            assert path.start in marks or (path.parent, path.start) in forks


def assert_laws(sampled: Sampled) -> None:
    assert_joins(sampled)
    assert_counts(sampled)
    assert_weights(sampled)
    assert_lengths(sampled)
    assert_late_cuts(sampled)
    assert sampled.inner.counters.running == 0
    assert not sampled.engine.running
    assert len(sampled.tree.trajectories) <= sampled.scenario.config.width
    finished = [p for p in sampled.watch.paths if p.is_trajectory]
    assert sorted(p.order for p in finished) == list(range(len(finished)))
    assert sorted(sampled.watch.ended_ids) == [p.id for p in sampled.watch.paths]
