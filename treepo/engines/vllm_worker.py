"""What is mixed into vLLM's worker class, so that an engine can be given other weights.

vLLM names the class by its path (`worker_extension_cls`) and calls its methods in every worker
process (`collective_rpc`), where `self` is vLLM's worker. It knows no versions and no caches; who
calls it, and what has to be done around it, stands in `vllm_weights.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

WORKER = f"{__name__}.WeightWorker"
"""The `worker_extension_cls` of every engine that is to take other weights."""


class WeightWorker:
    """Methods that vLLM's workers get; each begins with our name, as vLLM allows no clash."""

    model_runner: Any
    reload_weights: Any

    def treepo_load_folder(self, folder: str) -> None:
        """Load all weights from a folder in Hugging Face's layout.

        Args:
            folder: It is read on the worker's machine.

        Raises:
            FileNotFoundError: There is nothing to load there; the weights are as they were.
        """
        from vllm.platforms import current_platform

        if not any(Path(folder).glob("*.safetensors")):
            raise FileNotFoundError(f"{folder} holds no *.safetensors on this machine")
        self.reload_weights(weights_path=folder)
        if current_platform.is_cpu():
            refresh_tied_heads(self.model_runner.model)


def refresh_tied_heads(model: nn.Module) -> None:
    """Make every layer of a CPU model compute with the weights that it holds.

    vLLM packs a layer's weights for its matrix product, and after a reload it packs anew what it
    has loaded. A tied LM head is loaded as the embedding, so its packed copy stays the old one,
    without any error. Layers that keep only the packed copy are new already.

    Args:
        model: vLLM's, in a worker.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if hasattr(layer, "cpu_linear") and weight is not None and weight.numel() > 0:
            dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
