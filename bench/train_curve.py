"""Draws how a training run learnt: `python -m bench.train_curve OUTPUT_DIR [...] PICTURE.png`.

One job: `metrics.jsonl` of one or more runs -> one picture with a panel each. It measures nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_WINDOW = 5


def main(argv: Sequence[str]) -> None:
    """Draw the runs; the last argument is the picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    *folders, picture = map(Path, argv)
    figure, axes = plt.subplots(
        1, len(folders), figsize=(5.2 * len(folders), 3.4), sharey=True, squeeze=False
    )
    for axis, folder in zip(axes[0], folders, strict=True):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        draw(axis, folder.name.replace("_", " "), [json.loads(line) for line in lines])
    axes[0][0].set_ylabel("mean reward")
    axes[0][0].set_ylim(0, 1.02)
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


def draw(axis: Any, title: str, records: Sequence[dict[str, float]]) -> None:
    """One run: reward of every batch, its running mean, and the evaluations."""
    steps = [(r["step"], r["reward"]) for r in records if "reward" in r]
    held_out = [(r["step"], r["eval/mean"]) for r in records if "eval/mean" in r]
    recent = [
        sum(reward for _, reward in steps[max(0, at - _WINDOW + 1) : at + 1]) / min(at + 1, _WINDOW)
        for at in range(len(steps))
    ]
    at = [step for step, _ in steps]
    axis.plot(at, [r for _, r in steps], ".", color="0.7", label="batch")
    axis.plot(at, recent, color="tab:blue", label=f"mean of {_WINDOW} batches")
    axis.plot(*zip(*held_out, strict=True), "o-", color="tab:orange", label="held out, mean@k")
    axis.set_title(title)
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", fontsize=8)


if __name__ == "__main__":
    main(sys.argv[1:])
