"""Fine-tunes the embedded model on signed chains with LoRA; `python -m bench.reasoner.train`.

A run is a function of its settings: step `i` trains on the problems numbered from `i` times the
batch on, so a run that was stopped goes on from its checkpoint where it was. It knows nothing of
trees; `model.py` joins what it writes with the embedded model.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.reasoner.problems import TRAIN_LEVEL, Problem, problems
from bench.reasoner.rows import Row, pack
from treepo.local.embedded import prepare

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SAVE_EVERY_S = 120.0


def load(rank: int) -> tuple[Any, Any]:
    """Tokenizer, and the embedded model with fresh adapters, weights in bfloat16."""
    folder = str(prepare())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    adapters = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    return AutoTokenizer.from_pretrained(folder), get_peft_model(model, adapters)


def logprobs(model: Any, row: Row, temperature: float = 1.0) -> torch.Tensor:
    """The log-prob of each learnt token, `[P]`, in nats."""
    inner = model.base_model.model
    with torch.autocast("cpu", torch.bfloat16):
        states = inner.model(
            input_ids=row.token_ids,
            position_ids=row.positions,
            attention_mask=row.mask,
            use_cache=False,
        ).last_hidden_state
        logits = inner.lm_head(states[0, row.targets])
    scores = torch.log_softmax(logits.float() / temperature, dim=-1)
    return scores.gather(1, row.labels[:, None])[:, 0]


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, held_out: Sequence[Problem], temperature: float) -> float:
    """The mean probability that one sample writes the worked solution, token for token.

    It needs no sampling, and bounds single-sample accuracy from below: a right answer can also be
    reached by way of two errors.
    """
    rights: list[float] = []
    for start in range(0, len(held_out), 8):
        row = pack(tokenizer, held_out[start : start + 8])
        sums = torch.zeros(int(row.owners.max()) + 1)
        sums.index_add_(0, row.owners, logprobs(model, row, temperature))
        rights += sums.exp().tolist()
    return sum(rights) / len(rights)


def rate(step: int, steps: int, peak: float) -> float:
    """The learning rate: 5 % of the steps up to the peak, then a cosine down to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def resume(checkpoint: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Takes over what the checkpoint holds, if there is one; returns the step to go on with."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint)
    set_peft_model_state_dict(model, state["adapter"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def save(checkpoint: Path, model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes what `resume` reads, whole or not at all; `step` is the next one."""
    adapter = get_peft_model_state_dict(model)
    partial = checkpoint.with_suffix(".partial")
    torch.save({"adapter": adapter, "optimizer": optimizer.state_dict(), "step": step}, partial)
    partial.replace(checkpoint)


def learn(model: Any, optimizer: torch.optim.Optimizer, rows: Sequence[Row], lr: float) -> float:
    """One optimizer step on the rows; returns the loss per learnt token, in nats."""
    (group,) = optimizer.param_groups
    group["lr"] = lr
    num_learnt = sum(len(row.labels) for row in rows)
    loss = 0.0
    for row in rows:
        part = -logprobs(model, row).sum() / num_learnt
        part.backward()
        loss += part.item()
    torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def train(args: argparse.Namespace) -> None:
    """Trains from the checkpoint, if there is one, to the last step."""
    torch.manual_seed(args.seed)
    tokenizer, model = load(args.rank)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.lr, weight_decay=0.0, betas=(0.9, 0.98))
    args.output.mkdir(parents=True, exist_ok=True)
    checkpoint = args.output / "checkpoint.pt"
    first, stop = resume(checkpoint, model, optimizer), min(args.stop or args.steps, args.steps)
    held_out = list(islice(problems("test", TRAIN_LEVEL, start=1_000_000), 24))
    saved, since, seen = time.monotonic(), time.monotonic(), 0
    for step in range(first, stop):
        batch = list(islice(problems("train", TRAIN_LEVEL, start=step * args.batch), args.batch))
        # Attention costs the square of a row's length: two rows are cheaper than one.
        rows = [pack(tokenizer, part) for part in (batch[::2], batch[1::2])]
        loss = learn(model, optimizer, rows, rate(step, args.steps, args.lr))
        seen += sum(row.token_ids.shape[1] for row in rows)
        line: dict[str, Any] = {"step": step + 1, "loss": round(loss, 4)}
        if (step + 1) % args.evaluate_every == 0:
            line["exact"] = {
                t: round(accuracy(model, tokenizer, held_out, t), 4) for t in (0.8, 1.0)
            }
        line["tokens_per_s"] = round(seen / (time.monotonic() - since), 1)
        print(json.dumps(line), flush=True)
        if time.monotonic() - saved > SAVE_EVERY_S or step + 1 == stop:
            save(checkpoint, model, optimizer, step + 1)
            saved = time.monotonic()
    export(model, args.output / "adapter")


def export(model: Any, folder: Path) -> None:
    """Writes the adapter in bfloat16, as `model.py` reads it."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16)
    model.peft_config["default"].base_model_name_or_path = "SmolLM2-135M-Instruct"
    model.save_pretrained(folder)


def main() -> None:
    """Train as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="checkpoint and adapter")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--stop", type=int, help="end there, earlier on the same schedule")
    parser.add_argument("--batch", type=int, default=8, help="problems a step")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluate-every", type=int, default=50)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
