"""A finished tree sampled again under other stopping rules, from its own trajectories.

The sampler itself runs, on an engine that knows only what the tree holds, so that `until` and
`start` cost exactly what they would have cost, and no token is generated. It works where the new
settings ask for no path that the tree lacks: any wave of independent trajectories, and the same
`entropy` branching with another `until`. (The paper's policies branch at boundaries, which depend
on the engine's block size, and that is not known here.)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from treepo.answers.reader import Answer
from treepo.config import TreeConfig
from treepo.engines.base import Chunk, EngineInfo, PathRequest, Sampling, Uncertainty
from treepo.errors import EngineError
from treepo.growth.texts import Texts
from treepo.sampler import Job, sample_tree
from treepo.tree import Finish, Node, Tree

_BLOCK_TOKENS = 1
_TURNS = 8
"""Turns of the event loop per chunk: an answer takes some to be read, on a real engine far fewer
than a chunk takes to be generated."""

_FIRST_LETTER = 0x20000
_REASONS = {Finish.LENGTH: "length", Finish.REPETITION: "repetition", Finish.DEPTH: "length"}


async def replay(tree: Tree, changes: dict[str, Any], seed: int, chunk_tokens: int = 16) -> Tree:
    """The tree under changed settings.

    Args:
        tree: A finished tree whose paths all ended by themselves.
        changes: `TreeConfig` fields, `until` and `start`.
        seed: Of the order in which the known paths are handed out.
        chunk_tokens: Tokens between two decisions; a path that is stopped overruns by up to as
            many, as on a real engine.

    Raises:
        EngineError: The new settings ask for a path that the tree lacks.
    """
    settled = {"stop_on_answer": False, "repetition": False, "prune": "none", "max_depth": None}
    config = TreeConfig.model_validate({**tree.settings, **settled, **changes})
    longest = max((node.end for node in tree.nodes), default=1)
    engine = ReplayEngine(tree, seed, chunk_tokens)
    sampling = Sampling(longest + 1, wants_logprobs=False, ignore_eos=True)
    job = Job(tree.prompt_token_ids, sampling, config, tree.id, Texts(Letters(), _Known(tree)))
    again = await sample_tree(engine, job)
    if engine.num_missing:
        raise EngineError(f"{tree.id}: the replay needs a path that the tree lacks")
    return again


class Letters:
    """Decodes every token to one letter of its own."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """One letter per token."""
        return "".join(chr(_FIRST_LETTER + token) for token in token_ids)


class _Known:
    """Reads the answers that the tree's trajectories are known to have."""

    def __init__(self, tree: Tree) -> None:
        decode = Letters().decode
        self._answers = {
            decode(tree.token_ids(t)): Answer(t.answer, t.answer_text or t.answer)
            for t in tree.trajectories
            if t.answer is not None
        }

    async def read(self, text: str) -> Answer | None:
        """The recorded answer of these tokens."""
        return self._answers.get(text)


@dataclass(frozen=True, slots=True)
class _Path:
    """What one engine request generated, and the tokens it inherited."""

    inherited: tuple[int, ...]
    token_ids: tuple[int, ...]
    uncertainty: tuple[float, ...]
    finish: Finish


class ReplayEngine:
    """An `Engine` that hands out the paths of a finished tree, in an order of its own.

    Args:
        tree: The tree.
        seed: Of the order among paths that start alike.
        chunk_tokens: Tokens per chunk.

    Attributes:
        num_missing: Requests for which the tree had no path.
    """

    def __init__(self, tree: Tree, seed: int, chunk_tokens: int) -> None:
        self._paths = _paths(tree)
        random.Random(seed).shuffle(self._paths)
        self._num_prompt_tokens = len(tree.prompt_token_ids)
        self._chunk_tokens = chunk_tokens
        self._aborted: set[str] = set()
        self.num_missing = 0
        self._kind = Uncertainty(tree.uncertainty_kind)

    @property
    def info(self) -> EngineInfo:
        """An engine without limits."""
        return EngineInfo(_BLOCK_TOKENS, 1 << 30, 1 << 20, self._kind)

    async def generate(self, request: PathRequest) -> AsyncIterator[Chunk]:
        """Stream a known path that begins as the request does.

        Raises:
            EngineError: All such paths were handed out already.
        """
        path = self._take(tuple(request.token_ids[self._num_prompt_tokens :]))
        end, step = len(path.token_ids), self._chunk_tokens
        for start in range(0, max(end, 1), step):
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if request.id in self._aborted:
                yield Chunk((), finish_reason="abort")
                return
            stop = min(start + step, end)
            reason = _REASONS.get(path.finish, "stop") if stop == end else None
            part = slice(start, stop)
            yield Chunk(path.token_ids[part], (), path.uncertainty[part], reason)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests at their next chunk."""
        self._aborted.update(request_ids)

    def _take(self, inherited: tuple[int, ...]) -> _Path:
        for index, path in enumerate(self._paths):
            if path.inherited == inherited:
                return self._paths.pop(index)
        self.num_missing += 1
        raise EngineError("no path of the tree begins like this any more")


def _paths(tree: Tree) -> list[_Path]:
    by_path: dict[int, list[Node]] = {}
    for node in tree.nodes:
        by_path.setdefault(node.path, []).append(node)
    return [_path(tree, nodes) for nodes in by_path.values()]


def _path(tree: Tree, nodes: list[Node]) -> _Path:
    first, last = nodes[0], nodes[-1]
    before = [] if first.parent is None else tree.lineage(first.parent)
    return _Path(
        inherited=tuple(chain.from_iterable(node.token_ids for node in before)),
        token_ids=tuple(chain.from_iterable(node.token_ids for node in nodes)),
        uncertainty=tuple(chain.from_iterable(node.uncertainty for node in nodes)),
        finish=last.finish or Finish.EOS,
    )
