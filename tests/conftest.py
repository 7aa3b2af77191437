"""What all tests share: one server, shapes checked at run time, and repeatable property tests.

Property tests have no time limit, and draw the same examples in CI.
"""

import os

from hypothesis import settings
from jaxtyping import install_import_hook

from tests.support.shared_server import server

__all__ = ["server"]

# The modules whose annotations have shapes; protocols elsewhere cannot be checked at run time.
# Here, since the hook does nothing for a module that another folder's test has imported before.
SHAPED = ("advantage", "attention", "estimators", "groups", "loss", "pack")
install_import_hook(
    [*(f"treepo.train.{name}" for name in SHAPED), "bench.estimators"], "beartype.beartype"
)

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
