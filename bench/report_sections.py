"""One result file as a piece of Markdown: a table, and what limits its numbers.

Pure functions of a result; which file goes where stands in `report.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def quality(result: Json) -> str:
    """Accuracy at matched tokens, plan by plan."""
    summary = result["summary"]
    rows = [_sample_row(n, point, summary) for n, point in summary["independent"].items()]
    rows += [_plan_row(row) for row in summary["rows"]]
    head = ("plan", "leaves", "tokens", "paths", "right", "same tokens", "difference, points",
            "by mass", "pass", "effective", "per path", "seconds")  # fmt: skip
    sampling = result["config"]["sampling"]
    notes = (
        f"{summary['problems']} problems, temperature {sampling['temperature']}. `paths`: "
        f"generated tokens over the mean length of a trajectory ({summary['path_tokens']:.0f}). "
        "`same tokens`: the majority of independent samples at those tokens. `by mass`: the "
        "weighted vote. `per path`: effective samples over paths. `seconds`: mean time to the "
        "answer while all plans shared the engine; none for plans that were replayed from known "
        "trajectories. Independent rows have no overrun; replayed and tree rows count it.\n"
    )
    said = "\n".join(f"* {sentence}" for sentence in summary["verdicts"].values())
    return f"{notes}\n{table(head, rows)}\n{said}\n{_saving(summary)}"


def _sample_row(count: str, point: Json, summary: Json) -> list[str]:
    tokens, right = int(count) * summary["path_tokens"], _percent(point["accuracy"])
    shown = [f"independent, {count}", count, f"{tokens:.0f}", f"{int(count):.1f}", right, right, ""]
    return [*shown, "", _percent(point["passed"]), count, "1.00", ""]


def _plan_row(row: Json) -> list[str]:
    mean, found = row["mean"], row["majority"]
    seconds = f"{mean['seconds']:.1f}" if mean["seconds"] else ""
    return [
        row["plan"],
        f"{mean['leaves']:.1f}",
        f"{found['tokens']['value']:.0f}",
        f"{found['paths']:.1f}",
        _percent(found["accuracy"]["value"]),
        _percent(found["independent"]),
        _points(found["difference"]),
        _percent(mean["weighted"]),
        _percent(mean["passed"]),
        f"{mean['effective']:.1f}",
        f"{mean['effective'] / found['paths']:.2f}",
        seconds,
    ]


def _saving(summary: Json) -> str:
    """What stopping early saves, each against its own complete run."""
    by_name = {row["plan"]: row for row in summary["rows"]}
    lines = []
    for name, row in by_name.items():
        whole = by_name.get(name.split(",")[0])
        if whole is None or whole is row or not any(w in name for w in ("settled", "until")):
            continue
        saved = 1 - row["majority"]["tokens"]["value"] / whole["majority"]["tokens"]["value"]
        change = row["mean"]["majority"] - whole["mean"]["majority"]
        lines.append(
            f"* `{name}` saves {saved:.0%} of the tokens of `{whole['plan']}`, at "
            f"{100 * change:+.1f} points."
        )
    return "\nStopping early:\n\n" + "\n".join(lines) + "\n" if lines else ""


def throughput(result: Json) -> str:
    """Every side under every load, beside `n=16` of the same round."""
    head = ("lengths", "prompts", "tokens", "segment", "side", "trajectories/s", "tokens/s",
            "answer p50, p95, s", "trajectories/s over n=16", "answer over n=16",
            "tokens over n=16", "limit", "rounds")  # fmt: skip
    rows = [
        [
            row["kind"],
            str(row["in_flight"]),
            str(row["max_tokens"]),
            str(row["segment_tokens"]),
            row["side"],
            f"{row['trajectories_per_s']:.2f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['p50_s']:.1f}, {row['p95_s']:.1f}",
            f"{row['speedup']:.2f} ({' to '.join(f'{end:.2f}' for end in row['speedup_range'])})",
            f"{row['answer_speedup']:.2f}",
            f"{row['tokens_ratio']:.2f}",
            f"{row['limit']:.2f}",
            str(row["rounds"]),
        ]
        for row in result["summary"]["rows"]
    ]
    notes = (
        f"Model `{result['config']['model']}`, {result['config']['width']} trajectories a prompt. "
        "Ratios are medians over rounds, in parentheses the least and the greatest. `limit` is the "
        "arithmetic one: trajectory tokens over generated tokens, which is what a tree would gain "
        "if a token cost the same however many paths run. Below it, decoding small batches (a tree "
        "starts with few paths) or the host holds it back; a tree cannot beat it.\n"
    )
    return f"{notes}\n{table(head, rows)}"


def reasoner(result: Json) -> str:
    """How often one sample is right, and where it is uncertain."""
    summary = result["summary"]
    head = ("problems", "number", "solution tokens", "right at 0.8", "right at 1.0",
            "entropy along the solution, nats a token, by tenths")  # fmt: skip
    rows = [
        [
            name,
            str(level["problems"]),
            f"{level['tokens']:.0f}",
            _percent(level["exact"]["0.8"]),
            _percent(level["exact"]["1.0"]),
            ", ".join(f"{value:.3f}" for value in level["entropy_by_tenth"]),
        ]
        for name, level in summary.items()
    ]
    notes = (
        "The probability that one sample writes the worked solution token for token, a lower bound "
        "of single-sample accuracy; no sampling is involved. How it was made: "
        "`bench/reasoner/adapter/README.md`.\n"
    )
    return f"{notes}\n{table(head, rows)}"


def search(result: Json) -> str:
    """Effective samples per path of tokens, chain by chain."""
    summary: Mapping[str, Mapping[str, float]] = result["summary"]
    names = list(next(iter(summary.values())))
    rows = [[name, *(f"{chain[name]:.2f}" for chain in summary.values())] for name in names]
    notes = (
        "What a path of generated tokens is worth in independent samples, from the variance of the "
        "weighted answer share; 1 is independent sampling. The accuracies stand in "
        "[log.md](log.md).\n"
    )
    return f"{notes}\n{table(('policy', *summary), rows)}"


def controller(result: Json) -> str:
    """The sampler's own cost per generated token."""
    variants: Mapping[str, Json] = result["summary"]["variants"]
    costs: Mapping[str, Mapping[str, float]] = {
        name: variant["controller_us_per_token"] for name, variant in variants.items()
    }
    sizes = sorted({size for known in costs.values() for size in known}, key=int)
    rows = [
        [name, *(f"{known[size]:.2f}" if size in known else "" for size in sizes)]
        for name, known in costs.items()
    ]
    head = ("microseconds a token", *(f"{size} live paths" for size in sizes))
    limit = result["summary"]["tokens_per_second"]
    note = f"The host could drive {limit:,} tokens a second before it limits anything.\n"
    return f"{note}\n{table(head, rows)}"


def overhead(result: Json) -> str:
    """A tree of one path against the plain request."""
    found = result["summary"]
    low, high = found["ratio_interval"]
    entropy_low, entropy_high = found["entropy_ratio_interval"]
    return (
        f"Speed of plain requests = 1: as trees {found['ratio']:.3f} ({low:.3f} to {high:.3f}), "
        f"with entropies {found['entropy_ratio']:.3f} ({entropy_low:.3f} to {entropy_high:.3f}).\n"
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(gap: Json) -> str:
    return f"{100 * gap['value']:+.1f} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"
