"""Typed requests and results for a TreePO server, over the `openai` SDK.

`Trees(OpenAI(...))` and `AsyncTrees(AsyncOpenAI(...))` ask with a tree; `TreeOptions` is what may
be said about it, `Tree` what comes back, and the events tell of a tree while it grows. Transport,
retries, keys and errors stay the SDK's.
"""

from treepo_client.client import Answer, AsyncTrees, NoTreeError, Trees
from treepo_client.events import Done, Ended, Event, Opened, Progress, Reasoning, Text
from treepo_client.options import TreeOptions
from treepo_client.report import ChoiceTree, Node, Trajectory, Tree, Vote

__all__ = [
    "Answer",
    "AsyncTrees",
    "ChoiceTree",
    "Done",
    "Ended",
    "Event",
    "NoTreeError",
    "Node",
    "Opened",
    "Progress",
    "Reasoning",
    "Text",
    "Trajectory",
    "Tree",
    "TreeOptions",
    "Trees",
    "Vote",
]
