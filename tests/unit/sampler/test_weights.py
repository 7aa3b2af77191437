"""Statistical truth of the weights: on a machine whose law is enumerated, trees are unbiased.

A path of state `a` is short and of state `b` long, so leaves pile up where paths live on, and the
plain mean over leaves is far off. Every bound is 4.5 standard errors of the trees at hand, with
fixed seeds. What is known to be biased (late leaves, waves, pruning) is measured and printed.
"""

import asyncio
import gc
import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from tests.support.machines import CharDecoder, ToyAnswer
from treepo.config import TreeConfig
from treepo.engines.base import Sampling, Uncertainty
from treepo.engines.scripted import EOS, Script, ScriptedEngine, TokenMachine
from treepo.growth.texts import Texts
from treepo.sampler import Job, sample_tree
from treepo.tree import Tree, TreeFinish

NUM_TREES = 20_000
BATCH = 250
MAX_TOKENS = 12
PROMPT = [1, 2, 3]
LIMIT = 4.5

TWO_SPEEDS = TokenMachine(
    {
        "start": {1: (0.5, "a"), 2: (0.5, "b")},
        "a": {3: (0.4, "a"), 4: (0.1, "b"), EOS: (0.5, "a")},
        "b": {5: (0.6, "b"), 6: (0.15, "a"), 7: (0.1, "b"), EOS: (0.15, "b")},
    },
    "start",
)
LEADS_TO_A = {1, 3, 6}


def says_a(tokens: list[int]) -> bool:
    """Whether the path was in state `a` when it ended."""
    last = tokens[-1] if tokens[-1] != EOS else tokens[-2]
    return last in LEADS_TO_A


FIGURES: dict[str, Callable[[list[int]], bool]] = {
    "ends in a": says_a,
    "at most 3 tokens": lambda tokens: len(tokens) <= 3,
    "starts with 1": lambda tokens: tokens[0] == 1,
}


def truths() -> dict[str, float]:
    """The figures' exact probabilities, by enumerating every path of the machine."""
    sums = dict.fromkeys(FIGURES, 0.0)
    front: list[tuple[list[int], str, float]] = [([], TWO_SPEEDS.start, 1.0)]
    while front:
        tokens, state, weight = front.pop()
        if tokens and (tokens[-1] == EOS or len(tokens) == MAX_TOKENS):
            for name, figure in FIGURES.items():
                sums[name] += weight * figure(tokens)
            continue
        for token, (probability, target) in TWO_SPEEDS.distribution(state).items():
            front.append(([*tokens, token], target, weight * probability))
    return sums


def slow_where_long(tokens: list[int]) -> int:
    """Latency that depends on what was drawn, so that timing knows the answer."""
    return sum(tokens) % 3


