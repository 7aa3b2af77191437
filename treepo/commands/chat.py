"""`treepo chat [QUESTION]`: asks a running server, draws the tree while it grows, reads the answer.

With a question it answers it and ends; without one it goes on until the input ends, and the
winner of each tree is what the next question builds on.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from openai import APIConnectionError, OpenAI, OpenAIError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from treepo.commands.arguments import add_settings, settings
from treepo.commands.asking import first_model, key_for
from treepo.commands.growing import Growing
from treepo.config import parse_tree_config
from treepo.drawing import draw, draw_tree, readable
from treepo.errors import EngineError

BASE_URL = "http://127.0.0.1:8000/v1"
TREE: Mapping[str, Any] = {"width": 8, "include": ["nodes", "texts"]}
_FRAME_S = 0.125


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of `treepo chat`."""
    parser.add_argument("question", nargs="?", help="one question; without it, a conversation")
    parser.add_argument("--base-url", default=BASE_URL, help=f"the server's ({BASE_URL})")
    parser.add_argument("--api-key", help="default: the variable TREEPO_API_KEY, or none")
    parser.add_argument("--model", help="default: the first that the server has")
    add_settings(parser, "--tree", "tree settings, for example until=settled; width is 8")
    parser.add_argument("--max-tokens", type=int, default=512, help="most tokens of a path (512)")
    parser.add_argument("--temperature", type=float, help="default: the model's")
    parser.add_argument("--seed", type=int, help="to see the same trees again")


def run(args: Namespace) -> int:
    """Asks, draws, answers; returns 0.

    Raises:
        ConfigError: `--tree` is neither a JSON object nor key=value.
        FieldError: A field of it is wrong.
        EngineError: The server cannot be reached, refuses the request or has no tree search.
    """
    request = _request(args)
    key = key_for(args.api_key)
    console = Console()
    with OpenAI(base_url=args.base_url, api_key=key, max_retries=0) as client:
        try:
            request["model"] = args.model or first_model(client)
            if args.question is not None:
                answer(console, client, request, [_said("user", args.question)])
            else:
                _converse(console, client, request)
        except APIConnectionError:
            message = f"no server answers at {args.base_url}: start one with `treepo serve MODEL`"
            raise EngineError(f"{message}, or name another with --base-url") from None
        except OpenAIError as error:
            raise EngineError(f"{args.base_url}: {error}") from error
    return 0


def answer(
    console: Console, client: OpenAI, request: dict[str, Any], messages: list[dict[str, str]]
) -> str:
    """Grows one tree before the reader's eyes; returns the winner's text.

    Raises:
        OpenAIError: As the SDK does.
        EngineError: The stream ended without a tree.
    """
    growing = Growing()
    # Which type comes back hangs on `stream` in the request, which the SDK's types cannot see.
    create: Any = client.chat.completions.create
    stream = create(messages=messages, **request)
    drawn_s = 0.0
    # Leaving the block hangs up, which ends the tree in the engine.
    with stream, Live(console=console, auto_refresh=False, transient=True) as live:
        for chunk in stream:
            growing.take(chunk.model_dump())
            if time.monotonic() - drawn_s > _FRAME_S:
                live.update(draw_tree(growing.tree()), refresh=True)
                drawn_s = time.monotonic()
    if growing.report is None:
        raise EngineError("the server answered without a tree: start it with VLLM_PLUGINS=treepo")
    winner = growing.report.get("winner")
    text = growing.text(winner) if winner is not None else ""
    console.print(draw(growing.report), "", Text(readable(text)), sep="\n")
    return text


def _converse(console: Console, client: OpenAI, request: dict[str, Any]) -> None:
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = console.input("[bold]> [/bold]")
        except EOFError:
            return
        if not question.strip():
            continue
        try:
            text = answer(console, client, request, [*messages, _said("user", question)])
        except KeyboardInterrupt:
            console.print("stopped", style="dim")
            continue
        messages += [_said("user", question), _said("assistant", text)]


def _request(args: Namespace) -> dict[str, Any]:
    """Everything but model and messages; every path is streamed."""
    tree = {**TREE, **settings("--tree", args.tree)}
    width = parse_tree_config(tree).width
    sampling = {name: getattr(args, name) for name in ("max_tokens", "temperature", "seed")}
    return {
        "n": width,
        "stream": True,
        **{name: value for name, value in sampling.items() if value is not None},
        "extra_body": {"tree": tree, "return_token_ids": True},
    }


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}
