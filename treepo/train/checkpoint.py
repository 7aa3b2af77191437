"""Checkpoints of a run: written aside, put on the disk, renamed; the last few are kept.

One job: folders that are whole or not there. What is in them is the caller's. A run that was
killed leaves at most a `.partial` folder, which the next one removes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from traceback import walk_tb
from typing import Any

from safetensors import SafetensorError

from treepo.errors import CheckpointError, ConfigError

_NAME = re.compile(r"step-(\d{6,})")
_PARTIAL = ".partial"
_RUN = "run.json"


class Checkpoints:
    """The checkpoints below one folder.

    Args:
        folder: `output_dir / "checkpoints"`.
        keep: How many `tidy` leaves.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def latest(self) -> Path | None:
        """The newest one, None where there is none."""
        found = self._steps()
        return found[-1] if found else None

    def name(self, step: int) -> Path:
        """Where the checkpoint of a step is or will be."""
        return self._folder / f"step-{step:06d}"

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of a step into; `commit` makes it one."""
        partial = self.name(step).with_suffix(_PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _sync(self._folder.parent)
        return partial

    def commit(self, partial: Path, run: dict[str, Any]) -> Path:
        """Make a filled folder the newest checkpoint.

        Args:
            partial: What `begin` returned.
            run: What the run has to remember; JSON values.
        """
        (partial / _RUN).write_text(json.dumps(run, indent=2) + "\n")
        target = partial.with_suffix("")
        move_whole(partial, target)
        self.tidy()
        return target

    def tidy(self) -> None:
        """Remove what killed runs left and all but the newest few."""
        if not self._folder.is_dir():
            return
        for old in self._steps()[: -self._keep]:
            # Renamed first: a removal that is cut short must not leave half a checkpoint.
            old.rename(old.with_name(old.name + _PARTIAL))
        for remains in self._folder.glob(f"*{_PARTIAL}"):
            shutil.rmtree(remains)

    def _steps(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        found = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def read_run(checkpoint: Path) -> dict[str, Any]:
    """What the run wrote into a checkpoint.

    Raises:
        CheckpointError: It is missing or no JSON; the message says what to do.
    """
    with named_reading(checkpoint):
        run: dict[str, Any] = json.loads((checkpoint / _RUN).read_text())
        return run


def make_folder(folder: Path) -> None:
    """The folder of a run, in which files can be made.

    Raises:
        ConfigError: It cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"`output_dir` {str(folder)!r} cannot be written to: {error.strerror}; name another "
            "with output_dir=..."
        ) from None


@contextmanager
def named_writing(what: Path) -> Iterator[None]:
    """Turns what goes wrong in writing into an error that says what is left and what to do.

    Whatever else fails in the body passes: ranks store together, and may lose each other there.

    Raises:
        CheckpointError: The body failed to write, as on a full disk.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not _is_of_torch_save(error):
            raise
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{what} could not be written: {reason}. What was stored before it is whole: make "
            "room on the disk, and the same command goes on from there."
        ) from error


def _is_of_torch_save(error: RuntimeError) -> bool:
    """Whether it is how torch reports a full disk: its devices and ranks fail in the same type."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "torch.serialization" for frame in frames)


@contextmanager
def named_reading(checkpoint: Path) -> Iterator[None]:
    """Turns whatever a damaged checkpoint is answered with into an error that says what to do.

    Raises:
        CheckpointError: The body failed.
    """
    try:
        yield
    except Exception as error:  # damaged bytes make pickle, zip files and torch raise anything
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(
            f"{checkpoint} cannot be read ({reason}); remove this folder to resume from the "
            "checkpoint before it, or to begin anew where there is none"
        ) from error


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Make `target` a folder that `write` fills; it is the old one, for a moment none, or whole."""
    partial = target.with_name(target.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    move_whole(partial, target)


def replace_file(target: Path, text: str) -> None:
    """Give a file a new content, at once."""
    partial = target.with_name(target.name + _PARTIAL)
    partial.write_text(text)
    _sync(partial)
    partial.replace(target)
    _sync(target.parent)


def move_whole(partial: Path, target: Path) -> None:
    """Put a folder on the disk, then give it its name; a folder of that name is removed."""
    for path in [*partial.rglob("*"), partial]:
        _sync(path)
    if target.exists():
        old = target.with_name(f"{target.name}.old{_PARTIAL}")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old)
    else:
        partial.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
