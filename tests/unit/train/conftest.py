"""Ragged random trees and a tiny model in double precision."""

import math
from types import MethodType

import numpy as np
import pytest
import torch

from tests.support.threads import one_thread
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish

__all__ = ["one_thread"]

VOCABULARY = 17


def ragged_tree(seed: int, *, lost: bool = True) -> Tree:
    """A tree with stretches, forks, an empty node and, if asked, a pruned path.

    Its sampling log-probabilities lie around those of an untrained model, far enough off that
    ratios are clipped on both sides.
    """
    rng = np.random.default_rng(seed)
    nodes: list[Node] = []

    def add(parent: int | None, mass: float, depth: int) -> None:
        ends = depth == 4 or (depth > 0 and rng.random() < 0.3)
        length = int(rng.integers(0 if depth else 1, 5))
        noise = rng.normal(0, 1.0, length) - math.log(VOCABULARY)
        node = Node(
            id=len(nodes),
            parent=parent,
            path=0,
            start=0 if parent is None else nodes[parent].end,
            token_ids=tuple(int(t) for t in rng.integers(0, VOCABULARY, length)),
            logprobs=tuple(float(x) for x in noise),
            mass=mass,
            finish=(Finish.PRUNED if lost and rng.random() < 0.15 else Finish.EOS)
            if ends
            else None,
        )
        nodes.append(node)
        count = 0 if ends else int(rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3]))
        for _ in range(count):
            add(node.id, mass / count, depth + 1)

    roots = int(rng.integers(1, 4))
    for _ in range(roots):
        add(None, 1 / roots, 0)
    leaves = [n for n in nodes if n.finish is not None and n.finish.is_trajectory]
    total = sum(n.mass for n in leaves)
    return Tree(
        id=f"ragged-{seed}",
        prompt_token_ids=tuple(int(t) for t in rng.integers(0, VOCABULARY, rng.integers(1, 6))),
        nodes=tuple(nodes),
        trajectories=tuple(Trajectory(n.id, Finish.EOS, n.mass / total) for n in leaves),
        finish=TreeFinish.COMPLETE,
        weights_exact=abs(total - 1) < 1e-9,
    )


def tiny_llama(seed: int = 0):
    """Three layers, four query heads on two key heads, fp64 all the way through the norms."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).double()

    def norm(self, states):
        scale = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * states * scale

    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = MethodType(norm, module)
    return model


@pytest.fixture(scope="session")
def make_tree():
    return ragged_tree


@pytest.fixture
def model():
    return tiny_llama()


@pytest.fixture(scope="session")
def random_rewards():
    """Rewards of 0 or 1 for each trajectory, never all equal where there are two."""

    def draw(tree: Tree, seed: int) -> list[float]:
        rng = np.random.default_rng(seed)
        rewards = [float(x) for x in rng.integers(0, 2, len(tree.trajectories))]
        if len(rewards) > 1:
            rewards[0], rewards[-1] = 1.0, 0.0
        return rewards

    return draw
