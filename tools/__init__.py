"""Scripts, each run as `python -m tools.NAME`: behind the Makefile's verbs, or by hand.

`dockerfile` alone is no script: `image` and the tests read with it.
"""
