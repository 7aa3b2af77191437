"""Random trees for property tests: machines, scripts, settings and faults as one strategy."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from tests.support.machines import coin, toy_texts
from tests.support.recording import Fault, RecordingEngine, no_fault
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, PathRequest, Sampling, Uncertainty
from treepo.engines.scripted import EOS, Script, ScriptedEngine, TokenMachine
from treepo.errors import EngineError
from treepo.growth.state import Path
from treepo.sampler import Job, sample_tree
from treepo.tree import Tree, TreeStats

BRANCHINGS = ("entropy", "even", "low_prob", "high_prob")
FALLBACKS = ("random", "entropy", "disagreement", "none")
HANG_S = 4.0
LETTERS = st.sampled_from([1, 2, 3, 4, 5, 26])


@dataclass
class Watch:
    """An observer that keeps the width law in view and remembers every path."""

    width: int
    paths: list[Path] = field(default_factory=list)
    ended_ids: list[int] = field(default_factory=list)
    most: int = 0

    def opened(self, path: Path) -> None:
        self.paths.append(path)
        self._look()

    def extended(self, path: Path, chunk: Chunk, num_kept: int) -> None:
        assert 0 <= num_kept <= len(chunk.token_ids)
        self._look()

    def ended(self, path: Path) -> None:
        self.ended_ids.append(path.id)
        self._look()

    def _look(self) -> None:
        taken = sum(path.finish is None or path.is_trajectory for path in self.paths)
        self.most = max(self.most, taken)
        assert taken <= self.width, "live + finished must never exceed width"


@dataclass(frozen=True)
class Scenario:
    """One tree to sample, and the engine to do it on."""

    machine: TokenMachine
    script: Script
    config: TreeConfig
    sampling: Sampling
    prompt: tuple[int, ...]
    has_texts: bool = False
    fault: Fault = no_fault


@dataclass
class Sampled:
    """A tree beside everything that can be held against it."""

    tree: Tree
    engine: RecordingEngine
    inner: ScriptedEngine
    watch: Watch
    scenario: Scenario


def engines(scenario: Scenario) -> tuple[ScriptedEngine, RecordingEngine]:
    inner = ScriptedEngine(scenario.machine, scenario.script)
    return inner, RecordingEngine(inner, scenario.fault)


def job_of(scenario: Scenario, watch: Watch | None = None, **extra: Any) -> Job:
    return Job(
        prompt_token_ids=list(scenario.prompt),
        sampling=scenario.sampling,
        config=scenario.config,
        id="t",
        texts=toy_texts() if scenario.has_texts else None,
        observer=watch or Watch(scenario.config.width),
        **extra,
    )


def sample(scenario: Scenario, **extra: Any) -> Sampled:
    """The scenario's tree; a hang is a failure."""
    inner, engine = engines(scenario)
    watch = Watch(scenario.config.width)
    job = job_of(scenario, watch, **extra)
    tree = asyncio.run(asyncio.wait_for(sample_tree(engine, job), HANG_S))
    return Sampled(tree, engine, inner, watch, scenario)


def plain(
    machine: TokenMachine | None = None,
    *,
    max_tokens: int = 40,
    script: Script | None = None,
    fault: Fault = no_fault,
    **config: Any,
) -> Scenario:
    """A tree of width 4 in four-token segments; further arguments are `TreeConfig` fields."""
    options = {"width": 4, "segment_tokens": 4, "branching": "even"}
    return Scenario(
        machine=machine or coin(stop=0.05),
        script=script or Script(chunk_tokens=4, block_size=4),
        config=TreeConfig(**options | config),
        sampling=Sampling(max_tokens=max_tokens, seed=7),
        prompt=(1, 2, 3),
        fault=fault,
    )


def without_clock(tree: Tree) -> Tree:
    """The tree without its duration, the one field that two equal runs do not share."""
    stats = {name: getattr(tree.stats, name) for name in TreeStats.__slots__}
    return replace(tree, stats=TreeStats(**(stats | {"duration_s": 0.0})))


