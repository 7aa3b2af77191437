"""The stated confidence is calibrated on leaves that share beginnings.

A problem has a share p of the answer `yes`, drawn from Beta(alpha, alpha). Its tree has sixteen
leaves; some tokens of each segment are fair coins (ln 2 nats each), the others are certain. A leaf
answers `yes` when the balance of the coins on its path, scaled to unit variance, lies below the
p-quantile: leaves agree as far as they share coins. The prior is fitted on one half of the
problems, the table is made on the other, in bins of equal size by stated confidence.
"""

import math
from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import betaln

from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish
from treepo.votes.evidence import (
    Sharing,
    beta_above_half,
    confidence,
    effective_samples,
    effective_votes,
)

ALPHAS = (0.05, 100.0)
NUM_LEAVES, NUM_SEGMENTS = 16, 6
NUM_SHAPES, PROBLEMS_PER_SHAPE = 60, 800
NUM_BINS = 12
COUNTS = {
    "leaves": lambda sharing: float(NUM_LEAVES),
    "effective_samples": effective_samples,
    "effective_votes": effective_votes,
}
_GRID = np.linspace(1e-6, 1 - 1e-6, 20001)
_QUANTILES = np.array([NormalDist().inv_cdf(p) for p in _GRID])


def random_tree(rng):
    """One to four roots, random forks, zero to five coins among the 32 tokens of a segment."""
    nodes, live = [], [None] * int(rng.integers(1, 5))
    for depth in range(NUM_SEGMENTS):
        tips = []
        for parent in live:
            coins = int(rng.integers(0, 6)) + (depth == 0)
            entropies = (math.log(2),) * coins + (0.0,) * (32 - coins)
            tokens = tuple(range(32))
            nodes.append(Node(len(nodes), parent, 0, 32 * depth, tokens, uncertainty=entropies))
            tips.append(nodes[-1].id)
        live = tips
        is_last_fork = depth == NUM_SEGMENTS - 2
        while depth < NUM_SEGMENTS - 1 and len(live) < NUM_LEAVES:
            if not is_last_fork and rng.random() < 0.25:
                break
            live.append(live[int(rng.integers(len(live)))])
    leaves = tuple(Trajectory(leaf, Finish.EOS, 1 / NUM_LEAVES) for leaf in live)
    return Tree("t", (), tuple(nodes), leaves, TreeFinish.COMPLETE, True, "entropy")


def votes_of(tree, alpha, rng):
    """Votes for `yes` in many problems with this tree's shape, and each problem's p."""
    coins = np.array([sum(value > 0 for value in node.uncertainty) for node in tree.nodes])
    on_path = np.zeros((len(coins), NUM_LEAVES))
    for node, leaves in enumerate(tree.leaves_through()):
        on_path[node, leaves] = 1
    shares = rng.beta(alpha, alpha, PROBLEMS_PER_SHAPE)
    heads = rng.binomial(coins, 0.5, size=(PROBLEMS_PER_SHAPE, len(coins)))
    # A leaf's own uniform noise of variance 1/3 fills the gaps between the balances.
    balance = (2 * heads - coins) @ on_path + rng.uniform(-1, 1, (PROBLEMS_PER_SHAPE, NUM_LEAVES))
    unit = balance / np.sqrt(coins @ on_path + 1 / 3)
    return (unit < np.interp(shares, _GRID, _QUANTILES)[:, None]).sum(1), shares


def population(alpha, rng):
    """Per problem: the leader's share, whether it is the mode, and the tree's effective numbers."""
    rows = []
    for _ in range(NUM_SHAPES):
        tree = random_tree(rng)
        numbers = [count(Sharing.of(tree)) for count in COUNTS.values()]
        votes, shares = votes_of(tree, alpha, rng)
        is_tie = 2 * votes == NUM_LEAVES
        is_yes = np.where(is_tie, rng.random(len(votes)) < 0.5, 2 * votes > NUM_LEAVES)
        lead = np.maximum(votes, NUM_LEAVES - votes) / NUM_LEAVES
        is_mode = is_yes == (shares > 0.5)
        rows += [(own, right, *numbers) for own, right in zip(lead, is_mode, strict=True)]
    return rng.permutation(np.array(rows))


