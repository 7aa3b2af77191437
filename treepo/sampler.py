"""`sample_tree`: the event loop of one tree.

Every path is one running engine request. Chunks arrive, are judged (`stopping`), may open
branches (`branching`), and when nothing runs and trajectories are missing, `fallback` or the next
wave opens more. The loop applies what policies say and knows neither HTTP nor which policy it
runs; everything it decides by is passed in or found in the resolved configuration.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Iterable, Sequence

from treepo.engines.base import Chunk, Engine, PathRequest
from treepo.errors import EngineDeadError, EngineError
from treepo.growth.job import Job, Observer, Silent, caveats, check_length, path_request
from treepo.growth.record import Totals, make_record
from treepo.growth.requests import (
    Answered,
    Arrived,
    Event,
    Expired,
    Lost,
    Overdue,
    Requests,
    see_through,
)
from treepo.growth.state import Branch, Growth, Path, Wave
from treepo.policies.branching import BranchingPolicy, make_branching
from treepo.policies.fallback import FALLBACKS
from treepo.policies.places import better_place, next_wave
from treepo.policies.stopping import PathEnd, PathStops, is_hopeless, worst_window
from treepo.policies.until import make_until
from treepo.tree import Finish, Tree, TreeFinish

__all__ = ["Job", "Observer", "Silent", "sample_tree"]

_GRACE_S = 1.0
"""Seconds that answers may still take when the tree has to end: what one text may cost."""


async def sample_tree(engine: Engine, job: Job) -> Tree:
    """Sample one tree and return its record; see the module docstring.

    Raises:
        FieldError: The prompt and the budget do not fit the model.
        EngineError: The engine failed and no trajectory could be finished.
    """
    run = _Run(engine, job)
    try:
        run.open_wave()
        while not (run.requests.is_idle and not run.refill()):
            await run.handle(await run.requests.next())
    finally:
        await see_through(run.requests.close())
    return run.record()


class _Run:
    """State of one tree while it is sampled."""

    def __init__(self, engine: Engine, job: Job) -> None:
        info = engine.info
        check_length(len(job.prompt_token_ids), job.sampling.max_tokens, info.max_model_len)
        self.job = job
        self.id = job.id or f"tree-{uuid.uuid4().hex[:16]}"
        self.info = info
        self.config = job.config.resolve(
            info.block_size, job.sampling.max_tokens, job.entropy_reference
        )
        self.growth = Growth(job.prompt_token_ids, self.config, info.block_size)
        self.requests = Requests(engine)
        finder = job.texts.find_answer if job.texts else None
        self.stops = PathStops(self.config, job.sampling, self.growth, finder)
        self.policies: dict[Wave, BranchingPolicy] = {}
        self.rng = random.Random(self.id if job.sampling.seed is None else job.sampling.seed)
        self.until = make_until(self.config)
        self.totals = Totals()
        self.finish: TreeFinish | None = None
        self.error: EngineError | None = None
        self.notes = caveats(job)
        self._started = time.monotonic()
        if self.config.deadline_ms is not None:
            deadline = Expired(TreeFinish.DEADLINE)
            self.requests.tell_later(self.config.deadline_ms / 1000, deadline)
        if job.ending is not None:
            job.ending.add_done_callback(self._told_to_end)

    # opening paths

    def open_wave(self) -> None:
        """Open the next wave: `start` trajectories, or what is left of `width`."""
        opened = sum(wave.width for wave in self.growth.waves)
        width = min(self.config.start or self.config.width, self.config.width - opened)
        branches = next_wave(self.growth, width)
        paths = self.growth.open_wave(width, 0 if branches else self._num_roots())
        wave = self.growth.waves[-1]
        self.policies[wave] = make_branching(self.config, self.growth, wave, self.info.uncertainty)
        self._start(paths)
        self._apply(branches, wave)

    def _num_roots(self) -> int:
        roots = self.config.root_branching or 1
        return self.rng.randint(*roots) if isinstance(roots, tuple) else roots

    def refill(self) -> bool:
        """Open more paths where trajectories are missing; whether anything was opened."""
        if self._is_spent:
            self.finish = self.finish or TreeFinish.MAX_TOTAL_TOKENS
        if self.finish is not None:
            return False
        wave = self.growth.waves[-1]
        if self.growth.num_failed > self.config.width:
            self.notes.append("stopped opening paths: more were lost or pruned than `width`")
            return False
        before = len(self.growth.paths)
        if wave.num_finished < wave.width:
            policy = FALLBACKS[self.config.fallback or "none"]
            self._apply(policy(self.growth, wave, self.rng), wave)
        is_full = sum(w.width for w in self.growth.waves) >= self.config.width
        if len(self.growth.paths) == before and not is_full:
            self.open_wave()
        return len(self.growth.paths) > before

    def _apply(self, branches: Iterable[Branch], wave: Wave) -> None:
        for branch in branches:
            self.totals.fallbacks += branch.children * branch.is_late
            self.totals.branches += branch.children * (not branch.is_late)
            self._start(self.growth.open_branch(branch, wave))

    def _start(self, paths: Sequence[Path]) -> None:
        for path in paths:
            trunk = path.parent
            if self.job.texts is not None:
                path.transcript = self.job.texts.transcript(trunk, path.start)
                path.cleared = len(path.transcript.text)
            self.job.observer.opened(path)
            self.requests.start(path, self._request(path))
        live = sum(path.finish is None for path in self.growth.paths)
        self.totals.max_live_paths = max(self.totals.max_live_paths, live)

    def _request(self, path: Path) -> PathRequest:
        return path_request(self.job, self.id, self.growth, path, self._tokens_left)

    @property
    def _tokens_left(self) -> int | None:
        """What is left of the whole tree's token budget, None for no limit."""
        limit = self.config.max_total_tokens
        return None if limit is None else limit - self.totals.generated_tokens

    @property
    def _is_spent(self) -> bool:
        return self._tokens_left is not None and self._tokens_left <= 0

    # events

    async def handle(self, event: Event) -> None:
        """Apply one event; that a request has closed changes nothing here."""
        match event:
            case Arrived(path, chunk):
                await self._arrived(path, chunk)
            case Lost(path, error):
                self._lost(path, error)
                if isinstance(error, EngineDeadError):
                    await self._end_now(TreeFinish.CANCELLED)
            case Answered(path):
                await self._answered(path)
            case Expired(reason):
                await self._end_now(reason)
            case Overdue():
                self._give_up_answers()

    async def _arrived(self, path: Path, chunk: Chunk) -> None:
        self.totals.count(path, chunk, len(self.growth.prompt_token_ids))
        if path.finish is not None:
            return
        seen = path.end
        path.extend(chunk)
        if path.transcript is not None:
            path.transcript.push(chunk.token_ids)
        end = self.stops.check(path, chunk, seen)
        if end is not None:
            self._finish_path(path, end)
        elif path.transcript is not None:
            path.cleared = len(path.transcript.text)
        if self.config.prune == "confidence":
            self._watch_window(path, seen)
        self.job.observer.extended(path, chunk, min(path.end - seen, len(chunk.token_ids)))
        if self.finish is None:
            self._branch(path, seen)
        if end is not None:
            await self._settle_path(path, chunk)
        elif self.finish is None and is_hopeless(self.growth, path):
            await self._prune(path)
        if self._is_spent:
            await self._end_tree(TreeFinish.MAX_TOTAL_TOKENS)

    def _branch(self, path: Path, seen: int) -> None:
        policy = self.policies[path.wave]
        self._apply(policy.advance(path, seen), path.wave)
        if path.finish is not None:
            self._apply(policy.finished(), path.wave)

    def _watch_window(self, path: Path, seen: int) -> None:
        values, since = path.uncertainty, seen - path.start
        if since < self.config.prune_window:
            values, since = path.joined_uncertainty(), seen
        is_ended = path.finish is not None
        worst = worst_window(values, since, self.config.prune_window, is_ended=is_ended)
        path.worst_window = max(path.worst_window, worst)

    def _finish_path(self, path: Path, end: PathEnd) -> None:
        self.growth.end(path, end.finish, end.at)
        if path.transcript is not None:
            path.transcript.finish(end.at, end.text_end)

    async def _settle_path(self, path: Path, chunk: Chunk) -> None:
        if chunk.finish_reason is None:
            await self.requests.abort([path])
        if not path.is_trajectory:
            self.job.observer.ended(path)
        elif self.job.texts is not None:
            self.requests.read_answer(path, self.job.texts.read_answer(path))
        else:
            await self._answered(path)

    async def _answered(self, path: Path) -> None:
        path.is_answered = True
        self.job.observer.ended(path)
        if self.finish is None:
            finish = self.until(self.growth)
            if finish is not None:
                await self._end_tree(finish)

    async def _prune(self, path: Path) -> None:
        self.growth.end(path, Finish.PRUNED, path.end)
        self.totals.prunes += 1
        self.job.observer.ended(path)
        await self.requests.abort([path])
        self._apply(self.policies[path.wave].finished(), path.wave)
        self._reuse_slot(path.wave)

    def _reuse_slot(self, wave: Wave) -> None:
        """Give a pruned path's slot to a better boundary; the paper's budget does so by itself."""
        width = self.config.width
        if self.config.is_paper_policy or self._is_spent or self.growth.num_failed > width:
            return
        self._apply(better_place(self.growth), wave)

    def _lost(self, path: Path, error: EngineError) -> None:
        if path.finish is None:
            self.growth.end(path, Finish.FAILED, path.end)
            self.notes.append(f"path {path.id} was lost: {error}")
            self.job.observer.ended(path)
            if self.finish is None:
                self._apply(self.policies[path.wave].finished(), path.wave)
        if self.error is None or isinstance(error, EngineDeadError):
            self.error = error

    async def _end_tree(self, finish: TreeFinish) -> None:
        if self.finish is not None:
            return
        self.finish = finish
        live = [path for path in self.growth.paths if path.finish is None]
        for path in live:
            self.growth.end(path, Finish.UNFINISHED, path.end)
            self.job.observer.ended(path)
        await self.requests.abort(live)

    # ending

    def _told_to_end(self, ending: asyncio.Future[TreeFinish]) -> None:
        self.requests.tell(Expired(ending.result()))

    async def _end_now(self, finish: TreeFinish) -> None:
        """End the tree, and soon after the reading of its answers."""
        self.requests.tell_later(_GRACE_S, Overdue())
        await self._end_tree(finish)

    def _give_up_answers(self) -> None:
        count = self.requests.give_up_answers()
        if count:
            self.notes.append(f"the answer of {count} trajectories could not be read (time was up)")

    def record(self) -> Tree:
        """The finished tree.

        Raises:
            EngineError: The engine failed and no trajectory was finished.
        """
        is_dead = isinstance(self.error, EngineDeadError)
        if self.error is not None and (is_dead or self.growth.num_finished == 0):
            raise self.error
        self.totals.duration_s = time.monotonic() - self._started
        unread = self.job.texts.notes() if self.job.texts else ()
        notes = (*self.notes, *unread)
        return make_record(self.id, self.growth, self.totals, self.info, self.finish, notes)
