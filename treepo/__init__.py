"""TreePO: sample a tree where others sample `n` times.

The core of the product: how a tree grows, what its answers are worth, and the records that
serving and training share. Importing it loads no torch, vllm, transformers or fastapi.
"""

from treepo.config import TreeConfig
from treepo.errors import TreePOError
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish, TreeStats

__version__ = "0.1.0"

__all__ = [
    "Finish",
    "Node",
    "Trajectory",
    "Tree",
    "TreeConfig",
    "TreeFinish",
    "TreePOError",
    "TreeStats",
    "__version__",
]
