"""What is exported is a plain model that computes what the policy computes."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.model_engine import letter_model, letter_tokenizer
from treepo.train.export import Export, full_state
from treepo.train.loss import Policy

TOKENS = torch.tensor([[1, 2, 3, 4]])


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_the_folder_holds_the_policy_with_adapters_merged_and_tied_weights_once(
    tmp_path, tie, lora
):
    import peft

    base = model = letter_model(tie=tie)
    if lora:
        options = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
        model = peft.get_peft_model(model, options)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.2)
    state = full_state(Policy(model).state_dict(), base, 2.0 if lora else None)
    Export(state, base, letter_tokenizer()).save(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(loaded(TOKENS).logits, model(TOKENS).logits)
    assert ("lm_head.weight" in state) is not tie
    assert set(state) == set(dict(letter_model(tie=tie).named_parameters()))
