"""The state of a growing tree: its paths, its engine requests, and the record it becomes."""
