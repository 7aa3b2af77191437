"""Where trees come from while a policy learns: the seam between the trainer and an engine.

One job: `Rollouts`, what the trainer asks of whoever samples, and `EngineRollouts`, which is that
over any `Engine` in this process. It knows neither rewards nor losses. How new weights get into an
engine is a `WeightSync` (`weights.py`); trees from `treepo serve` hosts are `remote.py`; another
place to sample is another class with the methods of `Rollouts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from treepo.config import TreeConfig
from treepo.engines.base import Engine, Sampling
from treepo.errors import EngineError
from treepo.growth.decoder import PromptDecoder
from treepo.growth.texts import Texts
from treepo.rollout.batch import default_concurrency, sample_all
from treepo.sampler import Job
from treepo.tree import Tree


@dataclass(frozen=True, slots=True)
class Ask:
    """One tree to sample.

    Attributes:
        id: Names the tree; unique among those that are asked for together.
        prompt_token_ids: The prompt as the model reads it.
        tree: How the tree grows.
        sampling: How tokens are drawn; its `seed` makes the tree repeatable where the engine is.
    """

    id: str
    prompt_token_ids: tuple[int, ...]
    tree: TreeConfig
    sampling: Sampling


class WeightSource(Protocol):
    """The weights that are to be pushed, complete and under the names of the model's HF folder.

    A LoRA policy gives merged weights; tied weights stand once, as in a saved folder.
    """

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and full tensor of every weight."""
        ...


class WeightSync(Protocol):
    """Puts weights into one engine that samples nothing meanwhile."""

    async def push(self, source: WeightSource, version: int) -> None:
        """Return once the engine samples with these weights and its prefix cache is empty.

        Raises:
            EngineError: The engine did not take them.
        """
        ...


class Rollouts(Protocol):
    """Whoever samples for the trainer; one call at a time."""

    async def sample(self, asks: Sequence[Ask]) -> list[Tree | EngineError]:
        """A tree for each ask in order, or why there is none.

        Every tree's `weight_version` is the version last pushed, as a decimal string.

        Raises:
            EngineDeadError: Nothing will be sampled any more.
        """
        ...

    async def push(self, source: WeightSource, version: int) -> None:
        """Sample with these weights from now on; see `WeightSync.push`."""
        ...

    async def close(self) -> None:
        """Let go of the engine."""
        ...


class EngineRollouts:
    """`Rollouts` over an engine of this process; whoever started the engine ends it.

    Args:
        engine: Where paths run.
        sync: How it gets new weights.
        tokenizer: Of the model.
        concurrency: Trees at one time; None for as many as fill the engine.
    """

    def __init__(
        self, engine: Engine, sync: WeightSync, tokenizer: Any, concurrency: int | None = None
    ) -> None:
        self._engine = engine
        self._sync = sync
        self._tokenizer = tokenizer
        self._concurrency = concurrency

    async def sample(self, asks: Sequence[Ask]) -> list[Tree | EngineError]:
        """A tree for each ask in order, or why there is none; see `Rollouts.sample`."""
        results: dict[str, Tree | EngineError] = {}

        def done(job: Job, result: Tree | EngineError) -> None:
            results[job.id] = result

        width = max((ask.tree.width for ask in asks), default=1)
        most = self._concurrency or default_concurrency(self._engine.info.max_live_paths, width)
        await sample_all(self._engine, (self._job(ask) for ask in asks), most, done)
        return [results[ask.id] for ask in asks]

    async def push(self, source: WeightSource, version: int) -> None:
        """Sample with these weights from now on; see `WeightSync.push`."""
        await self._sync.push(source, version)

    async def close(self) -> None:
        """Nothing: the engine is not ours."""

    def _job(self, ask: Ask) -> Job:
        decoder = PromptDecoder(
            self._tokenizer, list(ask.prompt_token_ids), skip_special_tokens=True
        )
        return Job(
            prompt_token_ids=ask.prompt_token_ids,
            sampling=ask.sampling,
            config=ask.tree,
            id=ask.id,
            texts=Texts.from_config(decoder, ask.tree),
        )