def fit_alpha(votes):
    """The prior Beta(alpha, alpha) under which these votes of leader and runner-up are likeliest.

    The leader's share of the two is the problem's unknown; votes may be fractions.
    """
    first, second, times = np.array([(a, b, n) for (a, b), n in Counter(votes).items()]).T

    def surprise(log_alpha):
        alpha = math.exp(log_alpha)
        return times @ (betaln(alpha, alpha) - betaln(alpha + first, alpha + second))

    return math.exp(minimize_scalar(surprise, bounds=np.log(ALPHAS), method="bounded").x)


def under(alpha):
    """`confidence` in a leader of two answers, with another prior than its uniform one."""
    return lambda lead, n: beta_above_half(alpha + n * lead, alpha + n * (1 - lead))


def calibration(rows, column, stated_by):
    """Per bin its size, mean stated confidence and frequency of truth."""
    pairs, where = np.unique(rows[:, (0, column)], axis=0, return_inverse=True)
    stated = np.array([stated_by(lead, n) for lead, n in pairs])[where.ravel()]
    bins = np.array_split(np.argsort(stated, kind="stable"), NUM_BINS)
    return [(len(b), stated[b].mean(), rows[b, 1].mean()) for b in bins]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_the_fitted_prior_is_that_of_the_problems(alpha):
    rng = np.random.default_rng(7)
    counts = rng.binomial(NUM_LEAVES, rng.beta(alpha, alpha, 4000)).tolist()
    votes = [(max(k, NUM_LEAVES - k), min(k, NUM_LEAVES - k)) for k in counts]
    assert fit_alpha(votes) == pytest.approx(alpha, rel=0.1)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 6.0])
def test_confidence_on_effective_votes_is_calibrated_and_on_leaves_it_is_not(alpha):
    fit, test = np.array_split(population(alpha, np.random.default_rng(11)), 2)
    errors = {}
    for column, name in enumerate(COUNTS, start=2):
        fitted = fit_alpha((n * lead, n * (1 - lead)) for lead, n in fit[:, (0, column)].tolist())
        table = calibration(test, column, under(fitted))
        errors[name] = max(abs(stated - true) for _, stated, true in table)
        print(f"\ntrue alpha {alpha}, {name}: fitted {fitted:.2f}, error {errors[name]:.3f}")
        for size, stated, true in table:
            print(f"{size:6d} problems  stated {stated:.3f}  true {true:.3f}")
        assert min(size for size, _, _ in table) >= 1000
    assert errors["effective_votes"] <= 0.05
    assert errors["effective_votes"] < errors["effective_samples"] < errors["leaves"]


@pytest.mark.parametrize(("alpha", "sign"), [(0.3, -1), (6.0, 1)])
def test_the_uniform_prior_of_until_overstates_near_ties_and_understates_clear_cases(alpha, sign):
    _, test = np.array_split(population(alpha, np.random.default_rng(12)), 2)
    column = 2 + list(COUNTS).index("effective_votes")
    table = calibration(test, column, lambda lead, n: confidence((lead, 1 - lead), n))
    gaps = [stated - true for _, stated, true in table]
    print(f"\ntrue alpha {alpha}, prior 1: stated less true {min(gaps):+.3f} to {max(gaps):+.3f}")
    assert sign * sum(gaps) > 0
    assert max(sign * gap for gap in gaps) > (0.03 if sign < 0 else 0.1)


def votes_among(num_answers, spread, rng, num_problems=24_000):
    """Counts of 16 independent votes, and whether the leader is the mode, ties drawn by lot."""
    chances = rng.dirichlet([spread] * num_answers, num_problems)
    counts = rng.multinomial(NUM_LEAVES, chances)
    noisy = counts + rng.random(counts.shape) / 2
    return counts, noisy.argmax(1) == chances.argmax(1)


@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_among_more_than_two_close_answers_no_prior_is_right(spread):
    counts, is_mode = votes_among(4, spread, np.random.default_rng(13))
    ranked = np.sort(counts, axis=1)[:, ::-1][:, :2]
    rows = np.column_stack([ranked, is_mode])
    fit, test = np.array_split(rows, 2)
    alpha = fit_alpha((a, b) for a, b, _ in fit.tolist())
    stated = np.array([beta_above_half(alpha + a, alpha + b) for a, b in test[:, :2]])
    bins = np.array_split(np.argsort(stated, kind="stable"), NUM_BINS)
    gaps = [stated[b].mean() - test[b, 2].mean() for b in bins]
    print(
        f"\nfour answers, spread {spread}, fitted {alpha:.2f}: {min(gaps):+.3f} to {max(gaps):+.3f}"
    )
    assert min(len(b) for b in bins) >= 1000
    assert (max(map(abs, gaps)) > 0.05) == (spread == 5.0)
