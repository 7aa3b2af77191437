"""Where a command that samples by itself gets its model from: a tokenizer, and an engine to start.

Commands take a `Backend`, so that they run on a scripted engine in tests. It knows no trees.
Another kind of engine is another class with these two methods.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from treepo.engines.base import Engine
from treepo.errors import ConfigError
from treepo.local.embedded import MAX_MODEL_LEN, prepare
from treepo.local.garbage import calm_collector


class Backend(Protocol):
    """A model: its tokenizer, which is there at once, and its engine, which is slow to start."""

    def tokenizer(self) -> Any:
        """A Hugging Face tokenizer."""
        ...

    def engine(self) -> AbstractContextManager[Engine]:
        """An engine, started on entry and ended on exit."""
        ...


@dataclass(frozen=True)
class VllmBackend:
    """A `Backend` with a vLLM of its own.

    Attributes:
        model: A folder or a name on the model hub; None for the embedded model.
        arguments: vLLM's `AsyncEngineArgs`.
    """

    model: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def tokenizer(self) -> Any:
        """The model's tokenizer.

        Raises:
            ConfigError: transformers is missing, or the model is, or has no tokenizer.
        """
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise ConfigError('vLLM is not installed: pip install "treepo[vllm]"') from None
        name = str(self.arguments.get("tokenizer") or self._folder)
        try:
            return AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"no tokenizer for {name}: {reason}") from None

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """vLLM, loaded on entry, with its log on stderr; the garbage collector is calmed.

        Enter it outside an event loop where you can: loading blocks, and only there does Ctrl-C
        end it at once.

        Raises:
            ConfigError: vLLM is missing, or refuses the model or an argument.
        """
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        try:
            from treepo.engines.vllm import VllmEngine
        except ImportError:
            raise ConfigError('vLLM is not installed: pip install "treepo[vllm]"') from None
        arguments = dict(self.arguments)
        if self.model is None:
            arguments.setdefault("max_model_len", MAX_MODEL_LEN)
        try:
            engine = VllmEngine.start(self._folder, **arguments)
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            raise ConfigError(f"vLLM does not start: {error}") from error
        calm_collector()
        try:
            yield engine
        finally:
            engine.close()

    @cached_property
    def _folder(self) -> str:
        return self.model or str(prepare())
