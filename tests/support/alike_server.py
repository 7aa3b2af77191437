"""A server that answers every question alike and counts as vLLM does, on a loopback port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from tests.support.json_handler import JsonHandler

TOKENS = 5
"""What it says every choice took."""

METRICS = """vllm:generation_tokens_total{{engine="0"}} {tokens}
vllm:iteration_tokens_total_count{{engine="0"}} {steps}
http_requests_total{{handler="/v1/chat/completions",method="POST",status="2xx"}} {good}
http_requests_total{{handler="/v1/chat/completions",method="POST",status="5xx"}} {bad}
http_requests_total{{handler="/tokenize",method="POST",status="2xx"}} 7.0
"""


class AlikeServer(ThreadingHTTPServer):
    """Answers, and what it was asked.

    Attributes:
        texts: What it says, one after the other and then anew.
        asked: The bodies of the requests.
    """

    def __init__(self, texts: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.texts = texts
        self.asked: list[dict[str, Any]] = []
        self.num_choices = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def read(self, path: str) -> str:
        assert path == "/metrics"
        num_asked, tokens = len(self.asked), float(TOKENS * self.num_choices)
        return METRICS.format(tokens=tokens, steps=TOKENS * num_asked, good=num_asked, bad=2.0)

    def wait_for(self, num_requests: float, limit_s: float) -> float:
        assert num_requests == 0
        return 0.0

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.asked.append(body)
            count = body.get("n", 1)
            first, self.num_choices = self.num_choices, self.num_choices + count
        texts = [self.texts[(first + i) % len(self.texts)] for i in range(count)]
        answers = [{"answer": "1"}, {"answer": None}]
        return {
            "id": "chat",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": index,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                }
                for index, text in enumerate(texts)
            ],
            "usage": {
                "prompt_tokens": 1,
                "completion_tokens": TOKENS * count,
                "total_tokens": 1 + TOKENS * count,
            },
            "tree": {"trajectories": answers},
        }


class Handler(JsonHandler):
    """One request."""

    server: AlikeServer

    def do_POST(self) -> None:  # noqa: N802 - so it is called
        self.reply(200, self.server.answer(self.body()))


@contextmanager
def alike(*texts: str) -> Iterator[AlikeServer]:
    """A running one."""
    with AlikeServer(list(texts)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
