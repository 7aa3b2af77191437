"""docs/benchmarks.md, and the README's verdict, from the result files: `python -m bench.report`.

Every number on that page comes from a file in `bench/results`, with the run it was taken in named
below it; what was not measured is named as such. A new benchmark is a function in `SECTIONS`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.results import FOLDER, ROOT, Result, write_result
from bench.sections.accuracy import clock, quality, reasoner, search, verdict
from bench.sections.peers import peers
from bench.sections.speed import controller, entropy, fairness, hang_up, overhead, throughput, train

PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
_MARKS = ("<!-- verdict -->\n", "<!-- /verdict -->\n")
HEAD = """# Benchmarks

Written by `python -m bench.report` from the files in `bench/results/`; do not edit it. Each file
holds the raw samples, commit, versions, hardware, seed and configuration of its run. Intervals of
accuracies are 95 %, by bootstrap over problems. The baseline of every quality number is independent
sampling **at the same generated tokens**, not at the same `n`.
"""

Section = Callable[[Mapping[str, Any]], str]
SECTIONS: dict[str, tuple[str, str, Section]] = {
    "quality": ("Accuracy at matched tokens", "bench.quality", quality),
    "clock": ("Wall-clock to the answer", "bench.clock", clock),
    "peers": ("Other packages on the same server", "bench.peers", peers),
    "throughput": ("Throughput against `n=16`", "bench.throughput", throughput),
    "throughput-gpu": ("Throughput on a GPU", "bench/gpu.sh", throughput),
    "quality-gpu": ("Accuracy on a GPU", "bench/gpu.sh", quality),
    "reasoner": ("The reasoner", "bench.reasoner.evaluate", reasoner),
    "search": ("Policies on chains of known law", "bench.search", search),
    "controller": ("What the controller costs", "bench.controller", controller),
    "overhead": ("What a tree that never branches costs", "bench.overhead", overhead),
    "entropy": ("What exact entropies cost", "bench.entropy", entropy),
    "fairness": ("What plain requests feel of trees", "bench.fairness", fairness),
    "hang_up": ("What is left when a caller hangs up", "bench.hang_up", hang_up),
    "train": ("The packed update", "bench.train", train),
}
"""Name of the result file: heading, what makes it, and how it is told."""


def page(folder: Path = FOLDER) -> str:
    """The whole page."""
    parts = [HEAD]
    for name, (title, command, section) in SECTIONS.items():
        parts.append(f"## {title}\n")
        file = folder / f"{name}.json"
        if not file.exists():
            parts.append(f"Not measured yet: `{command}` writes `{file.name}`.\n")
            continue
        result = json.loads(file.read_text())
        parts.append(section(result))
        parts.append(f"{_origin(result, command)}\n")
    return "\n".join(parts)


def readme(folder: Path = FOLDER) -> str:
    """The README with its table of the verdict as the result file has it."""
    before, rest = README.read_text().split(_MARKS[0])
    _, after = rest.split(_MARKS[1])
    results = (json.loads((folder / f"{name}.json").read_text()) for name in ("quality", "clock"))
    return f"{before}{_MARKS[0]}{verdict(*results)}{_MARKS[1]}{after}"


def publish(result: Result) -> None:
    """Writes a result file, and the pages anew with it.

    The result comes first: what took hours to measure is kept though a page cannot be told.
    """
    write_result(result)
    write_pages()


def write_pages() -> None:
    """Write what is told of the results, from their files: both pages or none."""
    for path, text in _pages().items():
        path.write_text(text)


def _pages() -> dict[Path, str]:
    return {PAGE: page(), README: readme()}


def _origin(result: Mapping[str, Any], command: str) -> str:
    machine = result["hardware"]
    kind = ", ".join(machine["gpus"]) or f"{machine['num_cpus']} cores of {machine['cpu']}, no GPU"
    dirty = ", with changes that are not in it" if result["is_dirty"] else ""
    return (
        f"*{command}, {result['made_at'][:10]}, commit {result['commit'][:8]}{dirty}; {kind}; load "
        f"average {machine['load_average']} when it was written.*"
    )


def main() -> int:
    """Write the pages; with `--check` only say whether they are up to date."""
    if "--check" not in sys.argv[1:]:
        write_pages()
        return 0
    stale = [path.name for path, text in _pages().items() if path.read_text() != text]
    print(f"stale: {', '.join(stale)}: python -m bench.report" if stale else "up to date")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
