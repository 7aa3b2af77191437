"""Every error this project raises on purpose, grouped by who has to act.

One tree, so that callers can catch `TreePOError` and nothing of ours slips through:

    TreePOError
    ├── ConfigError           the operator: a command's configuration is wrong
    ├── FieldError            the caller: one field of a request is wrong
    ├── EngineError           the engine refused or failed; `is_retryable` says which
    │   └── EngineDeadError   the engine is gone and will not come back in this process
    ├── OverloadError         no room now; `retry_after_s` says when to ask again
    │   └── DrainingError     the server is about to end; another one has to be asked
    ├── UnsupportedError      an installed library is outside the accepted range
    ├── RolloutFileError      a rollout file, with its path and line
    └── CheckpointError       a training checkpoint

It knows nothing of HTTP: `treepo_server.response.errors` maps each class to a status. A new error
goes under the class whose reader has to act on it.
"""

from __future__ import annotations


class TreePOError(Exception):
    """The root of every error this project raises on purpose."""


class ConfigError(TreePOError):
    """A command's configuration is wrong; the message names the key and the remedy."""


class FieldError(TreePOError):
    """One field of a caller's request is wrong.

    Args:
        field: Dotted name as the caller wrote it, for example `tree.width`.
        value: What was sent.
        allowed: The allowed range or set, in words.
        remedy: What to send instead.
    """

    def __init__(self, field: str, value: object, allowed: str, remedy: str) -> None:
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"`{field}` is {shown}; allowed: {allowed}. {remedy}")
        self.field = field
        self.value = value
        self.allowed = allowed
        self.remedy = remedy


class EngineError(TreePOError):
    """The engine refused or failed one request.

    Args:
        message: What the engine said.
        is_retryable: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, is_retryable: bool = False) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable


class EngineDeadError(EngineError):
    """The engine is gone; nothing will be answered until the process is started again."""


class OverloadError(TreePOError):
    """There is no room for this request now.

    Args:
        message: What is full.
        retry_after_s: Seconds after which asking again makes sense.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DrainingError(OverloadError):
    """The server ends and takes nothing new."""


class UnsupportedError(TreePOError):
    """An installed library is outside the accepted range; the message names the range."""


class RolloutFileError(TreePOError):
    """A rollout file cannot be read.

    Args:
        path: The file.
        line: 1-based line number.
        reason: What is wrong with that line.
    """

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class CheckpointError(TreePOError):
    """A training checkpoint is missing, torn or of another run."""
