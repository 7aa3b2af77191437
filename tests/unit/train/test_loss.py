"""The loss against PPO's textbook form, hand sums and finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treepo.train.config import LossConfig
from treepo.train.loss import (
    Policy,
    clipped,
    k3,
    mean_metrics,
    policy_loss,
    token_logprobs,
)
from treepo.train.pack import Row, padding_row

PLAIN = LossConfig(dual_clip=None, importance_cap=None)


def row_of(sampled, up, down, weights=None) -> Row:
    """A prompt of one token, and scored tokens behind it."""
    size = len(sampled) + 1
    place = torch.arange(size)

    def column(values):
        return torch.tensor([0.0, *values], dtype=torch.float64)

    return Row(
        token_ids=torch.zeros(size, dtype=torch.int64),
        parents=place - 1,
        positions=place,
        subtree_ends=torch.full((size,), size),
        sampling_logprobs=column(sampled),
        positive=column(up),
        negative=column(down),
        weights=column(weights or [1.0] * len(sampled)),
        loss_mask=place > 0,
    )


def logs(*ratios):
    return torch.tensor(ratios, dtype=torch.float64).log()


def textbook(ratio, advantage, config):
    """PPO's clipped objective for one trajectory, dual clip for negative advantages."""
    bounded = min(max(ratio, 1 - config.clip_ratio_low), 1 + config.clip_ratio_high)
    gain = min(ratio * advantage, bounded * advantage)
    if advantage < 0 and config.dual_clip is not None:
        gain = max(gain, config.dual_clip * advantage)
    return -gain


@given(
    st.floats(0.01, 50),
    st.lists(st.floats(-3, 3), min_size=1, max_size=6),
    st.sampled_from([None, 3.0]),
)
def test_two_sums_give_the_loss_of_all_trajectories_through_a_token(ratio, advantages, dual):
    config = LossConfig(dual_clip=dual)
    up = torch.tensor([sum(max(a, 0.0) for a in advantages)], dtype=torch.float64)
    down = torch.tensor([sum(max(-a, 0.0) for a in advantages)], dtype=torch.float64)
    got = clipped(torch.tensor([ratio], dtype=torch.float64), up, down, config)
    expected = sum(textbook(ratio, a, config) for a in advantages)
    assert float(got) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_hand_sum_of_a_row_with_every_branch_of_the_clip():
    # Ratios 1.5 (high clip on A+ 2), 0.5 (low clip on A- 1), 9 (dual clip 3 on A- 1), 1.1 (free).
    row = row_of([0.0] * 4, [2.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.5])
    config = LossConfig(dual_clip=3.0, importance_cap=None)
    loss, sums = policy_loss(logs(1.5, 0.5, 9.0, 1.1), row, config, divisor=10.0)
    expected = (-2 * 1.28 + 1 * 0.8 + 1 * 3.0 + (0.5 * 1.1 - 1 * 1.1)) / 10
    assert float(loss) == pytest.approx(expected)
    assert [sums[name] for name in ("clip_high", "clip_low", "clip_dual")] == [1, 1, 1]
    assert sums["tokens"] == 4
    assert sums["logprob_diff"] == pytest.approx(sum(abs(math.log(r)) for r in (1.5, 0.5, 9, 1.1)))


def test_clipped_tokens_have_no_gradient_and_free_ones_have_minus_a_over_the_divisor():
    row = row_of([0.0] * 4, [2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0])
    logprobs = logs(1.5, 1.0, 0.5, 1.0).requires_grad_()
    loss, _ = policy_loss(logprobs, row, PLAIN, divisor=4.0)
    loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([0, -2 / 4, 0, 1 / 4])


def test_a_step_against_the_gradient_raises_what_was_rewarded():
    row = row_of([-1.0, -1.0], [1.0, 0.0], [0.0, 1.0])
    logprobs = torch.tensor([-1.0, -1.0], dtype=torch.float64, requires_grad=True)
    loss, _ = policy_loss(logprobs, row, PLAIN, divisor=1.0)
    loss.backward()
    moved = logprobs - 0.1 * logprobs.grad
    assert moved[0] > logprobs[0]
    assert moved[1] < logprobs[1]


def test_the_importance_correction_is_capped_constant_and_one_without_an_anchor():
    row = row_of([-1.0, -1.0], [1.0, 1.0], [0.0, 0.0])
    config = LossConfig(importance_cap=2.0)
    anchor = torch.tensor([-1 + math.log(1.5), -1 + math.log(5)], dtype=torch.float64)
    logprobs = anchor.clone().requires_grad_()
    loss, sums = policy_loss(logprobs, row, config, 1.0, anchor=anchor)
    loss.backward()
    assert loss.item() == pytest.approx(-(1.5 + 2.0))
    assert logprobs.grad.tolist() == pytest.approx([-1.5, -2.0])
    assert sums["importance"] == pytest.approx(3.5)
    _, sums = policy_loss(anchor, row, config, 1.0)
    assert sums["importance"] == 2


