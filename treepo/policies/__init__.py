"""The decisions: who branches where, what ends a path, when a tree may end."""
