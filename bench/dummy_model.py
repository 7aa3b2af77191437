"""A folder with the shape of a 7B model and no weights, for `--load-format dummy`.

Speed does not depend on what the weights are. `python -m bench.dummy_model FOLDER` writes it; the
tokenizer is the embedded model's.
"""

from __future__ import annotations

import sys
from pathlib import Path


def write_dummy(folder: Path) -> Path:
    """Writes configuration and tokenizer; returns the folder."""
    from transformers import AutoTokenizer, LlamaConfig

    from treepo.local.embedded import prepare

    tokenizer = AutoTokenizer.from_pretrained(prepare())
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(write_dummy(Path(sys.argv[1])))
