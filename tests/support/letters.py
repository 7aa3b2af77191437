"""A task that a tiny random model learns in seconds: say the larger of two digits, then a stop.

`python -m tests.support.letters CONFIG [--die WHERE] [--fsdp]` trains in a process of its own; with
`--die` it kills itself there, as `kill -9` would, and with `--fsdp` its parameters are sharded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

STEPS = 24
SECTIONS: dict[str, Any] = {
    "steps": STEPS,
    "prompts_per_step": 8,
    "tree": {"width": 8, "root_branching": 4, "branching_factor": 2, "segment_tokens": 1},
    "sampling": {"max_tokens": 2},
    "rewards": {"functions": ["tests.support.letters:larger"], "num_workers": 1},
    "optimizer": {"lr": 1e-2},
    "log": {"tree_every": None, "trackers": []},
}


def larger(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """0.75 for the larger digit in front, 0.25 for a full stop behind it."""
    return [
        0.75 * (text[:1] == gold) + 0.25 * (text[1:2] == ".")
        for text, gold in zip(completions, answer, strict=True)
    ]


def write_prompts(folder: Path) -> Path:
    """All pairs of four digits."""
    rows = [
        {"prompt": f"{left}{right}>", "answer": str(max(left, right))}
        for left in range(4)
        for right in range(4)
    ]
    path = folder / "letters.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def letter_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """A run's configuration as values; `changes` replace whole sections."""
    prompts = str(write_prompts(folder))
    values = {"output_dir": str(folder / "run"), "data": {"train": prompts, "eval": prompts}}
    return values | SECTIONS | changes


def train_letters(values: dict[str, Any], open_sync: Any = None) -> dict[str, Any]:
    """Train as the values say; returns the summary."""
    from tests.support.model_engine import DirectSync, ModelEngine, letter_model, letter_tokenizer
    from treepo.train.config_file import build
    from treepo.train.rollouts import EngineRollouts
    from treepo.train.run import run_training

    tokenizer = letter_tokenizer()
    engine = ModelEngine(letter_model(), tokenizer.eos_token_id)
    sync = (open_sync or DirectSync)(engine)
    rollouts = EngineRollouts(engine, sync, tokenizer)
    return run_training(build(values), tokenizer, letter_model, lambda: nullcontext(rollouts))


def metrics(folder: Path) -> list[dict[str, float]]:
    """What a run wrote, without times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if "seconds" not in k} for x in lines]


def _die_in(where: str) -> None:
    """Arrange a SIGKILL: in the 5th update, or while the 3rd checkpoint gets its name."""
    from treepo.train import checkpoint, learner

    def die_at_call(number: int, function: Any) -> Any:
        calls = iter(range(1, number + 1))

        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return counted

    if where == "update":
        learner.Learner._apply = die_at_call(5, learner.Learner._apply)  # type: ignore[method-assign]
    else:
        checkpoint.move_whole = die_at_call(3, checkpoint.move_whole)


def _shard() -> None:
    """FSDP2 as docs/training.md has it; accelerate offers it on GPUs only, torch on CPUs too."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    }
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def main(argv: list[str]) -> None:
    """The process of its own."""
    import torch

    torch.set_num_threads(1)
    if "--fsdp" in argv:
        _shard()
    if "--die" in argv:
        _die_in(argv[argv.index("--die") + 1])
    train_letters(json.loads(argv[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
