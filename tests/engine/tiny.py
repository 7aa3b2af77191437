"""A tiny random Llama whose tokens are bytes, and transformers as the reference for it.

Small enough that a thousand tokens take a second or two on a CPU, and random enough that every
token depends on all before it and that sampling is neither uniform nor greedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.byte_tokenizer import byte_tokenizer

MAX_MODEL_LEN = 2048
END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_tiny_model(folder: Path, *, seed: int = 7, is_tied: bool = False) -> Path:
    """Writes model and tokenizer; returns the folder."""
    tokenizer = byte_tokenizer(eos_token=END, chat_template=CHAT_TEMPLATE)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=MAX_MODEL_LEN,
        initializer_range=0.15,
        tie_word_embeddings=is_tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # The last norm leaves vectors of length 8, so that logits get a deviation of 2.4.
        model.lm_head.weight.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    return folder


class Reference:
    """The same model in transformers, without any cache."""

    def __init__(self, folder: Path) -> None:
        self._model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def logits(self, prompt: Sequence[int], completion: Sequence[int]) -> torch.Tensor:
        """Logits before each token of the completion, shape `[tokens, vocabulary]`."""
        token_ids = torch.tensor([[*prompt, *completion]])
        with torch.inference_mode():
            return self._model(token_ids).logits[0, len(prompt) - 1 : -1]

    def greedy(self, prompt: Sequence[int], completion: Sequence[int]) -> list[int]:
        """The likeliest token at each position of the completion.

        It equals the completion exactly when that is the greedy one.
        """
        return self.logits(prompt, completion).argmax(-1).tolist()

    def logprobs(
        self, prompt: Sequence[int], completion: Sequence[int], temperature: float = 1.0
    ) -> torch.Tensor:
        """Log-probabilities, in nats, of every token before each position."""
        return torch.log_softmax(self.logits(prompt, completion) / temperature, dim=-1)
