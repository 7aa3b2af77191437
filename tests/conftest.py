"""What all tests share: one server, and property tests that repeat in CI and have no time limit."""

import os

from hypothesis import settings

from tests.support.shared_server import server

__all__ = ["server"]

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
