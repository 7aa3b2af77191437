"""How often an answer is right, and what that costs: sections of docs/benchmarks.md.

Each is a pure function of a result file; which file goes where stands in `bench/report.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.sections.markdown import Json, percent, points, spread, table


def quality(result: Json) -> str:
    """Accuracy at matched tokens, plan by plan."""
    summary = result["summary"]
    rows = [_sample_row(n, point, summary) for n, point in summary["independent"].items()]
    rows += [_plan_row(row) for row in summary["rows"]]
    head = ("plan", "leaves", "tokens", "paths", "right", "same tokens", "difference, points",
            "by mass", "pass", "effective", "per path", "recomputed", "seconds")  # fmt: skip
    sampling = result["config"]["sampling"]
    notes = (
        f"{summary['problems']} problems, temperature {sampling['temperature']}. `paths`: "
        f"generated tokens over the mean length of a trajectory ({summary['path_tokens']:.0f}). "
        "`same tokens`: the majority of independent samples at those tokens. `by mass`: the "
        "weighted vote. `per path`: effective samples over paths. `recomputed`: prompt tokens that "
        "the engine computed again for further paths, beside those it generated. `seconds`: mean "
        "time to the answer while all plans shared the engine. Both are empty for plans that were "
        "replayed from known trajectories. Independent rows have no overrun; replayed and tree "
        "rows count it.\n"
    )
    said = "\n".join(f"* {sentence}" for sentence in summary["verdicts"].values())
    return f"{notes}\n{table(head, rows)}\n{said}\n{_saving(summary)}"


def verdict(result: Json, timed: Json) -> str:
    """The figures of the README, as far as `bench.quality` and `bench.clock` have them."""
    rows = {row["plan"]: row for row in result["summary"]["rows"]}
    times = {row["plan"]: row for row in timed["summary"]["rows"]}
    width = result["config"]["width"]
    names = {
        "independent": f"{width} independent samples",
        "independent, start 4, until 0.95": "the same, four at a time, until 95 % sure",
        "entropy": "the default tree",
        "entropy, start 4, until 0.95": "that tree, four at a time, until 95 % sure",
        "even, root 2": "the paper's even split of two roots",
    }
    head = ("", "generated tokens", "right",
            "against independent samples at its tokens, points (95 % interval)",
            f"answers a second over `n={width}` (least and greatest turn)")  # fmt: skip
    shown = []
    for plan, said in names.items():
        if plan not in rows:
            continue
        found, time = rows[plan]["majority"], times.get(plan)
        shown.append(
            [
                said,
                f"{found['tokens']['value']:.0f}",
                percent(found["accuracy"]["value"]),
                "" if plan == "independent" else points(found["difference"]),
                spread(time["speedup"], time["speedup_range"]) if time else "",
            ]
        )
    return table(head, shown)


def _sample_row(count: str, point: Json, summary: Json) -> list[str]:
    tokens, right = int(count) * summary["path_tokens"], percent(point["accuracy"])
    shown = [f"independent, {count}", count, f"{tokens:.0f}", f"{int(count):.1f}", right, right, ""]
    return [*shown, "", percent(point["passed"]), count, "1.00", "", ""]


def _plan_row(row: Json) -> list[str]:
    mean, found = row["mean"], row["majority"]
    seconds = f"{mean['seconds']:.1f}" if mean["seconds"] else ""
    return [
        row["plan"],
        f"{mean['leaves']:.1f}",
        f"{found['tokens']['value']:.0f}",
        f"{found['paths']:.1f}",
        percent(found["accuracy"]["value"]),
        percent(found["independent"]),
        points(found["difference"]),
        percent(mean["weighted"]),
        percent(mean["passed"]),
        f"{mean['effective']:.1f}",
        f"{mean['effective'] / found['paths']:.2f}",
        f"{mean.get('recomputed', 0):.0f}" if mean["seconds"] else "",
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


def clock(result: Json) -> str:
    """Seconds of each plan alone on the engine, beside how often it is right."""
    head = ("plan", "right", "tokens", "seconds a problem", "answer p50, p95, s",
            "problems/s over n=16", "over independent at the same accuracy")  # fmt: skip
    rows = [
        [
            row["plan"],
            percent(row["accuracy"]) if row["accuracy"] is not None else "",
            f"{row['tokens']:.0f}",
            f"{row['seconds']:.2f}",
            f"{row['p50_s']:.1f}, {row['p95_s']:.1f}",
            spread(row["speedup"], row["speedup_range"]),
            f"{row['same_accuracy_speedup']:.2f}" if row["same_accuracy_speedup"] else "",
        ]
        for row in result["summary"]["rows"]
    ]
    notes = (
        f"{result['config']['in_flight']} problems at a time, one plan after the other, "
        f"{result['summary']['rows'][0]['blocks']} turns, in parentheses the least and the "
        "greatest. `right` is taken from the table of accuracies "
        f"({result['config']['accuracies']['problems']} problems), with its uncertainty. The last "
        "column is the time in which independent samples, as many as it takes, are as often right, "
        "over the plan's own; empty where the plan is outside of what 1 to 16 samples reach.\n"
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
            percent(level["exact"]["0.8"]),
            percent(level["exact"]["1.0"]),
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
