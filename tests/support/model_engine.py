"""An engine over a tiny torch model on the CPU: real log-probabilities, real weights, no vLLM.

It keeps a model of its own, so that a trainer which forgets to push weights is found out: the
log-probabilities then differ. Blocks hold one token, so that segments may be of any length.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from treepo.engines.base import Chunk, EngineInfo, PathRequest, Uncertainty

LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz +=>,.\n"


class ModelEngine:
    """Draws tokens one at a time, each with a forward pass over everything before it."""

    def __init__(self, model: Any, end_token_id: int) -> None:
        self.model = copy.deepcopy(model).eval()
        self._end = end_token_id
        self._known: dict[tuple[int, ...], torch.Tensor] = {}
        self.info = EngineInfo(1, 512, 64, Uncertainty.ENTROPY)

    async def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        sampling = request.sampling
        rng = torch.Generator().manual_seed((sampling.seed or 0) % (1 << 62))
        ids = list(request.token_ids)
        for number in range(sampling.max_tokens):
            logprobs = (self._logits(ids) / sampling.temperature).log_softmax(-1)
            token = int(torch.multinomial(logprobs.exp(), 1, generator=rng))
            ids.append(token)
            finish = "stop" if token == self._end else None
            if finish is None and number == sampling.max_tokens - 1:
                finish = "length"
            entropy = float(-(logprobs.exp() * logprobs).sum())
            yield Chunk((token,), (float(logprobs[token]),), (entropy,), finish)
            if finish is not None:
                return

    def load(self, weights: dict[str, torch.Tensor], version: str) -> None:
        """Sample with these weights from now on."""
        self.info = replace(self.info, weight_version=version)
        with torch.no_grad():
            self.model.load_state_dict(weights, strict=False)
        self._known.clear()

    def _logits(self, ids: list[int]) -> torch.Tensor:
        """After a prefix; siblings share most of theirs."""
        key = tuple(ids)
        if key not in self._known:
            with torch.inference_mode():
                self._known[key] = self.model(torch.tensor([ids])).logits[0, -1]
        return self._known[key]

    async def abort(self, request_ids: Sequence[str]) -> None:
        """Paths end by themselves soon."""


class DirectSync:
    """Copies weights into a `ModelEngine`; `versions` is what was pushed."""

    def __init__(self, engine: ModelEngine) -> None:
        self._engine = engine
        self.versions: list[int] = []

    async def push(self, source: Any, version: int) -> None:
        self._engine.load(dict(source.tensors()), str(version))
        self.versions.append(version)


def letter_tokenizer() -> Any:
    """One token a character of `LETTERS`, and an end of sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: index for index, letter in enumerate(LETTERS)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def letter_model(seed: int = 0, *, width: int = 32, tie: bool = False) -> Any:
    """A random Llama of two layers over the letters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(LETTERS) + 1,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            initializer_range=0.1,
            tie_word_embeddings=tie,
            bos_token_id=None,
            eos_token_id=len(LETTERS),
        )
    )
