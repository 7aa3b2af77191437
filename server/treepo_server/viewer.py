"""The page at `/treepo` that shows trees: its files joined into one document, and its route.

One document, so that what the server sends is also a file to keep and open without any server
(`python -m treepo_server.viewer > treepo.html`). The page holds no data and loads nothing; its
policy names the digest of each script, so nothing else can run in it. What the page does stands
in `page/`; a further script is a line in `page/index.html`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROUTE = "/treepo"
PAGE = Path(__file__).parent / "page"

_SCRIPT = re.compile(r'<script src="([\w./-]+)"></script>')
_STYLE = re.compile(r'<link rel="stylesheet" href="([\w./-]+)">')


@cache
def document() -> str:
    """The page with its scripts and its style sheet in it."""
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    html = _STYLE.sub(lambda found: f"<style>{_text(found[1])}</style>", html)
    html = _SCRIPT.sub(lambda found: f"<script>{_text(found[1])}</script>", html)
    # A file has to reach its server by name; the header of the served page is narrower.
    return html.replace("POLICY", policy(html, connect="'self' http: https:"), 1)


def policy(html: str, connect: str = "'self'") -> str:
    """The content security policy under which nothing but this page's own code runs.

    Args:
        html: The page with its scripts and its style sheet in it.
        connect: Where it may send requests.
    """
    scripts, styles = (_digests(html, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def headers() -> dict[str, str]:
    """The headers of the served page."""
    return {
        "Content-Security-Policy": policy(document()) + "; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def attach(app: Any) -> None:
    """Add the page to a FastAPI app; it needs no key, since it holds nothing."""
    from fastapi.responses import HTMLResponse

    async def page() -> HTMLResponse:
        return HTMLResponse(document(), headers=headers())

    app.add_api_route(ROUTE, page, methods=["GET"], include_in_schema=False)


def _text(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _digests(html: str, tag: str) -> str:
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in contents)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


if __name__ == "__main__":
    sys.stdout.write(document())
