"""A pool of `treepo serve` hosts: who is asked next, and weights for all of them.

One job: HTTP to hosts that come and go. A request goes to the least busy host; one that fails is
sent to another, and a host that says when to ask again is left alone until then. Weights are
loaded by way of vLLM's development routes, which exist with `VLLM_SERVER_DEV_MODE=1` and which no
API key guards: whoever reaches them rules the host, so keep hosts in a network of their own. It
knows no trees; what a request says and what its answer means stands in `remote.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from treepo.errors import EngineDeadError, EngineError

_log = logging.getLogger("treepo")

TIMEOUT_S = 1800.0
"""Longest wait for one tree or one load of weights."""

CONCURRENCY = 16
"""Trees that one host gets at a time, unless said otherwise; it has its own limit, and says so."""

_CONNECT_S = 10.0
_REST_S = 2.0
_TURNS = 3


@dataclass(slots=True)
class Host:
    """One host.

    Attributes:
        url: Without `/v1`.
        num_running: Requests it answers now.
        rests_until: Not asked before this time of the event loop, in seconds.
        failure: What it last failed with, None once it has answered since.
        is_current: Whether it has the weights that were pushed last.
    """

    url: str
    num_running: int = 0
    rests_until: float = 0.0
    failure: str | None = None
    is_current: bool = True


class HostPool:
    """Hosts that all serve the same model.

    Args:
        urls: Where they listen, such as `http://10.0.0.7:8000`.
        concurrency: Requests that one host gets at a time.
        api_key: What hosts were given as `--api-key`.
        transport: Carries requests; another one in tests.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        concurrency: int = CONCURRENCY,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.hosts = [Host(url.rstrip("/").removesuffix("/v1")) for url in urls]
        self._concurrency = concurrency
        self._freed = asyncio.Event()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(TIMEOUT_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None),
            transport=transport,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(self, path: str, body: Mapping[str, Any]) -> tuple[Host, Any]:
        """The JSON answer of some host to a POST, and which it was.

        Busy hosts are waited for; a request that failed several times on every host is given up.

        Raises:
            EngineError: The request is refused, or failed on host after host.
            EngineDeadError: No host answers.
        """
        num_failed = 0
        while num_failed < _TURNS * len(self.hosts):
            host = await self._take()
            try:
                answer = await self._post(host, path, body)
            finally:
                host.num_running -= 1
                self._freed.set()
            if answer is not None:
                return host, answer
            num_failed += host.failure is not None
        usable = [host for host in self.hosts if host.is_current]
        reasons = "; ".join(f"{host.url}: {host.failure}" for host in usable if host.failure)
        if all(host.failure for host in usable):
            raise EngineDeadError(f"no host answers: {reasons}")
        raise EngineError(f"no host could answer: {reasons}", is_retryable=True)

    async def load_folder(self, folder: Path, version: str) -> None:
        """Sample with the weights of a folder on every host from now on.

        A host that does not take them is not asked again before it has taken later ones.

        Raises:
            EngineDeadError: None took them.
        """
        loads = [self._load(host, folder, version) for host in self.hosts]
        results = await asyncio.gather(*loads, return_exceptions=True)
        for host, result in zip(self.hosts, results, strict=True):
            host.is_current = result is None
            if isinstance(result, BaseException) and not isinstance(result, EngineError):
                raise result
            if result is not None:
                _log.warning("%s", result)
        if not any(host.is_current for host in self.hosts):
            raise EngineDeadError(f"no host took the new weights: {results[0]}")

    async def take(self, send: Callable[[], Awaitable[None]], version: str) -> None:
        """Sample on every host with what `send` gives them all at once, from now on.

        Raises:
            EngineDeadError: A host is missing or did not take them.
        """
        try:
            await self._all(self._pause)
            await send()
            await self._all(lambda host: self._named(host, version))
            await self._all(self._resume)
        except Exception as error:  # whatever the transfer raises has broken its group
            raise EngineDeadError(f"hosts did not take the new weights: {error}") from error

    async def world_sizes(self) -> list[int]:
        """How many workers each host has.

        Raises:
            EngineError: A host does not say.
        """
        answers = await self._all(lambda host: self._develop(host, "GET", "/get_world_size"))
        return [int(answer["world_size"]) for answer in answers]

    async def _all(self, call: Callable[[Host], Awaitable[Any]]) -> list[Any]:
        return await asyncio.gather(*(call(host) for host in self.hosts))

    async def _take(self) -> Host:
        """A host with room, once there is one."""
        while True:
            now = asyncio.get_running_loop().time()
            usable = [h for h in self.hosts if h.is_current]
            if not usable:
                raise EngineDeadError("no host has the weights that were pushed last")
            roomy = [h for h in usable if h.num_running < self._concurrency]
            free = [h for h in roomy if h.rests_until <= now]
            if free:
                host = min(free, key=lambda h: (h.num_running, h.rests_until))
                host.num_running += 1
                return host
            self._freed.clear()
            wait = min((h.rests_until - now for h in roomy), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._freed.wait()

    async def _post(self, host: Host, path: str, body: Mapping[str, Any]) -> Any:
        """A host's answer; None where it has to be asked later or not at all."""
        try:
            response = await self._client.post(host.url + path, json=body)
        except httpx.TransportError as error:
            self._rest(host, _REST_S, f"{type(error).__name__} {error}")
            return None
        status = response.status_code
        if status == HTTPStatus.OK:
            host.failure = None
            return response.json()
        is_busy = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        if not is_busy and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise EngineError(f"{host.url} refused: {_message(response)}")
        said = None if status == HTTPStatus.TOO_MANY_REQUESTS else _message(response)
        self._rest(host, _retry_after(response), said)
        return None

    def _rest(self, host: Host, seconds: float, failure: str | None) -> None:
        host.rests_until = asyncio.get_running_loop().time() + seconds
        host.failure = failure

    async def _load(self, host: Host, folder: Path, version: str) -> None:
        load = {"method": "treepo_load_folder", "args": [str(folder)]}
        await self._pause(host)
        try:
            await self._develop(host, "POST", "/collective_rpc", load)
            await self._named(host, version)
        finally:
            await self._resume(host)

    async def _pause(self, host: Host) -> None:
        await self._develop(host, "POST", "/pause?mode=wait&clear_cache=true")

    async def _named(self, host: Host, version: str) -> None:
        reset = await self._develop(host, "POST", "/reset_prefix_cache?reset_external=true")
        if not reset["success"]:
            raise EngineError(f"{host.url} did not give up its prefix cache")
        await self._develop(host, "POST", "/update_weight_version", {"new_version": version})

    async def _resume(self, host: Host) -> None:
        await self._develop(host, "POST", "/resume")

    async def _develop(
        self, host: Host, verb: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            response = await self._client.request(verb, host.url + path, json=body)
        except httpx.TransportError as error:
            raise EngineError(f"{host.url} took no weights: {error!r}") from error
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise EngineError(
                f"{host.url} has no {path}: start it with VLLM_SERVER_DEV_MODE=1, in a network of "
                "its own"
            )
        if response.status_code != HTTPStatus.OK:
            raise EngineError(f"{host.url} took no weights: {_message(response)}")
        return response.json() if response.content else None


def _message(response: httpx.Response) -> str:
    try:
        return f"{response.status_code} {response.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.text[:200]}"


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return _REST_S
