"""The HTTP routes: those that take a `tree`, those that refuse one, and what the server can do.

A further route that takes a tree is a line in `routes.py`. What is done with the tree is for
`request/`, `trees/` and `response/`.
"""
