"""Other packages beside ours: a section of docs/benchmarks.md.

A pure function of the result file. What is said of a peer's way of working stands in its driver in
`bench/peers`; a figure that shows it is a column here.
"""

from __future__ import annotations

from bench.sections.markdown import Json, percent, points, table


def peers(result: Json) -> str:
    """Accuracy, tokens, requests and seconds of every method."""
    summary, config = result["summary"], result["config"]
    head = ("method", "right", "to independent, points", "tokens", "by its own count",
            "independent there", "difference there, points", "requests", "engine steps", "seconds",
            "load", "groups", "no answer")  # fmt: skip
    rows = [_row(row) for row in summary["rows"]]
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    notes = (
        f"{versions}; {summary['problems']} problems, {config['width']} trajectories at most, "
        f"temperature {config['sampling']['temperature']}, the same prompt and answer reading for "
        f"all. {config['in_flight']} problems at a time, one method after the other on one server, "
        "in turns; nothing else ran on it, so `tokens` and `requests` are its own counters, a "
        "problem, and `engine steps` those until all of them were answered. `seconds` are by the "
        "clock, a problem among the others; `load` is how many processes the machine ran then, so "
        "rows of another load cannot be compared by their seconds. `independent there`: the "
        "majority of independent samples at those tokens, which are at most "
        f"{config['width']}. `groups`: different answers that the method told apart, where it says "
        "so. The first three rows are ours. `optillm`'s search has the model guess the user's next "
        "question and rate the conversation, which this one was never taught.\n"
    )
    return f"{notes}\n{table(head, rows)}"


def _row(row: Json) -> list[str]:
    there = row["same_tokens"]
    is_base = row["method"] == "independent"
    return [
        row["method"],
        percent(row["accuracy"]["value"]),
        "" if is_base else points(row["difference"]),
        f"{row['tokens']:.0f}",
        f"{row['reported_tokens']:.0f}",
        percent(there["independent"]),
        "" if is_base else points(there["difference"]),
        f"{row['requests']:.1f}",
        f"{row['steps']:.0f}",
        f"{row['mean_s']:.1f}",
        f"{row['load']:.1f}",
        f"{row['groups']:.1f}" if row["groups"] is not None else "",
        str(row["unread"]),
    ]
