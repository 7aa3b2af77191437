"""An environment of its own for each peer, made when it is first needed.

It lies in this environment's folder, beside `.venv/clients`, and is made anew when its lock in
`requirements/` has changed. A lock holds what the driver's imports need and not all that the
package names: `optillm` also wants torch, transformers, spaCy and browsers, for methods that are
not used here (`requirements/peers-optillm.excludes`). What a peer does is its driver's business.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench.results import ROOT
from treepo.errors import ConfigError

REQUIREMENTS = ROOT / "requirements"
_PIP = ["install", "-qq", "--no-input", "--disable-pip-version-check"]
_LOCKED = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]


def lock_of(peer: str) -> Path:
    """The lock of a peer's environment."""
    return REQUIREMENTS / f"peers-{peer}.lock"


def version_of(peer: str) -> str:
    """The version of the peer that its lock pins.

    Raises:
        ConfigError: The lock does not name it.
    """
    found = re.search(rf"^{re.escape(peer)}==(\S+)", lock_of(peer).read_text(), re.MULTILINE)
    if found is None:
        raise ConfigError(f"{lock_of(peer).name} pins no `{peer}`: make it anew with `make lock`")
    return found[1]


def python_of(peer: str, folder: Path | None = None) -> Path:
    """The interpreter of a peer's environment, which is made first where it is missing or old.

    Args:
        peer: The package's name on PyPI.
        folder: Where the environments lie; None for this environment's own folder.

    Raises:
        ConfigError: A package cannot be installed; pip has said why.
    """
    home = (folder or Path(sys.prefix)) / f"peers-{peer}"
    python, stamp = home / "bin" / "python", home / "stamp"
    wanted = hashlib.sha256(lock_of(peer).read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"peers: an environment for {peer}", file=sys.stderr, flush=True)
    shutil.rmtree(home, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), *_PIP, *_LOCKED]
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", str(home)],
        [*pip, "-r", str(lock_of(peer))],
    ):
        if subprocess.run(command, check=False).returncode != 0:  # noqa: S603
            raise ConfigError(f"no environment for {peer}: `{' '.join(command)}` failed")
    stamp.write_text(wanted)
    return python
