"""Estimators against the exact gradient of a policy small enough to enumerate."""

import numpy as np
import pytest

from bench.estimators import (
    NUM_TREES,
    Toy,
    cosine,
    cosine_table,
    exact_gradient,
    gradients,
    make_toy,
    sample,
    strings,
)
from treepo.train.advantage import ESTIMATORS


def standard_errors_off(samples, truth):
    spread = samples.std(0, ddof=1) / np.sqrt(len(samples))
    return np.abs(samples.mean(0) - truth.ravel()) / np.maximum(spread, 1e-12)


def test_probabilities_of_all_strings_sum_to_one_and_some_end_early():
    toy = make_toy(0)
    listed = list(strings(toy))
    assert sum(probability for _, probability, _ in listed) == pytest.approx(1)
    assert {len(steps) for steps, _, _ in listed} == {1, 2, 3, 4}


def test_the_exact_gradient_is_the_derivative_of_the_expected_reward():
    toy = make_toy(3)

    def value(logits):
        weights = np.exp(logits)
        moved = Toy(weights / weights.sum(1, keepdims=True), toy.successors, toy.rewards)
        return sum(probability * reward for _, probability, reward in strings(moved))

    logits, numeric = np.log(toy.probabilities), np.zeros_like(toy.probabilities)
    for at in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[at] = 1e-5
        numeric[at] = (value(logits + step) - value(logits - step)) / 2e-5
    np.testing.assert_allclose(exact_gradient(toy), numeric, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_mass_loo_is_unbiased_and_leaf_counted_estimators_are_not(seed):
    toy = make_toy(seed)
    truth = exact_gradient(toy)
    samples = gradients(toy, "tree", ["mass_loo", "grpo", "treepo"], NUM_TREES, seed=seed + 10)
    assert standard_errors_off(samples["mass_loo"], truth).max() < 4.5
    assert cosine(samples["mass_loo"], truth) == pytest.approx(1, abs=0.03)
    for name in ("grpo", "treepo"):
        # Scaled to the length that fits the truth best, they still miss its direction.
        mean = samples[name].mean(0)
        scale = (mean @ truth.ravel()) / (mean @ mean)
        assert standard_errors_off(samples[name] * scale, truth).max() > 4.5


def test_on_independent_samples_leaf_counted_estimators_point_the_right_way():
    toy = make_toy(0)
    truth = exact_gradient(toy)
    names = [name for name in ESTIMATORS if name != "treerl"]
    for name, samples in gradients(toy, "independent", names, 600, seed=5).items():
        assert cosine(samples, truth) == pytest.approx(1, abs=0.03), name


def test_growths_give_the_width_they_are_asked_for_and_say_what_is_late():
    toy, rng = make_toy(0), np.random.default_rng(0)
    for _ in range(50):
        for growth, at_most in [("independent", 8), ("tree", 8), ("fallback", 8)]:
            tree, rewards, contexts = sample(toy, growth, rng)
            late = any(node.is_late for node in tree.nodes)
            assert len(rewards) == len(tree.trajectories) <= at_most
            assert growth == "tree" or len(rewards) == at_most
            assert tree.weights_exact == (not late)
            assert growth == "fallback" or not late
            assert len(contexts) == len(tree.nodes)
            if not late:
                assert sum(tree.nodes[t.leaf].mass for t in tree.trajectories) == pytest.approx(1)


def test_the_table_names_every_estimator_and_every_growth():
    table = cosine_table(num_trees=200, seed=0)
    lines = table.splitlines()
    assert lines[0] == "| estimator | independent | tree | fallback |"
    assert [line.split("`")[1] for line in lines[2:]] == list(ESTIMATORS)
    assert "refused" in lines[-1]
