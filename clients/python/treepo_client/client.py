"""Asking with a tree, blocking and async, through an `openai` client that the caller made.

Both classes build the same request and read the same answer; only the waiting differs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI, NotFoundError, OpenAI, OpenAIError
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from treepo_client.events import Done, Event, events_of
from treepo_client.options import TreeOptions
from treepo_client.report import Tree

Prompt = str | Sequence[ChatCompletionMessageParam]

CAPABILITIES = "/treepo/capabilities"


class NoTreeError(OpenAIError):
    """The server answered, but without a tree."""

    def __init__(self) -> None:
        super().__init__(
            "the server answered without a tree: its vLLM runs without the treepo plugin "
            "(VLLM_PLUGINS=treepo), or the stream was cut"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its tree.

    Attributes:
        completion: The SDK's own object; `choices[0]` is the winner.
        tree: What is known of the tree.
    """

    completion: ChatCompletion
    tree: Tree

    @property
    def text(self) -> str:
        """The winner's text."""
        return self.completion.choices[0].message.content or ""


class Trees:
    """Asks a TreePO server through an `OpenAI` client."""

    def __init__(self, client: OpenAI) -> None:
        self.client = client
        self._model: str | None = None
        self._capabilities: Any = None

    def ask(
        self,
        prompt: Prompt,
        *,
        tree: TreeOptions | None = None,
        model: str | None = None,
        **request: Any,
    ) -> Answer:
        """One answer, when the tree has ended.

        Args:
            prompt: A question, or messages.
            tree: What to say about the tree; nothing for the server's defaults.
            model: Its name; the first that the server has by default.
            request: Further arguments of `chat.completions.create`.

        Raises:
            NoTreeError: The server has no tree search.
            OpenAIError: As the SDK does.
        """
        asked = _request(prompt, tree, model or self.model(), request)
        return _answer(self.client.chat.completions.create(**asked))

    def stream(
        self,
        prompt: Prompt,
        *,
        tree: TreeOptions | None = None,
        model: str | None = None,
        **request: Any,
    ) -> Iterator[Event]:
        """The events of a tree while it grows, `Done` last; every path streams unless `n` is set.

        Raises:
            NoTreeError: The server has no tree search, or the stream was cut.
            OpenAIError: As the SDK does.
        """
        model = model or self.model()
        request["n"] = request.get("n") or (tree or {}).get("width") or self.width(model)
        asked = _request(prompt, tree, model, {**request, "stream": True})
        is_done = False
        with self.client.chat.completions.create(**asked) as chunks:
            for chunk in chunks:
                for event in events_of(chunk):
                    is_done = isinstance(event, Done)
                    yield event
        if not is_done:
            raise NoTreeError

    def model(self) -> str:
        """The name of the first model that the server has; asked for once."""
        self._model = self._model or self.client.models.list().data[0].id
        return self._model

    def width(self, model: str) -> int:
        """Trajectories of a tree that does not say how many; the server is asked once.

        Raises:
            NoTreeError: The server has no tree search.
            OpenAIError: As the SDK does.
        """
        try:
            self._capabilities = self._capabilities or self.client.get(CAPABILITIES, cast_to=object)
        except NotFoundError:
            raise NoTreeError from None
        return _width(self._capabilities, model)


class AsyncTrees:
    """Asks a TreePO server through an `AsyncOpenAI` client; see `Trees`."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self.client = client
        self._model: str | None = None
        self._capabilities: Any = None

    async def ask(
        self,
        prompt: Prompt,
        *,
        tree: TreeOptions | None = None,
        model: str | None = None,
        **request: Any,
    ) -> Answer:
        """See `Trees.ask`."""
        asked = _request(prompt, tree, model or await self.model(), request)
        return _answer(await self.client.chat.completions.create(**asked))

    async def stream(
        self,
        prompt: Prompt,
        *,
        tree: TreeOptions | None = None,
        model: str | None = None,
        **request: Any,
    ) -> AsyncIterator[Event]:
        """See `Trees.stream`."""
        model = model or await self.model()
        request["n"] = request.get("n") or (tree or {}).get("width") or await self.width(model)
        asked = _request(prompt, tree, model, {**request, "stream": True})
        is_done = False
        async with await self.client.chat.completions.create(**asked) as chunks:
            async for chunk in chunks:
                for event in events_of(chunk):
                    is_done = isinstance(event, Done)
                    yield event
        if not is_done:
            raise NoTreeError

    async def model(self) -> str:
        """See `Trees.model`."""
        self._model = self._model or (await self.client.models.list()).data[0].id
        return self._model

    async def width(self, model: str) -> int:
        """See `Trees.width`."""
        try:
            self._capabilities = self._capabilities or await self.client.get(
                CAPABILITIES, cast_to=object
            )
        except NotFoundError:
            raise NoTreeError from None
        return _width(self._capabilities, model)


def _request(
    prompt: Prompt, tree: TreeOptions | None, model: str, request: dict[str, Any]
) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    extra = {**request.pop("extra_body", {}), "tree": dict(tree or {})}
    return {"messages": messages, "model": model, **request, "extra_body": extra}


def _width(capabilities: Any, model: str) -> int:
    """The width that the model's alias gives a tree, or else the server."""
    alias = capabilities["aliases"].get(model, {"tree": {}})
    default = capabilities["fields"]["width"]["default"]
    return int(alias["tree"].get("width", default))


def _answer(completion: ChatCompletion) -> Answer:
    tree = getattr(completion, "tree", None)
    if tree is None:
        raise NoTreeError
    return Answer(completion, Tree.model_validate(tree))