def grow(
    num: int,
    config: TreeConfig,
    *,
    chunks: Iterable[int] = (3, 5),
    kind: Uncertainty = Uncertainty.ENTROPY,
    texts: Texts | None = None,
    seed: int = 1,
    machine: TokenMachine = TWO_SPEEDS,
    max_tokens: int = MAX_TOKENS,
) -> list[Tree]:
    """`num` trees, split evenly over chunk sizes; two tokens a segment, so chunks span several.

    The collector rests meanwhile: with some thousand trees in memory it costs a quarter of it all.
    """
    sizes = list(chunks)
    sampling = Sampling(max_tokens=max_tokens)

    async def run() -> list[Tree]:
        trees: list[Tree] = []
        for size in sizes:
            script = Script(
                chunk_tokens=size,
                block_size=1,
                overrun_tokens=1,
                delay=slow_where_long,
                uncertainty=kind,
                seed=seed + size,
            )
            engine = ScriptedEngine(machine, script)
            for first in range(0, num // len(sizes), BATCH):
                jobs = (
                    Job(PROMPT, sampling, config, id=f"{seed}-{size}-{i}", texts=texts)
                    for i in range(first, first + BATCH)
                )
                trees += await asyncio.gather(*(sample_tree(engine, job) for job in jobs))
        return trees

    gc.disable()
    try:
        return asyncio.run(run())
    finally:
        gc.enable()


def settings(**changes) -> TreeConfig:
    base = {"width": 4, "segment_tokens": 2, "branching": "even", "fallback": "none"}
    return TreeConfig(**base | changes)


def estimate(trees: Iterable[Tree], weights) -> dict[str, tuple[float, float]]:
    """For each figure its mean over trees, leaves weighted, and the standard error."""
    rows = []
    for tree in trees:
        leaves = [tree.token_ids(trajectory) for trajectory in tree.trajectories]
        weighed = list(zip(weights(tree), leaves, strict=True))
        rows.append([sum(w for w, t in weighed if figure(t)) for figure in FIGURES.values()])
    means, errors = np.mean(rows, axis=0), np.std(rows, axis=0) / math.sqrt(len(rows))
    return dict(zip(FIGURES, zip(means, errors, strict=True), strict=True))


def biases(label: str, trees: list[Tree], weights) -> dict[str, tuple[float, float]]:
    """What `estimate` says beyond the truth; printed, so that a run shows the figures."""
    known = truths()
    found = {n: (mean - known[n], e) for n, (mean, e) in estimate(trees, weights).items()}
    shown = ", ".join(f"{name} {bias:+.4f} +- {e:.4f}" for name, (bias, e) in found.items())
    print(f"{label}, {weights.__name__}, {len(trees)} trees: {shown}")
    return found


def by_weight(tree: Tree) -> list[float]:
    return [t.weight for t in tree.trajectories]


def by_count(tree: Tree) -> list[float]:
    return [1 / len(tree.trajectories)] * len(tree.trajectories)


def by_mass(tree: Tree) -> list[float]:
    """Prospective leaves alone: late nodes have mass 0."""
    return [tree.nodes[t.leaf].mass for t in tree.trajectories]


def assert_unbiased(label: str, trees: list[Tree], weights=by_weight) -> None:
    for name, (bias, error) in biases(label, trees, weights).items():
        assert abs(bias) < LIMIT * error, f"{label}: {name}"


def test_the_enumerated_law_is_a_law():
    assert truths()["starts with 1"] == pytest.approx(0.5)
    # a: EOS at the 2nd token 0.5, at the 3rd 0.4 * 0.5 + 0.1 * 0.15; b: 0.15, then
    # 0.7 * 0.15 + 0.15 * 0.5.
    at_most_3 = 0.5 * (0.5 + 0.4 * 0.5 + 0.1 * 0.15) + 0.5 * (0.15 + 0.7 * 0.15 + 0.15 * 0.5)
    assert truths()["at most 3 tokens"] == pytest.approx(at_most_3)


@pytest.mark.parametrize(
    ("branching", "roots"), [("even", 2), ("low_prob", (1, 3)), ("high_prob", 2)]
)
def test_the_papers_policies_are_unbiased_under_mass_and_the_plain_mean_is_not(branching, roots):
    config = settings(branching=branching, root_branching=roots, branching_temperature=0.5)
    trees = grow(NUM_TREES, config)
    assert all(tree.weights_exact for tree in trees)
    assert_unbiased(branching, trees)
    bias, error = biases(branching, trees, by_count)["at most 3 tokens"]
    assert bias < -LIMIT * error


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        (
            Uncertainty.ENTROPY,
            [(0.3, None, 1), (0.9, None, 1), (0.9, 2, 1), (1.0, None, 2)],
        ),
        (Uncertainty.SURPRISAL, [(0.6, None, 1), (1.5, 2, 2)]),
    ],
)
def test_entropy_is_unbiased_under_mass_at_every_threshold_and_factor(kind, rules):
    trees: list[Tree] = []
    for number, (threshold, factor, roots) in enumerate(rules):
        config = settings(
            branching="entropy",
            entropy_threshold=threshold,
            branching_factor=factor,
            root_branching=roots,
        )
        some = grow(NUM_TREES // len(rules), config, kind=kind, seed=10 * number)
        label = f"entropy by {kind}, {threshold} nats, factor {factor}, {roots} roots"
        biases(label, some, by_count)
        assert_unbiased(label, some)
        trees += some
    assert all(tree.weights_exact for tree in trees)
    assert_unbiased(f"entropy by {kind}", trees)


def test_late_leaves_bias_a_tree_and_the_prospective_ones_do_not():
    trees = grow(6000, settings(fallback="random", root_branching=1))
    biases("fallback random", trees, by_count)
    bias, error = biases("fallback random", trees, by_weight)["at most 3 tokens"]
    assert bias < -LIMIT * error
    assert_unbiased("fallback random", trees, by_mass)


def test_trees_that_happened_to_need_no_fallback_are_a_biased_selection():
    trees = grow(1000, settings(fallback="random", root_branching=1))
    whole = [tree for tree in trees if not any(node.is_late for node in tree.nodes)]
    assert 0 < len(whole) < len(trees)
    label = "fallback random, trees without a late leaf"
    bias, error = biases(label, whole, by_weight)["at most 3 tokens"]
    assert bias < -LIMIT * error


class StateReader:
    """Votes for the state the text ended in."""

    async def read(self, text: str) -> ToyAnswer:
        tokens = CharDecoder().encode(text)
        key = "a" if says_a([*tokens, EOS]) else "b"
        return ToyAnswer(key, key)


def test_waves_stopped_on_agreement_are_biased_and_do_not_claim_otherwise():
    texts = Texts(CharDecoder(), StateReader())
    config = settings(width=8, start=2, until="settled", root_branching=2)
    trees = grow(4000, config, texts=texts)
    bias, error = biases("waves until settled", trees, by_weight)["ends in a"]
    assert bias > LIMIT * error
    settled = [tree for tree in trees if tree.finish is TreeFinish.SETTLED]
    assert settled
    assert not any(tree.weights_exact for tree in settled)


def test_waves_of_independent_samples_that_are_all_opened_are_unbiased():
    config = settings(width=4, start=2, root_branching=2, branching_factor=1)
    trees = grow(NUM_TREES, config)
    assert all(tree.weights_exact for tree in trees)
    assert_unbiased("waves", trees)


def test_waves_from_boundaries_of_finished_paths_do_not_claim_to_be_exact():
    # Half the paths are decided at their end only, so their last boundary is the best place.
    late = TokenMachine(
        {
            "start": {1: (1.0, "1")},
            **{str(i): {1: (1.0, str(i + 1))} for i in range(1, 8)},
            "8": {3: (0.5, "9"), 4: (0.5, "9")},
            "9": {EOS: (1.0, "9")},
        },
        "start",
    )
    config = settings(branching="entropy", width=8, start=4, root_branching=4)
    trees = grow(200, config, machine=late)
    assert all(any(node.is_late for node in tree.nodes) for tree in trees)
    assert not any(tree.weights_exact for tree in trees)
    assert all(tree.stats.generated_tokens < 8 * 10 for tree in trees)


def test_pruning_is_biased_and_does_not_claim_otherwise():
    # Half the paths are calm and half are wild; the wild ones are given up once a calm one ended.
    wild = dict.fromkeys(range(4, 12), (0.12, "wild")) | {EOS: (0.04, "wild")}
    machine = TokenMachine(
        {
            "start": {1: (0.5, "calm"), 2: (0.5, "wild")},
            "calm": {3: (0.8, "calm"), EOS: (0.2, "calm")},
            "wild": wild,
        },
        "start",
    )
    config = settings(prune="confidence", prune_window=8, prune_warmup=1, root_branching=4)
    trees = grow(1000, config, machine=machine, max_tokens=30)
    mean, error = estimate(trees, by_weight)["starts with 1"]
    print(f"prune by confidence: starts with 1 {mean - 0.5:+.4f} +- {error:.4f}")
    assert mean - 0.5 > LIMIT * error
    assert not any(tree.weights_exact for tree in trees if tree.stats.prunes)


@pytest.mark.parametrize(
    "changes",
    [
        {"branching": "entropy", "entropy_threshold": 0.9},
        {"branching": "even", "fallback": "random"},
        {"branching": "low_prob", "prune": "confidence", "prune_window": 8, "prune_warmup": 1},
        {"branching": "even", "max_total_tokens": 15},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_pooled_next_tokens_follow_the_law_each_token_counted_once(changes):
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    num_pruned = 0
    for tree in grow(1500, settings(**changes), chunks=(2, 3, 4)):
        num_pruned += tree.stats.prunes
        states = {None: TWO_SPEEDS.start}
        for node in tree.nodes:
            state = states[node.parent]
            for token in node.token_ids:
                counts[state][token] += 1
                state = TWO_SPEEDS.distribution(state)[token][1]
            states[node.id] = state
    assert ("prune" in changes) == (num_pruned > 0)
    chi_square, freedom = 0.0, 0
    for state, seen in counts.items():
        total = sum(seen.values())
        law = TWO_SPEEDS.distribution(state)
        assert set(seen) <= set(law)
        chi_square += sum(
            (seen[token] - total * p) ** 2 / (total * p) for token, (p, _) in law.items()
        )
        freedom += len(law) - 1
    print(f"chi-square {chi_square:.1f} at {freedom} degrees of freedom, {num_pruned} pruned")
    assert chi_square < freedom + LIMIT * math.sqrt(2 * freedom)
