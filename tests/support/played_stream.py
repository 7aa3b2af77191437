"""A server that plays to the page: its answers are written by the test, a chunk at a time.

It stands in the page itself, in the place of `fetch`, so a tree can stand still while a test looks
at it. It knows nothing of trees but the shape of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.browser import Tab

_SERVER = """() => {
    Object.assign(window, { asked: 0, taken: 0, key: null });
    const { take } = LiveTree.prototype;
    LiveTree.prototype.take = function (...news) { take.apply(this, news); window.taken += 1; };
    const isRefused = (headers) => key !== null && headers.Authorization !== `Bearer ${key}`;
    window.fetch = async (url, { headers, signal }) => {
        if (isRefused(headers)) return new Response("{}", { status: 401 });
        if (url.endsWith("/models")) return new Response('{"data": [{"id": "tiny"}]}');
        window.asked += 1;
        window.taken = 0;
        const { readable, writable } = new TransformStream();
        const pen = writable.getWriter();
        signal.addEventListener("abort", () => pen.abort(signal.reason));
        const bytes = (chunk) => new TextEncoder().encode(`data: ${JSON.stringify(chunk)}\\n\\n`);
        window.write = (chunk) => { pen.write(bytes(chunk)); };
        window.end = () => { pen.close(); };
        return new Response(readable);
    };
}"""


@dataclass
class PlayedStream:
    """See the module docstring.

    Attributes:
        tab: The page that asks.
        num_chunks: Chunks of the tree that grows now.
    """

    tab: Tab
    num_chunks: int = 0

    def __post_init__(self) -> None:
        self.tab.page.evaluate(_SERVER)

    def ask(self) -> None:
        """Have the page ask for a tree, and wait until it listens."""
        before = self.tab.page.evaluate("asked")
        self.num_chunks = 0
        self.tab.page.fill("#question", "What is 6 * 68?")
        self.tab.page.click("#send")
        self.tab.until(f"asked > {before}")

    def tell(self, *choices: dict[str, Any], opened: Sequence[dict[str, Any]] = ()) -> None:
        """Send one chunk, and wait until the page has laid out what it says."""
        told = {"live_paths": 1, "finished": 0, "generated_tokens": 9, "opened": list(opened)}
        self._write({"choices": list(choices), "tree": {"progress": told}})
        self.num_chunks += 1
        self.tab.until(f"taken === {self.num_chunks} && pending === null")

    def finish(self, report: dict[str, Any]) -> None:
        """Send the report of the whole tree and end, and wait until the page has kept it."""
        self._write({"choices": [], "tree": report})
        self.tab.page.evaluate("end()")
        self.tab.until("growing === null")

    def _write(self, chunk: dict[str, Any]) -> None:
        self.tab.page.evaluate("chunk => write(chunk)", chunk)


def opened(
    index: int, parent: int | None = None, start: int = 0, *, is_late: bool = False
) -> dict[str, Any]:
    """A path that begins."""
    return {"index": index, "parent": parent, "start": start, "is_late": is_late}


def said(index: int, text: str, num_tokens: int = 10) -> dict[str, Any]:
    """A choice with more text."""
    return {"index": index, "delta": {"content": text}, "token_ids": [7] * num_tokens}


def ended(index: int, answer: str) -> dict[str, Any]:
    """The end of a choice that has answered."""
    end = {"finish_reason": "stop", "tree": {"finish": "eos", "answer": answer}}
    return {"index": index, "delta": {"content": ""}, **end}
