"""How often one sample of the reasoner is right, and where in its solutions it is uncertain.

Both are read off the model's distribution along the worked solution, without sampling, so that a
hundred problems take a minute. `python -m bench.reasoner.evaluate` writes its result file.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.reasoner.model import prepare_reasoner
from bench.reasoner.problems import BENCH_LEVEL, TRAIN_LEVEL, Level, Problem, problems
from bench.reasoner.rows import pack
from bench.report import publish
from bench.results import make_result

_BATCH = 4
_NUM_PARTS = 10
_TEMPERATURES = (0.8, 1.0)


@torch.no_grad()
def evaluate(model: Any, tokenizer: Any, batch: list[Problem]) -> list[dict[str, Any]]:
    """For each problem: the probability of its worked solution, and entropies along it."""
    row = pack(tokenizer, batch)
    states = model.model(
        input_ids=row.token_ids,
        position_ids=row.positions,
        attention_mask=row.mask,
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(states[0, row.targets]).float()
    found = []
    for number, problem in enumerate(batch):
        own, labels = logits[row.owners == number], row.labels[row.owners == number]
        exact = {}
        for temperature in _TEMPERATURES:
            scores = torch.log_softmax(own / temperature, dim=-1)
            exact[str(temperature)] = scores.gather(1, labels[:, None]).sum().exp().item()
        scores = torch.log_softmax(own, dim=-1)
        entropies = -(scores.exp() * scores).sum(dim=-1)
        parts = [float(part.mean()) for part in entropies.tensor_split(_NUM_PARTS)]
        found.append(
            {"id": problem.id, "tokens": len(labels), "exact": exact, "entropy_by_tenth": parts}
        )
    return found


def summarise(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the problems; entropies in nats a token."""
    tenths = zip(*(sample["entropy_by_tenth"] for sample in samples), strict=True)
    return {
        "problems": len(samples),
        "tokens": fmean(sample["tokens"] for sample in samples),
        "exact": {str(t): fmean(s["exact"][str(t)] for s in samples) for t in _TEMPERATURES},
        "entropy_by_tenth": [fmean(tenth) for tenth in tenths],
    }


def main() -> None:
    """Evaluate on both levels and write bench/results/reasoner.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100)
    args = parser.parse_args()
    folder = prepare_reasoner()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    levels: dict[str, Level] = {"bench": BENCH_LEVEL, "train": TRAIN_LEVEL}
    samples, summary = [], {}
    for name, level in levels.items():
        asked = list(islice(problems("test", level), args.problems))
        own = []
        for start in range(0, len(asked), _BATCH):
            own += evaluate(model, tokenizer, asked[start : start + _BATCH])
        samples += [{"level": name, **sample} for sample in own]
        summary[name] = summarise(own)
    config = {"model": folder.name, "problems": args.problems, "dtype": "bfloat16"}
    publish(make_result("reasoner", seed=1, config=config, samples=samples, summary=summary))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
