"""A server that samples trees on a scripted engine and answers as `treepo serve` does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from tests.support.json_handler import JsonHandler
from treepo.config import TreeConfig
from treepo.engines.base import Sampling
from treepo.engines.scripted import Script, ScriptedEngine, TokenMachine
from treepo.errors import FieldError
from treepo.growth.decoder import PromptDecoder
from treepo.growth.texts import Texts
from treepo.rollout.record import VERSION, tree_values
from treepo.sampler import Job, sample_tree


class TreeServer(ThreadingHTTPServer):
    """Answers completions that have a tree, and says which model it has.

    Attributes:
        model: The model's name.
        version: Of its records.
        asked: The bodies of the requests for trees.
        keys: The keys of all requests.
    """

    def __init__(self, tokenizer: Any, machine: TokenMachine, max_model_len: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = "first"
        self.version = VERSION
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self._tokenizer = tokenizer
        self._machine = machine
        self._max_model_len = max_model_len

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def models(self) -> dict[str, Any]:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "us"}
        return {"object": "list", "data": [model]}

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        ids = self._tokenizer.encode(body["prompt"])
        config = TreeConfig(**body["tree"])
        decoder = PromptDecoder(self._tokenizer, ids, skip_special_tokens=True)
        sampling = Sampling(body["max_tokens"], temperature=body["temperature"])
        job = Job(ids, sampling, config, texts=Texts.from_config(decoder, config))
        script = Script(chunk_tokens=4, max_model_len=self._max_model_len, seed=len(self.asked))
        tree = asyncio.run(sample_tree(ScriptedEngine(self._machine, script), job))
        record = {"rollout": self.version, "key": tree.id, "tree": tree_values(tree)}
        return {"tree": {"record": record}}


class Handler(JsonHandler):
    """One request."""

    server: TreeServer

    def do_GET(self) -> None:  # noqa: N802 - so it is called
        self._answer(200, self.server.models())

    def do_POST(self) -> None:  # noqa: N802 - so it is called
        try:
            self._answer(200, self.server.answer(self.body()))
        except FieldError as error:
            self._answer(400, {"error": {"message": str(error)}})

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        self.server.keys.add(self.headers["Authorization"].removeprefix("Bearer "))
        self.reply(status, answer)


@contextmanager
def tree_server(
    tokenizer: Any, machine: TokenMachine, max_model_len: int = 300
) -> Iterator[TreeServer]:
    """A running one."""
    with TreeServer(tokenizer, machine, max_model_len) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
