"""A LoRA adapter with random weights for the tiny chat model, strong enough to change its texts."""

from __future__ import annotations

from pathlib import Path


def build(model: Path, folder: Path, *, rank: int = 8, seed: int = 0) -> Path:
    """Write an adapter of `model` into `folder`, as vLLM loads it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=4 * rank, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    adapted.save_pretrained(folder)
    return folder
