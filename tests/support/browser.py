"""A real browser for tests of the page: the system's Chromium, headless, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tools.extras import DRIVER_LIBRARY, has_library

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser; the test is skipped where none is installed.

    It must not outlive a test module: while it runs, no other event loop can.
    """
    if CHROMIUM is None:
        pytest.skip("chromium is missing: apt-get install chromium, or make test as root")
    if not has_library(DRIVER_LIBRARY):
        pytest.skip(
            f"{DRIVER_LIBRARY} is missing: apt-get install libatomic1, or make test as root"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox refuses to run as root; the page is ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page of the viewer and everything that it did to the outside.

    Attributes:
        page: Playwright's page.
        errors: Uncaught errors and console errors, violations of its policy among them.
        requested: The URLs it asked for.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", lambda request: self.requested.append(request.url))

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, name: str, content: bytes | str) -> None:
        """Open a file with the page's own button, and wait until it was read or refused."""
        data = content.encode() if isinstance(content, str) else content
        file = {"name": name, "mimeType": "application/json", "buffer": data}
        self.page.set_input_files("#file", [file])
        self.page.wait_for_selector('#stage[aria-busy="false"]')

    def drop(self, path: Path) -> None:
        """Drop a file or a folder on the page, as the desktop would."""
        devtools = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": 400, "y": 400, "data": data}
            devtools.send("Input.dispatchDragEvent", event)

    def until(self, expression: str) -> None:
        """Wait until an expression is true, without the `eval` that the page's policy refuses."""
        self.page.evaluate(
            f"""new Promise((resolve, reject) => {{
                const isLate = AbortSignal.timeout(20_000);
                const look = () => {{
                    if ({expression}) resolve();
                    else if (isLate.aborted) reject(new Error("never true"));
                    else requestAnimationFrame(look);
                }};
                look();
            }})"""
        )

    def barriers(self) -> list[str]:
        """What axe-core finds that keeps people out: the rule, and where; skipped without it."""
        if not AXE.exists():
            pytest.skip("axe-core is missing: npm install --prefix tests/support/axe")
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate("axe.run()")
        return [
            f"{violation['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    def text(self, selector: str) -> str:
        """The text of an element."""
        return str(self.page.text_content(selector))

    def point(self, node: int) -> dict[str, float]:
        """Where the end of a segment is on the canvas, in pixels."""
        place: dict[str, float] = self.page.evaluate(
            """id => {
                const node = view.tree.nodes[id];
                const x = view.viewport.x(node.start + node.tokens) - 3;
                return { x, y: view.viewport.y(view.layout.rows[id]) };
            }""",
            node,
        )
        return place
