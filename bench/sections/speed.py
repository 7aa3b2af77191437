"""What things cost by the clock, the CPU and memory: sections of docs/benchmarks.md.

Each is a pure function of a result file, and says what limits its numbers; which file goes where
stands in `bench/report.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.sections.markdown import Json, percent, spread, table


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
            spread(row["speedup"], row["speedup_range"])
            if row["rounds"] > 1
            else f"{row['speedup']:.2f}",
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
        f"with entropies {found['entropy_ratio']:.3f} ({entropy_low:.3f} to {entropy_high:.3f}); "
        "in parentheses 95 % intervals of the median round, by bootstrap over the rounds.\n"
    )


def entropy(result: Json) -> str:
    """The logits processor, and the log-probs that it makes unnecessary."""
    summary = result["summary"]
    head = ("beside plain requests", "tokens/s", "least and greatest", "engine's CPU time",
            "host, microseconds a token")  # fmt: skip
    rows = [
        [
            name,
            f"{kind['throughput_ratio']:.3f}",
            " to ".join(f"{end:.2f}" for end in kind["throughput_ratio_range"]),
            f"{1 / kind['engine_cpu_ratio']:.3f}",
            f"{kind['host_us_per_token']:.1f}",
        ]
        for name, kind in summary["kinds"].items()
    ]
    note = (
        f"Ratios to {result['config']['num_running']} plain requests at once, median of "
        f"{result['config']['turns']} turns; they made "
        f"{summary['plain_tokens_per_second']:.0f} tokens/s. `surprisal` is what is used where "
        f"entropies cannot be had. {percent(summary['missing_share'])} of the entropies were not "
        "there when their tokens came.\n"
    )
    return f"{note}\n{table(head, rows)}"


def fairness(result: Json) -> str:
    """What plain requests feel of a wide tree, and of as many plain paths."""
    summary, config = result["summary"], result["config"]
    head = ("slots that trees may use", "beside nothing", "beside plain `n=64`",
            "beside a tree of width 64", "tree over plain")  # fmt: skip
    known, share = summary["p95_ttft_s"], f"{config['share']:g}"
    rows = []
    for part, ratio in (("1", "tree_over_plain"), (share, "tree_over_plain_with_share")):
        waits = [known[f"{beside}, share {part}"] for beside in ("nothing", "plain", "tree")]
        shown = [f"{1000 * wait:.0f} ms" for wait in waits]
        compared = spread(summary[ratio], summary[f"{ratio}_interval"])
        rows.append([f"{float(part):.0%}", *shown, compared])
    note = (
        "Time to first token of short plain requests, 95th percentile, "
        f"{config['rounds'] * config['probes']} requests a cell, in {config['rounds']} alternating "
        f"rounds; intervals of 95 % by bootstrap over the rounds; model: {config['model']}. "
        "With all slots in use a plain request waits until a path ends; with a share, slots stay "
        "free for it.\n"
    )
    return f"{note}\n{table(head, rows)}"


def hang_up(result: Json) -> str:
    """How long a tree outlives its caller."""
    config = result["config"]
    rows = [
        [left, f"{1000 * found['median_s']:.0f} ms", f"{1000 * found['max_s']:.0f} ms"]
        for left, found in result["summary"].items()
    ]
    note = (
        f"From hanging up until the engine and the server hold nothing of a tree of "
        f"{config['tree']['width']} running paths, {config['turns']} times each; model: "
        f"{config['model']}; the goal is {config['goal_s']:g} s. Beside the aborts a step of the "
        "engine that has begun is run to its end, so that a large model adds its step time.\n"
    )
    return f"{note}\n{table(('the caller left', 'median', 'longest'), rows)}"


def train(result: Json) -> str:
    """The packed update against one row for each trajectory."""
    head = ("tree", "tokens, packed and not", "token ratio", "speed-up", "of the ratio",
            "speed-up by the clock", "peak memory, packed and not, GB")  # fmt: skip
    rows = [
        [
            name,
            f"{shape['tokens']['packed']}, {shape['tokens']['unpacked']}",
            f"{shape['token_ratio']:.2f}",
            f"{shape['speedup']:.2f}",
            f"{shape['quotient']:.2f}",
            f"{shape['clock_speedup']:.2f}",
            ", ".join(f"{shape['peak_bytes'][side] / 1e9:.2f}" for side in ("packed", "unpacked")),
        ]
        for name, shape in result["summary"]["shapes"].items()
    ]
    note = (
        f"One optimizer step on `{result['config']['model']}`, {result['config']['dtype']}, "
        f"{result['config']['threads']} thread; `speed-up` is of CPU seconds, median of "
        f"{result['config']['rounds']} rounds. Both compute the same gradient. What keeps it below "
        "the ratio of tokens: attention over the whole row, and the work per row.\n"
    )
    return f"{note}\n{table(head, rows)}"
