"""The reasoner as a folder that vLLM loads: the embedded model with the committed adapter in it.

It is joined once and kept in the user's cache, under a name that depends on both. It trains
nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from treepo.local.embedded import build_once, cache_folder, prepare

ADAPTER = Path(__file__).resolve().parent / "adapter"


def prepare_reasoner(adapter: Path = ADAPTER) -> Path:
    """The folder of the reasoner, joined first where this machine has not done so.

    Args:
        adapter: A folder written by `train.py`.

    Raises:
        ConfigError: The embedded model is missing.
    """
    base = prepare()
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    digest = hashlib.sha256(base.name.encode() + weights).hexdigest()[:16]
    target = cache_folder() / f"reasoner-{digest}"
    return build_once(target, lambda folder: _join(base, adapter, folder))


def _join(base: Path, adapter: Path, folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    joined = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=True)
    joined.merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


if __name__ == "__main__":
    print(prepare_reasoner())
