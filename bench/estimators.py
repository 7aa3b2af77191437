"""Which way each estimator really pushes, on a policy small enough to enumerate.

One job: a table of logits over short token strings, its exact policy gradient, trees sampled from
it, and the angle between every estimator's mean gradient and the exact one. It prints the table of
docs/training.md. It knows no model; a new way of growing a tree is a `Growth`.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from treepo.train.advantage import (
    ESTIMATORS,
    AdvantageConfig,
    EstimatorName,
    TreeAdvantages,
    advantages,
)
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish

Table = Float[np.ndarray, "contexts vocabulary"]
Steps = Int[np.ndarray, "contexts vocabulary"]
Samples = Float[np.ndarray, "trees parameters"]
Growth = Literal["independent", "tree", "fallback"]
"""`independent`: the prompt forks `width` times and nothing else does. `tree`: the paper's even
branching by two, decided at each depth from the counts as of that depth. `fallback`: the same, then
finished paths are cut at a random boundary and forked until `width` trajectories stand."""

END = 0
"""The token that ends a string."""

NUM_TREES = 2000
"""Trees behind each column of the table."""


@dataclass(frozen=True, slots=True)
class Toy:
    """A tabular policy over strings, and a reward for each string.

    Attributes:
        probabilities: Next-token distribution in each context; row 0 follows the prompt.
        successors: The context after a token, -1 where the string ends.
        rewards: Reward of the string that ends with a token in a context; 0 elsewhere.
    """

    probabilities: Table
    successors: Steps
    rewards: Table


def make_toy(seed: int = 0, vocabulary: int = 3, horizon: int = 4) -> Toy:
    """A toy with random logits and random 0/1 rewards; strings end by themselves or at `horizon`.

    Args:
        seed: Of the logits and the rewards.
        vocabulary: Tokens, `END` among them.
        horizon: Most tokens of a string.
    """
    rng = np.random.default_rng(seed)
    levels = np.cumsum([0] + [(vocabulary - 1) ** depth for depth in range(horizon)])
    successors = np.full((levels[-1], vocabulary), -1, dtype=np.int64)
    for first, last in pairwise(levels[:-1]):
        width = (last - first) * (vocabulary - 1)
        successors[first:last, 1:] = last + np.arange(width).reshape(last - first, -1)
    weights = np.exp(rng.normal(size=successors.shape))
    rewards = rng.integers(0, 2, size=successors.shape).astype(np.float64)
    return Toy(
        probabilities=weights / weights.sum(1, keepdims=True),
        successors=successors,
        rewards=np.where(successors < 0, rewards, 0.0),
    )


def exact_gradient(toy: Toy) -> Table:
    """The gradient of the expected reward with respect to the logits, summed over all strings."""
    gradient = np.zeros_like(toy.probabilities)
    for steps, probability, reward in strings(toy):
        for context, token in steps:
            gradient[context] -= probability * reward * toy.probabilities[context]
            gradient[context, token] += probability * reward
    return gradient


def strings(toy: Toy) -> Iterator[tuple[list[tuple[int, int]], float, float]]:
    """Every string as its (context, token) steps, with its probability and reward."""
    stack: list[tuple[list[tuple[int, int]], int, float]] = [([], 0, 1.0)]
    while stack:
        steps, context, probability = stack.pop()
        for token, share in enumerate(toy.probabilities[context]):
            walk = [*steps, (context, token)]
            then = int(toy.successors[context, token])
            if then < 0:
                yield walk, probability * float(share), float(toy.rewards[context, token])
            else:
                stack.append((walk, then, probability * float(share)))


class _Grower:
    """One tree in the making: one token a node, all live paths a token at a time."""

    def __init__(self, toy: Toy, rng: np.random.Generator, width: int, factor: int) -> None:
        self.toy, self.rng, self.width, self.factor = toy, rng, width, factor
        self.cumulative = toy.probabilities.cumsum(1)
        self.nodes: list[Node] = []
        self.contexts: list[int] = []
        self.finished: list[int] = []

    def run(self, live: list[tuple[int | None, float, bool]]) -> None:
        """Decode and fork until no path is live; a path is (parent, mass, late)."""
        while live:
            done_before = len(self.finished)
            ends = [self._decode(*path) for path in live]
            nodes = [node for node in ends if node is not None]
            done = len(self.finished) - done_before
            live = list(self._fork(nodes, done)) if nodes else []

    def _decode(self, parent: int | None, mass: float, is_late: bool) -> int | None:
        context = 0 if parent is None else self.after(parent)
        token = int((self.rng.random() > self.cumulative[context, :-1]).sum())
        ends = self.toy.successors[context, token] < 0
        node = Node(
            id=len(self.nodes),
            parent=parent,
            path=0,
            start=0 if parent is None else self.nodes[parent].end,
            token_ids=(token,),
            logprobs=(float(np.log(self.toy.probabilities[context, token])),),
            mass=mass,
            is_late=is_late,
            finish=Finish.EOS if ends else None,
        )
        self.nodes.append(node)
        self.contexts.append(context)
        if ends:
            self.finished.append(node.id)
        return None if ends else node.id

    def _fork(self, nodes: list[int], done: int) -> Iterator[tuple[int, float, bool]]:
        """The paper's budget transfer over the live paths, split evenly, the first ones up."""
        room = max(self.width - len(self.finished), 0)
        total = max(len(nodes), min(room, self.factor * (done + len(nodes))))
        for index, node in enumerate(nodes):
            count = total // len(nodes) + (index < total % len(nodes))
            for _ in range(count):
                yield node, self.nodes[node].mass / count, self.nodes[node].is_late

    def fall_back(self) -> None:
        """Cut finished paths at a random boundary and fork there until `width` paths stand."""
        while len(self.finished) < self.width:
            walk: list[int | None] = [None]
            at = self.nodes[int(self.rng.choice(self.finished))].parent
            while at is not None:
                walk.append(at)
                at = self.nodes[at].parent
            cut = walk[int(self.rng.integers(len(walk)))]
            copies = min(self.factor, self.width - len(self.finished))
            self.run([(cut, 1 / self.width, True)] * copies)

    def after(self, node: int) -> int:
        """The context behind a node."""
        return int(self.toy.successors[self.contexts[node], self.nodes[node].token_ids[0]])


