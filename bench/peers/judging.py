"""From segments to rows: how often each method is right, and what it took.

Every method is compared with the baseline twice, paired by problem: with its own vote of the same
width, and with the curve of its samples at the tokens that the method spent. Pure but for reading
answers; how rows are shown stands in `bench/sections/peers.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from bench.peers.methods import BASELINE, METHODS
from bench.peers.sampling import Line
from treepo.answers.reader import AnswerReader
from treepo.errors import ConfigError
from treepo.verdict.curve import Curve, compare, majority_curve, mean_interval, pass_curve

_NUM_RESAMPLES = 2000

Samples = list[dict[str, Any]]
"""One method on one problem each."""


def whole_blocks(lines: Iterable[Line]) -> list[list[Line]]:
    """The segments of every block that all methods have answered.

    Raises:
        ConfigError: There is none yet.
    """
    by_block: dict[int, dict[str, Line]] = {}
    for line in lines:
        by_block.setdefault(line["block"], {})[line["method"]] = line
    names = [method.name for method in METHODS]
    found = [
        [by_block[number][name] for name in names]
        for number in sorted(by_block)
        if all(name in by_block[number] for name in names)
    ]
    if not found:
        raise ConfigError("no block has been answered by every method yet; sample more")
    return found


async def read_samples(lines: Iterable[Line], golds: Mapping[str, str]) -> Samples:
    """Every answer, read as in `bench.quality` and held against the right one.

    Tokens and requests are those of the segment, shared equally among its problems; the engine's
    steps and the machine's load are its own.

    Args:
        lines: Segments.
        golds: Keys of the right answers by problem.
    """
    reader, samples = AnswerReader.from_config("boxed"), []
    for line in lines:
        share = 1 / len(line["answers"])
        for answer in line["answers"]:
            found = await reader.read(answer.get("text") or "")
            key = found.key if found else None
            samples.append(
                {
                    "method": line["method"],
                    "block": line["block"],
                    "problem": answer["id"],
                    "answer": key,
                    "is_right": float(key == golds[answer["id"]]),
                    "seconds": answer["seconds"],
                    "tokens": line["generated_tokens"] * share,
                    "requests": line["requests"] * share,
                    "steps": line["steps"],
                    "load": line["load"],
                    **{n: answer.get(n) for n in ("reported_tokens", "groups", "answers", "error")},
                }
            )
    return samples


def summarise(samples: Samples, golds: Mapping[str, str]) -> dict[str, Any]:
    """A row for each method, in the table's order."""
    by_method = {
        method.name: sorted(
            (s for s in samples if s["method"] == method.name), key=lambda s: str(s["problem"])
        )
        for method in METHODS
    }
    base = by_method[BASELINE]
    curve = _curve(base, golds)
    rows = [_row(name, own, base, curve) for name, own in by_method.items()]
    independent = [curve.at(count) for count in range(1, curve.num_samples + 1)]
    return {
        "problems": len(base),
        "path_tokens": float(curve.lengths.mean()),
        "independent": independent,
        "rows": rows,
    }


def _curve(base: Samples, golds: Mapping[str, str]) -> Curve:
    size = min(len(sample["answers"]) for sample in base)
    accuracy = [majority_curve(s["answers"][:size], golds[s["problem"]]) for s in base]
    passed = [pass_curve(s["answers"][:size].count(golds[s["problem"]]), size) for s in base]
    lengths = [sample["tokens"] / len(sample["answers"]) for sample in base]
    return Curve(np.array(accuracy), np.array(passed), np.array(lengths))


def _row(name: str, own: Samples, base: Samples, curve: Curve) -> dict[str, Any]:
    right, base_right = (np.array([s["is_right"] for s in side]) for side in (own, base))
    draws = np.random.default_rng(0).integers(0, len(own), (_NUM_RESAMPLES, len(own)))
    there = compare(curve, np.array([s["tokens"] for s in own]), right)
    seconds = [sample["seconds"] for sample in own]
    groups = [sample["groups"] for sample in own if sample["groups"] is not None]
    return {
        "method": name,
        "accuracy": asdict(mean_interval(right, draws)),
        "difference": asdict(mean_interval(right - base_right, draws)),
        "same_tokens": asdict(there),
        "tokens": there.tokens.value,
        "reported_tokens": fmean(sample["reported_tokens"] or 0 for sample in own),
        "requests": fmean(sample["requests"] for sample in own),
        "mean_s": fmean(seconds),
        "p95_s": float(np.quantile(seconds, 0.95)),
        "steps": fmean(sample["steps"] for sample in own),
        "load": fmean(sample["load"] for sample in own),
        "groups": fmean(groups) if groups else None,
        "failed": sum(sample["error"] is not None for sample in own),
        "unread": sum(sample["answer"] is None for sample in own),
    }
