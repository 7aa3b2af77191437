"""Weights on their way out: as tensors for an engine, as a folder for everybody else.

One job: the policy's state -> the weights of a plain Hugging Face model, LoRA merged in and tied
weights once, so that vLLM and transformers load them without knowing how they were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

_POLICY = "model."
_PEFT = "base_model.model."
_A, _B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."


def full_state(
    state: Mapping[str, Tensor], model: Any, lora_scale: float | None
) -> dict[str, Tensor]:
    """The weights under the names of the model's own folder.

    Args:
        state: State of the `Policy`, all parts gathered.
        model: The transformers model inside, without adapters around it.
        lora_scale: What an adapter's product is multiplied by; None without adapters.
    """
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    is_tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    merged: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = key.removeprefix(_POLICY).removeprefix(_PEFT)
        if ".lora_" in name:
            continue
        delta = _delta(state, key) if lora_scale is not None else None
        if delta is not None and lora_scale is not None:
            tensor = (tensor + lora_scale * delta).to(tensor.dtype)  # noqa: PLW2901
        name = name.replace(_BASE, ".")
        if not (is_tied and name in tied):
            merged[name] = tensor
    return merged


def _delta(state: Mapping[str, Tensor], key: str) -> Tensor | None:
    layer, is_adapted, kind = key.rpartition(_BASE)
    if not is_adapted or kind != "weight":
        return None
    return state[layer + _B].float() @ state[layer + _A].float()


@dataclass(frozen=True, slots=True)
class Export:
    """A `WeightSource`: see `rollouts.py`.

    Attributes:
        state: The weights.
        model: The transformers model they belong to.
        tokenizer: Its tokenizer.
    """

    state: dict[str, Tensor]
    model: Any
    tokenizer: Any

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of every weight."""
        yield from self.state.items()

    def save(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer into `folder`, which is made."""
        from huggingface_hub import save_torch_state_dict

        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().contiguous() for name, tensor in self.state.items()}
        save_torch_state_dict(state, folder, metadata={"format": "pt"})
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(folder)
        if getattr(self.model, "generation_config", None) is not None:
            self.model.generation_config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
