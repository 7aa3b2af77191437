"""Python's cyclic garbage collector, set for a process that holds many growing trees.

A growing tree is thousands of objects that live for seconds, and each pass of the collector looks
at all of them again: with Python's own thresholds that is a fifth of the controller's time at a
thousand trees, and nothing at sixteen (`bench/controller.py` measures both). It knows nothing of
trees. Call it once, where a process of ours begins to sample; never in a library call, nor in the
process of `treepo serve`, which is vLLM's, answers plain requests as well, and grows no more trees
at a time than its slots hold.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 10_000
"""New objects between two passes over the young ones; Python's own is 700.

Old objects are looked at every hundred young passes, once they have grown by a quarter. A
finished tree is a cycle that only such a pass frees, so larger numbers would hold memory back.
"""


def calm_collector() -> None:
    """Looks at young objects less often, and never again at those that are there now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
