"""The weights of a saved model, as a trainer hands them to an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


class SavedWeights:
    """A `WeightSource` over a model's folder."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Every parameter; tied ones once."""
        yield from self.model.named_parameters()

    def save(self, folder: Path) -> None:
        """Write the model."""
        self.model.save_pretrained(folder)