def sample(
    toy: Toy, growth: Growth, rng: np.random.Generator, width: int = 8
) -> tuple[Tree, list[float], list[int]]:
    """One tree, the reward of each of its trajectories, and the context of each of its nodes."""
    factor = 1 if growth == "independent" else 2
    grower = _Grower(toy, rng, width, factor)
    roots = width if growth == "independent" else min(factor, width)
    grower.run([(None, 1 / roots, False)] * roots)
    if growth == "fallback":
        grower.fall_back()
    nodes, leaves = grower.nodes, sorted(grower.finished)
    total = sum(nodes[leaf].mass for leaf in leaves)
    tree = Tree(
        id="toy",
        prompt_token_ids=(END,),
        nodes=tuple(nodes),
        trajectories=tuple(
            Trajectory(leaf, Finish.EOS, nodes[leaf].mass / total) for leaf in leaves
        ),
        finish=TreeFinish.COMPLETE,
        weights_exact=not any(node.is_late for node in nodes),
    )
    tokens = [nodes[leaf].token_ids[0] for leaf in leaves]
    contexts = [grower.contexts[leaf] for leaf in leaves]
    return tree, [float(r) for r in toy.rewards[contexts, tokens]], grower.contexts


def estimate(toy: Toy, tree: Tree, contexts: list[int], advantage: TreeAdvantages) -> Table:
    """The gradient that one tree's advantages give, undivided: sum of A(n) grad log pi(n)."""
    push = advantage.positive - advantage.negative
    tokens = [node.token_ids[0] for node in tree.nodes]
    gradient = np.zeros_like(toy.probabilities)
    np.add.at(gradient, (contexts, tokens), push)
    return np.asarray(gradient - toy.probabilities * gradient.sum(1, keepdims=True))


def gradients(
    toy: Toy, growth: Growth, names: list[EstimatorName], num_trees: int, seed: int, width: int = 8
) -> dict[EstimatorName, Samples]:
    """Each estimator's gradient of every sampled tree, on the same trees, with its own defaults."""
    rng = np.random.default_rng(seed)
    batch = [sample(toy, growth, rng, width) for _ in range(num_trees)]
    trees, rewards = [tree for tree, _, _ in batch], [scores for _, scores, _ in batch]
    return {
        name: np.stack(
            [
                estimate(toy, tree, contexts, advantage).ravel()
                for (tree, _, contexts), advantage in zip(
                    batch, advantages(trees, rewards, AdvantageConfig(name)), strict=True
                )
            ]
        )
        for name in names
    }


def cosine(samples: Samples, truth: npt.NDArray[np.float64]) -> float:
    """Cosine of the samples' mean to the truth, the mean's own sampling noise taken out."""
    mean = samples.mean(0)
    noise = float((samples.var(0, ddof=1) / len(samples)).sum())
    length = np.sqrt(max(float(mean @ mean) - noise, np.finfo(float).tiny))
    return float(mean @ truth.ravel() / (length * np.linalg.norm(truth)))


def cosine_table(num_trees: int = NUM_TREES, seed: int = 0, width: int = 8) -> str:
    """A Markdown table: the cosine of every estimator to the exact gradient, for every growth."""
    toy, rows = make_toy(seed), {}
    truth = exact_gradient(toy)
    growths = get_args(Growth)
    for growth in growths:
        names = [n for n in ESTIMATORS if not (n == "mass_loo" and growth == "fallback")]
        for name, samples in gradients(toy, growth, names, num_trees, seed, width).items():
            rows[name, growth] = f"{cosine(samples, truth):.3f}"
    lines = ["| estimator | " + " | ".join(growths) + " |", "|---" * (len(growths) + 1) + "|"]
    for name in ESTIMATORS:
        cells = [rows.get((name, growth), "refused") for growth in growths]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=NUM_TREES, help="sampled for each column")
    parser.add_argument("--seed", type=int, default=0, help="of the policy and of the trees")
    args = parser.parse_args()
    print(cosine_table(args.trees, args.seed))


if __name__ == "__main__":
    main()
