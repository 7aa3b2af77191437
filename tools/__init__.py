"""Scripts behind the Makefile's verbs; each runs as `python -m tools.NAME`."""
