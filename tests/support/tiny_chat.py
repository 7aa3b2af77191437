"""A tiny chat model with random weights, made on the spot, whose texts are printable.

Its tokens are single bytes. The first hidden dimension is nearly constant, so that the first
column of its output layer acts as a bias: it forbids bytes that are not printable and makes the
end of sequence rare. Nothing it says means anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.byte_tokenizer import byte_tokenizer

END = "<|end|>"
START = "<|start|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
PRINTABLE = "abcdefghijklmnopqrstuvwxyz 0123456789.,"


def build(
    folder: Path,
    *,
    max_length: int = 1024,
    end_bias: float = -2.0,
    seed: int = 0,
    marks: Sequence[str] = (),
) -> Path:
    """Write model and tokenizer into `folder`, as transformers and vLLM load them.

    `marks` become tokens that show in texts, and that the model says only where asked to.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
    )
    tokenizer.add_tokens(list(marks))
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 2,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=max_length,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.2)
        model.model.embed_tokens.weight[:, 0] = 4.0
        bias = torch.full((config.vocab_size,), -30.0)
        for character in PRINTABLE:
            bias[tokenizer.encode(character)[0]] = 0.0
        bias[tokenizer.eos_token_id] = end_bias
        model.lm_head.weight[:, 0] = bias
    model.save_pretrained(folder)
    return folder
