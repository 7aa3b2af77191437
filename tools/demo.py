"""`make demo`: starts the server, asks one question with a `tree`, draws what came back, stops it.

Everything a newcomer sees happens through public faces: `treepo serve`, the `openai` SDK and one
extra field in the request. The picture itself comes from `treepo/drawing.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from openai import OpenAI, OpenAIError
from rich.console import Console
from rich.text import Text

from treepo.drawing import draw, readable
from treepo.local.processes import end_with_parent

SERVE = [sys.executable, "-m", "treepo.cli", "serve"]
QUESTION = "Explain in four sentences why a year has 365 days. End with the number of days."
# `even` forks at every boundary, which draws well; left to itself a tree forks where the model is
# uncertain, and this tiny one often is at its first word, where nothing can be shared.
TREE: Mapping[str, Any] = {
    "width": 8,
    "segment_tokens": 32,
    "branching": "even",
    "root_branching": 2,
    "answer": "last_number",
    "include": ["nodes", "texts"],
}
MAX_TOKENS = 128
TEMPERATURE = 0.6
# So that everybody sees the same tree, as far as processors agree on rounding.
SEED = 3

# The embedded model is all on this machine, so nothing has to be asked or told outside.
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}

START_LIMIT_S = 300.0
STOP_LIMIT_S = 30.0
ANSWER_LIMIT_S = 180.0
LOG_LINES_SHOWN = 20


class DemoError(Exception):
    """The demo could not go on; the message is for the person who typed `make demo`."""


def main() -> int:
    """Runs the demo; 0, or 1 after the reason and the server's last words on stderr."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        try:
            with running_server(log, sys.argv[1:]) as url:
                response = ask(url)
                tree = tree_of(response)
        except (DemoError, OpenAIError) as error:
            print(f"demo: {error}", file=sys.stderr)
            for line in _last_lines(log):
                print(f"  {line}", file=sys.stderr)
            return 1
    console.print("", draw(tree), "", "[bold]the winning path[/bold]", sep="\n")
    console.print(Text(readable(response.choices[0].message.content)))
    return 0


@contextmanager
def running_server(log: Path, flags: list[str]) -> Iterator[str]:
    """A server on a free loopback port; yields its URL and has ended it afterwards, come what may.

    Args:
        log: Where everything it prints goes.
        flags: Passed on to `treepo serve`.

    Raises:
        DemoError: It ended, or was not healthy in time.
    """
    port = _free_port()
    command = [*SERVE, *flags, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as stream:
        # No thread runs yet, which `preexec_fn` would not be safe beside.
        server = subprocess.Popen(  # noqa: S603
            command,
            env={**OFFLINE, **os.environ},
            stdout=stream,
            stderr=stream,
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(server, url)
        yield url
    finally:
        _stop(server)


def ask(url: str) -> Any:
    """One chat completion with a tree, by the unmodified SDK."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=ANSWER_LIMIT_S, max_retries=0)
    with client:
        model = client.models.list().data[0].id
        print(f"demo: asking {model}: {QUESTION}", file=sys.stderr, flush=True)
        return client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=MAX_TOKENS,
            temperature=TEMPERATURE,
            seed=SEED,
            n=1,
            extra_body={"tree": TREE},
        )


def tree_of(response: Any) -> Mapping[str, Any]:
    """The response's `tree` object.

    Raises:
        DemoError: It has none.
    """
    tree: Mapping[str, Any] | None = (response.model_extra or {}).get("tree")
    if tree is None:
        raise DemoError("the server answered without a tree: its plugin is not loaded")
    return tree


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    started = time.monotonic()
    shown_s = 0.0
    while not _is_healthy(url):
        elapsed_s = time.monotonic() - started
        if server.poll() is not None:
            raise DemoError(f"the server ended with code {server.returncode}")
        if elapsed_s > START_LIMIT_S:
            raise DemoError(f"the server was not healthy after {START_LIMIT_S:.0f} s")
        shown_s = _show_progress(elapsed_s, shown_s)
        time.sleep(0.25)
    elapsed_s = time.monotonic() - started
    print(f"{_line_start()}demo: the server is up after {elapsed_s:.0f} s", file=sys.stderr)


def _show_progress(elapsed_s: float, shown_s: float) -> float:
    """A terminal sees the seconds pass, a log gets a line every ten; returns when it was shown."""
    if elapsed_s - shown_s < (1 if sys.stderr.isatty() else 10):
        return shown_s
    end = "" if sys.stderr.isatty() else "\n"
    text = f"{_line_start()}demo: starting the server, {elapsed_s:.0f} s"
    print(text, end=end, file=sys.stderr, flush=True)
    return elapsed_s


def _line_start() -> str:
    return "\r" if sys.stderr.isatty() else ""


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Asks once; a second time means at once (`treepo.local.processes`)."""
    for _ in range(2):
        server.terminate()
        try:
            server.wait(timeout=STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            continue
        return
    server.kill()
    server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_lines(log: Path) -> list[str]:
    if not log.exists():
        return []
    return log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]


def _terminate(number: int, frame: object) -> NoReturn:
    """Lets `finally` run, so that the server goes first."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
