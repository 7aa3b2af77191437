"""A token sees its ancestors and itself, by mask and by gathered keys."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from treepo.errors import ConfigError
from treepo.train.advantage import AdvantageConfig, advantages
from treepo.train.attention import (
    ancestor_mask,
    attention_inputs,
    check_supported,
    gather_plan,
    gathered_attention,
    prepare,
    tree_attention,
)
from treepo.train.pack import join, pack

SMALL = {
    "vocab_size": 17,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def forest(make_tree, seeds):
    trees = [make_tree(seed) for seed in seeds]
    rewards = [[1.0] * len(tree.trajectories) for tree in trees]
    rows = pack(trees, advantages(trees, rewards, AdvantageConfig()), 100_000)
    return join(rows) if rows else None


def ancestors(row):
    seen = []
    for parent in row.parents.tolist():
        seen.append((seen[parent] if parent >= 0 else frozenset()) | {len(seen)})
    return seen


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=3))
def test_mask_and_plan_both_show_each_token_its_ancestors_and_itself(make_tree, seeds):
    row = forest(make_tree, seeds)
    if row is None:
        return
    expected = ancestors(row)
    mask = ancestor_mask(row.subtree_ends)[0, 0]
    assert [frozenset(line.nonzero()[:, 0].tolist()) for line in mask] == expected
    plan = gather_plan(row.parents)
    queries, keys = plan.query_bounds.tolist(), plan.key_bounds.tolist()
    for run, (first, last) in enumerate(pairwise(queries)):
        path = plan.keys[keys[run] : keys[run + 1]].tolist()
        assert len(path) <= plan.longest_path
        assert last - first <= plan.longest_run
        for query in range(first, last):
            assert frozenset(path[: len(path) - (last - 1 - query)]) == expected[query]


def test_gathered_keys_with_a_lower_right_triangle_equal_the_mask_in_fp64(make_tree):
    row = forest(make_tree, [4, 7, 9])
    torch.manual_seed(0)
    shapes = [(len(row), heads, 8) for heads in (4, 2, 2)]
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    weight = torch.randn(len(row), 4, 8, dtype=torch.float64)
    query, key, value = inputs
    gathered = gathered_attention(query, key, value, gather_plan(row.parents), 0.3)
    masked = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        key.repeat_interleave(2, 1).transpose(0, 1)[None],
        value.repeat_interleave(2, 1).transpose(0, 1)[None],
        attn_mask=ancestor_mask(row.subtree_ends),
        scale=0.3,
    )[0].transpose(0, 1)
    assert (gathered - masked).abs().max() < 1e-14
    one = torch.autograd.grad((gathered * weight).sum(), inputs)
    other = torch.autograd.grad((masked * weight).sum(), inputs)
    assert max((a - b).abs().max() for a, b in zip(one, other, strict=True)) < 1e-13


def test_a_model_gives_the_same_hidden_states_under_both_names(model, make_tree):
    row = forest(make_tree, [3, 6])
    states = []
    for name in ("sdpa", "treepo_tree"):
        model.set_attn_implementation(name)
        out = model.model(
            input_ids=row.token_ids[None],
            position_ids=row.positions[None],
            **attention_inputs(row, name),
        )
        states.append(out.last_hidden_state)
    assert (states[0] - states[1]).abs().max() < 1e-12


def test_prepare_chooses_the_mask_off_cuda(model):
    model.set_attn_implementation("eager")
    assert prepare(model) == "sdpa"
    assert model.config._attn_implementation == "sdpa"


def test_tree_attention_without_a_plan_or_with_a_window_is_an_error(model, make_tree):
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="attention_inputs"):
        tree_attention(model, states, states, states)
    plan = gather_plan(torch.tensor([-1, 0, 1]))
    with pytest.raises(ValueError, match="sliding_window"):
        tree_attention(model, states, states, states, tree_plan=plan, sliding_window=2)


WINDOW = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
MAMBA = MambaConfig(vocab_size=17, hidden_size=8, num_hidden_layers=1, state_size=4)


@pytest.mark.parametrize(
    ("what", "kind", "config"),
    [
        ("sliding_attention", MistralForCausalLM, MistralConfig(**SMALL, sliding_window=8)),
        ("sliding_attention", Qwen2ForCausalLM, Qwen2Config(**SMALL, **WINDOW)),
        ("recurrent state", MambaForCausalLM, MAMBA),
        ("logits_scaling", GraniteForCausalLM, GraniteConfig(**SMALL, logits_scaling=2.0)),
        ("dropout", LlamaForCausalLM, LlamaConfig(**SMALL, attention_dropout=0.1)),
    ],
)
def test_models_that_do_not_attend_to_all_ancestors_are_refused_by_name(what, kind, config):
    with pytest.raises(ConfigError, match=rf"{kind.__name__} .*{what}"):
        check_supported(kind(config))


def test_models_with_full_attention_only_are_accepted():
    check_supported(MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)))
    check_supported(Qwen2ForCausalLM(Qwen2Config(**SMALL)))
    check_supported(LlamaForCausalLM(LlamaConfig(**SMALL)))
