"""The packed update equals one row for each trajectory: loss and gradient, for every estimator."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from treepo.train.advantage import ESTIMATORS, AdvantageConfig, advantages
from treepo.train.config import LossConfig
from treepo.train.estimators import Options
from treepo.train.loss import Policy, mean_metrics, policy_loss
from treepo.train.pack import join, pack, unpack

SETTINGS = LossConfig(dual_clip=2.0, importance_cap=1.2, kl_coef=0.3)
SEEDS = (3, 6, 8)


def batch_of(make_tree, random_rewards, name, **options):
    trees = [make_tree(seed) for seed in SEEDS]
    rewards = [random_rewards(tree, seed) for tree, seed in zip(trees, SEEDS, strict=True)]
    config = AdvantageConfig(name, allow_inexact=True, **options)
    return trees, advantages(trees, rewards, config)


def update(model, rows, divisor, *, attention="sdpa", config=SETTINGS):
    """Loss, gradient and mean metrics of a set of rows, all on the same model.

    The anchor and the reference are the model's own log-probabilities moved by a function of
    token and position, so that they agree between layouts.
    """
    model.zero_grad()
    policy = Policy(model, temperature=0.8, chunk_tokens=7)
    policy.attention = attention
    model.set_attn_implementation(attention)
    total, sums = 0.0, []
    for row in rows:
        logprobs = policy(row)
        at = (row.token_ids + 3 * row.positions)[row.loss_mask]
        logprobs_now = logprobs.detach()
        loss, metrics = policy_loss(
            logprobs,
            row,
            config,
            divisor,
            anchor=logprobs_now + 0.9 * torch.sin(at),
            reference=logprobs_now + 0.5 * torch.cos(at),
        )
        loss.backward()
        total += loss.item()
        sums.append(metrics)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    return total, gradient, mean_metrics(sums)


def gap(one, other):
    return ((one - other).abs().max() / other.abs().max()).item()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_packed_gradient_equals_unpacked(name, model, make_tree, random_rewards):
    trees, advs = batch_of(make_tree, random_rewards, name)
    divisor = sum(a.divisor for a in advs)
    packed = pack(trees, advs, 10_000, torch.float64)
    single = unpack(trees, advs, torch.float64)
    loss, gradient, metrics = update(model, packed, divisor)
    expected_loss, expected, _ = update(model, single, divisor)
    assert sum(map(len, packed)) < 0.7 * sum(map(len, single))
    assert min(metrics["clip_high"], metrics["clip_low"], metrics["clip_dual"]) > 0
    assert metrics["kl"] > 0
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert gap(gradient, expected) < 1e-10


@pytest.mark.parametrize(
    ("weight", "aggregate", "normalise"),
    [
        ("leaf", "sequence", "whiten"),
        ("once", "tree", "std"),
        ("sqrt", "token", "none"),
        ("mass", "sequence", "std"),
        ("once", "sequence", "none"),
        ("sqrt", "sequence", "whiten"),
    ],
)
def test_packed_gradient_equals_unpacked_for_every_weighting(
    aggregate, weight, normalise, model, make_tree, random_rewards
):
    options = {"aggregate": aggregate, "token_weight": weight, "normalise": normalise}
    trees, advs = batch_of(
        make_tree, random_rewards, "treepo", **options, options=Options(root_group=False)
    )
    divisor = sum(a.divisor for a in advs)
    loss, gradient, _ = update(model, pack(trees, advs, 10_000, torch.float64), divisor)
    expected_loss, expected, _ = update(model, unpack(trees, advs, torch.float64), divisor)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert gap(gradient, expected) < 1e-10


@pytest.mark.parametrize("attention", ["sdpa", "treepo_tree"])
def test_trees_cut_into_pieces_give_the_same_gradient(attention, model, make_tree, random_rewards):
    trees, advs = batch_of(make_tree, random_rewards, "treepo")
    longest = max(map(len, unpack(trees, advs)))
    whole, pieces = (pack(trees, advs, size, torch.float64) for size in (10_000, longest + 2))
    assert sum(map(len, pieces)) > sum(map(len, whole))
    loss, gradient, metrics = update(model, pieces, 3.0, attention=attention)
    expected_loss, expected, expected_metrics = update(model, whole, 3.0)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert gap(gradient, expected) < 1e-10
    assert metrics == pytest.approx(expected_metrics, rel=1e-9)


def test_gradient_checkpointing_carries_the_plan(model, make_tree, random_rewards):
    trees, advs = batch_of(make_tree, random_rewards, "rloo")
    rows = pack(trees, advs, 10_000, torch.float64)
    _, expected, _ = update(model, rows, 1.0, attention="treepo_tree")
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    _, gradient, _ = update(model, rows, 1.0, attention="treepo_tree")
    assert gap(gradient, expected) < 1e-12


def test_the_untouched_model_agrees_to_one_part_in_a_million(make_tree, random_rewards):
    # transformers computes norms and rotary angles in fp32, whatever the model's type: a hidden
    # state that differs in its last fp64 bit may round to another fp32 number there.
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=17,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).double()
    trees, advs = batch_of(make_tree, random_rewards, "treepo")
    loss, gradient, _ = update(model, pack(trees, advs, 10_000, torch.float64), 1.0)
    expected_loss, expected, _ = update(model, [join(unpack(trees, advs, torch.float64))], 1.0)
    assert loss == pytest.approx(expected_loss, rel=1e-7)
    assert gap(gradient, expected) < 1e-6
