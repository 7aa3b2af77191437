"""The pages that people read, and the code blocks in them.

A block is a fence with its language; commands are the shell lines of one, continuations joined. It
runs and judges nothing: `test_blocks.py` says what becomes of each language.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
    "clients/python/README.md",
    "clients/examples/README.md",
    "CONTRIBUTING.md",
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
SHELLS = ("sh", "bash", "console")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its page, the line it begins at, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The file that it is shown as, where its first line is `# NAME`."""
        found = re.match(r"# (\S+\.\w+)$", self.text.split("\n", 1)[0])
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Command:
    """One command line: the variables before it, its words, and where its output goes."""

    variables: dict[str, str]
    words: tuple[str, ...]
    output: str | None


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    text = text_of(page)
    for found in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


ALL = [block for page in PAGES for block in blocks(page)]


def commands(block: Block) -> list[Command]:
    """The commands of a shell block; in `console` only lines with a prompt are commands."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [_command(words) for line in lines if (words := shlex.split(line, comments=True))]


def _command(words: list[str]) -> Command:
    variables = {}
    while found := _ASSIGNMENT.fullmatch(words[0]):
        variables[found[1]] = found[2]
        words = words[1:]
    output = None
    if ">" in words:
        output, words = words[words.index(">") + 1], words[: words.index(">")]
    return Command(variables, tuple(words), output)
