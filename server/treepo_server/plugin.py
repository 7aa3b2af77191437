"""The vLLM endpoint plugin: attaches the routes and makes the service they use.

vLLM loads it where `VLLM_PLUGINS` names `treepo`, under `treepo serve` as under its own server. It
decides nothing about requests.
"""

from __future__ import annotations

import os
from typing import Any

from treepo_server.limits import Limits
from treepo_server.versions import check_vllm


class TreePlugin:
    """vLLM's `EndpointPlugin` contract."""

    name = "treepo"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._limits = Limits()

    def attach_router(self, app: Any) -> None:
        """Put our routes in front of vLLM's.

        Everything that must stop the server is raised here: vLLM swallows what a plugin's
        factory raises and would serve without it.

        Raises:
            UnsupportedError: This vLLM is outside the tested range.
            ConfigError: A limit in the environment is not a number.
        """
        check_vllm()
        self._limits = Limits.from_env(os.environ)
        from treepo_server.routes import ROUTES

        for route in ROUTES:
            route.attach(app)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Make the service, once the engine runs."""
        from vllm.logger import init_logger

        from treepo.engines.entropy_source import connect
        from treepo_server.service import TreeService

        tasks = await engine_client.get_supported_tasks()
        entropies = await connect(engine_client)
        if entropies.ring is None:
            # Below vLLM's own name, so that it shows wherever vLLM's log does.
            init_logger("vllm.treepo").info("no exact entropies: %s", entropies.reason)
        state.treepo = TreeService(engine_client, tasks, self._limits, entropies)
