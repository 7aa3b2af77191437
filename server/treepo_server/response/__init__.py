"""What a caller reads of a tree: choices, their pieces, reports, chunks of a stream, errors.

It reads the plan, its journal and the finished tree, and starts nothing. The shapes that clients
rely on are those of `wire.py`.
"""
