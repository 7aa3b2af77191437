"""The vLLM endpoint plugin: attaches the routes and makes the service they use.

vLLM loads it where `VLLM_PLUGINS` names `treepo`, under `treepo serve` as under its own server. It
decides nothing about requests.
"""

from __future__ import annotations

import os
from typing import Any

from treepo_server.settings.aliases import Aliases
from treepo_server.settings.capacity import Capacity
from treepo_server.settings.limits import Limits
from treepo_server.settings.versions import check_vllm


class TreePlugin:
    """vLLM's `EndpointPlugin` contract."""

    name = "treepo"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._limits = Limits()
        self._capacity = Capacity()
        self._aliases = Aliases()

    def attach_router(self, app: Any) -> None:
        """Put our routes in front of vLLM's.

        What is wrong is raised here and not by the constructor: vLLM swallows what a plugin's
        factory raises and would serve without it.

        Raises:
            UnsupportedError: This vLLM is outside the range.
            ConfigError: A limit or an alias in the environment is wrong.
        """
        check_vllm()
        self._limits = Limits.from_env(os.environ)
        self._capacity = Capacity.from_env(os.environ)
        self._aliases = Aliases.from_env(os.environ, self._limits)
        from starlette.middleware import Middleware

        from treepo_server import viewer
        from treepo_server.trees.drain import DrainOnSignal
        from treepo_server.ways_in import capabilities
        from treepo_server.ways_in.guard import TreeGuard
        from treepo_server.ways_in.routes import ROUTES

        for route in ROUTES:
            route.attach(app, self._aliases)
        paths = [route.path for route in ROUTES]
        capabilities.attach(app, self._limits, self._aliases, paths)
        viewer.attach(app)
        # Last is innermost: behind authentication, and seen by what counts requests.
        app.user_middleware.append(Middleware(TreeGuard, routes=paths, aliases=self._aliases))
        app.user_middleware.append(Middleware(DrainOnSignal, grace_s=self._capacity.drain_s))

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Make the service, once the engine runs.

        Raises:
            ConfigError: An alias hides a model, which are known only now.
        """
        from treepo.engines.entropy_link import connect
        from treepo_server.observe.logs import log
        from treepo_server.trees.service import TreeService

        listed = await state.openai_serving_models.show_available_models()
        self._aliases.check(model.id for model in listed.data)
        tasks = await engine_client.get_supported_tasks()
        entropies = await connect(engine_client)
        if entropies.ring is None:
            log.info("no exact entropies: %s", entropies.reason)
        num_processes = getattr(args, "api_server_count", None) or 1
        state.treepo = TreeService(
            engine_client, tasks, self._limits, entropies, self._capacity, num_processes
        )