def test_kl_is_k3_times_the_weight_of_the_trajectories_through_the_token():
    row = row_of([0.0, 0.0], [0.0, 0.0], [0.0, 0.0], weights=[3.0, 0.5])
    config = PLAIN.model_copy(update={"kl_coef": 0.1})
    logprobs, reference = logs(1.0, 2.0), logs(2.0, 1.0)
    loss, _ = policy_loss(logprobs, row, config, 2.0, reference=reference)
    one, two = 2 - math.log(2) - 1, 0.5 + math.log(2) - 1
    assert float(loss) == pytest.approx(0.1 * (3 * one + 0.5 * two) / 2)
    assert (k3(logprobs, reference) >= 0).all()
    with pytest.raises(ValueError, match="reference"):
        policy_loss(logprobs, row, config, 2.0)


def test_gradient_of_the_whole_loss_matches_finite_differences():
    torch.manual_seed(0)
    sampled = (-1 + 0.5 * torch.randn(6, dtype=torch.float64)).tolist()
    row = row_of(sampled, [1, 0, 2, 0.5, 0, 1], [0, 1, 0.5, 0, 2, 1])
    logprobs = -1 + 0.5 * torch.randn(6, dtype=torch.float64)
    anchor, reference = logprobs + 0.1, logprobs - 0.4
    config = LossConfig(dual_clip=3.0, importance_cap=1.2, kl_coef=0.5)

    def loss(x):
        return policy_loss(x, row, config, 7.0, anchor=anchor, reference=reference)[0]

    assert torch.autograd.gradcheck(loss, logprobs.clone().requires_grad_())


def test_chunks_and_temperature_give_the_log_softmax_of_the_scaled_logits():
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 13).double()
    hidden = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 13, (10,))
    expected = (head(hidden) / 0.7).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    [want] = torch.autograd.grad(expected.sum(), [hidden])
    for size in (1, 3, 10, 99):
        got = token_logprobs(hidden, targets, head, temperature=0.7, chunk_tokens=size)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.autograd.grad(got.sum(), [hidden])[0], want)


def test_half_precision_logits_are_normalised_in_fp32():
    head = torch.nn.Linear(8, 13).bfloat16()
    got = token_logprobs(torch.randn(4, 8).bfloat16(), torch.zeros(4, dtype=torch.int64), head)
    assert got.dtype == torch.float32


def test_two_children_of_a_token_are_predicted_from_its_one_hidden_state(model):
    # Prompt 5; its children 1 and 2 fork at once, and 2 goes on with 3.
    fork = replace(
        row_of([0.0] * 3, [0.0] * 3, [0.0] * 3),
        token_ids=torch.tensor([5, 1, 2, 3]),
        parents=torch.tensor([-1, 0, 0, 2]),
        positions=torch.tensor([0, 1, 1, 2]),
        subtree_ends=torch.tensor([4, 2, 4, 4]),
    )
    got = Policy(model)(fork)
    apart = [model(torch.tensor([path])).logits[0].log_softmax(-1) for path in ([5, 1], [5, 2, 3])]
    expected = torch.stack([apart[0][0, 1], apart[1][0, 2], apart[1][1, 3]])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_a_padding_row_takes_part_in_the_backward_pass_and_moves_nothing(model):
    logprobs = Policy(model)(padding_row(dtype=torch.float64))
    loss, sums = policy_loss(logprobs, padding_row(dtype=torch.float64), LossConfig(), 1.0)
    loss.backward()
    assert sums["tokens"] == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_metrics_are_means_over_all_scored_tokens_of_all_rows():
    first = {"tokens": 3.0, "ratio": 6.0}
    second = {"tokens": 1.0, "ratio": 0.0}
    assert mean_metrics([first, second]) == {"tokens": 4.0, "ratio": 1.5}
    assert mean_metrics([]) == {"tokens": 0}


def test_a_model_wrapped_by_peft_gives_the_same_log_probabilities(model):
    from peft import LoraConfig, get_peft_model

    row = replace(row_of([0.0] * 3, [0.0] * 3, [0.0] * 3), token_ids=torch.tensor([5, 1, 2, 3]))
    expected = Policy(model)(row).detach()
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    got = Policy(wrapped)(row)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    got.sum().backward()
    learns = [name for name, p in wrapped.named_parameters() if p.grad is not None]
    assert learns
    assert all("lora_" in name for name in learns)