def boundaries(tree: Tree, block_size: int, count: int = 64) -> list[int]:
    """Positions of the prompt's end and the first boundaries, from their definition.

    The first is the last position within one segment at which prompt plus completion is
    1 (mod block size).
    """
    segment = tree.settings["segment_tokens"]
    fits = [
        p for p in range(1, segment + 1) if (len(tree.prompt_token_ids) + p - 1) % block_size == 0
    ]
    return [0, *(fits[-1] + i * segment for i in range(count))]


@st.composite
def machines(draw: st.DrawFn, *, can_end: bool = True) -> TokenMachine:
    """Up to four states, each with up to four tokens and, maybe, the end of sequence."""
    num_states = draw(st.integers(1, 4))
    table: dict[str, dict[int, tuple[float, str]]] = {}
    for state in range(num_states):
        tokens = draw(st.lists(LETTERS, min_size=1, max_size=4, unique=True))
        ends = can_end and draw(st.booleans())
        parts = [draw(st.integers(1, 9)) for _ in range(len(tokens) + ends)]
        total = sum(parts)
        row = {
            token: (part / total, str(draw(st.integers(0, num_states - 1))))
            for token, part in zip(tokens, parts, strict=False)
        }
        if ends:
            row[EOS] = (parts[-1] / total, "0")
        table[str(state)] = row
    return TokenMachine(table, "0")


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    block = draw(st.sampled_from([1, 2, 3, 4, 8]))
    slow, turns = draw(st.integers(0, 5)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from([Uncertainty.ENTROPY, Uncertainty.SURPRISAL, Uncertainty.NONE]))
    return Script(
        chunk_tokens=draw(st.integers(1, 9)),
        block_size=block,
        overrun_tokens=draw(st.integers(0, 5)),
        delay=lambda tokens: sum(tokens) * slow % turns,
        uncertainty=kind,
        seed=draw(st.integers(0, 99)),
    )


@st.composite
def configs(draw: st.DrawFn, **fixed: Any) -> TreeConfig:
    low = draw(st.integers(1, 4))
    options: dict[str, Any] = {
        "width": draw(st.integers(1, 9)),
        "segment_tokens": draw(st.sampled_from([1, 2, 4, 6, 8])),
        "max_depth": draw(st.none() | st.integers(1, 6)),
        "branching_factor": draw(st.none() | st.integers(1, 4)),
        "root_branching": draw(st.none() | st.integers(1, 4) | st.just((low, low + 2))),
        "branching": draw(st.sampled_from(BRANCHINGS)),
        "branching_temperature": draw(st.sampled_from([0.3, 1.0, 2.0])),
        "entropy_threshold": draw(st.none() | st.sampled_from([0.0, 0.3, 0.9, 3.0])),
        "fallback": draw(st.none() | st.sampled_from(FALLBACKS)),
        "start": draw(st.none() | st.integers(1, 4)),
    }
    return TreeConfig(**(options | fixed))


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    """Some requests fail, before their first chunk or after a few."""
    salt, share = draw(st.integers(0, 1000)), draw(st.sampled_from([0.2, 0.5, 1.0]))

    def fault(request: PathRequest, num_chunks: int) -> BaseException | None:
        rng = random.Random(f"{salt}{request.id}")
        is_doomed, at = rng.random() < share, rng.randrange(3)
        return EngineError("scripted fault") if is_doomed and num_chunks == at else None

    return fault


@st.composite
def scenarios(draw: st.DrawFn, *, with_faults: bool = False, **fixed: Any) -> Scenario:
    has_texts = draw(st.booleans())
    max_tokens = draw(st.integers(1, 50))
    stop = draw(st.lists(st.text("abcde", min_size=1, max_size=3), max_size=2)) if has_texts else []
    return Scenario(
        machine=draw(machines()),
        script=draw(scripts()),
        config=draw(configs(**fixed)),
        sampling=Sampling(
            max_tokens=max_tokens,
            min_tokens=min(draw(st.sampled_from([0, 0, 3, 20])), max_tokens),
            seed=draw(st.integers(0, 10**6)),
            stop=tuple(stop),
            include_stop=draw(st.booleans()),
        ),
        prompt=tuple(draw(st.lists(st.integers(1, 26), min_size=1, max_size=12))),
        has_texts=has_texts,
        fault=draw(faults()) if with_faults else no_fault,
    )
